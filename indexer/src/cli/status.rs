//! `dalp-indexer status`: what the database says about each chain, from anywhere.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use tokio_postgres::Client;

use super::Failure;
use crate::chain::block::BlockRange;
use crate::chain::coverage::Coverage;
use crate::config::Config;
use crate::status::NodeReport;
use crate::store::connect::{connect_direct, explain};
use crate::store::nodes::stored_nodes;

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report {
    chains: Vec<ChainReport>,
}

#[derive(Serialize)]
struct ChainReport {
    name: String,
    chain_id: i64,
    head: Option<i64>,
    finalized: Option<i64>,
    checkpoint: Option<i64>,
    lag_blocks: Option<i64>,
    lag_seconds: Option<f64>,
    covered_blocks: u64,
    /// Blocks between the first and the last covered one that are not covered.
    gap_blocks: u64,
    leaves: i64,
    /// Which process leads; none while nobody has a lease that lasts.
    leader: Option<String>,
    /// Seconds until its lease ends, unless it is renewed.
    lease_seconds: Option<f64>,
    waits_for: Option<String>,
    /// Seconds since the indexer last wrote its heartbeat.
    heartbeat_age: Option<f64>,
    /// How its nodes did then, and what they allow.
    nodes: Vec<NodeReport>,
}

/// Prints the state of every stored chain.
///
/// # Errors
/// What keeps the database from being read.
pub async fn run(config: Config, args: StatusArgs) -> Result<(), Failure> {
    let client = connect_direct(&config.database, &config.database.reader_url).await?;
    let chains = read(&client).await.map_err(|error| Failure::other(explain(&error)))?;
    if args.json {
        let text =
            serde_json::to_string_pretty(&Report { chains }).map_err(|error| Failure::other(error.to_string()))?;
        println!("{text}");
    } else if chains.is_empty() {
        println!("no chain is indexed yet; start `dalp-indexer run`");
    } else {
        println!("{}", table(&chains));
        if chains.iter().any(|chain| !chain.nodes.is_empty()) {
            println!("{}", nodes_table(&chains));
        }
    }
    Ok(())
}

async fn read(client: &Client) -> Result<Vec<ChainReport>, tokio_postgres::Error> {
    let mut chains = Vec::new();
    for row in client.query_typed(STATE, &[]).await? {
        let (tail, start, stored): (i64, i64, bool) =
            (row.get("tail_number"), row.get("start_block"), row.get("stored"));
        let (head, checkpoint) = (row.get::<_, Option<i64>>("head_number"), stored.then_some(tail));
        let (head_time, tail_time) = (row.get("head_time"), row.get("tail_time"));
        let mut report = ChainReport {
            name: row.get("name"),
            chain_id: row.get("chain_id"),
            head,
            finalized: row.get("finalized"),
            checkpoint,
            lag_blocks: head.map(|head| (head - tail.max(start - 1)).max(0)),
            lag_seconds: lag(head, checkpoint, head_time, tail_time),
            covered_blocks: 0,
            gap_blocks: 0,
            leaves: row.get("leaves"),
            leader: row.get("leader"),
            lease_seconds: row.get("lease_seconds"),
            waits_for: row.get("waits_for"),
            heartbeat_age: row.get("heartbeat_age"),
            nodes: stored_nodes(client, row.get("chain_id")).await?,
        };
        cover(client, &mut report).await?;
        chains.push(report);
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

async fn cover(client: &Client, report: &mut ChainReport) -> Result<(), tokio_postgres::Error> {
    use tokio_postgres::types::Type;
    let rows = client
        .query_typed(
            "SELECT from_block, to_block FROM dalp_indexed.coverage WHERE chain_id = $1",
            &[(&report.chain_id, Type::INT8)],
        )
        .await?;
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let coverage = Coverage::new(rows.iter().filter_map(|row| BlockRange::new(number(row.get(0)), number(row.get(1)))));
    if let (Some(first), Some(last)) = (coverage.ranges().first(), coverage.ranges().last()) {
        let span = BlockRange { first: first.first, last: last.last };
        report.gap_blocks = coverage.gaps(span).iter().map(|gap| gap.blocks()).sum();
    }
    report.covered_blocks = coverage.blocks();
    Ok(())
}

/// Leaves are counted as the tables at the bottom of each partitioned table's tree below the chain's list value.
const STATE: &str = "\
SELECT s.chain_id, s.name, s.start_block, s.tail_number, s.tail_hash IS NOT NULL AS stored, s.tail_time, \
  GREATEST(s.finalized, h.finalized) AS finalized, h.head_number, h.head_time, h.waits_for, \
  extract(epoch FROM now() - h.updated_at)::float8 AS heartbeat_age, \
  l.holder AS leader, extract(epoch FROM l.expires_at - now())::float8 AS lease_seconds, \
  (SELECT count(*) FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace \
   JOIN pg_catalog.pg_inherits sub ON sub.inhparent = r.oid JOIN pg_catalog.pg_class c ON c.oid = sub.inhrelid \
   JOIN pg_catalog.pg_inherits leaf ON leaf.inhparent = c.oid \
   WHERE n.nspname = 'dalp_indexed' AND r.relkind = 'p' AND r.relispartition = false \
   AND pg_catalog.pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES IN (''%s'')', s.chain_id)) AS leaves \
FROM dalp_indexed.chain_state s LEFT JOIN dalp_indexed.chain_status h USING (chain_id) \
LEFT JOIN dalp_indexed.lease l ON l.chain_id = s.chain_id AND l.expires_at > now() ORDER BY s.name";

fn table(chains: &[ChainReport]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "chain",
        "head",
        "finalized",
        "checkpoint",
        "lag",
        "covered",
        "gaps",
        "leaves",
        "leader",
        "waits for",
    ]);
    let number = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
    for chain in chains {
        let lag = match (chain.lag_blocks, chain.lag_seconds) {
            (Some(blocks), Some(seconds)) => format!("{blocks} blocks, {seconds:.0} s"),
            (Some(blocks), None) => format!("{blocks} blocks"),
            _ => "-".into(),
        };
        let waits = match chain.heartbeat_age {
            None => "an indexer: none has run yet".into(),
            Some(age) if age > 10.0 => format!("an indexer: the last heartbeat is {age:.0} s old"),
            Some(_) => chain.waits_for.clone().unwrap_or_default(),
        };
        table.add_row([
            format!("{} ({})", chain.name, chain.chain_id),
            number(chain.head),
            number(chain.finalized),
            number(chain.checkpoint),
            lag,
            chain.covered_blocks.to_string(),
            chain.gap_blocks.to_string(),
            chain.leaves.to_string(),
            chain.leader.clone().unwrap_or_else(|| "-".into()),
            waits,
        ]);
    }
    table
}

fn nodes_table(chains: &[ChainReport]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["chain", "node", "state", "latency", "failures", "allows", "last error"]);
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
    ];
    let known = limits.iter().filter_map(|(limit, unit)| limit.map(|limit| format!("{limit} {unit}")));
    let refused = node.refused_methods.iter().map(|method| format!("no {method}"));
    let words: Vec<String> = known.chain(refused).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}
