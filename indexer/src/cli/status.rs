//! `dalp-indexer status`: the database's record of each chain, from any machine.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::Client;

use super::failure::Failure;
use super::grid::{self, Grid};
use super::run::Signals;
use crate::cli::out::say;
use crate::config::Config;
use crate::status::{CatchUp, CaughtUp, NodeReport, VerifiedTo, human};
use crate::store::connect::{connect_direct, explain};
use crate::store::nodes::stored_nodes;
use crate::store::read::stored_verified_to;
use crate::store::rights::{self, Duty};

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Refresh every two seconds until Ctrl-C, with the speed of history and the time left
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

#[derive(Serialize)]
struct Report {
    chains: Vec<ChainReport>,
    /// The tables whose partitions had faults in the last run.
    maintenance: Vec<Trouble>,
}

#[derive(Serialize)]
struct Trouble {
    table: String,
    /// Runs that failed in a row.
    failures: i32,
    error: Option<String>,
}

#[derive(Serialize)]
struct ChainReport {
    name: String,
    chain_id: i64,
    /// The newest block at the indexer's last heartbeat.
    head: Option<i64>,
    /// The first block that is indexed.
    start_block: i64,
    finalized: Option<i64>,
    /// Last block that the tail committed; none before the first.
    tail: Option<i64>,
    /// Last block up to which no block is missing, from the view `progress`; none if the first is missing.
    complete_to: Option<i64>,
    /// Blocks from the first to the tail that are not stored yet, from the view `progress`.
    gap_blocks: i64,
    lag_blocks: Option<i64>,
    lag_seconds: Option<f64>,
    /// The reach of each level, from the view `verified`.
    verified_to: VerifiedTo,
    /// Stored blocks, of any source, also below the first indexed block.
    covered_blocks: i64,
    leaves: i64,
    /// The leading process; none if nobody has a valid lease.
    leader: Option<String>,
    /// Seconds until its lease ends, unless it is renewed.
    lease_seconds: Option<f64>,
    waits_for: Option<String>,
    /// Seconds since the indexer last wrote its heartbeat.
    heartbeat_age: Option<f64>,
    /// Logs without a typed table, since the leader began, in words.
    untyped: Option<String>,
    /// The states and limits of its nodes at that time.
    nodes: Vec<NodeReport>,
}

/// Prints the state of every stored chain.
///
/// # Errors
/// The error of reading the database.
pub async fn run(config: Config, args: StatusArgs) -> Result<(), Failure> {
    if args.watch {
        let mut signals = Signals::listen()?;
        return tokio::select! {
            ended = watch(&config) => ended,
            () = signals.stop() => Ok(()),
        };
    }
    let client = open(&config).await?;
    let chains = look(&client).await?;
    let maintenance = troubles(&client).await.map_err(|error| Failure::other(explain(&error)))?;
    if args.json {
        let text = serde_json::to_string_pretty(&Report { chains, maintenance })
            .map_err(|error| Failure::other(error.to_string()))?;
        say!("{text}")?;
    } else if chains.is_empty() {
        say!("{NONE}")?;
    } else {
        say!("{}\n{}", progress_table(&chains), levels_table(&chains))?;
        if chains.iter().any(|chain| !chain.nodes.is_empty()) {
            say!("{}", nodes_table(&chains))?;
        }
        for chain in &chains {
            let untyped = chain.untyped.as_ref().map(|untyped| format!("{}: {untyped}", chain.name));
            for line in chain.part().into_iter().chain(untyped) {
                say!("{line}")?;
            }
        }
        for Trouble { table, failures, error } in &maintenance {
            let why = error.as_deref().unwrap_or_default();
            say!("partitions of {table}: {failures} runs failed in a row; last failure: {why}")?;
        }
    }
    Ok(())
}

const NONE: &str = "no chain is indexed yet; start `dalp-indexer run`";

const TROUBLES: &str = "SELECT format('%s.%s', table_schema, table_name), failures, last_error \
                        FROM dalp_indexed.partition_run WHERE failures > 0 ORDER BY 1";

async fn troubles(client: &Client) -> Result<Vec<Trouble>, tokio_postgres::Error> {
    let rows = client.query_typed(TROUBLES, &[]).await?;
    Ok(rows.iter().map(|row| Trouble { table: row.get(0), failures: row.get(1), error: row.get(2) }).collect())
}

pub(super) async fn open(config: &Config) -> Result<Client, Failure> {
    let client = connect_direct(&config.database, &config.database.reader_url).await?;
    rights::fit(&client, Duty::Read).await?;
    Ok(client)
}

async fn look(client: &Client) -> Result<Vec<ChainReport>, Failure> {
    read(client).await.map_err(|error| Failure::other(explain(&error)))
}

