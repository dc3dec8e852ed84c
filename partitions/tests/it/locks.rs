//! Which locks each operation holds when it commits, and that nobody else waits for it, with readers, writers and a vacuum about.

use std::collections::{BTreeMap, BTreeSet};

use dalp_partitions::{
    Act, Fate, Outcome, Reference, Retention, Scope, Switches, Terms, add_hold, read_inventory, retire, undo, unseal,
};

use super::retire::filled;
use super::*;

/// `relation mode`, of what a session holds beyond ACCESS SHARE, without system tables and indexes.
const HELD: &str = "SELECT DISTINCT c.relname || ' ' || l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation \
                    WHERE l.pid = $1 AND l.granted AND c.relkind IN ('r', 'p') AND c.oid > 16383 AND l.mode <> 'AccessShareLock' \
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1";

/// Locks seen of one operation: everything that it held when it came to its record, which it writes last.
async fn seen(
    database: &Database,
    what: &str,
    operation: impl Future<Output = ()> + Send + 'static,
    pid: i32,
) -> Vec<String> {
    // EXCLUSIVE on the record lets everything be read, and stops the operation at its last statement before COMMIT.
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; LOCK TABLE dalp_audit.activity IN EXCLUSIVE MODE").await.unwrap();
    let watcher = database.connect().await;
    let task = tokio::spawn(operation);
    let waits = "SELECT count(*)::text FROM pg_locks WHERE pid = $1 AND NOT granted \
                 AND relation = 'dalp_audit.activity'::regclass";
    let held = loop {
        let row: String = watcher.query_one(waits, &[&pid]).await.unwrap().get(0);
        if row == "1" {
            break watcher.query(HELD, &[&pid]).await.unwrap().iter().map(|row| row.get(0)).collect();
        }
        assert!(!task.is_finished(), "{what} ended without a record");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    blocker.batch_execute("ROLLBACK").await.unwrap();
    task.await.unwrap();
    held
}

fn retention() -> Retention {
    Retention { fate: Fate::Drop, keep: TimeDelta::days(8), grace: TimeDelta::zero(), max_leaves: 9, max_share: 1.0 }
}

async fn run(client: &mut Client, switches: Switches) -> Outcome {
    let (retention, reference) = (retention(), Reference::Final(BTreeMap::from([(CHAIN, now())])));
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: false, allow_many: false };
    retire(client, &logs(), &terms, None).await.unwrap()
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

const OFF: Switches = Switches { create: true, archive: true, detach: false, drop: false };
const KEPT: Switches = Switches { drop: false, detach: true, ..OFF };

/// No parent is ever locked by more than SHARE UPDATE EXCLUSIVE, which only other maintenance waits for; the leaf itself by what the move
/// needs.
#[tokio::test(flavor = "multi_thread")]
async fn each_operation_keeps_to_its_budget() {
    let (database, admin, mut client) = filled().await;
    // The record's own leaf stands, so that only the operation's locks are seen.
    run(&mut client, OFF).await;
    let leaf = "logs_31337_20240311";
    let of = |held: Vec<String>, what: &str| -> BTreeSet<String> {
        let parents = ["logs ", "logs_31337 "];
        for lock in &held {
            let strong = ["AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"];
            let is_parent = parents.iter().any(|parent| lock.starts_with(parent));
            assert!(!is_parent || !strong.iter().any(|mode| lock.ends_with(&format!(" {mode}"))), "{what}: {lock}");
        }
        held.into_iter().filter(|lock| lock.starts_with("logs")).collect()
    };
    let locks = |locks: &[String]| locks.iter().cloned().collect::<BTreeSet<_>>();
    let strongest = |mode: &str| format!("{leaf} {mode}");

    let id = pid(&client).await;
    let mut own = client;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    macro_rules! observe {
        ($what:expr, $client:ident => $operation:expr) => {{
            let (mut $client, sender) = (own, sender.clone());
            let held = seen(
                &database,
                $what,
                async move {
                    $operation;
                    sender.send($client).await.unwrap();
                },
                id,
            )
            .await;
            own = receiver.recv().await.unwrap();
            of(held, $what)
        }};
    }
    // Sealing: writers of this leaf wait, nobody else.
    let seal = observe!("seal", client => run(&mut client, KEPT).await);
    assert_eq!(seal, locks(&[strongest("ShareRowExclusiveLock")]), "seal");
    let back = observe!("undo", client => undo(&mut client, &logs(), leaf, "r", "a").await.unwrap());
    // Its record of the hold comes first.
    assert_eq!(back, locks(&[]), "hold");
    let scope = Scope { key: None, from: None, to: None };
    let hold = observe!("hold", client => add_hold(&mut client, &logs(), &scope, "r", "a").await.unwrap());
    assert_eq!(hold, locks(&[]), "hold");
    let entries = read_inventory(&mut own, &logs()).await.unwrap().entries;
    assert!(entries.iter().any(|entry| entry.leaf == leaf));
    let opened = unseal(&mut own, &logs(), leaf).await.unwrap();
    assert_eq!(opened, None);
    for hold in dalp_partitions::holds(&own, &logs(), false).await.unwrap() {
        dalp_partitions::release_hold(&mut own, "dalp_indexed", hold.id, "a").await.unwrap();
    }

    // A detaching that was cut short, ended: the second half of DETACH CONCURRENTLY takes the same.
    let reader = database.connect().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    let cut = format!(
        "SET lock_timeout = '100ms'; ALTER TABLE dalp_indexed.logs_31337 DETACH PARTITION dalp_indexed.{leaf} CONCURRENTLY"
    );
    for statement in cut.split("; ") {
        let _ = admin.batch_execute(statement).await;
    }
    reader.batch_execute("COMMIT").await.unwrap();
    let finalized = observe!("finalize", client => run(&mut client, KEPT).await);
    let parent = "logs_31337 ShareUpdateExclusiveLock".to_owned();
    assert_eq!(finalized, locks(&[parent, strongest("AccessExclusiveLock")]), "finalize");
    run(&mut own, KEPT).await;
    let dropped = observe!("drop", client => run(&mut client, Switches::ALL).await);
    assert_eq!(dropped, locks(&[strongest("AccessExclusiveLock")]), "drop");
    assert_eq!(read_inventory(&mut own, &logs()).await.unwrap().entries.len(), 9);
}

/// What each session of others went through meanwhile.
struct Others {
    stop: tokio::sync::watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<Duration>>,
}

impl Others {
    /// A writer of the newest leaf and a reader of another one, as fast as they can.
    async fn start(database: &Database) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut tasks = Vec::new();
        for kind in 0..2 {
            let (client, stopped) = (database.connect().await, stopped.clone());
            tasks.push(tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                let mut number = 0;
                while !*stopped.borrow() {
                    number += 1;
                    let sql = match kind {
                        0 => format!(
                            "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-20 12:30+00', {number}, 7, 0, '', '', '', '', '', '', '', '')"
                        ),
                        _ => "SELECT count(*) FROM dalp_indexed.logs WHERE chain_id = 31337 AND block_time >= '2024-03-18' \
                              AND block_time < '2024-03-19'"
                            .to_owned(),
                    };
                    let began = Instant::now();
                    client.batch_execute(&sql).await.unwrap();
                    longest = longest.max(began.elapsed());
                }
                longest
            }));
        }
        Self { stop, tasks }
    }

    async fn longest(self) -> Vec<Duration> {
        self.stop.send(true).unwrap();
        let mut longest = Vec::new();
        for task in self.tasks {
            longest.push(task.await.unwrap());
        }
        longest
    }
}

