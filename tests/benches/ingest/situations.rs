//! Chains with many of their rows in the leaf that the head uses: a young one, one after an outage in the evening or over midnight,
//! one whose last day has half of all rows, and a devnet. From the replaying node, with and without raw logs.

use std::time::Duration;

use dalp_fixtures::ReplayPlan;
use dalp_fixtures::load::GENESIS_TIMESTAMP;

use super::Outcome;
use super::case::{Indexed, Setup, index_behind};
use super::node::Node;
use super::options::Options;
use super::servers::Servers;

const HOUR: u64 = 3_600;
/// The head's time: 21:00, so that its day has most of a chain of hours.
const HEAD: u64 = GENESIS_TIMESTAMP + 39 * 24 * HOUR + 21 * HOUR;

/// A part's nodes.
struct Situation {
    node: Node,
    /// The begin of the chain, which the database has before.
    begin: Option<Node>,
    devnet: bool,
}

/// Indexes each wanted situation.
pub async fn measure(servers: &mut Servers, options: &Options) -> Outcome<Vec<Indexed>> {
    let mut all = Vec::new();
    for situation in wanted(options)? {
        for raw in options.raws() {
            let name = if *raw { "raw + typed" } else { "typed" };
            let setup = Setup { devnet: situation.devnet, ..Setup::of(options, *raw) };
            let nodes = (&situation.node, situation.begin.as_ref());
            all.push(index_behind(servers, nodes, name, setup, options.runs).await?);
        }
    }
    Ok(all)
}

fn wanted(options: &Options) -> Outcome<Vec<Situation>> {
    let (transfers, blocks) = (options.transfers, options.blocks);
    let mut all = Vec::new();
    let mut want = |part: &'static str, plan: ReplayPlan, begin: Option<ReplayPlan>, devnet| -> Outcome<()> {
        if options.has_part(part) {
            let begin = begin.map(|plan| Node::serving(part, &plan, Vec::new())).transpose()?;
            all.push(Situation { node: Node::serving(part, &plan, Vec::new())?, begin, devnet });
        }
        Ok(())
    };
    let young = young(&ReplayPlan::dense(transfers, blocks));
    // Two hours are missing, and an hour is stored. In the evening, all of it is in a leaf in use; over midnight, three quarters of
    // what is missing belongs into the next leaf, which stands empty.
    let outage = until_head(&ReplayPlan::dense(transfers / 2 * 3, blocks / 2 * 3), Duration::from_secs(3 * HOUR));
    let stored = ReplayPlan { head: outage.head / 3, spread: outage.spread / 3, ..outage };
    let long = until_head(&ReplayPlan::dense(transfers, blocks), Duration::from_secs(39 * 24 * HOUR));
    let busy = ReplayPlan { busy: Some(Duration::from_secs(21 * HOUR)), ..long };
    want("young", young.clone(), None, false)?;
    let midnight = HEAD + 3 * HOUR;
    let over = |plan: &ReplayPlan| ReplayPlan { begin: midnight - 3 * HOUR / 2, ..*plan };
    want("midnight", over(&outage), Some(over(&stored)), false)?;
    want("outage", outage, Some(stored), false)?;
    want("busy-day", busy, None, false)?;
    want("devnet", young, None, true)?;
    Ok(all)
}

/// The chain of `plan` with a block each 12 seconds: 33 hours of ten thousand blocks.
pub fn young(plan: &ReplayPlan) -> ReplayPlan {
    until_head(plan, Duration::from_secs(12 * plan.head))
}

fn until_head(plan: &ReplayPlan, spread: Duration) -> ReplayPlan {
    ReplayPlan { begin: HEAD - spread.as_secs(), spread, ..*plan }
}