/// The interval of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// Refreshes until the reader leaves. A lost connection is replaced.
async fn watch(config: &Config) -> Result<(), Failure> {
    let mut client = open(config).await?;
    let mut ways: HashMap<i64, CatchUp> = HashMap::new();
    loop {
        let chains = match look(&client).await {
            Err(_) if client.is_closed() => {
                client = open(config).await?;
                continue;
            }
            chains => chains?,
        };
        // On a terminal, each refresh replaces the previous one.
        let clear = if grid::terminal().is_some() { "\x1b[H\x1b[2J" } else { "" };
        match chains.is_empty() {
            true => say!("{clear}{NONE}")?,
            false => say!("{clear}{}", progress_table(&chains))?,
        }
        for chain in &chains {
            match ways.entry(chain.chain_id).or_default().look(Instant::now(), chain.missing(), chain.blocks()) {
                CaughtUp::Before => {}
                CaughtUp::Not(progress) => say!("{}: {progress}", chain.name)?,
                CaughtUp::Now(blocks, took) => say!("{}: caught up: {blocks} blocks in {}", chain.name, human(took))?,
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl ChainReport {
    /// Blocks up to the head that are not stored.
    fn missing(&self) -> u64 {
        (self.gap_blocks.max(0) + self.lag_blocks.unwrap_or(0).max(0)).unsigned_abs()
    }

    /// Blocks from its first to the head.
    fn blocks(&self) -> u64 {
        self.head.map_or(0, |head| (head - self.start_block + 1).max(0).unsigned_abs())
    }

    /// The stored part of the chain, from its first block to the head, if much is missing.
    fn part(&self) -> Option<String> {
        let (all, missing) = (self.blocks(), self.missing());
        if all == 0 || missing <= FEW {
            return None;
        }
        let percent = all.saturating_sub(missing) as f64 * 100.0 / all as f64;
        Some(format!(
            "{}: {percent:.1} % of {all} blocks are stored, {missing} are missing; `dalp-indexer status --watch` shows \
             the speed",
            self.name
        ))
    }
}

/// This number of blocks is always under way.
const FEW: u64 = 32;

async fn read(client: &Client) -> Result<Vec<ChainReport>, tokio_postgres::Error> {
    let mut chains = Vec::new();
    for row in client.query_typed(STATE, &[]).await? {
        let (last, start, stored): (i64, i64, bool) =
            (row.get("tail_number"), row.get("start_block"), row.get("stored"));
        let (chain_id, head) = (row.get("chain_id"), row.get::<_, Option<i64>>("head_number"));
        let tail = stored.then_some(last);
        chains.push(ChainReport {
            name: row.get("name"),
            chain_id,
            head,
            start_block: start,
            finalized: row.get("finalized"),
            tail,
            complete_to: row.get("complete_to"),
            gap_blocks: row.get("gap_blocks"),
            lag_blocks: head.map(|head| (head - last.max(start - 1)).max(0)),
            lag_seconds: lag(head, tail, row.get("head_time"), row.get("tail_time")),
            verified_to: stored_verified_to(client, chain_id).await?,
            covered_blocks: row.get("covered_blocks"),
            leaves: row.get("leaves"),
            leader: row.get("leader"),
            lease_seconds: row.get("lease_seconds"),
            waits_for: row.get("waits_for"),
            heartbeat_age: row.get("heartbeat_age"),
            untyped: row.get("untyped"),
            nodes: stored_nodes(client, chain_id).await?,
        });
    }
    Ok(chains)
}

fn lag(
    head: Option<i64>,
    tail: Option<i64>,
    head_time: Option<DateTime<Utc>>,
    tail_time: Option<DateTime<Utc>>,
) -> Option<f64> {
    if head? <= tail? {
        return Some(0.0);
    }
    Some((head_time? - tail_time?).as_seconds_f64().max(0.0))
}

/// Leaves are counted as the tables at the bottom of each partitioned table's tree below the chain's list value.
const STATE: &str = "\
SELECT s.chain_id, s.name, s.start_block, s.tail_number, s.tail_hash IS NOT NULL AS stored, s.tail_time, \
  NULLIF(p.complete_to, s.start_block - 1) AS complete_to, p.gap_blocks, \
  (SELECT COALESCE(sum(upper(run) - lower(run)), 0)::int8 FROM unnest(( \
   SELECT range_agg(int8range(v.from_block, v.to_block, '[]')) FROM dalp_indexed.coverage v \
   WHERE v.chain_id = s.chain_id)) AS run) AS covered_blocks, \
  GREATEST(s.finalized, h.finalized) AS finalized, h.head_number, h.head_time, h.waits_for, h.untyped, \
  extract(epoch FROM now() - h.updated_at)::float8 AS heartbeat_age, \
  l.holder AS leader, extract(epoch FROM l.expires_at - now())::float8 AS lease_seconds, \
  (SELECT count(*) FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace \
   JOIN pg_catalog.pg_inherits sub ON sub.inhparent = r.oid JOIN pg_catalog.pg_class c ON c.oid = sub.inhrelid \
   JOIN pg_catalog.pg_inherits leaf ON leaf.inhparent = c.oid \
   WHERE n.nspname = 'dalp_indexed' AND r.relkind = 'p' AND r.relispartition = false \
   AND pg_catalog.pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES IN (''%s'')', s.chain_id)) AS leaves \
FROM dalp_indexed.chain_state s JOIN dalp_indexed.progress p USING (chain_id) LEFT JOIN dalp_indexed.chain_status h USING (chain_id) \
LEFT JOIN dalp_indexed.lease l ON l.chain_id = s.chain_id AND l.expires_at > now() ORDER BY s.name";

fn number<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// The progress of each chain.
fn progress_table(chains: &[ChainReport]) -> Grid {
    let mut table =
        Grid::new(&["chain", "head", "finalized", "tail", "complete to", "gaps", "lag", "waits for"]).named_by(1);
    for chain in chains {
        let lag = match (chain.lag_blocks, chain.lag_seconds) {
            (Some(blocks), Some(seconds)) => format!("{blocks} blocks, {seconds:.0} s"),
            (Some(blocks), None) => format!("{blocks} blocks"),
            _ => "-".into(),
        };
        let waits = match chain.heartbeat_age {
            None => "an indexer: no indexer has run yet".into(),
            Some(age) if age > 10.0 => format!("an indexer: the last heartbeat is {age:.0} s old"),
            Some(_) => chain.waits_for.clone().unwrap_or_default(),
        };
        table.add_row([
            format!("{} ({})", chain.name, chain.chain_id),
            number(chain.head),
            number(chain.finalized),
            number(chain.tail),
            number(chain.complete_to),
            chain.gap_blocks.to_string(),
            lag,
            waits,
        ]);
    }
    table
}

/// The reach of each level of verification, the writer, and the stored blocks.
fn levels_table(chains: &[ChainReport]) -> Grid {
    let levels = VerifiedTo::default().levels().map(|(level, _)| format!("{level} to"));
    let mut header = vec!["chain", "leader"];
    header.extend(levels.iter().map(String::as_str));
    header.extend(["covered", "leaves"]);
    let mut table = Grid::new(&header).named_by(1);
    for chain in chains {
        let mut row = vec![chain.name.clone(), chain.leader.clone().unwrap_or_else(|| "-".into())];
        row.extend(chain.verified_to.levels().map(|(_, to)| number(to)));
        row.extend([chain.covered_blocks.to_string(), chain.leaves.to_string()]);
        table.add_row(row);
    }
    table
}

fn nodes_table(chains: &[ChainReport]) -> Grid {
    let mut table = Grid::new(&["chain", "node", "state", "latency", "failures", "allows", "last error"]).named_by(2);
    for chain in chains {
        for node in &chain.nodes {
            table.add_row([
                chain.name.clone(),
                node.name.clone(),
                node.state.clone(),
                node.latency_ms.map_or("-".into(), |latency| format!("{latency:.0} ms")),
                node.failures.to_string(),
                allowed(node),
                node.last_error.clone().unwrap_or_default(),
            ]);
        }
    }
    table
}

/// A node's limits in words; "-" while none is known.
fn allowed(node: &NodeReport) -> String {
    let limits = [
        (node.max_blocks, "blocks"),
        (node.max_logs, "logs"),
        (node.max_bytes, "bytes"),
        (node.max_batch, "calls in a batch"),
        (node.max_list, "addresses or topics"),
        (node.max_parallel, "requests at once"),
    ];
    let known = limits.iter().filter_map(|(limit, unit)| limit.map(|limit| format!("{limit} {unit}")));
    let refused = node.refused_methods.iter().map(|method| format!("no {method}"));
    let words: Vec<String> = known.chain(refused).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_break_no_number() {
        let big = Some(2_147_483_647_i64);
        let to = Some(2_147_483_647_u64);
        let node = NodeReport {
            name: "https://a-rather-long-name.of-a-provider.example:8545".into(),
            state: "resting".into(),
            latency_ms: Some(12_345.0),
            max_bytes: to,
            refused_methods: vec!["eth_getBlockReceipts".into()],
            last_error: Some("the node did not answer within its time limit, and then refused the next call".into()),
            ..NodeReport::default()
        };
        let chain = ChainReport {
            name: "a-long-chain-name".into(),
            chain_id: 1_313_161_554,
            head: big,
            start_block: 0,
            finalized: big,
            tail: big,
            complete_to: big,
            gap_blocks: 2_147_483_647,
            lag_blocks: big,
            lag_seconds: Some(1e9),
            verified_to: VerifiedTo { returned: to, linked: to, bloom: to, receipts: None },
            covered_blocks: 2_147_483_647,
            leaves: 1_200,
            leader: Some("indexer-7c9f8d6b5d-abcde.namespace.cluster.example pid 4194304".into()),
            lease_seconds: Some(9.0),
            waits_for: Some("blocks 1 to 2147483647: the node answers with an error at every other call".into()),
            heartbeat_age: Some(1.0),
            untyped: None,
            nodes: vec![node],
        };
        let chains = [chain];
        for (table, numbers) in [(progress_table(&chains), 5), (levels_table(&chains), 4), (nodes_table(&chains), 1)] {
            let text = table.to_string();
            let whole = text.split(|c: char| !c.is_ascii_digit()).filter(|word| *word == "2147483647").count();
            assert!(whole >= numbers, "{whole} whole numbers:\n{text}");
        }
    }
}