/// A stall would last as long as what is waited for, half a minute; what a busy machine adds is far below.
const UNNOTICED: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_detaching_that_waits_for_a_reader() {
    let (database, admin, mut client) = filled().await;
    // An idle transaction that pruned to another leaf, one that read everything, a COPY under way and a vacuum of the leaf.
    let (pruned, unpruned, copying, vacuum) =
        (database.connect().await, database.connect().await, database.connect().await, database.connect().await);
    pruned
        .batch_execute("BEGIN; SELECT FROM dalp_indexed.logs WHERE chain_id = 31337 AND block_time = '2024-03-19'")
        .await
        .unwrap();
    unpruned.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    let reader = pid(&unpruned).await;
    let copy = "COPY dalp_indexed.logs (chain_id, block_time, block_number, log_index, tx_index, block_hash, tx_hash, address, data) FROM STDIN";
    let mut sink = Box::pin(copying.copy_in::<_, bytes::Bytes>(copy).await.unwrap());
    sink.send(bytes::Bytes::from_static(b"31337\t2024-03-20 01:01+00\t1\t9\t0\t\\\\x\t\\\\x\t\\\\x\t\\\\x\n"))
        .await
        .unwrap();
    let vacuuming = tokio::spawn(async move {
        for _ in 0..50 {
            vacuum.batch_execute("VACUUM dalp_indexed.logs_31337_20240318").await.unwrap();
        }
    });
    let others = Others::start(&database).await;
    let began = Instant::now();
    let outcome = run(&mut client, Switches::ALL).await;
    let took = began.elapsed();
    let longest = others.longest().await;
    println!("the run took {took:?}; others waited {longest:?} at most");
    assert!(longest.iter().all(|longest| *longest < UNNOTICED), "{longest:?}");
    // The leaf is sealed, retired, and its detaching is pending: tried for half a minute, then FINALIZE in vain.
    let failed: Vec<Act> = outcome.failed.iter().map(|(next, _)| next.act).collect();
    assert_eq!(failed, [Act::Detach, Act::Finalize], "{:?}", outcome.failed);
    assert!(took > Duration::from_secs(29) && took < Duration::from_secs(60), "{took:?}");
    let pending = strings(&admin, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending").await;
    assert_eq!(pending, ["dalp_indexed.logs_31337_20240311"]);
    let told = "SELECT outcome FROM dalp_audit.activity WHERE action = 'partition.failed' ORDER BY occurred_at";
    assert!(strings(&admin, told).await.iter().all(|told| told.contains(&format!("pid {reader}"))));
    // New queries do not see it, and its times take no rows.
    let gone = strings(&admin, "SELECT count(*)::text FROM dalp_indexed.logs WHERE block_time < '2024-03-12'").await;
    assert_eq!(gone, ["0"]);
    let late =
        "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-11 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')";
    assert_eq!(admin.batch_execute(late).await.unwrap_err().code().unwrap().code(), "23514");
    // New leaves can be made all the same.
    make(&mut client, &logs(), &Need::ahead_of(now())).await.unwrap();

    for open in [&unpruned, &pruned] {
        open.batch_execute("COMMIT").await.unwrap();
    }
    sink.as_mut().finish().await.unwrap();
    vacuuming.await.unwrap();
    let outcome = run(&mut client, Switches::ALL).await;
    let done: Vec<Act> = outcome.done.iter().map(|done| done.act).collect();
    assert_eq!(done, [Act::Finalize, Act::Drop], "{:?}", outcome.failed);
    assert!(outcome.done.iter().all(|done| done.took < Duration::from_secs(2)), "{:?}", outcome.done);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_move_is_brief_while_others_read_and_write_elsewhere() {
    let (database, admin, mut client) = filled().await;
    let pruned = database.connect().await;
    pruned.batch_execute("BEGIN; SELECT FROM dalp_indexed.logs_31337_20240319").await.unwrap();
    let others = Others::start(&database).await;
    let outcome = run(&mut client, KEPT).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let undone = undo(&mut client, &logs(), "logs_31337_20240311", "r", "a").await.unwrap();
    dalp_partitions::release_hold(&mut client, "dalp_indexed", undone.hold, "a").await.unwrap();
    let outcome = run(&mut client, Switches::ALL).await;
    assert!(outcome.failed.is_empty() && outcome.done.last().is_some_and(|done| done.act == Act::Drop), "{outcome:?}");
    let longest = others.longest().await;
    assert!(longest.iter().all(|longest| *longest < UNNOTICED), "{longest:?}");
    // A statement of ours never waited for a lock for longer than its budget.
    let waits = "SELECT action FROM dalp_audit.activity WHERE lock_wait_ms > 300";
    assert_eq!(strings(&admin, waits).await, [""; 0]);
    pruned.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_somebody_writes_to_is_sealed_later() {
    let (database, _admin, mut client) = filled().await;
    let writer = database.connect().await;
    writer
        .batch_execute("BEGIN; INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-11 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')")
        .await
        .unwrap();
    let others = Others::start(&database).await;
    let outcome = run(&mut client, KEPT).await;
    let failed: Vec<Act> = outcome.failed.iter().map(|(next, _)| next.act).collect();
    assert_eq!((failed, outcome.done.len()), (vec![Act::Seal], 0));
    let longest = others.longest().await;
    assert!(longest.iter().all(|longest| *longest < UNNOTICED), "{longest:?}");
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run(&mut client, KEPT).await.done.len(), 3);
}
