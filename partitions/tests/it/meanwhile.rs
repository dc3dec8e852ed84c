//! Other sessions beside the maintenance of partitions, and their waits.

use std::collections::BTreeMap;
use std::pin::Pin;

use tokio::task::JoinHandle;
use tokio_postgres::CopyInSink;

use super::server::PATIENCE;
use super::*;

/// Real and apparent obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    Nothing,
    /// An idle transaction that read one leaf, another one.
    Pruned,
    /// An idle transaction that read everything.
    Unpruned,
    /// A COPY through the parent into the newest leaf, under way.
    Copy,
    /// A vacuum of a leaf of this day, kept slow.
    Vacuum(u32),
}

/// One that continues.
pub struct Disturbing {
    pub pid: i32,
    client: Client,
    sink: Option<Pin<Box<CopyInSink<bytes::Bytes>>>>,
    vacuum: Option<JoinHandle<bool>>,
}

const ROW: &str = "31337\t2024-03-20 01:01+00\tNUMBER\tINDEX\t0\t\\\\x\t\\\\x\t\\\\x\t\\\\x\n";

impl Disturbing {
    pub async fn start(database: &Database, kind: Disturbance) -> Self {
        let client = database.connect().await;
        let (pid, mut sink, mut vacuum) = (pid(&client).await, None, None);
        match kind {
            Disturbance::Nothing => {}
            Disturbance::Pruned => {
                let read = "BEGIN; SELECT FROM dalp_indexed.logs WHERE chain_id = 31337 AND block_time = '2024-03-19'";
                client.batch_execute(read).await.unwrap();
            }
            Disturbance::Unpruned => {
                client.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
            }
            Disturbance::Copy => {
                let copy = "COPY dalp_indexed.logs (chain_id, block_time, block_number, log_index, tx_index, block_hash, tx_hash, \
                            address, data) FROM STDIN";
                let mut open = Box::pin(client.copy_in::<_, bytes::Bytes>(copy).await.unwrap());
                // More than the driver gathers before it sends, and the server before it looks.
                for number in 0..5_000 {
                    let row = ROW.replace("NUMBER", &pid.to_string()).replace("INDEX", &number.to_string());
                    open.send(row.into()).await.unwrap();
                }
                sink = Some(open);
                let begun = format!(
                    "SELECT count(*)::int8 FROM pg_locks WHERE pid = {pid} AND relation = 'dalp_indexed.logs_31337_20240320'::regclass"
                );
                until(database, &begun).await;
            }
            Disturbance::Vacuum(day) => {
                vacuum = Some(slow_vacuum(database, day).await);
                return Self { pid: vacuuming(database, day).await, client, sink, vacuum };
            }
        }
        Self { pid, client, sink, vacuum }
    }

