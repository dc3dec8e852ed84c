//! The identity of a leaf: its oid, under any name and in any schema; and its owner after another user detached it.

use std::collections::{BTreeMap, BTreeSet};

use dalp_partitions::{
    Act, Action, Entry, Obstacle, Outcome, Presence, State, Switches, read_inventory, restore, undo,
};

use super::archive::{Folder, request};
use super::retire::filled;
use super::*;

/// Daily leaves; those that end three days before now() go at once.
async fn run(client: &mut Client, table: &Table, key: i64, action: Action) -> Outcome {
    let outcome = retire_older(client, table, key, 3, action, None).await.unwrap();
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    outcome
}

fn moved(outcome: &Outcome) -> BTreeSet<(Act, &str)> {
    outcome.done.iter().map(|done| (done.act, done.leaf.as_str())).collect()
}

async fn entry(client: &mut Client, table: &Table, leaf: &str) -> Entry {
    let entries = read_inventory(client, table).await.unwrap().entries;
    entries.into_iter().find(|entry| entry.is_called(leaf)).unwrap()
}

async fn as_owner(database: &Database, sql: &str) {
    as_role(database, "dalp_partitioner").await.batch_execute(sql).await.unwrap();
}

const SEALED: &str = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'dalp_seal_rows' ORDER BY 1";

/// Another user's table, whose leaves are in another schema.
pub fn own() -> Table {
    Table::flat("app", "os", "at").registered_in(registry())
}

pub async fn own_table() -> (Database, Client, Client) {
    let (database, admin) = database().await;
    admin
        .batch_execute(
            "CREATE SCHEMA app AUTHORIZATION dalp_partitioner; CREATE SCHEMA part AUTHORIZATION dalp_partitioner; \
             SET ROLE dalp_partitioner; \
             CREATE TABLE app.os (at timestamptz NOT NULL, n int8) PARTITION BY RANGE (at); \
             CREATE TABLE part.os_1 PARTITION OF app.os FOR VALUES FROM ('2024-03-01Z') TO ('2024-03-02Z'); \
             CREATE TABLE part.os_2 PARTITION OF app.os FOR VALUES FROM ('2024-03-20Z') TO ('2024-03-21Z'); \
             CREATE TABLE app.os_1 (at timestamptz, n int8); \
             INSERT INTO app.os VALUES ('2024-03-01 01:00Z', 1), ('2024-03-20 01:00Z', 2); RESET ROLE",
        )
        .await
        .unwrap();
    let client = as_role(&database, "dalp_partitioner").await;
    (database, admin, client)
}

#[tokio::test]
async fn a_table_of_the_same_name_elsewhere_is_not_touched() {
    let (_database, admin, mut client) = own_table().await;
    let outcome = run(&mut client, &own(), 0, Action::Detach).await;
    assert_eq!(moved(&outcome), [(Act::Seal, "os_1"), (Act::Retire, "os_1"), (Act::Detach, "os_1")].into());
    assert_eq!(strings(&admin, SEALED).await, ["part.os_1"]);
    admin.batch_execute("INSERT INTO app.os_1 VALUES ('2024-03-01 02:00Z', 3)").await.unwrap();
    assert!(run(&mut client, &own(), 0, Action::Detach).await.done.is_empty());

    // Back, away again, and gone: always the one.
    undo(&mut client, &own(), "part.os_1", "still needed", "ops").await.unwrap();
    assert_eq!(strings(&admin, "SELECT n::text FROM app.os ORDER BY n").await, ["1", "2"]);
    admin.batch_execute("UPDATE dalp_indexed.legal_hold SET released_at = now(), released_by = 'ops'").await.unwrap();
    run(&mut client, &own(), 0, Action::Drop).await;
    let left = "SELECT oid::regclass::text FROM pg_class WHERE relname = 'os_1'";
    assert_eq!(strings(&admin, left).await, ["app.os_1"]);
}

#[tokio::test]
async fn a_leaf_in_another_schema_is_archived_and_comes_back() {
    let (_database, admin, mut client) = own_table().await;
    let folder = Folder::new();
    let outcome = retire_older(&mut client, &own(), 0, 3, Action::Archive, Some(&folder.archive())).await.unwrap();
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(strings(&admin, "SELECT n::text FROM app.os ORDER BY n").await, ["2"]);
    admin.batch_execute("DROP TABLE app.os_1").await.unwrap();
    restore(&mut client, &own(), &folder.archive(), &request("os_1")).await.unwrap();
    assert_eq!(strings(&admin, "SELECT n::text FROM app.os ORDER BY n").await, ["1", "2"]);
}

