//! The delay of a writer and two readers at full speed while leaves are made, detached and dropped twice a second.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use dalp_partitions::{Act, Need, ensure, extend};

use super::options::Options;
use super::setup::{KEY, Server, copied, day, logs, policy};
use super::stats::quantile;
use super::traffic::{Role, Sample, Traffic, during};
use super::way::{Way, ours};

const ROLES: [(&str, Role); 3] = [
    ("writer: COPY of 500 rows", Role::Writer(500)),
    ("reader: point query", Role::Point),
    ("reader: newest 50 of a contract", Role::History),
];
/// Days that lie between the old ones and those in use.
const GAP: i64 = 10;
/// From one leaf made ahead to the next, and from one old leaf that goes to the next: so many that much more than one in a hundred
/// samples meets them, and that two cores that the others keep busy have time for them.
const PACE: Duration = Duration::from_millis(500);
/// Old days for a second.
const PER_SECOND: i64 = 2;

pub async fn measure(server: &Server, options: &Options) -> String {
    let span = Duration::from_secs(options.seconds);
    let old = i64::try_from(options.seconds).unwrap_or_default() * PER_SECOND;
    let database = server.database(20_000).await;
    prepare(server, &database, old).await;
    let roles: Vec<Role> = ROLES.iter().map(|(_, role)| *role).collect();

    let traffic = Traffic::start(server, &database, Way::Ours.table(), &roles, Duration::ZERO).await;
    let from = Instant::now();
    tokio::time::sleep(span).await;
    let to = Instant::now();
    let samples = traffic.end().await;
    let alone: Vec<Vec<f64>> = samples.iter().map(|samples| during(samples, from, to)).collect();

    let traffic = Traffic::start(server, &database, Way::Ours.table(), &roles, Duration::ZERO).await;
    let from = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let making = tokio::spawn(make(server.manager(&database).await, stop.clone()));
    let retiring = tokio::spawn(retire_all(server.manager(&database).await, old, stop.clone()));
    let reader = server.connect(&database).await;
    tokio::time::sleep(span / 3).await;
    let opened = Instant::now();
    reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    tokio::time::sleep((span / 3).saturating_sub(opened.elapsed())).await;
    reader.batch_execute("ROLLBACK").await.unwrap();
    let closed = Instant::now();
    tokio::time::sleep(span.saturating_sub(from.elapsed())).await;
    stop.store(true, Ordering::Relaxed);
    let (made, retired) = (making.await.unwrap(), retiring.await.unwrap());
    let to = Instant::now();
    let samples = traffic.end().await;
    assert!(made > 0 && retired > 0, "{made} leaves made, {retired} dropped");
    report(span, &alone, &samples, [from, to, opened, closed], [made, retired])
}

/// Days in use, and old ones of a thousand rows.
async fn prepare(server: &Server, database: &str, old: i64) {
    let client = server.connect(database).await;
    let mut manager = server.manager(database).await;
    ensure(&mut manager, &logs(), KEY, &policy(), Utc::now(), &Need::rows((-2..=2).map(day))).await.unwrap();
    let days: Vec<i64> = (0..old).map(|at| at - old - GAP).collect();
    for days in days.chunks(64) {
        ensure(&mut manager, &logs(), KEY, &policy(), Utc::now(), &Need::rows(days.iter().copied().map(day)))
            .await
            .unwrap();
        for at in days {
            client.batch_execute(&copied("dalp_indexed.logs", day(*at), 1_000)).await.unwrap();
        }
    }
    client.batch_execute(&copied("dalp_indexed.logs", day(-1), 20_000)).await.unwrap();
    client.batch_execute("VACUUM ANALYZE dalp_indexed.logs").await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
    ours(&mut manager, old + 2 * GAP).await;
}

/// One leaf after the other ahead of today.
async fn make(mut manager: tokio_postgres::Client, stop: Arc<AtomicBool>) -> usize {
    let mut catalog = dalp_partitions::read(&mut manager, &logs(), KEY).await.unwrap();
    let mut made = 0;
    for ahead in 3.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (began, need) = (Instant::now(), Need::rows([day(ahead)]));
        let report = extend(&mut manager, &logs(), KEY, &policy(), Utc::now(), &need, catalog).await.unwrap();
        (made, catalog) = (made + report.created.len(), report.catalog);
        tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await;
    }
    made
}

/// One old leaf after the other.
async fn retire_all(mut manager: tokio_postgres::Client, old: i64, stop: Arc<AtomicBool>) -> usize {
    let mut dropped = 0;
    for gone in 1..=old {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let outcome = ours(&mut manager, old + GAP - gone).await;
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        dropped += outcome.done.iter().filter(|done| done.act == Act::Drop).count();
        tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await;
    }
    dropped
}

fn report(
    span: Duration,
    alone: &[Vec<f64>],
    samples: &[Vec<Sample>],
    [from, to, opened, closed]: [Instant; 4],
    [made, retired]: [usize; 2],
) -> String {
    let mut text = format!(
        "| at full speed for {} s, ms | alone: p50 | p99 | max | beside {made} leaves made, {retired} retired and dropped: p50 | p99 | max | \
         **added to p99 (bar: 5)** | while the long reader is open: p50 | p99 | max |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        span.as_secs()
    );
    for (((name, _), alone), samples) in ROLES.iter().zip(alone).zip(samples) {
        let (beside, long) = (during(samples, from, to), during(samples, opened, closed));
        let tails = |values: &[f64]| {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(values, share));
            format!("{p50:.2} | {p99:.2} | {max:.1}")
        };
        let added = quantile(&beside, 0.99) - quantile(alone, 0.99);
        let _ = writeln!(text, "| {name} | {} | {} | {added:.2} | {} |", tails(alone), tails(&beside), tails(&long));
    }
    text
}
