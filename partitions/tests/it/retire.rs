//! Leaves on their way from attached to dropped, and back.

use std::collections::BTreeMap;

use dalp_partitions::{
    Act, Action, Advice, Entry, Error, Obstacle, Outcome, Reference, Retention, Scope, State, Switches, Terms,
    add_hold, holds, newest_rows, plan_moves, read_inventory, release_hold, retire, undo, way,
};

use super::identity::{own, own_table};
use super::*;

/// Days before now() that rows are kept.
const KEEP: i64 = 3;

fn retention(action: Action) -> Retention {
    Retention { action, time: TimeDelta::days(KEEP), grace: TimeDelta::zero(), max_leaves: 100, max_share: 1.0 }
}

fn finals() -> Reference {
    Reference::Final(BTreeMap::from([(CHAIN, now())]))
}

async fn run(client: &mut Client, retention: &Retention, switches: Switches) -> Outcome {
    let reference = finals();
    let terms = Terms { retention, switches, reference: &reference, can_archive: false, allow_many: false };
    retire(client, &logs(), &terms, None).await.unwrap()
}

fn acts(outcome: &Outcome) -> Vec<Act> {
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let mut acts: Vec<Act> = outcome.done.iter().map(|done| done.act).collect();
    acts.dedup();
    acts
}

async fn entries(client: &mut Client) -> Vec<Entry> {
    read_inventory(client, &logs()).await.unwrap().entries
}

async fn states(client: &mut Client) -> Vec<(String, State)> {
    entries(client).await.into_iter().map(|entry| (entry.leaf, entry.state)).collect()
}

/// Rows in the leaves of the last ten days, one an hour.
pub async fn filled() -> (Database, Client, Client) {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    fill(&admin, &mut client).await;
    (database, admin, client)
}

/// As [`filled`], in a migrated database.
pub async fn fill(admin: &Client, client: &mut Client) {
    make(client, &logs(), &days(10)).await.unwrap();
    admin
        .batch_execute(
            "INSERT INTO dalp_indexed.chain_state (chain_id, name, genesis_hash, start_block, tail_number) \
             VALUES (31337, 'devnet', decode(repeat('01', 32), 'hex'), 0, -1); \
             INSERT INTO dalp_indexed.logs SELECT 31337, t, row_number() OVER (ORDER BY t), 0, 0, '\\x01', '\\x02', '\\x03', \
                    NULL, NULL, NULL, NULL, '\\x04' \
             FROM generate_series('2024-03-11'::timestamptz, '2024-03-20 12:00+00', '1 hour') AS t",
        )
        .await
        .unwrap();
}

async fn count(client: &Client, from: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM dalp_indexed.{from}"), &[]).await.unwrap().get(0)
}

const STOPPED: Switches = Switches { create: true, archive: true, detach: true, drop: false };

#[tokio::test]
async fn a_leaf_goes_all_the_way_and_leaves_a_record() {
    let (_database, admin, mut client) = filled().await;
    assert_eq!((count(&admin, "logs").await, count(&admin, "retained_logs").await), (229, 229));
    // 03-11 to 03-16 end at or before 03-17 12:00.
    let outcome = run(&mut client, &retention(Action::Drop), STOPPED).await;
    assert_eq!(acts(&outcome), [Act::Seal, Act::Retire, Act::Detach]);
    assert_eq!(outcome.done.len(), 3 * 6);
    assert_eq!(outcome.obstacles.len(), 6);
    assert!(
        outcome.obstacles.iter().all(|(_, why)| *why == Obstacle::Off { switch: "drop" }),
        "{:?}",
        outcome.obstacles
    );
    assert_eq!((count(&admin, "logs").await, count(&admin, "retained_logs").await), (85, 85));
    assert_eq!(count(&admin, "logs_31337_20240311").await, 24);

    // With its grace period the leaf stays; without, it goes.
    let patient = Retention { grace: TimeDelta::hours(1), ..retention(Action::Drop) };
    assert_eq!(acts(&run(&mut client, &patient, Switches::ALL).await), []);
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    assert_eq!((acts(&outcome), outcome.done.len()), (vec![Act::Drop], 6));
    let left: Vec<State> = states(&mut client).await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(left, [State::Attached; 4]);
    assert_eq!(acts(&run(&mut client, &retention(Action::Drop), Switches::ALL).await), []);

    let record = "SELECT format('%s %s', action, count(*)) FROM dalp_audit.activity WHERE outcome = 'done' AND actor = session_user \
                    AND duration_ms > 0 AND statement IS NOT NULL GROUP BY action ORDER BY action";
    let deeds = ["partition.detach 6", "partition.drop 6", "partition.retire 6", "partition.seal 6"];
    assert_eq!(strings(&admin, record).await, deeds);
    assert_eq!(count(&admin, "partition_run WHERE succeeded_at IS NOT NULL AND failures = 0").await, 1);
}