#[tokio::test]
async fn what_a_person_detached_is_left_alone_until_it_is_attached_again() {
    let (database, admin, mut client) = filled().await;
    // Registered before, as by a run while nothing was due.
    run(&mut client, &logs(), CHAIN, Action::Keep).await;
    as_owner(&database, "ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.logs_31337_20240312").await;
    let outcome = run(&mut client, &logs(), CHAIN, Action::Drop).await;
    let taken: Vec<_> = outcome.obstacles.iter().map(|(entry, why)| (entry.leaf.as_str(), why)).collect();
    assert_eq!(taken, [("logs_31337_20240312", &Obstacle::Taken)]);
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 5);
    assert_eq!(strings(&admin, SEALED).await, [""; 0]);
    assert_eq!(strings(&admin, "SELECT count(*)::text FROM dalp_indexed.logs_31337_20240312").await, ["24"]);
    let found = dalp_partitions::audit(&mut client, &logs()).await.unwrap();
    let told = |object: &str| found.iter().any(|found| found.object == object && found.what.contains("left alone"));
    assert!(told("dalp_indexed.logs_31337_20240312"), "{found:?}");

    // `undo` of it brings it back; attached by hand it would be the same.
    let undone = undo(&mut client, &logs(), "dalp_indexed.logs_31337_20240312", "needed", "ops").await.unwrap();
    assert_eq!(undone.leaves, ["logs_31337_20240312"]);
    dalp_partitions::release_hold(&mut client, &registry(), undone.hold, "ops").await.unwrap();
    let outcome = run(&mut client, &logs(), CHAIN, Action::Drop).await;
    assert!(moved(&outcome).contains(&(Act::Drop, "logs_31337_20240312")), "{:?}", outcome.done);
}

#[tokio::test]
async fn a_leaf_that_was_moved_to_another_table_is_left_alone() {
    let (database, admin, mut client) = filled().await;
    run(&mut client, &logs(), CHAIN, Action::Keep).await;
    as_owner(
        &database,
        "CREATE TABLE dalp_indexed.old (LIKE dalp_indexed.logs) PARTITION BY RANGE (block_time); \
         ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.logs_31337_20240313; \
         ALTER TABLE dalp_indexed.old ATTACH PARTITION dalp_indexed.logs_31337_20240313 FOR VALUES FROM ('2024-03-13Z') TO ('2024-03-14Z')",
    )
    .await;
    let outcome = run(&mut client, &logs(), CHAIN, Action::Drop).await;
    assert_eq!(strings(&admin, SEALED).await, [""; 0]);
    assert_eq!(strings(&admin, "SELECT count(*)::text FROM dalp_indexed.old").await, ["24"]);
    assert!(outcome.obstacles.iter().any(|(_, why)| *why == Obstacle::Taken), "{:?}", outcome.obstacles);
    let there = entry(&mut client, &logs(), "logs_31337_20240313").await;
    assert_eq!((there.state, there.presence), (State::Taken, Presence::Elsewhere));
    assert!(run(&mut client, &logs(), CHAIN, Action::Drop).await.done.is_empty());
    let refused = undo(&mut client, &logs(), "logs_31337_20240313", "r", "a").await.unwrap_err().to_string();
    assert!(refused.contains("a partition of another table"), "{refused}");
}

#[tokio::test]
async fn a_leaf_that_is_renamed_or_moved_is_the_same_leaf() {
    let (database, admin, mut client) = filled().await;
    run(&mut client, &logs(), CHAIN, Action::Keep).await;
    // Two leaves swap their names, a third one moves to another schema: they go under their present names.
    as_owner(
        &database,
        "ALTER TABLE dalp_indexed.logs_31337_20240311 RENAME TO aside; \
         ALTER TABLE dalp_indexed.logs_31337_20240312 RENAME TO logs_31337_20240311; \
         ALTER TABLE dalp_indexed.aside RENAME TO logs_31337_20240312",
    )
    .await;
    admin.batch_execute("CREATE SCHEMA aside AUTHORIZATION dalp_partitioner").await.unwrap();
    as_owner(&database, "ALTER TABLE dalp_indexed.logs_31337_20240313 SET SCHEMA aside").await;
    run(&mut client, &logs(), CHAIN, Action::Detach).await;
    let held = "SELECT concat_ws(' ', leaf_schema, leaf, from_time::date, state) FROM dalp_indexed.leaf WHERE state = 'DETACHED' \
                ORDER BY from_time LIMIT 3";
    assert_eq!(
        strings(&admin, held).await,
        [
            "dalp_indexed logs_31337_20240312 2024-03-11 DETACHED",
            "dalp_indexed logs_31337_20240311 2024-03-12 DETACHED",
            "aside logs_31337_20240313 2024-03-13 DETACHED"
        ]
    );
    // Renamed after its detach, it belongs to the user.
    as_owner(&database, "ALTER TABLE aside.logs_31337_20240313 RENAME TO keep_this").await;
    run(&mut client, &logs(), CHAIN, Action::Drop).await;
    let left = "SELECT oid::regclass::text FROM pg_class WHERE relname IN \
                ('keep_this', 'logs_31337_20240311', 'logs_31337_20240312', 'logs_31337_20240313')";
    assert_eq!(strings(&admin, left).await, ["aside.keep_this"]);
    assert_eq!(entry(&mut client, &logs(), "keep_this").await.state, State::Taken);
}

