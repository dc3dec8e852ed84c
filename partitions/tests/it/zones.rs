//! No zone, and no change to or from daylight saving, moves a bound: not the server's, the database's, the login's or the process's.

use dalp_partitions::{Bounds, Catalog, Interval, Plan, plan};

use super::*;

/// The first has no shift, the second shifts by an hour, the third by half an hour, and is half an hour off.
const ZONES: [&str; 3] = ["UTC", "America/Chicago", "Australia/Lord_Howe"];

/// When their clocks were moved in 2024.
const CHANGES: [&str; 4] =
    ["2024-03-10T08:00:00Z", "2024-11-03T07:00:00Z", "2024-04-06T15:00:00Z", "2024-10-05T15:30:00Z"];

const INTERVALS: [(i64, Interval); 4] =
    [(1, Interval::Hour), (2, Interval::Day), (3, Interval::Week), (4, Interval::Month)];

/// Set in the process that a test starts under another zone.
const CHILD: &str = "DALP_TEST_ZONE_CHILD";

/// Each half hour around each change.
fn times() -> Vec<DateTime<Utc>> {
    let around = |change: &str| (-10..10).map(|half| at(change) + TimeDelta::minutes(30 * half)).collect::<Vec<_>>();
    CHANGES.into_iter().flat_map(around).collect()
}

fn policy(interval: Interval) -> Policy {
    Policy { interval, history: interval, ..Policy::default() }
}

/// A database and a login, each with a zone of its own, and the login's connection.
async fn in_zones(of_database: &str, of_login: &str) -> (Database, Client, Client) {
    let (database, admin) = database().await;
    let name = strings(&admin, "SELECT current_database()::text").await.remove(0);
    let login = format!("zone_of_{name}");
    let sql = format!(
        "ALTER DATABASE \"{name}\" SET TimeZone = '{of_database}'; CREATE ROLE \"{login}\" LOGIN; \
         GRANT dalp_partitioner, dalp_writer TO \"{login}\"; ALTER ROLE \"{login}\" SET TimeZone = '{of_login}'; \
         ALTER ROLE \"{login}\" SET DateStyle = 'SQL, DMY'; SET TimeZone = 'UTC'"
    );
    admin.batch_execute(&sql).await.unwrap();
    let client = database.connect_as(&login).await;
    assert_eq!(client.query_one("SHOW TimeZone", &[]).await.unwrap().get::<_, String>(0), of_login);
    client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
    (database, admin, client)
}

/// The leaves, as the manager reads them and as a session in UTC prints them.
async fn made_in(of_database: &str, of_login: &str) -> (Vec<Catalog>, Vec<String>) {
    let (database, admin, mut client) = in_zones(of_database, of_login).await;
    let mut catalogs = Vec::new();
    for (key, interval) in INTERVALS {
        let need = Need::rows(times());
        let report = ensure(&mut client, &transfers(), key, &policy(interval), now(), &need).await.unwrap();
        // A session of another zone reads the same.
        let mut other = database.connect().await;
        let mut read_back = read(&mut other, &transfers(), key).await.unwrap();
        assert_eq!(read_back, report.catalog, "{of_database}, {of_login}");
        // Oids and names of other keys differ.
        (read_back.stamp, read_back.names) = Default::default();
        catalogs.push(read_back);

        client.batch_execute("SET ROLE dalp_writer").await.unwrap();
        for (number, time) in times().iter().enumerate() {
            let sql = "INSERT INTO dalp_indexed.erc20_transfer VALUES ($1, $2, $3, 0, '', '', '', 1, '')";
            client.execute(sql, &[&key, time, &i64::try_from(number).unwrap()]).await.unwrap();
        }
        client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
    }
    let printed = "SELECT relname || ' ' || pg_get_expr(relpartbound, oid) FROM pg_class \
                   WHERE relname LIKE 'erc20\\_transfer\\_%\\_%' AND relkind = 'r' ORDER BY relname";
    (catalogs, strings(&admin, printed).await)
}

fn pure(interval: Interval) -> Vec<Bounds> {
    let made: Plan = plan(&Catalog::default(), &policy(interval), now(), &Need::rows(times())).unwrap();
    let bounds = made.steps.iter().filter_map(|step| match step {
        Step::CreateLeaf { bounds, .. } => Some(*bounds),
        Step::CreateSubParent { .. } => None,
    });
    bounds.collect()
}

#[tokio::test]
async fn bounds_are_the_same_in_every_zone() {
    let mut first = None;
    for (of_database, of_login) in
        [(ZONES[0], ZONES[0]), (ZONES[1], ZONES[2]), (ZONES[2], ZONES[1]), (ZONES[1], ZONES[0])]
    {
        let made = made_in(of_database, of_login).await;
        for (catalog, (_, interval)) in made.0.iter().zip(INTERVALS) {
            let bounds: Vec<_> = catalog.leaves.iter().map(|leaf| leaf.bounds).collect();
            assert_eq!(bounds, pure(interval), "{of_database}, {of_login}");
            let widths = bounds.iter().filter_map(|bounds| Some(bounds.to() - bounds.from()?));
            let width = interval.seconds() as i64;
            assert!(interval == Interval::Month || widths.into_iter().all(|wide| wide.num_seconds() == width));
        }
        let expected = first.get_or_insert_with(|| made.clone());
        assert_eq!(&made, expected, "{of_database}, {of_login}");
    }
    // Hours of 2024-03-10 in Chicago: none is missing and none is twice.
    let (catalogs, printed) = first.unwrap();
    assert_eq!(catalogs[0].leaves.len(), 4 * 10 + 1, "the last change is at half past: an hour more is touched");
    let gap = catalogs[0].leaves.windows(2).filter(|pair| pair[1].bounds.from() != Some(pair[0].bounds.to()));
    assert_eq!(gap.count(), 3, "between the four changes only");
    assert!(printed[0].ends_with("FROM ('2024-03-10 03:00:00+00') TO ('2024-03-10 04:00:00+00')"), "{}", printed[0]);
}

/// The test above once more, by processes under other zones: they start servers that take them over.
#[test]
fn the_zone_of_the_process_is_of_no_effect() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    for zone in &ZONES[1..] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "zones::bounds_are_the_same_in_every_zone"])
            .envs([("TZ", *zone), ("PGTZ", *zone), (CHILD, "1")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{zone}: {said}");
    }
}
