//! Partitions against a real PostgreSQL, on the tables that the migrations make.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod alone;
mod analyze;
mod archive;
mod audit;
mod back;
mod crash;
mod cut;
mod doctor;
mod edges;
mod hindrances;
mod holds;
mod identity;
mod indexes;
mod locks;
mod meanwhile;
mod odd;
mod ours;
mod proof;
mod prunes;
mod readers;
mod refit;
mod retire;
mod rows;
mod s3;
mod said;
#[path = "../../../migrations/tests/it/server.rs"]
mod server;
mod shapes;
mod sizes;
mod zones;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use cut::cut;
use dalp_partitions::{
    Action, Archive, Error, Need, Outcome, Policy, Reference, Registry, Report, Retention, Step, Switches, Table,
    Terms, ensure, extend, read, retire,
};
use futures_util::SinkExt;
use server::Database;
use tokio_postgres::Client;

const CHAIN: i64 = 31_337;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn now() -> DateTime<Utc> {
    at("2024-03-20T12:00:00Z")
}

/// As the migrations make it.
fn registry() -> Registry {
    Registry::new("dalp_indexed").recorded_in("dalp_audit")
}

fn logs() -> Table {
    Table::new("dalp_indexed", "logs", "block_time").registered_in(registry())
}

fn transfers() -> Table {
    Table::new("dalp_indexed", "erc20_transfer", "block_time").registered_in(registry())
}

/// One run for a key's leaves that end so many days before now().
async fn retire_older(
    client: &mut Client,
    table: &Table,
    key: i64,
    days: i64,
    action: Action,
    archive: Option<&Archive>,
) -> Result<Outcome, Error> {
    let (keep, grace) = (TimeDelta::days(days), TimeDelta::zero());
    let retention = Retention { action, time: keep, grace, max_leaves: 100, max_share: 1.0 };
    let reference = Reference::Final(BTreeMap::from([(key, now())]));
    let (switches, can_archive) = (Switches::ALL, archive.is_some());
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive, allow_many: false };
    retire(client, table, &terms, archive).await
}

fn days(count: i64) -> Need {
    Need::rows((0..count).map(|day| now() - TimeDelta::days(day)))
}

/// A migrated database and the superuser's connection to it.
async fn database() -> (Database, Client) {
    let database = Database::create().await;
    let mut admin = database.connect().await;
    dalp_migrations::migrate(&mut admin, &dalp_migrations::Roles::default()).await.unwrap();
    (database, admin)
}

async fn as_role(database: &Database, role: &str) -> Client {
    let client = database.connect().await;
    client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
    client
}

async fn make(client: &mut Client, table: &Table, need: &Need) -> Result<Report, Error> {
    ensure(client, table, CHAIN, &Policy::default(), now(), need).await
}

async fn strings(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

const TRANSFER: &str =
    "INSERT INTO dalp_indexed.erc20_transfer VALUES (31337, $1::text::timestamptz, 1, 0, '', '', '', 1, '')";

#[tokio::test]
async fn ensure_makes_what_is_missing_once() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    for table in [logs(), transfers()] {
        let start = Instant::now();
        let report = make(&mut client, &table, &days(40)).await.unwrap();
        println!("{table}: 40 leaves in {:?}", start.elapsed());
        assert_eq!((report.created.len(), report.catalog.leaves.len()), (41, 40));
        assert_eq!(report.catalog, read(&mut client, &table, CHAIN).await.unwrap());
        assert!(report.catalog.uncovered(days(40).times).is_empty());

        let again = make(&mut client, &table, &days(40)).await.unwrap();
        assert_eq!((again.created, again.catalog), (Vec::new(), report.catalog));
    }
    assert_eq!(half_made(&admin).await, [""; 0]);
}

/// Tables without a parent, and leaves that lack an index of their parent's or have rights of other roles.
async fn half_made(admin: &Client) -> Vec<String> {
    let orphans = "SELECT relname::text FROM pg_class WHERE (relname LIKE 'logs\\_%' OR relname LIKE 'erc20\\_transfer\\_%') \
                     AND relkind IN ('r', 'p') AND NOT relispartition";
    let bare = "SELECT leaf.relname::text FROM pg_class AS leaf JOIN pg_inherits ON inhrelid = leaf.oid \
                WHERE leaf.relispartition AND leaf.relkind IN ('r', 'p') AND \
                    ((SELECT count(*) FROM pg_index WHERE indrelid = leaf.oid AND indisvalid) <> \
                     (SELECT count(*) FROM pg_index WHERE indrelid = inhparent) \
                     OR leaf.relowner <> 'dalp_partitioner'::regrole OR leaf.relacl IS NOT NULL)";
    [strings(admin, orphans).await, strings(admin, bare).await].concat()
}