#[tokio::test]
async fn a_key_that_is_off_boarded_is_left_alone_until_it_is_added_again() {
    let (database, admin, mut client) = filled().await;
    run(&mut client, &logs(), CHAIN, Action::Keep).await;
    as_owner(&database, "ALTER TABLE dalp_indexed.logs DETACH PARTITION dalp_indexed.logs_31337").await;
    let outcome = run(&mut client, &logs(), CHAIN, Action::Drop).await;
    assert!(outcome.done.iter().all(|done| done.act == Act::Note(State::Taken)), "{:?}", outcome.done);
    assert_eq!(strings(&admin, SEALED).await, [""; 0]);
    let inventory = read_inventory(&mut client, &logs()).await.unwrap();
    assert!(inventory.is_off_boarded(CHAIN) && !inventory.is_off_boarded(7) && inventory.keys.is_empty());

    as_owner(&database, "ALTER TABLE dalp_indexed.logs ATTACH PARTITION dalp_indexed.logs_31337 FOR VALUES IN (31337)")
        .await;
    let outcome = run(&mut client, &logs(), CHAIN, Action::Drop).await;
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 6, "{:?}", outcome.done);
}

/// In a restored dump every oid is another; the leaves are the same.
#[tokio::test]
async fn a_restored_dump_has_the_same_leaves() {
    let (database, _admin, mut client) = filled().await;
    let stop = Switches { drop: false, ..Switches::ALL };
    let folder = Folder::new();
    super::archive::run(&mut client, &folder.archive(), stop).await;
    // One that another user detached, and one that another user made under its name.
    as_owner(&database, "ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.logs_31337_20240318").await;
    run(&mut client, &logs(), CHAIN, Action::Keep).await;
    as_owner(
        &database,
        "DROP TABLE dalp_indexed.logs_31337_20240316; CREATE TABLE dalp_indexed.logs_31337_20240316 (n int8)",
    )
    .await;
    drop(client);
    let restored = database.restored().await;
    let (mut client, admin) = (as_role(&restored, "dalp_partitioner").await, restored.connect().await);
    let before: BTreeMap<String, (State, Presence)> = read_inventory(&mut client, &logs())
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| (entry.leaf.clone(), (entry.state, entry.presence)))
        .collect();
    let seen = |day: &str| before[&format!("logs_31337_202403{day}")];
    for (day, expected) in [
        ("11", (State::Detached, Presence::Standalone)),
        ("16", (State::Detached, Presence::Absent)),
        ("17", (State::Attached, Presence::Attached)),
        ("18", (State::Taken, Presence::Standalone)),
    ] {
        assert_eq!(seen(day), expected, "{day}: {before:?}");
    }
    // The detached leaf returns; the next run recounts the others, whose seals are new, and drops them.
    let undone = undo(&mut client, &logs(), "logs_31337_20240315", "needed", "ops").await.unwrap();
    assert_eq!(undone.leaves, ["logs_31337_20240315"]);
    let outcome = super::archive::run(&mut client, &folder.archive(), Switches::ALL).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let count = |act| outcome.done.iter().filter(|done| done.act == act).count();
    assert_eq!((count(Act::Drop), count(Act::Note(State::Dropped))), (4, 1), "{:?}", outcome.done);
    let left = "SELECT relname::text FROM pg_class WHERE relname ~ '^logs_31337_2024031[1-8]$' ORDER BY 1";
    assert_eq!(strings(&admin, left).await, ["15", "16", "17", "18"].map(|day| format!("logs_31337_202403{day}")));
    restore(&mut client, &logs(), &folder.archive(), &request("logs_31337_20240314")).await.unwrap();
}
