//! The cost of a reorg for the database, by table size: unwinding the orphaned branch and appending the new one.
//!
//! `cargo bench -p dalp-tests --bench reorg -- [--smoke] [--rows N]` fills durable tables with N rows (default 1,000,000 and then
//! 10,000,000 in all), and prints the medians of a shallow and a deep reorg at each size.

#[path = "ingest/cluster.rs"]
mod cluster;
#[path = "counts/made.rs"]
mod made;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Cluster, Settings};
use dalp_indexer::chain::machine::Tail;
use dalp_indexer::dataset::Sorted;
use dalp_indexer::maintenance::Leaves;
use dalp_indexer::store::append::Lane;
use dalp_indexer::store::{Claim, Store};
use dalp_tests::stage::ADMIN;
use tokio_postgres::Client;

use self::cluster::{SUPERUSER, TEMPLATE, connect, prepare};
use self::made::CHAIN;

/// Why the benchmark has no result.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

/// Blocks of one batch of the tail, as near the head.
const BATCH: u64 = 32;
const RUNS: usize = 7;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => vec![1_000_000, 10_000_000],
        ["--smoke"] => vec![20_000],
        ["--rows", rows] if rows.parse::<u64>().is_ok() => vec![rows.parse().unwrap_or(0)],
        _ => {
            eprintln!("options: --smoke, --rows N");
            return ExitCode::from(2);
        }
    };
    match dalp_tests::run(bench(rows)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("no result: {failure}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(sizes: Vec<u64>) -> Outcome<()> {
    let tools = tools::postgres(say_stderr).await?;
    let mut cluster = Cluster::temporary(&tools, Settings::bench()).await?;
    prepare(&mut cluster).await?;
    let database = "bench_reorg";
    let superuser = connect(&cluster, SUPERUSER, SUPERUSER).await?;
    superuser.batch_execute(&format!("CREATE DATABASE {database} TEMPLATE {TEMPLATE} OWNER {ADMIN}")).await?;
    let mut chain = Chain::open(&cluster, database).await?;
    println!(
        "| rows stored | reorg | unwind | append | together (median of {RUNS}) | max |\n|---|---|---|---|---|---|"
    );
    for rows in sizes {
        chain.fill(rows).await?;
        for (depth, rows) in [(3, 60), (64, 64_000)] {
            chain.measure(depth, rows).await?;
        }
    }
    drop(chain);
    Ok(cluster.stop().await?)
}

struct Chain {
    store: Store,
    claim: Claim,
    owner: Client,
    leaves: Leaves,
    tail: Tail,
    rows: u64,
    forks: u64,
}

impl Chain {
    async fn open(cluster: &Cluster, database: &str) -> Outcome<Self> {
        let owner = connect(cluster, database, SUPERUSER).await?;
        let site = cluster::site(cluster, database);
        let leaves = Leaves::open(&site.config()).await?;
        let (store, _, claim) = made::lead(&site).await?;
        Ok(Self { store, claim, owner, leaves, tail: Tail { next: 0, hash: None }, rows: 0, forks: 0 })
    }

    /// Appends blocks of 1,000 rows (500 logs, each decoded once) until there are `rows`.
    async fn fill(&mut self, rows: u64) -> Outcome<()> {
        while self.rows < rows {
            let blocks = ((rows - self.rows) / 1_000).clamp(1, 20);
            self.append(blocks, 500).await?;
            self.rows += blocks * 1_000;
            if self.rows.is_multiple_of(500_000) {
                eprintln!("{} rows", self.rows);
            }
        }
        for statement in
            ["VACUUM ANALYZE dalp_indexed.logs", "VACUUM ANALYZE dalp_indexed.erc20_transfer", "CHECKPOINT"]
        {
            self.owner.batch_execute(statement).await?;
        }
        Ok(())
    }

    async fn append(&mut self, blocks: u64, logs: u64) -> Outcome<()> {
        let batch = self.batch(blocks, logs)?;
        // As the indexer makes them near the head: with all indexes of the shipped configuration.
        self.leaves.cover(CHAIN, &batch, &self.store.floors(CHAIN)).await?;
        self.commit(&batch).await
    }

    async fn commit(&mut self, batch: &Sorted) -> Outcome<()> {
        let lane = Lane::Tail { on: self.tail, finalized: None };
        self.store.append(&self.claim, batch, lane).await?;
        self.tail = Tail::after(batch.link().last);
        Ok(())
    }

    fn batch(&self, blocks: u64, logs: u64) -> Outcome<Sorted> {
        made::batch(self.forks, self.tail, blocks, logs)
    }

    /// Orphans the newest `depth` blocks, which hold `rows` rows, again and again.
    async fn measure(&mut self, depth: u64, rows: u64) -> Outcome<()> {
        let base = self.tail;
        let logs = rows / depth / 2;
        for _ in 0..depth.div_ceil(BATCH) {
            self.append(depth.min(BATCH), logs).await?;
        }
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            self.store.unwind(&self.claim, self.tail, base).await?;
            let unwound = began.elapsed();
            self.tail = base;
            self.forks += 1;
            let mut appended = Duration::ZERO;
            for _ in 0..depth.div_ceil(BATCH) {
                let batch = self.batch(depth.min(BATCH), logs)?;
                let began = Instant::now();
                self.commit(&batch).await?;
                appended += began.elapsed();
            }
            times.push((unwound + appended, unwound, appended));
        }
        times.sort_unstable();
        let (together, unwind, append) = times[RUNS / 2];
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let max = ms(times[RUNS - 1].0);
        let stored: i64 = self.owner.query_one(COUNT, &[]).await?.get(0);
        println!(
            "| {stored} | {depth} blocks, {rows} rows | {} | {} | {} | {max} |",
            ms(unwind),
            ms(append),
            ms(together)
        );
        Ok(())
    }
}

const COUNT: &str =
    "SELECT (SELECT count(*) FROM dalp_indexed.logs) + (SELECT count(*) FROM dalp_indexed.erc20_transfer)";
