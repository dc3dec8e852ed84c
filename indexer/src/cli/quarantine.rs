//! `dalp-indexer quarantine`: the logs that a table's decoder refused, and why.

use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::backfill::pick;
use super::failure::Failure;
use super::grid::Grid;
use super::status::open;
use crate::cli::out::say;
use crate::config::Config;
use crate::store::connect::explain;

/// Arguments of `quarantine`.
#[derive(Clone, Debug, clap::Args)]
pub struct QuarantineArgs {
    /// The chain's name in the configuration [default: all chains]
    #[arg(long, value_name = "NAME")]
    pub chain: Option<String>,
    /// Only logs that this table refused
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// The number of newest logs to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Logs that one table refused for one reason.
#[derive(Serialize)]
struct Refused {
    chain_id: i64,
    table: String,
    reason: String,
    logs: i64,
    contracts: i64,
    newest_block: i64,
}

/// A refused log.
#[derive(Serialize)]
struct Log {
    chain_id: i64,
    block_number: i64,
    log_index: i32,
    table: String,
    address: String,
    topic0: Option<String>,
    tx_hash: String,
    reason: String,
}

#[derive(Serialize)]
struct Report {
    refused: Vec<Refused>,
    newest: Vec<Log>,
}

/// Prints the reasons, then the newest logs.
///
/// # Errors
/// The error of reading the database.
pub async fn run(config: Config, args: QuarantineArgs) -> Result<(), Failure> {
    let chain = args.chain.as_deref().map(|name| pick(&config, Some(name))).transpose()?;
    let chain_id = chain.map(|chain| i64::try_from(chain.chain_id).unwrap_or(i64::MAX));
    let client = open(&config).await?;
    let report = read(&client, chain_id, &args).await.map_err(|error| Failure::other(explain(&error)))?;
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::other(error.to_string()))?;
        return say!("{text}");
    }
    if report.refused.is_empty() {
        return say!("no log was refused");
    }
    let mut refused = Grid::new(&["chain id", "table", "reason", "logs", "contracts", "newest block"]).named_by(3);
    for of in &report.refused {
        let numbers = [of.logs, of.contracts, of.newest_block].map(|number| number.to_string());
        let names = [of.chain_id.to_string(), of.table.clone(), of.reason.clone()];
        refused.add_row(names.into_iter().chain(numbers));
    }
    say!("{refused}")?;
    let mut newest = Grid::new(&["chain id", "block", "log", "table", "contract", "transaction"]).named_by(3);
    for log in &report.newest {
        let place = [log.chain_id.to_string(), log.block_number.to_string(), log.log_index.to_string()];
        newest.add_row(place.into_iter().chain([log.table.clone(), log.address.clone(), log.tx_hash.clone()]));
    }
    say!("{newest}")
}

async fn read(client: &Client, chain_id: Option<i64>, args: &QuarantineArgs) -> Result<Report, tokio_postgres::Error> {
    let limit = i64::from(args.limit);
    let of: [(&(dyn ToSql + Sync), Type); 3] =
        [(&chain_id, Type::INT8), (&args.table, Type::TEXT), (&limit, Type::INT8)];
    let refused = client.query_typed(REFUSED, &of[..2]).await?;
    let newest = client.query_typed(NEWEST, &of).await?;
    Ok(Report {
        refused: refused
            .iter()
            .map(|row| Refused {
                chain_id: row.get(0),
                table: row.get(1),
                reason: row.get(2),
                logs: row.get(3),
                contracts: row.get(4),
                newest_block: row.get(5),
            })
            .collect(),
        newest: newest
            .iter()
            .map(|row| Log {
                chain_id: row.get(0),
                block_number: row.get(1),
                log_index: row.get(2),
                table: row.get(3),
                address: row.get(4),
                topic0: row.get(5),
                tx_hash: row.get(6),
                reason: row.get(7),
            })
            .collect(),
    })
}

const REFUSED: &str = "SELECT chain_id, decoder, reason, count(*), count(DISTINCT address), max(block_number) FROM dalp_indexed.quarantine \
                       WHERE ($1 IS NULL OR chain_id = $1) AND ($2 IS NULL OR decoder = $2) \
                       GROUP BY chain_id, decoder, reason ORDER BY count(*) DESC, chain_id, decoder, reason LIMIT 100";
const NEWEST: &str = "SELECT chain_id, block_number, log_index, decoder, dalp_indexed.hex(address), dalp_indexed.hex(topic0), \
                        dalp_indexed.hex(tx_hash), reason \
                      FROM dalp_indexed.quarantine WHERE ($1 IS NULL OR chain_id = $1) AND ($2 IS NULL OR decoder = $2) \
                      ORDER BY block_number DESC, log_index DESC, chain_id, decoder LIMIT $3";