#[tokio::test]
async fn a_sealed_leaf_takes_no_writes_by_any_way() {
    let (_database, admin, mut client) = filled().await;
    let only_seal = Switches { detach: true, ..Switches::ALL };
    // A reader of the whole table prevents the end of the detach; sealed leaves stay sealed.
    run(&mut client, &retention(Action::Drop), only_seal).await;
    let fresh =
        "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-18 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')";
    admin.batch_execute(fresh).await.unwrap();
    let old = fresh.replace("03-18", "03-12");
    let error = admin.batch_execute(&old).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23514");
}

#[tokio::test]
async fn a_held_leaf_stays_and_the_others_go() {
    let (_database, admin, mut client) = filled().await;
    let scope = Scope { key: None, from: Some(at("2024-03-13T05:00:00Z")), to: Some(at("2024-03-13T06:00:00Z")) };
    let (hold, touched) = add_hold(&mut client, &logs(), &scope, "case 7", "counsel").await.unwrap();
    assert_eq!(touched, 1);
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 5);
    let held: Vec<_> = outcome.obstacles.iter().map(|(entry, why)| (entry.leaf.as_str(), why)).collect();
    assert!(matches!(held[..], [("logs_31337_20240313", Obstacle::Held { .. })]), "{held:?}");
    assert_eq!((count(&admin, "logs").await, count(&admin, "retained_logs").await), (109, 85));

    assert!(matches!(release_hold(&mut client, &registry(), hold + 1, "counsel").await, Err(Error::Unfit { .. })));
    release_hold(&mut client, &registry(), hold, "counsel").await.unwrap();
    assert!(matches!(release_hold(&mut client, &registry(), hold, "counsel").await, Err(Error::Unfit { .. })));
    let all = holds(&client, &logs(), true).await.unwrap();
    assert_eq!(all[0].released.as_ref().unwrap().1, "counsel");
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    assert_eq!(acts(&outcome), [Act::Seal, Act::Retire, Act::Detach, Act::Drop]);
    assert_eq!(count(&admin, "logs").await, 85);
}

#[tokio::test]
async fn what_was_detached_is_served_again_by_undo() {
    let (_database, admin, mut client) = filled().await;
    run(&mut client, &retention(Action::Drop), STOPPED).await;
    let start = Instant::now();
    let undone = undo(&mut client, &logs(), "logs_31337_20240314", "wrong policy", "ops").await.unwrap();
    println!("3 leaves attached again in {:?}", start.elapsed());
    assert_eq!(undone.leaves, ["14", "15", "16"].map(|day| format!("logs_31337_202403{day}")));
    assert_eq!(undone.floor, Some(at("2024-03-14T00:00:00Z")));
    assert_eq!((count(&admin, "logs").await, count(&admin, "retained_logs").await), (157, 157));
    // They take writes again, and have no constraint or trigger left.
    admin
        .batch_execute("INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-14 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')")
        .await
        .unwrap();
    let rest = "SELECT conname::text FROM pg_constraint WHERE conrelid = 'dalp_indexed.logs_31337_20240314'::regclass AND contype = 'c' \
                UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'dalp_indexed.logs_31337_20240314'::regclass";
    assert_eq!(strings(&admin, rest).await, [""; 0]);

    // They are held until a user releases the hold.
    assert_eq!(acts(&run(&mut client, &retention(Action::Drop), STOPPED).await), []);
    release_hold(&mut client, &registry(), undone.hold, "ops").await.unwrap();
    let outcome = run(&mut client, &retention(Action::Drop), STOPPED).await;
    assert_eq!((acts(&outcome), outcome.done.len()), (vec![Act::Seal, Act::Retire, Act::Detach], 9));
    assert!(matches!(undo(&mut client, &logs(), "logs_31337_20240320", "r", "a").await, Err(Error::Unfit { .. })));
}

