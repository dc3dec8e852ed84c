//! One node and one set of settings, measured several times: the indexer from its start to its last row, then the ruler.

use std::time::{Duration, Instant};

use dalp_tests::indexer::Running;
use tokio_postgres::Client;

use super::node::Node;
use super::options::{Indexes, Options};
use super::ruler::{Dump, Marks};
use super::servers::Servers;
use super::{Outcome, machine};

/// How often what is stored is looked at: it bounds the error of a run's time, at about half a millisecond of CPU a look.
const LOOK: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(600);

/// One case's figures.
pub struct Case {
    /// Its node, and what is stored.
    pub name: String,
    pub runs: Vec<Run>,
}

/// One run, and the same rows copied raw.
pub struct Run {
    pub ingest: Ingest,
    pub marks: Marks,
}

/// A case whose ruler is not measured yet.
pub struct Indexed {
    name: String,
    raw: bool,
    indexes: Indexes,
    /// Each with the database that it is in.
    runs: Vec<(String, Ingest)>,
}

/// What the indexer did with the whole chain.
#[derive(Debug)]
pub struct Ingest {
    /// Transfers indexed.
    pub events: u64,
    /// Blocks indexed.
    pub blocks: u64,
    /// From the process's start to its last row.
    pub took: Duration,
    /// From there to the last of the indexes that were left off while loading.
    pub served: Option<Duration>,
    /// The indexer's largest resident memory at its last row, in bytes.
    pub peak_rss: u64,
    /// Seconds of CPU from start to last row: the indexer's, PostgreSQL's, the node's.
    pub cpu: [f64; 3],
    /// Leaves of both tables.
    pub leaves: i64,
    /// Bytes of both tables with their indexes, when served.
    pub bytes: i64,
    /// Requests to the node: all, and those for logs; where it counts them.
    pub requests: Option<[u64; 2]>,
}

/// Indexes the chain of `node` as often as asked, each time into a database of its own.
pub async fn index(servers: &mut Servers, node: &Node, raw: bool, options: &Options) -> Outcome<Indexed> {
    let name = format!("{}, {}", node.name, if raw { "raw + typed" } else { "typed" });
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        let database = servers.database().await?;
        if options.indexes == Indexes::Kept {
            servers.superuser(&database).await?.batch_execute(KEEP).await?;
        }
        let ingest = ingest(servers, node, &database, raw, options).await?;
        let rate = ingest.events as f64 / ingest.took.as_secs_f64();
        eprintln!("{name}, run {number}: {rate:.0} events/s, {:.2} s", ingest.took.as_secs_f64());
        runs.push((database, ingest));
    }
    Ok(Indexed { name, raw, indexes: options.indexes, runs })
}

/// Lays the ruler to each run. Only when all cases are indexed: emptying a table deletes a thousand files, and some file
/// systems are slow to make new ones for half a minute after that.
pub async fn rule(servers: &Servers, indexed: Indexed) -> Outcome<Case> {
    let mut case = Case { name: indexed.name, runs: Vec::new() };
    for (database, ingest) in indexed.runs {
        let (owner, writer) = (servers.superuser(&database).await?, servers.writer(&database).await?);
        if indexed.indexes == Indexes::Shipped {
            owner.batch_execute(DROP_SECONDARY).await?;
        }
        let marks = Dump::of(&owner, indexed.raw).await?.measure(&owner, &writer).await?;
        eprintln!("{}, ruler: {:.0} events/s", case.name, ingest.events as f64 / marks.ruler().as_secs_f64());
        case.runs.push(Run { ingest, marks });
    }
    Ok(case)
}

async fn ingest(servers: &Servers, node: &Node, database: &str, raw: bool, options: &Options) -> Outcome<Ingest> {
    let mut site = servers.site(database, node);
    if !raw {
        site = site.with("raw = false");
    }
    if let Some(workers) = options.workers {
        site = site.with(&format!("backfill_workers = {workers}"));
    }
    if options.indexes != Indexes::Shipped {
        site.more.push_str("[indexes]\nlogs = []\nerc20_transfer = []\n");
    }
    let client = servers.superuser(database).await?;
    client.batch_execute("CHECKPOINT").await?;
    let asked = node.counts().await?;
    let before = [0.0, servers.cpu()?, machine::cpu(node.pid)?];
    let began = Instant::now();
    let mut indexer = site.spawn();
    caught_up(&client, &mut indexer, node.head.0).await?;
    let took = began.elapsed();
    let after = [machine::cpu(indexer.pid())?, servers.cpu()?, machine::cpu(node.pid)?];
    let peak_rss = machine::peak_rss(indexer.pid())?;
    let requests = node.counts().await?.zip(asked);
    let requests = requests.map(|(now, then)| [now.requests - then.requests, now.log_requests - then.log_requests]);
    let served = match options.indexes {
        Indexes::Shipped => Some(indexed(&client, &mut indexer, began).await? - took),
        _ => None,
    };
    stop(&mut indexer).await?;
    verify(&client, node.transfers, raw).await?;
    let sizes = client.query_one(SIZES, &[]).await?;
    Ok(Ingest {
        events: node.transfers,
        blocks: node.head.0 + 1,
        took,
        served,
        peak_rss,
        cpu: std::array::from_fn(|at| after[at] - before[at]),
        leaves: sizes.get(0),
        bytes: sizes.get(1),
        requests,
    })
}