/// Another session made a leaf, and then dropped one, since the read of the catalog: both are seen before any leaf is made.
#[tokio::test]
async fn a_catalog_that_is_behind_is_read_again() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let known = make(&mut client, &logs(), &days(2)).await.unwrap().catalog;
    let behind = make(&mut client, &logs(), &days(3)).await.unwrap();
    assert_eq!(behind.created.len(), 1);
    let (table, policy) = (logs(), Policy::default());
    let report = extend(&mut client, &table, CHAIN, &policy, now(), &days(4), known.clone()).await.unwrap();
    assert_eq!((report.created.len(), report.retries), (1, 0), "{report:?}");
    assert_eq!(report.catalog, read(&mut client, &logs(), CHAIN).await.unwrap());

    admin.batch_execute("DROP TABLE dalp_indexed.logs_31337_20240319").await.unwrap();
    let report = extend(&mut client, &table, CHAIN, &policy, now(), &days(5), report.catalog).await.unwrap();
    assert_eq!((report.created.len(), report.retries), (2, 0), "{report:?}");
    assert!(report.catalog.uncovered(days(5).times).is_empty());

    // Leaves that seem sufficient are not read.
    let report = extend(&mut client, &table, CHAIN, &policy, now(), &days(2), known.clone()).await.unwrap();
    assert_eq!((report.created, report.catalog), (Vec::new(), known));
}

#[tokio::test]
async fn leaves_stand_ahead_of_the_head() {
    let (database, _admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let report = make(&mut client, &logs(), &Need::ahead_of(now())).await.unwrap();
    let names: Vec<_> = report.catalog.leaves.iter().map(|leaf| leaf.name.as_str()).collect();
    assert_eq!(names, ["20", "21", "22", "23"].map(|day| format!("logs_31337_202403{day}")));
}

#[tokio::test]
async fn every_time_has_a_home_whatever_the_zone_of_the_session() {
    let (database, _admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    client.batch_execute("SET TimeZone = 'Australia/Lord_Howe'; SET DateStyle = 'SQL, DMY'").await.unwrap();
    let times = ["1970-01-01T00:00:00Z", "2019-07-04T00:00:00Z", "2024-03-20T23:59:59Z", "2123-05-06T07:08:09Z"];
    let report = make(&mut client, &transfers(), &Need::rows(times.map(at))).await.unwrap();
    let names: Vec<_> = report.catalog.leaves.iter().map(|leaf| leaf.name.as_str()).collect();
    assert_eq!(
        names,
        ["first", "20190701", "20240320", "21230506"].map(|label| format!("erc20_transfer_31337_{label}"))
    );
    let writer = as_role(&database, "dalp_writer").await;
    for time in ["1970-01-01Z", "2019-07-04Z", "2024-03-20 23:59:59Z", "2123-05-06 07:08:09Z"] {
        writer.execute(TRANSFER, &[&time]).await.unwrap();
    }
    let bounds = report.catalog.leaves[2].bounds;
    assert_eq!((bounds.from(), bounds.to()), (Some(at("2024-03-20T00:00:00Z")), at("2024-03-21T00:00:00Z")));

    // One row of the year 52217 keeps no other from its leaf. Where it may have one, the server reads the year as we write it.
    let far = at("+52217-05-06T07:08:09Z");
    let need = Need::rows([far, at("2024-03-22T00:00:00Z")]);
    let report = make(&mut client, &transfers(), &need).await.unwrap();
    assert_eq!((report.created.len(), report.catalog.uncovered(need.times.clone())), (1, vec![far]));
    let endless = Policy { ahead_at_most: TimeDelta::MAX, ..Policy::default() };
    let report = ensure(&mut client, &transfers(), CHAIN, &endless, now(), &need).await.unwrap();
    assert_eq!(report.catalog.leaves.last().unwrap().name, "erc20_transfer_31337_522170506");
    writer.execute(TRANSFER, &[&"52217-05-06 07:08:09Z"]).await.unwrap();
}

#[tokio::test]
async fn copy_through_the_parent_reaches_the_right_leaf() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &transfers(), &days(3)).await.unwrap();
    let writer = as_role(&database, "dalp_writer").await;
    let sink = writer.copy_in("COPY dalp_indexed.erc20_transfer FROM STDIN").await.unwrap();
    let mut sink = pin!(sink);
    for (day, index) in [(18, 0), (19, 0), (19, 1), (20, 0)] {
        let row = format!("31337\t2024-03-{day} 10:00:00Z\t{day}\t{index}\t\\\\x01\t\\\\x02\t\\\\x03\t5\t\\\\x04\n");
        sink.send(bytes::Bytes::from(row)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 4);
    let found =
        "SELECT tableoid::regclass || ' ' || count(*) FROM dalp_indexed.erc20_transfer GROUP BY tableoid ORDER BY 1";
    let expected = ["18 1", "19 2", "20 1"].map(|end| format!("dalp_indexed.erc20_transfer_31337_202403{end}"));
    assert_eq!(strings(&admin, found).await, expected);
    // A time without a leaf is refused, with the code that tells the writer to ask for a leaf.
    let refused = writer.execute(TRANSFER, &[&"2024-05-01Z"]).await.unwrap_err();
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION));
}

