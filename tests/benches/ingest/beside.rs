//! Latency beside a load at full speed: the indexer follows the head of one chain while it loads another one, raw and typed.
//! Samples after the load's last row do not count.

use std::time::{Duration, Instant};

use dalp_fixtures::ReplayPlan;
use dalp_tests::indexer::Running;
use tokio_postgres::Client;

use super::Outcome;
use super::case::{caught_up, premake, stop, verify};
use super::floor::Floor;
use super::latency::{Chain, Delays, Latency, ROWS, SETTLE};
use super::node::{CHAIN_ID, Node};
use super::options::Options;
use super::servers::Servers;

/// The chain that is loaded.
const OTHER: u64 = CHAIN_ID + 1;
const SPACING: Duration = Duration::from_millis(100);
/// Events of a block: in the first half of the load, and in the second.
const EVENTS: [u64; 2] = [1, 100];
/// Fewer samples have no quantiles.
const SAMPLES: usize = 10;
const LIMIT: Duration = Duration::from_secs(600);

/// Measures ours and the floor, each beside a load of the same rows by the indexer.
pub async fn measure(servers: &mut Servers, options: &Options) -> Outcome<Vec<Latency>> {
    let (mut chain, ws_url) = Chain::start().await?;
    let plan = ReplayPlan { chain_id: OTHER, ..options.plan_of(options.load_transfers) };
    let load = Load { node: Node::serving("replay", &plan, Vec::new())? };
    let database = servers.database().await?;
    let reader = servers.superuser(&database).await?;
    let mut site = servers.site(&database, &chain.node).with(&format!("ws_urls = [{ws_url:?}]"));
    site.more.push_str(&format!("[chains.other]\nchain_id = {OTHER}\nrpc_urls = [{:?}]\n", load.node.url));
    let mut indexer = site.spawn();
    caught_up(&reader, &mut indexer, chain.node.head.0).await?;
    let (ours, rate) = load.sample(&mut chain, &reader, &mut indexer).await?;
    stop(&mut indexer).await?;
    verify(&reader, chain.node.transfers + load.node.transfers, true).await?;
    let floor = load.floor(servers, &mut chain, &ws_url).await?;
    let both = EVENTS.into_iter().zip(ours).zip(floor);
    Ok(both
        .map(|((events, ours), floor)| Latency { events, spacing: SPACING, beside: Some(rate), ours, floor })
        .collect())
}

/// The load.
struct Load {
    node: Node,
}

impl Load {
    /// The floor, while the indexer loads this chain alone.
    async fn floor(&self, servers: &mut Servers, chain: &mut Chain, ws_url: &str) -> Outcome<[Delays; 2]> {
        let database = servers.database().await?;
        let reader = servers.superuser(&database).await?;
        let head = i64::try_from(chain.node.head.1)?;
        premake(&mut servers.superuser(&database).await?, &[head, head + 86_400]).await?;
        let floor = Floor::start(ws_url, servers.writer(&database).await?).await?;
        let mut site = servers.site(&database, &self.node);
        (site.chain, site.chain_id) = ("other".into(), OTHER);
        let mut indexer = site.spawn();
        let sampled = self.sample(chain, &reader, &mut indexer).await;
        floor.stop().await?;
        let (delays, _) = sampled?;
        stop(&mut indexer).await?;
        Ok(delays)
    }

    /// Samples until the load is over: the delays, and the events/s of the load.
    async fn sample(&self, chain: &mut Chain, reader: &Client, indexer: &mut Running) -> Outcome<([Delays; 2], f64)> {
        tokio::time::sleep(SETTLE).await;
        let (rows, began) = (reader.prepare(ROWS).await?, Instant::now());
        let first = loop {
            match gap(reader).await? {
                Some(blocks @ 1..) => break blocks,
                Some(_) => return Err("the load was over before a sample; give it more --load-transfers".into()),
                None if began.elapsed() > LIMIT => return Err("the load does not begin".into()),
                None => tokio::time::sleep(SPACING).await,
            }
        };
        let began = Instant::now();
        let mut delays = [Vec::new(), Vec::new()];
        for number in 0.. {
            let Some(missing @ 1..) = gap(reader).await? else { break };
            if !indexer.is_running() || began.elapsed() > LIMIT {
                return Err(
                    format!("{missing} blocks are missing after {:?}:\n{}", began.elapsed(), indexer.log()).into()
                );
            }
            let half = usize::from(missing < first / 2);
            let mined = Instant::now();
            let delay = chain.sample(reader, &rows, EVENTS[half]).await?;
            // The block that makes a leaf and warms the plans does not count, nor does a sample that ends after the load.
            if number > 0 && gap(reader).await? != Some(0) {
                delays[half].push(delay);
            }
            let pause = SPACING * (800 + (number * 37 * 11 % 400)) / 1000;
            tokio::time::sleep(pause.saturating_sub(mined.elapsed())).await;
        }
        let blocks = u32::try_from(first)?;
        let events = self.node.transfers as f64 / self.node.head.0 as f64 * f64::from(blocks);
        if delays.iter().any(|half| half.len() < SAMPLES) {
            return Err("the load was over too soon; give it more --load-transfers".into());
        }
        Ok((delays.map(Delays::of), events / began.elapsed().as_secs_f64()))
    }
}

/// Blocks that the load lacks; none while its head is not known.
async fn gap(reader: &Client) -> Outcome<Option<i64>> {
    let row = reader.query_typed(GAP, &[(&i64::try_from(OTHER)?, tokio_postgres::types::Type::INT8)]).await?;
    Ok(row.first().map(|row| row.get(0)))
}

const GAP: &str = "SELECT gap_blocks FROM dalp_indexed.progress WHERE chain_id = $1 AND tail_number IS NOT NULL";
