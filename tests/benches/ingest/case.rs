//! One node and one set of settings, measured several times: the indexer from its start to its last row, then the ruler.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use dalp_fixtures::load::GENESIS_TIMESTAMP;
use dalp_partitions::{Interval, Need, Policy, Table, ensure};
use dalp_tests::indexer::{Running, Site};
use tokio_postgres::Client;

use super::node::{CHAIN_ID, Node};
use super::options::{Indexes, Options};
use super::ruler::{Dump, Marks, STORED};
use super::servers::{Servers, Used};
use super::{Outcome, machine};

/// The interval of reading the stored progress: it bounds the error of a run's time; each read costs about 0.5 ms of CPU.
const LOOK: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(600);

/// One case's figures.
pub struct Case {
    /// Its node, and the stored rows.
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
    setup: Setup,
    /// Each with the database that it is in.
    runs: Vec<(String, Ingest)>,
}

/// Days that a chain of 40 days touches, with the leaves ahead of its head.
const OWN_DAYS: i64 = 45;

/// The indexer's configuration, and the state that it finds.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Whether raw logs are kept beside the typed rows.
    pub raw: bool,
    pub indexes: Indexes,
    /// `write_parallelism`, where not as shipped; twice as many workers.
    pub writers: Option<u64>,
    /// Leaves that each table has before the run, of days before the chain's.
    pub leaves: u16,
    /// Whether the chain's own days have leaves before the run, too.
    pub standing: bool,
    /// `finality = "never"`, in place of the node's answer.
    pub devnet: bool,
}

impl Setup {
    /// The part of `options` for all cases.
    pub fn of(options: &Options, raw: bool) -> Self {
        Self { raw, indexes: options.indexes, writers: options.writers, leaves: 0, standing: false, devnet: false }
    }

    /// An empty database with the objects of the run.
    pub async fn database(&self, servers: &mut Servers) -> Outcome<String> {
        let database = servers.database().await?;
        let mut owner = servers.superuser(&database).await?;
        if self.indexes == Indexes::Kept {
            owner.batch_execute(KEEP).await?;
        }
        let (begin, own) = (i64::try_from(GENESIS_TIMESTAMP)?, if self.standing { OWN_DAYS } else { 0 });
        let times: Vec<i64> = (-i64::from(self.leaves)..own).map(|days| begin + days * 86_400).collect();
        if !times.is_empty() {
            premake(&mut owner, &times).await?;
        }
        Ok(database)
    }

    /// The indexer's configuration.
    pub fn site(&self, servers: &Servers, database: &str, node: &Node) -> Site {
        let mut site = servers.site(database, node);
        if !self.raw {
            site = site.with("raw = false");
        }
        if let Some(writers) = self.writers {
            site.database_lines.push(format!("write_parallelism = {writers}"));
            site = site.with(&format!("backfill_workers = {}", 2 * writers));
        }
        if self.devnet {
            site = site.with("finality = \"never\"");
        }
        if self.leaves > 0 {
            site.more.push_str("max_leaves = 10000\n");
        }
        site.more.push_str(match self.indexes {
            Indexes::Shipped => "",
            Indexes::Built => TWO,
            Indexes::Kept | Indexes::None => "[indexes]\nlogs = []\nerc20_transfer = []\n",
        });
        site
    }
}

/// The indexer's results for the whole chain.
#[derive(Debug)]
pub struct Ingest {
    /// Transfers indexed: those that the database did not have.
    pub events: u64,
    /// Blocks indexed.
    pub blocks: u64,
    /// From the process's start to its last row.
    pub took: Duration,
    /// From there to the last of the indexes that were left off while loading.
    pub served: Option<Duration>,
    /// The indexer's largest resident memory at its last row, in bytes.
    pub peak_rss: u64,
    /// Seconds of CPU from start to last row.
    pub cpu: Cpu,
    /// Seconds of the server's CPU from start to last index, a VACUUM and a checkpoint.
    pub settled: f64,
    /// Leaves of both tables.
    pub leaves: i64,
    /// Bytes of both tables with their keys and BRIN, at the last row.
    pub loaded: i64,
    /// Bytes of both tables with all their indexes, when served.
    pub bytes: i64,
    /// Requests to the node: all, and those for logs; where it counts them.
    pub requests: Option<[u64; 2]>,
}

impl Ingest {
    /// Events a second, to the last row.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }

    /// From the process's start to its last index.
    pub fn indexed(&self) -> Duration {
        self.took + self.served.unwrap_or_default()
    }
}

/// Seconds of CPU by process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub indexer: f64,
    pub node: f64,
    pub database: Used,
}