/// By the database's clock all rows are years old. The newest is one day after the older ones.
#[tokio::test]
async fn a_table_of_somebody_else_ages_by_its_newest_row() {
    let (_database, admin, mut client) = own_table().await;
    let plan = |keep| Retention { time: TimeDelta::days(keep), ..retention(Action::Detach) };
    let by_rows = async |client: &mut Client, keep: i64| {
        let reference = Reference::Final(newest_rows(client, &own(), TimeDelta::days(keep)).await.unwrap());
        let retention = plan(keep);
        let terms = Terms {
            retention: &retention,
            switches: STOPPED,
            reference: &reference,
            can_archive: false,
            allow_many: false,
        };
        let outcome = retire(client, &own(), &terms, None).await.unwrap();
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        outcome.done.len()
    };
    let newest = newest_rows(&mut client, &own(), TimeDelta::days(3)).await.unwrap();
    assert_eq!(newest, BTreeMap::from([(0, at("2024-03-20T01:00:00Z"))]));
    assert_eq!(newest_rows(&mut client, &own(), TimeDelta::days(200_000)).await.unwrap(), BTreeMap::new());
    // Leaves ahead are empty; a row of a time to come is one of now.
    admin
        .batch_execute(
            "SET ROLE dalp_partitioner; CREATE TABLE part.os_3 PARTITION OF app.os FOR VALUES FROM ('2024-03-21Z') TO ('2024-03-22Z'); \
             CREATE TABLE part.os_9 PARTITION OF app.os FOR VALUES FROM ('2024-03-22Z') TO (MAXVALUE)",
        )
        .await
        .unwrap();
    assert_eq!(by_rows(&mut client, 19).await, 0);
    assert_eq!(by_rows(&mut client, 18).await, 3);
    admin.batch_execute("INSERT INTO app.os VALUES ('infinity', 9)").await.unwrap();
    let newest = newest_rows(&mut client, &own(), TimeDelta::days(3)).await.unwrap();
    let now: DateTime<Utc> = admin.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0);
    assert!(newest[&0] <= now && newest[&0] > at("2026-01-01T00:00:00Z"), "{newest:?}");
}

/// Too many leaves at once: none goes, and the record of runs says so.
#[tokio::test]
async fn a_stopped_breaker_is_no_success() {
    let (_database, admin, mut client) = filled().await;
    let few = Retention { max_leaves: 5, ..retention(Action::Drop) };
    let outcome = run(&mut client, &few, Switches::ALL).await;
    assert_eq!((outcome.done.len(), outcome.stopped().into_keys().collect::<Vec<_>>()), (0, vec![CHAIN]));
    let noted = "SELECT last_error FROM dalp_indexed.partition_run WHERE failures = 1 AND succeeded_at IS NULL";
    let noted = strings(&admin, noted).await;
    assert!(noted[0].contains("6 leaves") && noted[0].contains(&Advice::AllowMany.to_string()), "{noted:?}");
}

/// The move was planned without a hold: a later hold is seen when the lock is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_comes_while_a_leaf_is_about_to_be_dropped_keeps_it() {
    let (database, admin, mut client) = filled().await;
    let ours = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    run(&mut client, &retention(Action::Drop), STOPPED).await;
    let reader = database.connect().await;
    reader.batch_execute("BEGIN; SELECT FROM dalp_indexed.logs_31337_20240311").await.unwrap();
    let task = tokio::spawn(async move { run(&mut client, &retention(Action::Drop), Switches::ALL).await });
    let waits = format!("SELECT count(*)::int8 FROM pg_locks WHERE pid = {ours} AND NOT granted");
    super::meanwhile::until(&database, &waits).await;
    let mut counsel = as_role(&database, "dalp_partitioner").await;
    let scope = Scope { key: None, from: None, to: Some(at("2024-03-11T01:00:00Z")) };
    let (_, touched) = add_hold(&mut counsel, &logs(), &scope, "case 8", "counsel").await.unwrap();
    assert_eq!(touched, 1);
    reader.batch_execute("COMMIT").await.unwrap();
    let outcome = task.await.unwrap();
    let failed = outcome.failed.iter().map(|(_, error)| error.to_string());
    let held = outcome.obstacles.iter().filter(|(_, why)| matches!(why, Obstacle::Held { .. }));
    let why: Vec<String> = failed.chain(held.map(|(_, why)| why.to_string())).collect();
    assert!(why.len() == 1 && why[0].contains("counsel"), "{why:?}");
    assert_eq!((count(&admin, "logs_31337_20240311").await, outcome.done.len()), (24, 5));
}

