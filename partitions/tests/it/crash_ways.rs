//! The other ways of a leaf, killed as well: made, held, detached, brought back, let go and dropped.

use dalp_partitions::{holds, release_hold, undo};

use super::*;

/// 03-11 to 03-13 are due, of which 03-12 is held.
async fn retires(client: &mut Client, switches: Switches) -> Result<Outcome, Error> {
    let retention = Retention {
        action: Action::Drop,
        time: TimeDelta::days(6),
        grace: TimeDelta::zero(),
        max_leaves: 9,
        max_share: 1.0,
    };
    let reference = Reference::Final(BTreeMap::from([(CHAIN, now())]));
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: false, allow_many: false };
    retire(client, &logs(), &terms, None).await
}

/// The work of the process.
pub async fn there_and_back(client: &mut Client) {
    make(client, &logs(), &Need::ahead_of(now())).await.unwrap();
    let kept = Switches { drop: false, ..Switches::ALL };
    assert_eq!(retires(client, kept).await.unwrap().failed.len(), 0);
    let undone = undo(client, &logs(), "logs_31337_20240313", "second thoughts", "ops").await.unwrap();
    release_hold(client, &registry(), undone.hold, "ops").await.unwrap();
    let scope = Scope { key: None, from: Some(at("2024-03-19T03:00:00Z")), to: None };
    add_hold(client, &logs(), &scope, "later", "counsel").await.unwrap();
    assert_eq!(retires(client, Switches::ALL).await.unwrap().failed.len(), 0);
}

/// As far as possible while the hold of the undo is valid, if there is one.
async fn check_held(client: &mut Client, admin: &Client, what: &str) {
    let facts = "SELECT concat_ws(' ', (SELECT count(*) FROM dalp_indexed.logs WHERE block_time >= '2024-03-14'), \
                   (SELECT count(*) FROM dalp_indexed.logs_31337_20240312), \
                   (SELECT count(*) FROM pg_class WHERE relname = 'logs_31337_20240311'), \
                   (SELECT count(*) FROM pg_inherits WHERE inhdetachpending), \
                   (SELECT count(*) FROM dalp_indexed.leaf AS e WHERE state = 'DROPPED') - \
                   (SELECT count(*) FROM dalp_audit.activity WHERE action = 'partition.drop' AND outcome = 'done'))";
    assert_eq!(strings(admin, facts).await, ["157 24 0 0 0"], "{what}");
    let undone = holds(client, &logs(), false).await.unwrap().into_iter().find(|hold| hold.reason == "second thoughts");
    let table = strings(admin, "SELECT 'there' FROM pg_class WHERE relname = 'logs_31337_20240313'").await;
    assert_eq!(undone.is_some(), !table.is_empty(), "{what}: held and there, or neither");
    if let Some(hold) = undone {
        assert_eq!(
            strings(admin, "SELECT count(*)::text FROM dalp_indexed.logs_31337_20240313").await,
            ["24"],
            "{what}"
        );
        release_hold(client, &registry(), hold.id, "ops").await.unwrap();
    }
}

async fn check_end(client: &mut Client, admin: &Client, what: &str) {
    let facts = "SELECT concat_ws(' ', (SELECT count(*) FROM dalp_indexed.logs), \
                   (SELECT string_agg(leaf || ' ' || state, ', ' ORDER BY leaf) FROM dalp_indexed.leaf WHERE state <> 'ATTACHED'), \
                   (SELECT count(*) FROM dalp_audit.activity WHERE action = 'partition.drop' AND outcome = 'done'), \
                   (SELECT floor AT TIME ZONE 'UTC' FROM dalp_indexed.retention_floor WHERE table_name = 'logs'), \
                   (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())), \
                   (SELECT count(*) FROM dalp_indexed.leaf WHERE state <> 'DROPPED' AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = relid)), \
                   (SELECT count(*) FROM pg_trigger WHERE starts_with(tgname, 'dalp_seal')))";
    let expected = "181 logs_31337_20240311 DROPPED, logs_31337_20240313 DROPPED 2 2024-03-14 00:00:00 0 0 0";
    assert_eq!(strings(admin, facts).await, [expected], "{what}");
    let entries = read_inventory(client, &logs()).await.unwrap().entries;
    let is_attached =
        |entry: &dalp_partitions::Entry| (entry.state, entry.presence) == (State::Attached, Presence::Attached);
    assert!(entries.iter().all(is_attached), "{what}: {entries:?}");
}

async fn strike(template: &Database, when: When) -> bool {
    let (database, what) = (template.copy().await, format!("{when:?}"));
    let struck = kill(&database, Path::new(""), Plot::There, when).await;
    let (mut client, admin) = (as_role(&database, "dalp_partitioner").await, database.connect().await);
    let outcome = when_free!(retires(&mut client, Switches::ALL));
    assert!(outcome.failed.is_empty(), "{what}: {:?}", outcome.failed);
    check_held(&mut client, &admin, &what).await;
    let outcome = retires(&mut client, Switches::ALL).await.unwrap();
    assert!(outcome.failed.is_empty(), "{what}: {:?}", outcome.failed);
    check_end(&mut client, &admin, &what).await;
    let again = retires(&mut client, Switches::ALL).await.unwrap();
    assert_eq!((again.done.len(), again.failed.len()), (0, 0), "{what}: {again:?}");
    make(&mut client, &logs(), &Need::ahead_of(now())).await.unwrap();
    struck
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_any_way_nothing_is_lost_and_the_next_run_goes_on() {
    let template = prepared().await;
    let (began, mut killed, mut last) = (Instant::now(), 0, 0);
    // All in a long run; else some, others each time.
    let stride = if std::env::var_os("DALP_TEST_LONG").is_some() { 1 } else { STRIDE };
    let start = rand::random_range(1..=stride);
    'plot: for first in (start..).step_by(2 * stride) {
        let numbers = [first, first + stride];
        let batch = numbers.map(|number| [When::Before(number), When::During(number), When::After(number)]);
        let struck =
            futures_util::future::join_all(batch.into_iter().flatten().map(|when| strike(&template, when))).await;
        killed += struck.iter().filter(|struck| **struck).count();
        last = first;
        if struck.contains(&false) {
            break 'plot;
        }
    }
    println!("killed {killed} times, at up to {last} requests, in {:?}", began.elapsed());
    assert!(killed > 300 / stride, "only {killed}: is it whole?");
}

/// Every so many requests, in a short run.
const STRIDE: usize = 23;