/// Waits until all blocks up to `head` are stored.
pub async fn caught_up(client: &Client, indexer: &mut Running, head: u64) -> Outcome<()> {
    wait(client, indexer, &format!("{PROGRESS} WHERE gap_blocks = 0 AND tail_number >= {head}"), LOOK).await
}

/// Waits until each leaf has the indexes of the shipped configuration, and tells when that was.
async fn indexed(client: &Client, indexer: &mut Running, began: Instant) -> Outcome<Duration> {
    wait(client, indexer, INDEXED, LOOK * 10).await?;
    Ok(began.elapsed())
}

/// Waits until `question` has a row.
async fn wait(client: &Client, indexer: &mut Running, question: &str, look: Duration) -> Outcome<()> {
    let (began, question) = (Instant::now(), client.prepare(question).await?);
    while client.query_opt(&question, &[]).await?.is_none() {
        if !indexer.is_running() {
            return Err(format!("the indexer ended:\n{}", indexer.log()).into());
        }
        if began.elapsed() > LIMIT {
            let state = client.query_opt(&format!("{PROGRESS} LIMIT 1"), &[]).await?;
            let state = state.map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1)));
            return Err(format!("tail and gaps are {state:?} after {LIMIT:?}:\n{}", indexer.log()).into());
        }
        tokio::time::sleep(look).await;
    }
    Ok(())
}

/// Ends the indexer in order; a failing end is a failing run.
pub async fn stop(indexer: &mut Running) -> Outcome<()> {
    let status = indexer.stop().await;
    if status.success() { Ok(()) } else { Err(format!("the indexer ended with {status}:\n{}", indexer.log()).into()) }
}

/// Every emitted transfer once, typed and, where they are kept, raw.
pub async fn verify(client: &Client, emitted: u64, raw: bool) -> Outcome<()> {
    // Hashing what was never analysed, the server guesses its groups wrong by so much that a million rows take minutes.
    client.batch_execute("SET enable_hashagg = off; SET work_mem = '64MB'").await?;
    let counts = client.query_one(COUNTS, &[]).await?;
    let counts: [i64; 4] = std::array::from_fn(|at| counts.get(at));
    let emitted = i64::try_from(emitted)?;
    let kept = if raw { emitted } else { 0 };
    if counts == [emitted, emitted, kept, kept] {
        return Ok(());
    }
    let [rows, distinct, logs, distinct_logs] = counts;
    Err(format!("{emitted} transfers emitted, {rows} stored ({distinct} distinct), raw {logs} ({distinct_logs})")
        .into())
}

const PROGRESS: &str = "SELECT tail_number, gap_blocks FROM dalp_indexed.progress";
const COUNTS: &str = "SELECT (SELECT count(*) FROM dalp_indexed.erc20_transfer), \
                      (SELECT count(*) FROM (SELECT DISTINCT block_number, log_index FROM dalp_indexed.erc20_transfer) t), \
                      (SELECT count(*) FROM dalp_indexed.logs), \
                      (SELECT count(*) FROM (SELECT DISTINCT block_number, log_index FROM dalp_indexed.logs) l)";
const SIZES: &str = "SELECT count(*) FILTER (WHERE isleaf), sum(pg_total_relation_size(relid))::int8 FROM ( \
                     SELECT * FROM pg_partition_tree('dalp_indexed.logs') UNION ALL \
                     SELECT * FROM pg_partition_tree('dalp_indexed.erc20_transfer')) t";
/// A row once no leaf with rows lacks an index: beside its key, logs have two by default, transfers three.
const INDEXED: &str = "SELECT WHERE NOT EXISTS (SELECT FROM ( \
                         SELECT relid, 3 AS wanted FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf UNION ALL \
                         SELECT relid, 4 FROM pg_partition_tree('dalp_indexed.erc20_transfer') WHERE isleaf) AS leaf \
                       WHERE pg_relation_size(relid) > 0 AND wanted > ( \
                         SELECT count(*) FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid \
                         JOIN pg_am ON pg_am.oid = index.relam WHERE indrelid = relid AND amname = 'btree' AND indisvalid))";
/// Two secondary indexes of each table, from the first row on.
const KEEP: &str = "CREATE INDEX ON dalp_indexed.logs (address, block_time); CREATE INDEX ON dalp_indexed.logs (tx_hash); \
                    CREATE INDEX ON dalp_indexed.erc20_transfer (token, block_time); \
                    CREATE INDEX ON dalp_indexed.erc20_transfer (tx_hash)";
/// Off the leaves again, so that the ruler has the indexes that the load had.
const DROP_SECONDARY: &str = "DO $$ DECLARE name regclass; BEGIN \
                              FOR name IN SELECT indexrelid::regclass FROM pg_index JOIN pg_class c ON c.oid = indexrelid \
                                JOIN pg_am ON pg_am.oid = c.relam WHERE NOT indisprimary AND amname = 'btree' AND c.relkind = 'i' \
                                AND indrelid IN (SELECT relid FROM pg_partition_tree('dalp_indexed.logs') UNION ALL \
                                                 SELECT relid FROM pg_partition_tree('dalp_indexed.erc20_transfer')) \
                              LOOP EXECUTE format('DROP INDEX %s', name); END LOOP; END $$";