/// One leaf is locked: the others are done before the wait for it, and the blocking session is named with its statement.
#[tokio::test]
async fn a_leaf_that_cannot_be_locked_costs_the_others_nothing() {
    let (database, admin, mut client) = filled().await;
    // A session's statement is shown to members of its role.
    let role = format!("ops_{:016x}", rand::random::<u64>());
    let grants = format!(
        "CREATE ROLE {role} LOGIN; GRANT {role} TO dalp_partitioner; GRANT USAGE ON SCHEMA dalp_indexed TO {role}; \
         GRANT INSERT ON dalp_indexed.logs_31337_20240311 TO {role}"
    );
    admin.batch_execute(&grants).await.unwrap();
    let other = database.connect_as(&role).await;
    let lock = "BEGIN; LOCK TABLE dalp_indexed.logs_31337_20240311 IN ROW EXCLUSIVE MODE; SELECT 'what they said'";
    let pid = super::meanwhile::pid(&other).await;
    other.batch_execute(lock).await.unwrap();
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    let dropped = outcome.done.iter().filter(|done| done.act == Act::Drop).count();
    assert_eq!((dropped, outcome.done.len(), outcome.failed.len()), (5, 5 * 4, 1), "{:?}", outcome.failed);
    let why = outcome.failed[0].1.to_string();
    assert!(why.contains("logs_31337_20240311") && why.contains(&format!("pid {pid} ")), "{why}");
    assert!(why.contains("SELECT 'what they said'") && why.contains("pg_terminate_backend"), "{why}");
    // The status and the record show it too.
    let noted = "SELECT last_error FROM dalp_indexed.partition_run WHERE failures = 1 UNION ALL \
                 SELECT outcome FROM dalp_audit.activity WHERE action = 'partition.failed'";
    assert_eq!(strings(&admin, noted).await, [why.clone(), why]);
    let later = "SELECT count(*)::text FROM dalp_audit.activity WHERE action = 'partition.drop' \
                   AND occurred_at < (SELECT occurred_at FROM dalp_audit.activity WHERE action = 'partition.failed')";
    assert_eq!(strings(&admin, later).await, ["5"], "it was waited for when all else was done");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(run(&mut client, &retention(Action::Drop), Switches::ALL).await.failed.len(), 0);
}

/// Who reads one leaf by its name keeps only that from being detached: it is not begun, so that no other waits for its end.
#[tokio::test]
async fn an_idle_reader_of_one_leaf_costs_the_others_nothing() {
    let (database, admin, mut client) = filled().await;
    let reader = database.connect().await;
    let pid = super::meanwhile::pid(&reader).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs_31337_20240311").await.unwrap();
    for _ in 0..2 {
        let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
        let failed: Vec<_> = outcome.failed.iter().map(|(next, error)| (next.act, error.to_string())).collect();
        let [(Act::Detach, why)] = &failed[..] else { panic!("{failed:?}") };
        // Another role's session: our login may see it.
        let said = "SELECT count(*) FROM dalp_indexed.logs_31337_20240311";
        assert!(why.contains(&format!("pid {pid} ")) && why.contains(said), "{why}");
        let pending = "SELECT count(*)::text FROM pg_inherits WHERE inhdetachpending";
        assert_eq!(strings(&admin, pending).await, ["0"]);
        let left = states(&mut client).await;
        assert_eq!(left.iter().filter(|(_, state)| *state == State::Attached).count(), 4, "{left:?}");
        assert_eq!(left.len(), 5, "the others are dropped: {left:?}");
    }
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run(&mut client, &retention(Action::Drop), Switches::ALL).await.failed.len(), 0);
}