#[tokio::test]
async fn several_managers_at_once_make_each_leaf_once() {
    let (database, _admin) = database().await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        let mut client = as_role(&database, "dalp_partitioner").await;
        runs.push(tokio::spawn(async move { make(&mut client, &logs(), &days(20)).await.unwrap() }));
    }
    let mut created = 0;
    for run in runs {
        let report = run.await.unwrap();
        assert_eq!(report.catalog.leaves.len(), 20);
        created += report.created.len();
    }
    assert_eq!(created, 21);
}

/// An event trigger reads pg_locks inside the transaction, after each DDL statement.
#[tokio::test]
async fn no_statement_locks_a_parent_against_readers_or_writers() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &logs(), &days(2)).await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE public.seen (name text, mode text, command text);
             CREATE TABLE public.standing AS SELECT oid FROM pg_class WHERE relnamespace = 'dalp_indexed'::regnamespace;
             CREATE FUNCTION public.look() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 INSERT INTO public.seen SELECT relation::regclass, mode, tg_tag FROM pg_locks
                 WHERE pid = pg_backend_pid() AND relation IN (SELECT oid FROM public.standing);
             END $$;
             CREATE EVENT TRIGGER look ON ddl_command_end EXECUTE FUNCTION public.look()",
        )
        .await
        .unwrap();
    make(&mut client, &logs(), &days(12)).await.unwrap();
    make(&mut client, &transfers(), &days(2)).await.unwrap();
    admin.batch_execute("DROP EVENT TRIGGER look").await.unwrap();
    let modes = "SELECT DISTINCT mode FROM public.seen ORDER BY 1";
    assert_eq!(strings(&admin, modes).await, ["AccessShareLock", "ShareUpdateExclusiveLock"]);
    // The leaves that stood before were not touched at all.
    let leaves = "SELECT name FROM public.seen WHERE name LIKE '%logs_31337_2024%'";
    assert_eq!(strings(&admin, leaves).await, [""; 0]);
}

#[tokio::test]
async fn open_readers_and_writers_are_not_waited_for() {
    let (database, _admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &transfers(), &days(2)).await.unwrap();
    let (mut writer, mut reader) = (as_role(&database, "dalp_writer").await, as_role(&database, "dalp_reader").await);
    let writing = writer.transaction().await.unwrap();
    writing.execute(TRANSFER, &[&"2024-03-20Z"]).await.unwrap();
    let reading = reader.transaction().await.unwrap();
    reading.query("SELECT count(*) FROM dalp_indexed.erc20_transfer", &[]).await.unwrap();

    let report = make(&mut client, &transfers(), &days(4)).await.unwrap();
    assert_eq!((report.created.len(), report.retries), (2, 0));
    writing.execute(TRANSFER, &[&"2024-03-17Z"]).await.unwrap();
    writing.commit().await.unwrap();
    reading.commit().await.unwrap();
}

/// The lock wait that a session is in at the moment, by its beginning.
async fn waiting(admin: &Client, pid: i32) -> Option<DateTime<Utc>> {
    let wait = "SELECT waitstart FROM pg_locks WHERE pid = $1 AND NOT granted AND locktype = 'relation'";
    admin.query_opt(wait, &[&pid]).await.unwrap().and_then(|row| row.get(0))
}

