//! From a mined block to its row, while the indexer follows the head by WebSocket.

use std::time::{Duration, Instant};

use alloy::primitives::{Bytes, U256};
use alloy::sol_types::SolCall;
use dalp_fixtures::contracts::Burst;
use serde_json::{Value, json};
use tokio_postgres::{Client, Statement};

use super::Outcome;
use super::case::{caught_up, stop, verify};
use super::servers::{CHAIN_ID, Servers};

/// A row that is not there by then never comes.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the subscription gets before the first block.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the reader looks.
const LOOK: Duration = Duration::from_millis(1);

/// The delays of all samples, shortest first.
pub struct Delays(Vec<Duration>);

impl Delays {
    /// The delay that `share` of the samples do not pass: the nearest rank.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.quantile(1.0)
    }

    /// How many.
    pub fn samples(&self) -> usize {
        self.0.len()
    }
}

/// Mines a block with one transfer about once a second, `samples` times.
pub async fn measure(servers: &mut Servers, samples: u64) -> Outcome<Delays> {
    let database = servers.database().await?;
    let reader = servers.superuser(&database).await?;
    let mut site = servers.site(&database);
    site.chain_lines.push(format!("ws_urls = [{:?}]", servers.anvil.ws_url()));
    let mut indexer = site.spawn();
    caught_up(&reader, &mut indexer, servers.head.0).await?;
    tokio::time::sleep(SETTLE).await;
    servers.anvil.rpc().set_automine(false).await?;
    let row = reader.prepare(ROW).await?;
    // The block that opens the day's leaf and warms the plans is mined, seen and not counted.
    let mut delays = Vec::new();
    for number in 0..=samples {
        tokio::time::sleep(spacing(number)).await;
        let delay = sample(servers, &reader, &row).await?;
        if number > 0 {
            delays.push(delay);
        }
        if !indexer.is_running() {
            return Err(format!("the indexer ended:\n{}", indexer.log()).into());
        }
    }
    stop(&mut indexer).await?;
    verify(&reader, servers.emitted).await?;
    delays.sort_unstable();
    Ok(Delays(delays))
}

/// About a second, in steps of 11 ms that meet neither the indexer's timers nor each other for long.
fn spacing(number: u64) -> Duration {
    Duration::from_millis(800 + number * 37 * 11 % 400)
}

/// One block with one transfer: from the return of `evm_mine` until another connection sees the row.
async fn sample(servers: &mut Servers, reader: &Client, row: &Statement) -> Outcome<Duration> {
    let rpc = servers.anvil.rpc();
    let call = Burst::burstCall { n: U256::ONE, seed: U256::from(servers.emitted) };
    let input: Bytes = call.abi_encode().into();
    let sender = servers.deployed.agents.first().copied().unwrap_or_default();
    let transaction = json!({ "from": sender, "to": servers.deployed.burst, "input": input, "gas": "0x186a0" });
    rpc.call::<Value>("eth_sendTransaction", json!([transaction])).await?;
    let (number, time) = (servers.head.0 + 1, servers.head.1 + 1);
    rpc.mine_at(time).await?;
    let mined = Instant::now();
    let (chain_id, block) = (i64::try_from(CHAIN_ID)?, i64::try_from(number)?);
    while reader.query_opt(row, &[&chain_id, &(time as f64), &block]).await?.is_none() {
        if mined.elapsed() > LIMIT {
            return Err(format!("the row of block {number} is not there {LIMIT:?} after it was mined").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let delay = mined.elapsed();
    (servers.head, servers.emitted) = ((number, time), servers.emitted + 1);
    Ok(delay)
}

/// By the whole key but the log's index, so that a look costs next to nothing.
const ROW: &str = "SELECT 1 FROM dalp_indexed.erc20_transfer \
                   WHERE chain_id = $1 AND block_time = to_timestamp($2) AND block_number = $3";