/// No command waits for an exclusively locked leaf: neither a reader, nor the other leaves, nor the retention time.
#[tokio::test]
async fn a_leaf_that_somebody_has_for_their_own_is_passed_over() {
    let (database, _admin, mut client) = filled().await;
    let other = database.connect().await;
    let pid = super::meanwhile::pid(&other).await;
    other.batch_execute("BEGIN; LOCK TABLE dalp_indexed.logs_31337_20240311").await.unwrap();
    // Its size is not known then: it was never analyzed, and looking would wait.
    let inventory = read_inventory(&mut client, &logs()).await.unwrap();
    assert_eq!(inventory.entries.iter().filter(|entry| entry.bytes == 0).count(), 1);
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    let failed: Vec<_> = outcome.failed.iter().map(|(next, error)| (next.act, error.to_string())).collect();
    assert!(matches!(&failed[..], [(Act::Seal, why)] if why.contains(&format!("pid {pid} "))), "{failed:?}");
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 5);
    other.batch_execute("ROLLBACK").await.unwrap();

    // The newest row is one of the readable ones; if no leaf would be due by it, the blocking session is named.
    let (database, admin, mut client) = own_table().await;
    let newest = newest_rows(&mut client, &own(), TimeDelta::days(3)).await.unwrap();
    assert_eq!(newest, BTreeMap::from([(0, at("2024-03-20T01:00:00Z"))]));
    let other = database.connect().await;
    let pid = super::meanwhile::pid(&other).await;
    other.batch_execute("BEGIN; LOCK TABLE part.os_2").await.unwrap();
    let error = newest_rows(&mut client, &own(), TimeDelta::days(3)).await.unwrap_err();
    assert!(matches!(&error, Error::InTheWay { holders, .. } if holders.contains(&format!("pid {pid} "))), "{error}");
    admin
        .batch_execute(
            "SET ROLE dalp_partitioner; CREATE TABLE part.os_between PARTITION OF app.os FOR VALUES FROM ('2024-03-10Z') TO ('2024-03-11Z'); \
             INSERT INTO app.os VALUES ('2024-03-10 01:00+00', 1)",
        )
        .await
        .unwrap();
    let newest = newest_rows(&mut client, &own(), TimeDelta::days(3)).await.unwrap();
    assert_eq!(newest, BTreeMap::from([(0, at("2024-03-10T01:00:00Z"))]));
}

/// A later refusal of the server is known before any seal.
#[tokio::test]
async fn what_refuses_every_detaching_is_known_before_the_first_move() {
    let (database, admin, mut client) = filled().await;
    let owner = as_role(&database, "dalp_partitioner").await;
    let leaf = "CREATE TABLE dalp_indexed.rest (LIKE dalp_indexed.logs); ALTER TABLE dalp_indexed.logs_31337 ATTACH PARTITION dalp_indexed.rest DEFAULT";
    owner.batch_execute(leaf).await.unwrap();
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    assert_eq!((outcome.done.len(), outcome.failed.len()), (0, 6), "{:?}", outcome.done);
    let why = outcome.failed[0].1.to_string();
    assert!(why.contains("dalp_indexed.rest is a DEFAULT partition"), "{why}");
    owner.batch_execute("DROP TABLE dalp_indexed.rest").await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE public.notes (c int8, t timestamptz, b int8, l int4, CONSTRAINT of_log FOREIGN KEY (c, t, b, l) \
             REFERENCES dalp_indexed.logs_31337 (chain_id, block_time, block_number, log_index))",
        )
        .await
        .unwrap();
    let outcome = run(&mut client, &retention(Action::Drop), Switches::ALL).await;
    assert_eq!((outcome.done.len(), outcome.failed.len()), (0, 6), "{:?}", outcome.done);
    let why = outcome.failed[0].1.to_string();
    assert!(why.contains("foreign key of_log of notes") || why.contains("foreign key of_log of public.notes"), "{why}");
    let floors = "SELECT count(*)::text FROM dalp_indexed.retention_floor WHERE floor > '-infinity'";
    assert_eq!(strings(&admin, floors).await, ["0"]);
    admin.batch_execute("DROP TABLE public.notes").await.unwrap();

    // The whole way is known, too.
    let inventory = read_inventory(&mut client, &logs()).await.unwrap();
    let (retention, reference) = (retention(Action::Drop), finals());
    let terms = Terms {
        retention: &retention,
        switches: Switches::ALL,
        reference: &reference,
        can_archive: false,
        allow_many: false,
    };
    let first = &plan_moves(&inventory, &terms).moves[0];
    let acts: Vec<Act> = way(&inventory, &terms, first).iter().map(|next| next.act).collect();
    assert_eq!(acts, [Act::Seal, Act::Retire, Act::Detach, Act::Drop]);
    let patient = Retention { grace: TimeDelta::days(1), action: Action::Archive, ..retention.clone() };
    let terms = Terms { retention: &patient, can_archive: true, ..terms };
    let acts: Vec<Act> = way(&inventory, &terms, first).iter().map(|next| next.act).collect();
    assert_eq!(acts, [Act::Seal, Act::Archive, Act::Retire, Act::Detach]);
}
