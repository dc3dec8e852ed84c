//! What a writer and readers at full speed notice of leaves being made, detached and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use dalp_partitions::{Need, ensure};

use super::retire::ours;
use super::setup::{KEY, Server, copied, day, logs, policy};
use super::{Options, ms};

/// Latencies of a writer and of two readers.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Vec<f64>>>,
}

impl Load {
    async fn start(server: &Server, database: &str, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (today, yesterday, tomorrow) = (day(0).to_rfc3339(), day(-1).to_rfc3339(), day(0).to_rfc3339());
        let write = format!(
            "INSERT INTO dalp_indexed.logs SELECT {KEY}, '{today}'::timestamptz + interval '1 hour', $N::int8 * 100 + i, 0, 0, '', '', '', '', '', '', '', '' \
             FROM generate_series(1, 100) AS i"
        );
        let point = format!(
            "SELECT count(*) FROM dalp_indexed.logs WHERE chain_id = {KEY} AND block_time >= '{yesterday}' AND block_time < '{tomorrow}' \
             AND block_number = $N % 100"
        );
        let mut tasks = Vec::new();
        for sql in [write, point.clone(), point] {
            let (client, stop) = (server.connect(database).await, stop.clone());
            tasks.push(tokio::spawn(async move {
                let (mut times, mut number) = (Vec::new(), first);
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let began = Instant::now();
                    client.batch_execute(&sql.replace("$N", &number.to_string())).await.unwrap();
                    times.push(ms(began.elapsed()));
                }
                times
            }));
        }
        Self { stop, tasks }
    }

    async fn end(self) -> Vec<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            let mut times = task.await.unwrap();
            times.sort_by(f64::total_cmp);
            all.push(times);
        }
        all
    }
}

fn at(times: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = ((times.len() - 1) as f64 * share) as usize;
    times[index]
}

pub async fn measure(server: &Server, options: &Options) {
    let database = server.database(if options.smoke { 2_000 } else { 20_000 }).await;
    let mut client = server.connect(&database).await;
    let span = Duration::from_secs(options.seconds);
    let recent = Need::rows((-3..=2).map(day));
    ensure(&mut client, &logs(), KEY, &policy(), Utc::now(), &recent).await.unwrap();
    client.batch_execute(&copied("dalp_indexed.logs", day(-1), 20_000)).await.unwrap();

    let load = Load::start(server, &database, 0).await;
    tokio::time::sleep(span).await;
    let quiet = load.end().await;
    // Old days made, filled, retired, detached and dropped, one after the other; a session that read everything stays open half the time.
    let load = Load::start(server, &database, 10_000_000).await;
    let (began, mut days) = (Instant::now(), 0);
    while began.elapsed() < span {
        let reader = server.connect(&database).await;
        if days % 2 == 1 {
            reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
        }
        let old = -100 - days;
        ensure(&mut client, &logs(), KEY, &policy(), Utc::now(), &Need::rows([day(old)])).await.unwrap();
        client.batch_execute(&copied("dalp_indexed.logs", day(old), 1_000)).await.unwrap();
        let ended = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            reader.batch_execute("ROLLBACK").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(ours(&mut client), ended);
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        days += 1;
    }
    let busy = load.end().await;
    println!(
        "## Others at full speed for {} s, without and with {days} leaves made, detached and dropped\n",
        span.as_secs()
    );
    println!(
        "| who | p50 alone, ms | p50 beside, ms | p99 alone, ms | p99 beside, ms | added to p99, ms (bar 5) | longest alone, ms | longest beside, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (who, (quiet, busy)) in ["writer", "reader", "reader"].into_iter().zip(quiet.iter().zip(&busy)) {
        let figures = [0.5, 0.99, 1.0].map(|share| (at(quiet, share), at(busy, share)));
        let [(p50, p50_busy), (p99, p99_busy), (longest, longest_busy)] = figures;
        println!(
            "| {who} | {p50:.2} | {p50_busy:.2} | {p99:.2} | {p99_busy:.2} | {:.2} | {longest:.1} | {longest_busy:.1} |",
            p99_busy - p99
        );
    }
    println!();
}