impl Cpu {
    /// So far; without an indexer before it starts.
    fn now(servers: &Servers, node: &Node, indexer: Option<u32>) -> Outcome<Self> {
        let indexer = indexer.map(machine::cpu).transpose()?.unwrap_or_default();
        Ok(Self { indexer, node: machine::cpu(node.pid)?, database: servers.used()? })
    }

    fn since(self, before: Self) -> Self {
        let both = |now: Option<f64>, then: Option<f64>| now.zip(then).map(|(now, then)| now - then);
        let (now, then) = (self.database, before.database);
        Self {
            indexer: self.indexer - before.indexer,
            node: self.node - before.node,
            database: Used {
                server: now.server - then.server,
                standby: both(now.standby, then.standby),
                pooler: both(now.pooler, then.pooler),
            },
        }
    }
}

/// Indexes the chain of `node` so many times, each time into a database of its own.
pub async fn index(servers: &mut Servers, node: &Node, name: &str, setup: Setup, times: u64) -> Outcome<Indexed> {
    index_behind(servers, (node, None), name, setup, times).await
}

/// The same, where the database has the chain of another node, the begin of this chain, and its indexer was stopped.
pub async fn index_behind(
    servers: &mut Servers,
    (node, begin): (&Node, Option<&Node>),
    name: &str,
    setup: Setup,
    times: u64,
) -> Outcome<Indexed> {
    let name = format!("{}, {name}", node.name);
    let mut runs = Vec::new();
    for number in 1..=times {
        let database = setup.database(servers).await?;
        if let Some(begin) = begin {
            ingest(servers, begin, &database, setup).await?;
        }
        let ingest = ingest(servers, node, &database, setup).await?;
        eprintln!("{name}, run {number}: {:.0} events/s, {:.2} s", ingest.rate(), ingest.took.as_secs_f64());
        runs.push((database, ingest));
    }
    Ok(Indexed { name, setup, runs })
}

/// Lays the ruler to each run. Only when all cases are indexed: emptying a table deletes a thousand files, and some file
/// systems are slow to make new ones for half a minute after that.
pub async fn rule(servers: &Servers, indexed: Indexed) -> Outcome<Case> {
    let (mut case, setup) = (Case { name: indexed.name, runs: Vec::new() }, indexed.setup);
    for (database, ingest) in indexed.runs {
        let (owner, writer) = (servers.superuser(&database).await?, servers.writer(&database).await?);
        if matches!(setup.indexes, Indexes::Shipped | Indexes::Built) {
            owner.batch_execute(DROP_SECONDARY).await?;
        }
        let built = setup.indexes == Indexes::Built;
        let marks = Dump::of(&owner, setup.raw).await?.measure(&owner, &writer, built).await?;
        eprintln!("{}, ruler: {:.0} events/s", case.name, ingest.events as f64 / marks.ruler().as_secs_f64());
        case.runs.push(Run { ingest, marks });
    }
    Ok(case)
}

/// Indexes the chain of `node` into `database`, which may have its first blocks, from the process's start to its last index.
pub async fn ingest(servers: &Servers, node: &Node, database: &str, setup: Setup) -> Outcome<Ingest> {
    let site = setup.site(servers, database, node);
    let client = servers.superuser(database).await?;
    let stored: i64 = client.query_one(STORED, &[]).await?.get(0);
    let stored = stored.unsigned_abs();
    client.batch_execute("CHECKPOINT").await?;
    let (asked, before) = (node.counts().await?, Cpu::now(servers, node, None)?);
    let began = Instant::now();
    let mut indexer = site.spawn();
    caught_up(&client, &mut indexer, node.head.0).await?;
    let took = began.elapsed();
    let cpu = Cpu::now(servers, node, Some(indexer.pid()))?.since(before);
    let peak_rss = machine::peak_rss(indexer.pid())?;
    let loaded = client.query_one(LOADED, &[]).await?.get(0);
    let requests = node.counts().await?.zip(asked);
    let requests = requests.map(|(now, then)| [now.requests - then.requests, now.log_requests - then.log_requests]);
    let served = served(&client, &mut indexer, setup.indexes).await?;
    let served = served.map(|moment| moment - began - took);
    stop(&mut indexer).await?;
    client.batch_execute("VACUUM dalp_indexed.logs, dalp_indexed.erc20_transfer").await?;
    client.batch_execute("CHECKPOINT").await?;
    let settled = servers.used()?.server - before.database.server;
    verify(&client, node.transfers, setup.raw).await?;
    let sizes = client.query_one(SIZES, &[]).await?;
    Ok(Ingest {
        events: node.transfers - stored,
        blocks: node.head.0 + 1,
        took,
        served,
        peak_rss,
        cpu,
        settled,
        leaves: sizes.get(0),
        loaded,
        bytes: sizes.get(1),
        requests,
    })
}

