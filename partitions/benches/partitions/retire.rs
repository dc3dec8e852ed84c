//! One day of rows goes: by us, by DELETE, by pg_partman.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use dalp_partitions::{Fate, Need, Outcome, Reference, Retention, Switches, Terms, ensure, retire};
use tokio_postgres::Client;

use super::setup::{KEY, Server, copied, day, logs, one, policy};
use super::{Options, ms, spread};

/// What one way of removing a day cost.
struct Cost {
    work: Duration,
    wal: f64,
}

/// The longest that a writer of the newest leaf and a reader of another one waited.
pub struct Others {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Duration>>,
}

impl Others {
    pub async fn start(server: &Server, database: &str, table: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (today, yesterday) = (day(0).to_rfc3339(), day(-1).to_rfc3339());
        let write = format!(
            "INSERT INTO {table} SELECT {KEY}, '{today}'::timestamptz + interval '1 hour', $N::int8 * 100 + i, 0, 0, '', '', '', '', '', '', '', '' \
             FROM generate_series(1, 100) AS i"
        );
        let read = format!(
            "SELECT count(*) FROM {table} WHERE chain_id = {KEY} AND block_time = '{yesterday}' AND block_number = $N::int8"
        );
        let mut tasks = Vec::new();
        for sql in [write, read] {
            let (client, stop) = (server.connect(database).await, stop.clone());
            tasks.push(tokio::spawn(async move {
                // Rows of an earlier round stay.
                let (mut longest, mut number) = (Duration::ZERO, u64::from(rand::random::<u32>()));
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let began = Instant::now();
                    client.batch_execute(&sql.replace("$N", &number.to_string())).await.unwrap();
                    longest = longest.max(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                longest
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Self { stop, tasks }
    }

    /// Of the writer, and of the reader.
    pub async fn longest(self) -> (f64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Vec::new();
        for task in self.tasks {
            longest.push(ms(task.await.unwrap()));
        }
        (longest[0], longest[1])
    }
}

/// A way of removing the oldest day.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Ours,
    Delete,
    Partman,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "detach concurrently + drop (ours)",
            Self::Delete => "DELETE + VACUUM",
            Self::Partman => "pg_partman",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Ours => "dalp_indexed.logs",
            Self::Delete => "public.deleted",
            Self::Partman => "public.partman_logs",
        }
    }
}

const DAYS: std::ops::RangeInclusive<i64> = -5..=1;

/// The tables of the other two: as ours, but without a list level.
async fn others(client: &mut Client, ways: &[Way]) {
    for way in ways.iter().filter(|way| **way != Way::Ours) {
        let table = way.table();
        let make = format!(
            "CREATE TABLE {table} (LIKE dalp_indexed.logs INCLUDING DEFAULTS, PRIMARY KEY (chain_id, block_time, block_number, log_index)) \
               PARTITION BY RANGE (block_time); \
             CREATE INDEX ON {table} (address, topic0, block_time); CREATE INDEX ON {table} (tx_hash)"
        );
        client.batch_execute(&make).await.unwrap();
    }
    if ways.contains(&Way::Partman) {
        let parent = format!(
            "CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman; \
             SELECT partman.create_parent('public.partman_logs', 'block_time', 'native', 'daily', p_premake := 2, \
                                          p_start_partition := '{}'); \
             UPDATE partman.part_config SET retention = '4 days', retention_keep_table = false, infinite_time_partitions = true",
            day(-5).format("%Y-%m-%d")
        );
        client.batch_execute(&parent).await.unwrap();
    }
}

/// A day of rows that is over, and its neighbours.
async fn fill(client: &mut Client, way: Way, rows: u32) {
    match way {
        Way::Ours => {
            let days: Vec<DateTime<Utc>> = DAYS.map(day).collect();
            ensure(client, &logs(), KEY, &policy(), Utc::now(), &Need::rows(days)).await.unwrap();
        }
        Way::Delete => {
            for from in DAYS {
                let name = format!("public.deleted_{}", from + 10);
                let (from, to) = (day(from).to_rfc3339(), day(from + 1).to_rfc3339());
                let make = format!(
                    "CREATE TABLE IF NOT EXISTS {name} PARTITION OF public.deleted FOR VALUES FROM ('{from}') TO ('{to}')"
                );
                client.batch_execute(&make).await.unwrap();
            }
        }
        Way::Partman => {
            let again = format!(
                "SELECT partman.create_partition_time('public.partman_logs', ARRAY['{}'::timestamptz])",
                day(-5).to_rfc3339()
            );
            client.batch_execute(&again).await.unwrap();
        }
    }
    client.batch_execute(&copied(way.table(), day(-5), rows)).await.unwrap();
    client.batch_execute(&format!("ANALYZE {}", way.table())).await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

/// As the indexer does it, with four days kept.
pub(crate) async fn ours(client: &mut Client) -> Outcome {
    let (keep, grace) = (TimeDelta::days(4), TimeDelta::zero());
    let retention = Retention { fate: Fate::Drop, keep, grace, max_leaves: 1_000, max_share: 1.0 };
    let terms = Terms {
        retention: &retention,
        switches: Switches::ALL,
        reference: &Reference::Now,
        can_archive: false,
        allow_many: true,
    };
    retire(client, &logs(), &terms, None).await.unwrap()
}

async fn remove(client: &mut Client, way: Way) -> Option<Outcome> {
    match way {
        Way::Ours => return Some(ours(client).await),
        Way::Delete => {
            let delete = format!("DELETE FROM public.deleted WHERE block_time < '{}'", day(-4).to_rfc3339());
            client.batch_execute(&delete).await.unwrap();
            client.batch_execute("VACUUM public.deleted_5").await.unwrap();
        }
        Way::Partman => {
            client.batch_execute("SELECT partman.run_maintenance('public.partman_logs')").await.unwrap();
        }
    }
    None
}

async fn cost(client: &mut Client, way: Way) -> (Cost, Option<Outcome>) {
    let before = one(client, "SELECT pg_current_wal_insert_lsn()::text").await;
    let began = Instant::now();
    let outcome = remove(client, way).await;
    let work = began.elapsed();
    let wal = one(client, &format!("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')::text")).await;
    (Cost { work, wal: wal.parse::<f64>().unwrap() / 1e6 }, outcome)
}

pub async fn measure(server: &Server, options: &Options) {
    let (rows, runs) = if options.smoke { (20_000, 1) } else { (1_000_000, 3) };
    let database = server.database(rows).await;
    let mut client = server.connect(&database).await;
    let has_partman =
        one(&client, "SELECT count(*)::text FROM pg_available_extensions WHERE name = 'pg_partman'").await == "1";
    let mut ways = vec![Way::Ours, Way::Delete];
    ways.extend(has_partman.then_some(Way::Partman));
    others(&mut client, &ways).await;
    println!("## One day of {rows} rows goes\n");
    println!(
        "| way | work, ms | WAL, MB | writer waited, ms | reader waited, ms | with a reader open: writer, ms | reader, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (mut wals, mut steps) = (Vec::new(), Vec::new());
    for way in ways {
        let (mut works, mut wal) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            fill(&mut client, way, rows).await;
            let (cost, outcome) = cost(&mut client, way).await;
            works.push(ms(cost.work));
            wal.push(cost.wal);
            if let Some(outcome) = outcome {
                assert!(outcome.failed.is_empty() && outcome.done.len() == 4, "{outcome:?}");
                steps = outcome.done;
            }
        }
        fill(&mut client, way, rows).await;
        let about = Others::start(server, &database, way.table()).await;
        remove(&mut client, way).await;
        let (writer, reader) = about.longest().await;
        let (held_writer, held_reader) = beside_reader(server, &database, &mut client, way, rows).await;
        wals.push(wal.clone());
        println!(
            "| {} | {} | {} | {writer:.1} | {reader:.1} | {held_writer:.1} | {held_reader:.1} |",
            way.name(),
            spread(works),
            spread(wal)
        );
    }
    if !has_partman {
        println!("| pg_partman | not installed: apt-get install postgresql-15-partman | | | | | |");
    }
    let middle = |wal: &[f64]| wal[wal.len() / 2];
    println!(
        "\nours writes {:.2} % of DELETE's WAL (bar 1 %, and 200 ms of work)\n",
        100.0 * middle(&wals[0]) / middle(&wals[1])
    );
    let steps: Vec<String> = steps.iter().map(|done| format!("{} {:.1} ms", done.act.word(), ms(done.took))).collect();
    println!("of which: {}\n", steps.join(", "));
    assert!(middle(&wals[0]) < middle(&wals[1]), "{wals:?}");
}

/// The same while a session has read the whole table and does not end for five seconds.
async fn beside_reader(server: &Server, database: &str, client: &mut Client, way: Way, rows: u32) -> (f64, f64) {
    fill(client, way, rows).await;
    let reader = server.connect(database).await;
    reader.batch_execute(&format!("BEGIN; SELECT count(*) FROM {}", way.table())).await.unwrap();
    let about = Others::start(server, database, way.table()).await;
    // Ours sets its own limits; the others wait as a job without any would.
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await.unwrap();
    let ended = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        reader.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(remove(client, way), ended);
    let waited = about.longest().await;
    remove(client, way).await;
    waited
}
