//! One set of indexes, measured several times: the indexer from its start to its last row, then the ruler.

use std::time::{Duration, Instant};

use dalp_tests::indexer::Running;
use tokio_postgres::Client;

use super::ruler::{Dump, Marks};
use super::servers::{Cpu, Servers};
use super::{Outcome, machine};

/// How often the checkpoint is looked at: it bounds the error of a run's time, at about 0.1 ms of CPU a look.
const LOOK: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(300);

/// Which indexes the tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// Those of the migrations.
    Default,
    /// Primary key and BRIN only.
    KeyOnly,
}

/// One case's figures.
pub struct Case {
    pub indexes: Indexes,
    /// Secondary indexes in force, with their kind.
    pub secondary: Vec<String>,
    pub runs: Vec<Run>,
}

/// One run, and the same rows copied raw.
pub struct Run {
    pub ingest: Ingest,
    pub marks: Marks,
}

/// What the indexer did with the whole chain.
pub struct Ingest {
    /// Where the rows are.
    database: String,
    /// Transfers indexed.
    pub events: u64,
    /// From the process's start to its last row.
    pub took: Duration,
    /// The indexer's largest resident memory, in bytes.
    pub peak_rss: u64,
    /// Seconds of CPU: the indexer's.
    pub cpu: f64,
    /// Seconds of CPU: the servers'.
    pub servers: Cpu,
    /// Leaves of both tables after it.
    pub leaves: i64,
}

/// Indexes the chain `runs` times, each time into a database of its own.
pub async fn ingest(servers: &mut Servers, indexes: Indexes, runs: u64) -> Outcome<Vec<Ingest>> {
    let mut done = Vec::new();
    for number in 1..=runs {
        let database = servers.database().await?;
        let client = servers.superuser(&database).await?;
        if indexes == Indexes::KeyOnly {
            drop_secondary(&client).await?;
        }
        let ingest = index(servers, database, &client).await?;
        let seconds = ingest.took.as_secs_f64();
        eprintln!("{indexes:?}, run {number}: {:.0} events/s in {seconds:.3} s", ingest.events as f64 / seconds);
        done.push(ingest);
    }
    Ok(done)
}

/// Lays the ruler to each run. Only when all runs are over: emptying a table deletes a thousand files, and some file
/// systems are slow to make new ones for half a minute after that.
pub async fn rule(servers: &Servers, indexes: Indexes, ingests: Vec<Ingest>) -> Outcome<Case> {
    let mut case = Case { indexes, secondary: Vec::new(), runs: Vec::new() };
    for ingest in ingests {
        let owner = servers.superuser(&ingest.database).await?;
        let writer = servers.writer(&ingest.database).await?;
        let marks = Dump::of(&owner).await?.measure(&owner, &writer).await?;
        eprintln!("{indexes:?}, ruler: {:.0} events/s", ingest.events as f64 / marks.both.as_secs_f64());
        case.secondary = secondary(&owner).await?;
        case.runs.push(Run { ingest, marks });
    }
    Ok(case)
}

async fn index(servers: &Servers, database: String, client: &Client) -> Outcome<Ingest> {
    let site = servers.site(&database);
    client.batch_execute("CHECKPOINT").await?;
    let before = servers.cpu()?;
    let began = Instant::now();
    let mut indexer = site.spawn();
    caught_up(client, &mut indexer, servers.head.0).await?;
    let took = began.elapsed();
    let after = servers.cpu()?;
    let (peak_rss, cpu) = (machine::peak_rss(indexer.pid())?, machine::cpu(indexer.pid())?);
    stop(&mut indexer).await?;
    verify(client, servers.emitted).await?;
    let leaves = client.query_one(LEAVES, &[]).await?.get(0);
    let used = Cpu { postgres: after.postgres - before.postgres, anvil: after.anvil - before.anvil };
    Ok(Ingest { database, events: servers.emitted, took, peak_rss, cpu, servers: used, leaves })
}

/// Waits until the checkpoint is block `head`.
pub async fn caught_up(client: &Client, indexer: &mut Running, head: u64) -> Outcome<()> {
    let began = Instant::now();
    let tail = client.prepare("SELECT tail_number FROM dalp_indexed.chain_state").await?;
    loop {
        let number = client.query_opt(&tail, &[]).await?.map(|row| row.get::<_, i64>(0));
        if number.is_some_and(|number| u64::try_from(number).is_ok_and(|number| number >= head)) {
            return Ok(());
        }
        if !indexer.is_running() {
            return Err(format!("the indexer ended at checkpoint {number:?}:\n{}", indexer.log()).into());
        }
        if began.elapsed() > LIMIT {
            return Err(format!("the checkpoint is {number:?} after {LIMIT:?}, not {head}:\n{}", indexer.log()).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends the indexer in order; a failing end is a failing run.
pub async fn stop(indexer: &mut Running) -> Outcome<()> {
    let status = indexer.stop().await;
    if status.success() { Ok(()) } else { Err(format!("the indexer ended with {status}:\n{}", indexer.log()).into()) }
}

/// Every emitted transfer once, typed and raw.
pub async fn verify(client: &Client, emitted: u64) -> Outcome<()> {
    let counts = client.query_one(COUNTS, &[]).await?;
    let counts: [i64; 4] = std::array::from_fn(|at| counts.get(at));
    if counts.iter().all(|count| u64::try_from(*count) == Ok(emitted)) {
        return Ok(());
    }
    let [rows, distinct, logs, distinct_logs] = counts;
    Err(format!("{emitted} transfers emitted, {rows} stored ({distinct} distinct), raw {logs} ({distinct_logs})")
        .into())
}

const COUNTS: &str = "SELECT (SELECT count(*) FROM dalp_indexed.erc20_transfer), \
                      (SELECT count(*) FROM (SELECT DISTINCT block_number, log_index FROM dalp_indexed.erc20_transfer) t), \
                      (SELECT count(*) FROM dalp_indexed.logs), \
                      (SELECT count(*) FROM (SELECT DISTINCT block_number, log_index FROM dalp_indexed.logs) l)";
const LEAVES: &str = "SELECT sum(leaves)::int8 FROM (SELECT count(*) AS leaves FROM pg_partition_tree('dalp_indexed.logs') \
                      WHERE isleaf UNION ALL SELECT count(*) FROM pg_partition_tree('dalp_indexed.erc20_transfer') WHERE isleaf) t";

/// Names of the partitioned tables' secondary indexes, each with its kind.
async fn secondary(client: &Client) -> Outcome<Vec<String>> {
    let rows = client.query(SECONDARY, &[]).await?;
    Ok(rows.iter().map(|row| format!("{} ({})", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

/// Drops those that are not BRIN, before there is any leaf.
async fn drop_secondary(client: &Client) -> Outcome<()> {
    for row in client.query(SECONDARY, &[]).await? {
        if row.get::<_, &str>(1) != "brin" {
            client.batch_execute(&format!("DROP INDEX dalp_indexed.{}", row.get::<_, &str>(0))).await?;
        }
    }
    Ok(())
}

const SECONDARY: &str = "SELECT i.relname::text, a.amname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
                         JOIN pg_am a ON a.oid = i.relam WHERE NOT x.indisprimary AND i.relkind = 'I' AND x.indrelid IN \
                         ('dalp_indexed.logs'::regclass, 'dalp_indexed.erc20_transfer'::regclass) ORDER BY 1";
