//! Holds beside a detach that has begun, and the leaves that they protect.

use dalp_partitions::{
    Act, Action, Advice, Error, Obstacle, Outcome, Presence, Scope, State, add_hold, all_holds, is_begun,
    read_inventory, release_hold,
};

use super::meanwhile::{pid, until};
use super::retire::filled;
use super::*;

const LEAF: &str = "logs_31337_20240311";

/// Only 03-11 is due.
async fn run(client: &mut Client, action: Action) -> Outcome {
    retire_older(client, &logs(), CHAIN, 8, action, None).await.unwrap()
}

async fn hold(client: &mut Client) -> Result<(i64, usize), Error> {
    let scope = Scope { key: Some(CHAIN), from: None, to: Some(at("2024-03-11T01:00:00Z")) };
    add_hold(client, &logs(), &scope, "case 9", "counsel").await
}

async fn seen(client: &mut Client) -> (State, Presence) {
    let entries = read_inventory(client, &logs()).await.unwrap().entries;
    entries.into_iter().find(|entry| entry.leaf == LEAF).map(|entry| (entry.state, entry.presence)).unwrap()
}

/// A detach that began and waits for a reader: the state after a run that gave up.
async fn pending(database: &Database) -> Client {
    let reader = database.connect().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    let client = as_role(database, "dalp_partitioner").await;
    let ours = pid(&client).await;
    let task = tokio::spawn(async move {
        let mut client = client;
        // Its session is ended below.
        retire_older(&mut client, &logs(), CHAIN, 8, Action::Drop, None).await.unwrap_err();
    });
    until(database, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending").await;
    let end = format!("SELECT pg_terminate_backend({ours})");
    database.connect().await.batch_execute(&end).await.unwrap();
    task.await.unwrap();
    until(database, &format!("SELECT 1 - count(*) FROM pg_stat_activity WHERE pid = {ours}")).await;
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_takes_a_detaching_back_that_has_begun() {
    let (database, admin, mut client) = filled().await;
    let reader = pending(&database).await;
    assert_eq!(seen(&mut client).await, (State::Detaching, Presence::Pending));
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(hold(&mut client).await.unwrap().1, 1);
    assert_eq!(seen(&mut client).await, (State::Attached, Presence::Attached));
    let count = "SELECT count(*)::text FROM dalp_indexed.logs";
    assert_eq!(strings(&admin, count).await, ["229"]);
    let outcome = run(&mut client, Action::Drop).await;
    assert!(outcome.done.is_empty() && outcome.failed.is_empty(), "{outcome:?}");
    assert_eq!(strings(&admin, count).await, ["229"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_comes_too_late_says_so_and_stands() {
    let (database, admin, mut client) = filled().await;
    // A run is active in any of its steps.
    let busy = database.connect().await;
    let reader = pending(&database).await;
    busy.batch_execute(&format!("SELECT pg_advisory_lock({})", dalp_partitions::RETIRE_KEY)).await.unwrap();
    let error = hold(&mut client).await.unwrap_err();
    assert!(matches!(&error, Error::TooLate { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(&format!("{} attaches it", Advice::Undo(Some(LEAF)))) && said.contains("too late"), "{said}");
    busy.batch_execute(&format!("SELECT pg_advisory_unlock({})", dalp_partitions::RETIRE_KEY)).await.unwrap();
    reader.batch_execute("COMMIT").await.unwrap();
    // The hold is valid: the next run reverts the detach instead of finishing it.
    let outcome = run(&mut client, Action::Drop).await;
    let acts: Vec<Act> = outcome.done.iter().map(|done| done.act).collect();
    assert_eq!(acts, [Act::Attach], "{outcome:?}");
    assert_eq!(strings(&admin, "SELECT count(*)::text FROM dalp_indexed.logs").await, ["229"]);
    assert_eq!(seen(&mut client).await, (State::Attached, Presence::Attached));
}

/// The move was planned before the hold: the last look is behind the lock of the leaf's row.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sealed_after_a_hold_was_added() {
    let (database, admin, mut client) = filled().await;
    run(&mut client, Action::Keep).await;
    // Holds the leaf's row, as the adding of a hold does, until the run waits for it.
    let mut counsel = as_role(&database, "dalp_partitioner").await;
    let adding = counsel.transaction().await.unwrap();
    adding
        .batch_execute(&format!(
            "SELECT FROM dalp_indexed.leaf WHERE leaf = '{LEAF}' FOR UPDATE; \
             INSERT INTO dalp_indexed.legal_hold (table_schema, table_name, reason, author) VALUES ('dalp_indexed', 'logs', 'case', 'me')"
        ))
        .await
        .unwrap();
    let ours = pid(&client).await;
    let task = tokio::spawn(async move { run(&mut client, Action::Drop).await });
    until(&database, &format!("SELECT count(*) FROM pg_locks WHERE pid = {ours} AND NOT granted")).await;
    adding.commit().await.unwrap();
    let outcome = task.await.unwrap();
    assert!(outcome.done.is_empty(), "{:?}", outcome.done);
    let why = outcome.failed.iter().map(|(next, error)| (next.act, error.to_string())).collect::<Vec<_>>();
    assert!(matches!(&why[..], [(Act::Seal, why)] if why.contains("a legal hold touches it")), "{why:?}");
    let sealed = "SELECT count(*)::text FROM pg_trigger WHERE tgname = 'dalp_seal_rows'";
    assert_eq!(strings(&admin, sealed).await, ["0"]);
}

/// Another user's pending detach is not finished either.
#[tokio::test]
async fn a_held_leaf_is_not_finalized() {
    let (database, _admin, mut client) = filled().await;
    run(&mut client, Action::Keep).await;
    let reader = database.connect().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    let other = as_role(&database, "dalp_partitioner").await;
    other.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    let detach = format!("ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.{LEAF} CONCURRENTLY");
    assert!(other.batch_execute(&detach).await.is_err());
    reader.batch_execute("COMMIT").await.unwrap();
    admin_hold(&mut client).await;
    let outcome = run(&mut client, Action::Drop).await;
    assert!(outcome.done.is_empty(), "{:?}", outcome.done);
    assert!(outcome.obstacles.iter().any(|(entry, why)| entry.leaf == LEAF && matches!(why, Obstacle::Held { .. })));
    assert_eq!(seen(&mut client).await.1, Presence::Pending);
    // Without the hold it is finished under any policy, also another user's.
    release_hold(&mut client, &registry(), 1, "counsel").await.unwrap();
    assert!(is_begun(&client, &logs()).await.unwrap());
    run(&mut client, Action::Keep).await;
    assert_eq!(seen(&mut client).await, (State::Taken, Presence::Standalone));
    assert!(!is_begun(&client, &logs()).await.unwrap());
}

async fn admin_hold(client: &mut Client) {
    let add = "INSERT INTO dalp_indexed.legal_hold (table_schema, table_name, reason, author) \
               VALUES ('dalp_indexed', 'logs', 'case', 'counsel')";
    client.batch_execute(add).await.unwrap();
}

#[tokio::test]
async fn a_hold_on_a_key_that_is_not_there_is_refused_and_all_holds_are_listed() {
    let (_database, _admin, mut client) = filled().await;
    let scope = Scope { key: Some(99), from: None, to: None };
    let error = add_hold(&mut client, &logs(), &scope, "case", "counsel").await.unwrap_err().to_string();
    assert!(error.contains("no key 99") && error.contains("31337"), "{error}");
    hold(&mut client).await.unwrap();
    let elsewhere = Table::flat("gone", "with_the_wind", "at").registered_in(registry());
    let insert = "INSERT INTO dalp_indexed.legal_hold (table_schema, table_name, reason, author) VALUES ('gone', 'with_the_wind', 'r', 'a')";
    client.batch_execute(insert).await.unwrap();
    let all = all_holds(&client, &registry(), false).await.unwrap();
    let tables: Vec<_> = all.iter().map(|(schema, table, hold)| format!("{schema}.{table} {}", hold.author)).collect();
    assert_eq!(tables, ["dalp_indexed.logs counsel", "gone.with_the_wind a"]);
    assert_eq!(dalp_partitions::holds(&client, &elsewhere, false).await.unwrap().len(), 1);
}
