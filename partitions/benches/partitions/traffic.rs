//! A writer and readers beside the measured work, and the duration of each of their statements.

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::setup::{KEY, Server, day};
use super::stats::ms;

/// No row is written twice in any run.
static BLOCK: AtomicU64 = AtomicU64::new(100_000_000);

/// How one client of the traffic behaves.
#[derive(Clone, Copy)]
pub enum Role {
    /// Copies so many rows at a time into the newest leaf, through the parent.
    Writer(u64),
    /// Looks up one block's rows of yesterday, by chain and times.
    Point,
    /// One contract's newest events of yesterday.
    History,
}

/// One statement.
#[derive(Clone, Copy)]
pub struct Sample {
    pub began: Instant,
    pub took: Duration,
}

/// Clients at work.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Sample>>>,
}

impl Traffic {
    /// Each on a connection of its own; they rest between two statements, or do not.
    pub async fn start(server: &Server, database: &str, table: &str, roles: &[Role], rest: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for role in roles.iter().copied() {
            let (client, stop, table) = (server.connect(database).await, stop.clone(), table.to_owned());
            tasks.push(tokio::spawn(async move {
                let mut samples = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    once(&client, &table, role).await;
                    samples.push(Sample { began, took: began.elapsed() });
                    if !rest.is_zero() {
                        tokio::time::sleep(rest).await;
                    }
                }
                samples
            }));
        }
        // The caches that a first statement fills are not measured.
        tokio::time::sleep(Duration::from_millis(300)).await;
        Self { stop, tasks }
    }

    /// The observations of each client, in the order of their roles.
    pub async fn end(self) -> Vec<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.push(task.await.unwrap());
        }
        all
    }
}

/// Of statements that were under way between two times, in ms.
pub fn during(samples: &[Sample], from: Instant, to: Instant) -> Vec<f64> {
    let within = samples.iter().filter(|sample| sample.began < to && sample.began + sample.took > from);
    within.map(|sample| ms(sample.took)).collect()
}

async fn once(client: &Client, table: &str, role: Role) {
    let block = BLOCK.fetch_add(1, Ordering::Relaxed);
    let (yesterday, today) = (day(-1).to_rfc3339(), day(0).to_rfc3339());
    match role {
        Role::Writer(rows) => write(client, table, block, rows).await,
        Role::Point => {
            let sql = format!(
                "SELECT * FROM {table} WHERE chain_id = {KEY} AND block_time >= '{yesterday}' AND block_time < '{today}' \
                 AND block_time = '{yesterday}'::timestamptz + interval '864 s' AND block_number = {}",
                block % 100
            );
            client.batch_execute(&sql).await.unwrap();
        }
        Role::History => {
            let sql = format!(
                "SELECT * FROM {table} WHERE chain_id = {KEY} AND block_time >= '{yesterday}' AND block_time < '{today}' \
                 AND address = substr(sha256(('c' || {})::bytea), 1, 20) AND topic0 = sha256('e0'::bytea) \
                 ORDER BY block_time DESC LIMIT 50",
                block % 100
            );
            client.batch_execute(&sql).await.unwrap();
        }
    }
}

async fn write(client: &Client, table: &str, block: u64, rows: u64) {
    let time = day(0) + chrono::TimeDelta::milliseconds(i64::try_from(block % 80_000_000).unwrap_or_default());
    let (time, hash) = (time.to_rfc3339(), format!("{block:064x}"));
    let mut text = String::new();
    for row in 0..rows {
        let (tx, address) = (format!("{:064x}", (block << 16 | row).reverse_bits()), format!("{:040x}", row % 300));
        let _ = writeln!(
            text,
            "{KEY}\t{time}\t{block}\t{row}\t{row}\t\\\\x{hash}\t\\\\x{tx}\t\\\\x{address}\t\\\\x{hash}\t\\\\x{tx}\t\\\\x{hash}\t\\N\t\\\\x{hash}"
        );
    }
    let sink = client.copy_in(&format!("COPY {table} FROM STDIN")).await.unwrap();
    let mut sink = pin!(sink);
    sink.send(bytes::Bytes::from(text)).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), rows);
}