#[tokio::test]
async fn other_ddl_is_retried_and_does_not_make_writers_wait() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &transfers(), &days(1)).await.unwrap();
    let mut other = as_role(&database, "dalp_partitioner").await;
    let ddl = other.transaction().await.unwrap();
    ddl.batch_execute("LOCK TABLE ONLY dalp_indexed.erc20_transfer_31337 IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    let pid = meanwhile::pid(&client).await;
    let run = tokio::spawn(async move { make(&mut client, &transfers(), &days(2)).await.unwrap() });
    let writer = as_role(&database, "dalp_writer").await;
    // A second wait is another try; a row that begins and ends within one wait did not wait behind it. It ends after ten tries,
    // when the other session keeps its lock: so does this one.
    let (mut waits, mut written, mut number) = (BTreeSet::new(), 0, 0);
    while waits.len() < 2 || written < 3 {
        assert!(!run.is_finished(), "{} tries, {written} rows of {number} beside them", waits.len());
        let Some(wait) = waiting(&admin, pid).await else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        waits.insert(wait);
        number += 1;
        writer.execute(&TRANSFER.replace("1, 0,", &format!("{number}, 7,")), &[&"2024-03-20Z"]).await.unwrap();
        written += u32::from(waiting(&admin, pid).await == Some(wait));
    }
    ddl.commit().await.unwrap();
    let report = run.await.unwrap();
    assert!(report.retries > 0);
    assert_eq!(report.catalog.leaves.len(), 2);
}

/// The minimum number of awaits of a call that makes a key's sub-parent and its first leaves: a read of the catalog, and for each
/// of the two transactions its begin, the lane, the reads inside it, the statements and COMMIT.
const AWAITS: i64 = 12;

/// Dropped at any of its awaits, a call leaves whole leaves or none, and the next one continues.
#[tokio::test]
async fn a_call_cut_short_leaves_nothing_half_made() {
    let (database, admin) = database().await;
    let (need, policy, mut cuts) = (days(3), Policy::default(), 0);
    loop {
        let mut client = as_role(&database, "dalp_partitioner").await;
        // A key of its own for each await, so that there is as much to do.
        let key = cuts + 1;
        let whole = cut(key as usize, ensure(&mut client, &logs(), key, &policy, now(), &need)).await;
        drop(client);
        assert_eq!(half_made(&admin).await, [""; 0], "after a cut at await {key}");
        let mut next = as_role(&database, "dalp_partitioner").await;
        let report = ensure(&mut next, &logs(), key, &policy, now(), &need).await.unwrap();
        assert!(report.catalog.uncovered(need.times.clone()).is_empty(), "after a cut at await {key}");
        match whole {
            Some(whole) => break assert_eq!(whole.unwrap().catalog, report.catalog),
            None => cuts += 1,
        }
    }
    println!("cut at {cuts} awaits");
    assert!(cuts >= AWAITS, "only {cuts} cuts struck");
    assert_eq!(half_made(&admin).await, [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_managed_is_refused_with_the_reason() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let absent = Table::new("dalp_indexed", "nothing", "block_time");
    assert!(matches!(make(&mut client, &absent, &days(1)).await, Err(Error::NotManaged { .. })));
    let plain = Table::new("dalp_indexed", "blocks", "time");
    assert!(matches!(make(&mut client, &plain, &days(1)).await, Err(Error::NotManaged { .. })));

    let mut writer = as_role(&database, "dalp_writer").await;
    let error = make(&mut writer, &logs(), &days(1)).await.unwrap_err();
    assert!(matches!(&error, Error::NotOwner { message, .. } if message.contains("permission denied")), "{error}");

    make(&mut client, &logs(), &days(1)).await.unwrap();
    let default = "CREATE TABLE dalp_indexed.stray PARTITION OF dalp_indexed.logs_31337 DEFAULT";
    admin.batch_execute(default).await.unwrap();
    let error = make(&mut client, &logs(), &days(2)).await.unwrap_err();
    assert!(matches!(&error, Error::Foreign { leaf, .. } if leaf == "stray"), "{error}");
}

#[tokio::test]
async fn names_are_quoted_and_a_detached_leaf_keeps_its_name() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let table = Table::new("dalp_indexed", "Odd \"name\"; DROP", "Time of \"it\"");
    client
        .batch_execute(
            r#"CREATE TABLE dalp_indexed."Odd ""name""; DROP" (k int8, "Time of ""it""" timestamptz) PARTITION BY LIST (k)"#,
        )
        .await
        .unwrap();
    let report = ensure(&mut client, &table, -5, &Policy::default(), now(), &days(1)).await.unwrap();
    let leaf = "Odd \"name\"; DROP_-5_20240320";
    let expected = Step::CreateLeaf { name: leaf.to_owned(), bounds: report.catalog.leaves[0].bounds, bare: false };
    assert_eq!(report.created[1], expected);

    let detach = "ALTER TABLE dalp_indexed.\"Odd \"\"name\"\"; DROP_-5\" DETACH PARTITION dalp_indexed.\"Odd \"\"name\"\"; DROP_-5_20240320\"";
    admin.batch_execute(detach).await.unwrap();
    let report = ensure(&mut client, &table, -5, &Policy::default(), now(), &days(1)).await.unwrap();
    assert_eq!(report.catalog.leaves[0].name, format!("{leaf}_2"));
}