/// Makes daily leaves of both tables for these Unix times.
pub async fn premake(owner: &mut Client, times: &[i64]) -> Outcome<()> {
    let times = times.iter().map(|time| DateTime::from_timestamp(*time, 0));
    let need = Need::rows(times.collect::<Option<Vec<_>>>().ok_or("a time past all calendars")?);
    let policy = Policy { history: Interval::Day, max_leaves: 10_000, ..Policy::default() };
    owner.batch_execute("SET ROLE dalp_partitioner").await?;
    for table in ["logs", "erc20_transfer"] {
        let table = Table::new("dalp_indexed", table, "block_time");
        ensure(owner, &table, i64::try_from(CHAIN_ID)?, &policy, Utc::now(), &need).await?;
    }
    Ok(())
}

/// Waits until all blocks of the chain up to `head` are stored.
pub async fn caught_up(client: &Client, indexer: &mut Running, head: u64) -> Outcome<()> {
    let question = format!("{PROGRESS} WHERE chain_id = {CHAIN_ID} AND gap_blocks = 0 AND tail_number >= {head}");
    wait(client, indexer, &question, LOOK).await
}

/// Waits until the leaves have the indexes that they get after a load, and tells when that was; `None` if they get none.
pub async fn served(client: &Client, indexer: &mut Running, indexes: Indexes) -> Outcome<Option<Instant>> {
    // Beside its key, a leaf has so many B-trees in the end: of logs, of transfers.
    match indexes {
        Indexes::Shipped => indexed(client, indexer, [2, 3]).await.map(Some),
        Indexes::Built => indexed(client, indexer, [2, 2]).await.map(Some),
        Indexes::Kept | Indexes::None => Ok(None),
    }
}

/// Waits until each leaf of logs and of transfers with rows has so many B-trees beside its key, and tells when that was.
async fn indexed(client: &Client, indexer: &mut Running, trees: [u32; 2]) -> Outcome<Instant> {
    let [logs, transfers] = trees;
    let question = INDEXED.replace("$logs", &logs.to_string()).replace("$transfers", &transfers.to_string());
    wait(client, indexer, &question, LOOK * 10).await?;
    Ok(Instant::now())
}

/// Waits until `question` has a row.
pub async fn wait(client: &Client, indexer: &mut Running, question: &str, look: Duration) -> Outcome<()> {
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
    // With hashes of never analysed columns, the server's wrong group estimate makes a million rows take minutes.
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
                      (SELECT count(*) FROM ( \
                         SELECT DISTINCT chain_id, block_number, log_index FROM dalp_indexed.erc20_transfer) t), \
                      (SELECT count(*) FROM dalp_indexed.logs), \
                      (SELECT count(*) FROM (SELECT DISTINCT chain_id, block_number, log_index FROM dalp_indexed.logs) l)";
const SIZES: &str = "SELECT count(*) FILTER (WHERE isleaf), sum(pg_total_relation_size(relid))::int8 FROM ( \
                     SELECT * FROM pg_partition_tree('dalp_indexed.logs') UNION ALL \
                     SELECT * FROM pg_partition_tree('dalp_indexed.erc20_transfer')) t";
/// The same without secondary indexes, of which some may be there at the last row.
const LOADED: &str = "SELECT sum(pg_table_size(relid) + (SELECT sum(pg_relation_size(indexrelid)) FROM pg_index \
                        JOIN pg_class AS index ON index.oid = indexrelid JOIN pg_am ON pg_am.oid = index.relam \
                        WHERE indrelid = relid AND (indisprimary OR amname = 'brin')))::int8 FROM ( \
                      SELECT * FROM pg_partition_tree('dalp_indexed.logs') UNION ALL \
                      SELECT * FROM pg_partition_tree('dalp_indexed.erc20_transfer')) t WHERE isleaf";
/// A row once no leaf with rows lacks an index beside its key.
const INDEXED: &str = "SELECT WHERE NOT EXISTS (SELECT FROM ( \
                         SELECT relid, $logs AS wanted FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf UNION ALL \
                         SELECT relid, $transfers FROM pg_partition_tree('dalp_indexed.erc20_transfer') WHERE isleaf) AS leaf \
                       WHERE pg_relation_size(relid) > 0 AND wanted > ( \
                         SELECT count(*) FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid \
                         JOIN pg_am ON pg_am.oid = index.relam \
                         WHERE indrelid = relid AND amname = 'btree' AND indisvalid AND NOT indisprimary))";
/// The two of each table, made by the indexer after loading.
const TWO: &str =
    "[indexes]\nlogs = [\"address+block_time\", \"tx_hash\"]\nerc20_transfer = [\"token+block_time\", \"tx_hash\"]\n";
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