    pub async fn end(self, database: &Database) {
        if let Some(mut sink) = self.sink {
            sink.as_mut().finish().await.unwrap();
        } else if let Some(vacuum) = self.vacuum {
            let cancel = format!("SELECT pg_cancel_backend({})", self.pid);
            database.connect().await.batch_execute(&cancel).await.unwrap();
            assert!(!vacuum.await.unwrap(), "the vacuum ended before the test did");
        } else {
            self.client.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

/// Rows enough for a slow vacuum to take minutes, if it is the first.
pub async fn fill(database: &Database, day: u32) {
    let fill = format!(
        "ALTER TABLE dalp_indexed.logs_31337_202403{day} SET (autovacuum_enabled = false); INSERT INTO dalp_indexed.logs SELECT 31337, '2024-03-{day} 00:00:01', 1, n, 0, '', '', '', NULL, NULL, NULL, NULL, \
                repeat('x', 200)::bytea FROM generate_series(1, 30000) AS n"
    );
    database.connect().await.batch_execute(&fill).await.unwrap();
}

/// Sleeps as long as it may at each page. Answers whether it came to its end.
async fn slow_vacuum(database: &Database, day: u32) -> JoinHandle<bool> {
    let client = database.connect().await;
    client.batch_execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1").await.unwrap();
    tokio::spawn(
        async move { client.batch_execute(&format!("VACUUM dalp_indexed.logs_31337_202403{day}")).await.is_ok() },
    )
}

async fn vacuuming(database: &Database, day: u32) -> i32 {
    let of = format!(
        "FROM pg_stat_progress_vacuum WHERE datname = current_database() AND relid = 'dalp_indexed.logs_31337_202403{day}'::regclass"
    );
    until(database, &format!("SELECT count(*)::int8 {of}")).await;
    database.connect().await.query_one(&format!("SELECT pid {of}"), &[]).await.unwrap().get(0)
}

/// Waits until a count is not 0.
pub async fn until(database: &Database, count: &str) {
    let client = database.connect().await;
    let began = Instant::now();
    while client.query_one(count, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {count}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// A lock that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    pub pid: i32,
    /// `relation`, `virtualxid`, `tuple`, ...
    pub kind: String,
    pub on: String,
    pub query: String,
    /// Who holds it, or comes first.
    pub blocked_by: Vec<i32>,
}

/// A session that watches waits as fast as it can, and two that read and write unmaintained tables.
pub struct Watch {
    stop: tokio::sync::watch::Sender<bool>,
    waits: JoinHandle<Vec<(Wait, Duration)>>,
    others: Vec<JoinHandle<(i32, u32)>>,
}

const WAITS: &str = "
    SELECT l.pid, l.locktype, COALESCE(l.relation::regclass::text, ''), left(a.query, 500),
           GREATEST(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float8, l.waitstart, pg_blocking_pids(l.pid)
    FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.datname = current_database() AND a.backend_type = 'client backend'";

impl Watch {
    pub async fn start(database: &Database) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let watcher = database.connect().await;
        let until = stopped.clone();
        let waits = tokio::spawn(async move {
            let statement = watcher.prepare(WAITS).await.unwrap();
            // By the statement at the begin of the wait: at its end the session may have continued.
            let mut waits: BTreeMap<(i32, DateTime<Utc>), (Wait, Duration)> = BTreeMap::new();
            while !*until.borrow() {
                for row in watcher.query(&statement, &[]).await.unwrap() {
                    let (pid, kind, on, query) = (row.get(0), row.get(1), row.get(2), row.get(3));
                    let wait = Wait { pid, kind, on, query, blocked_by: row.get(6) };
                    let (_, longest) = waits.entry((wait.pid, row.get(5))).or_insert((wait, Duration::ZERO));
                    *longest = Duration::from_secs_f64(row.get(4)).max(*longest);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            waits.into_values().collect()
        });
        let mut others = Vec::new();
        for kind in 0..2 {
            others.push(other(database.connect().await, kind, stopped.clone()).await);
        }
        Self { stop, waits, others }
    }

    /// No reader or writer elsewhere waited for us, and all of them continued. Returns our waits, and their observed durations.
    pub async fn judge(self, ours: i32, what: &str) -> Vec<(Wait, Duration)> {
        self.stop.send(true).unwrap();
        let waits = self.waits.await.unwrap();
        for task in self.others {
            let (pid, statements) = task.await.unwrap();
            let of_us = |wait: &Wait| wait.kind == "relation" || wait.blocked_by.contains(&ours);
            let queued: Vec<_> = waits.iter().filter(|(wait, _)| wait.pid == pid && of_us(wait)).collect();
            assert!(queued.is_empty(), "{what}: others waited: {queued:?}");
            assert!(statements > 0, "{what}: others did nothing");
        }
        waits.into_iter().filter(|(wait, _)| wait.pid == ours).collect()
    }
}

/// Writes to the newest leaf, or reads another one, again and again. Answers how often.
async fn other(client: Client, kind: u8, stopped: tokio::sync::watch::Receiver<bool>) -> JoinHandle<(i32, u32)> {
    let pid = pid(&client).await;
    tokio::spawn(async move {
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
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (pid, number)
    })
}
