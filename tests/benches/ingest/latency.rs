//! From a mined block to its rows, while the indexer follows the head by WebSocket; and the same for the least that could
//! be done (`floor`).

use std::time::{Duration, Instant};

use alloy::primitives::{Bytes, U256};
use alloy::sol_types::SolCall;
use dalp_fixtures::contracts::Burst;
use serde_json::{Value, json};
use tokio_postgres::{Client, Statement};

use super::case::{caught_up, stop, verify};
use super::floor::Floor;
use super::node::{CHAIN_ID, Node};
use super::servers::Servers;
use super::{Outcome, options};

/// Rows that are not there by then never come.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a subscription gets before the first block.
pub const SETTLE: Duration = Duration::from_secs(2);
/// How often the reader looks.
const LOOK: Duration = Duration::from_millis(1);

/// Events of a block, and the time between blocks, on average.
pub const RATES: [(u64, Duration); 4] = [
    (1, Duration::from_secs(1)),
    (100, Duration::from_secs(1)),
    (1, Duration::from_millis(100)),
    (100, Duration::from_millis(100)),
];

/// The delays of all samples, shortest first.
pub struct Delays(Vec<Duration>);

impl Delays {
    /// Of these samples.
    pub fn of(mut delays: Vec<Duration>) -> Self {
        delays.sort_unstable();
        Self(delays)
    }

    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The delay that `share` of the samples do not pass: the nearest rank.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or_default()
    }
}

/// The delays at one of the [`RATES`]: ours, and the floor.
pub struct Latency {
    pub events: u64,
    pub spacing: Duration,
    /// Events/s that are loaded of another chain meanwhile, where one is.
    pub beside: Option<f64>,
    pub ours: Delays,
    pub floor: Delays,
}

/// Mines `samples` blocks at each of the rates, once before the indexer and once before the floor.
pub async fn measure(servers: &mut Servers, options: &options::Options) -> Outcome<Vec<Latency>> {
    let (mut chain, ws_url) = Chain::start().await?;
    let database = servers.database().await?;
    let reader = servers.superuser(&database).await?;
    let mut indexer = servers.site(&database, &chain.node).with(&format!("ws_urls = [{ws_url:?}]")).spawn();
    caught_up(&reader, &mut indexer, chain.node.head.0).await?;
    let ours = chain.all_rates(&reader, options.samples).await?;
    stop(&mut indexer).await?;
    verify(&reader, chain.node.transfers, true).await?;
    // In the same database, whose leaves are there.
    let floor = Floor::start(&ws_url, servers.writer(&database).await?).await?;
    let least = chain.all_rates(&reader, options.samples).await;
    floor.stop().await?;
    let both = RATES.iter().zip(ours).zip(least?);
    Ok(both.map(|((&(events, spacing), ours), floor)| Latency { events, spacing, beside: None, ours, floor }).collect())
}

/// The chain that is mined by hand.
pub struct Chain {
    pub node: Node,
    /// Calls sent: each is another seed.
    sent: u64,
}

impl Chain {
    /// Starts it, and tells its WebSocket address.
    pub async fn start() -> Outcome<(Self, String)> {
        let chain = Self { node: Node::anvil(10_000, 100).await?, sent: 0 };
        let (anvil, _) = chain.node.as_anvil().ok_or("latency is measured on Anvil")?;
        anvil.rpc().set_automine(false).await?;
        let ws_url = anvil.ws_url();
        Ok((chain, ws_url))
    }

    async fn all_rates(&mut self, reader: &Client, samples: u64) -> Outcome<Vec<Delays>> {
        tokio::time::sleep(SETTLE).await;
        let rows = reader.prepare(ROWS).await?;
        let mut all = Vec::new();
        for (events, spacing) in RATES {
            // The block that opens a leaf and warms the plans is mined, seen and not counted.
            self.sample(reader, &rows, events).await?;
            let mut delays = Vec::new();
            for number in 0..samples {
                // From 0.8 to 1.2 of it, in steps that do not stay in phase with any timer.
                let pause = spacing * (800 + (number * 37 * 11 % 400) as u32) / 1000;
                let began = Instant::now();
                let delay = self.sample(reader, &rows, events).await?;
                delays.push(delay);
                tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
            }
            let delays = Delays::of(delays);
            eprintln!("{events} events, every {spacing:?}: p50 {:?}", delays.quantile(0.5));
            all.push(delays);
        }
        Ok(all)
    }

    /// One block with so many transfers: from the return of `evm_mine` until another connection sees them all.
    pub async fn sample(&mut self, reader: &Client, rows: &Statement, events: u64) -> Outcome<Duration> {
        let (anvil, deployed) = self.node.as_anvil().ok_or("latency is measured on Anvil")?;
        self.sent += 1;
        let call = Burst::burstCall { n: U256::from(events), seed: U256::from(u64::MAX - self.sent) };
        let input: Bytes = call.abi_encode().into();
        let sender = deployed.agents.first().copied().unwrap_or_default();
        let transaction = json!({ "from": sender, "to": deployed.burst, "input": input, "gas": "0xf4240" });
        anvil.rpc().call::<Value>("eth_sendTransaction", json!([transaction])).await?;
        let (number, time) = (self.node.head.0 + 1, self.node.head.1 + 1);
        anvil.rpc().mine_at(time).await?;
        let mined = Instant::now();
        let (chain_id, block, wanted) = (i64::try_from(CHAIN_ID)?, i64::try_from(number)?, i64::try_from(events)?);
        while reader.query_one(rows, &[&chain_id, &(time as f64), &block]).await?.get::<_, i64>(0) != wanted {
            if mined.elapsed() > LIMIT {
                return Err(format!("the rows of block {number} are not there {LIMIT:?} after it was mined").into());
            }
            tokio::time::sleep(LOOK).await;
        }
        let delay = mined.elapsed();
        (self.node.head, self.node.transfers) = ((number, time), self.node.transfers + events);
        Ok(delay)
    }
}

/// By the whole key but the log's index, so that a look costs next to nothing.
pub const ROWS: &str = "SELECT count(*) FROM dalp_indexed.erc20_transfer \
                    WHERE chain_id = $1 AND block_time = to_timestamp($2) AND block_number = $3";
