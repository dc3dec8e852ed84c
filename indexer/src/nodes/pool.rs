//! Chooses the node for the next call: the best one, and the same one while no other is clearly better.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tracing::{debug, info, warn};

use super::budget::Budget;
use super::error::NodeError;
use super::health::Grade;
use super::node::{Identity, Node};
use crate::chain::block::Header;
use crate::chain::source::Source;
use crate::config::{Chain, endpoint};
use crate::status::NodeReport;

/// The nodes of one chain.
#[derive(Debug)]
pub struct Pool {
    nodes: Vec<Node>,
    current: AtomicUsize,
    /// The time of the last move of calls to another node.
    moved: Mutex<Instant>,
    chain_id: u64,
    /// The chain that all nodes must serve, once it is known.
    expected: Arc<OnceLock<Identity>>,
    budget: Budget,
}

/// The time that calls stay with a node before a faster node may replace it.
const DWELL: Duration = Duration::from_secs(60);
/// The required advantage: less than half the time, and this number of milliseconds.
const FASTER_MS: f64 = 100.0;
/// A move so soon after the last one is not logged.
const QUIET: Duration = Duration::from_secs(10);
/// After one node has reported its chain, the others get this time at the start; a silent one is asked again before its first
/// use.
const PATIENCE: Duration = Duration::from_secs(3);
/// The interval at which a node in reserve is asked for its head.
const SURVEY: Duration = Duration::from_secs(10);

/// A node in the choice: its grade, and milliseconds of its light calls.
type Standing = (Grade, Option<f64>);

/// The node to call: the current one unless another has a better grade, or the same grade and is clearly faster. `settled`: calls
/// have gone to the current one for long enough to compare.
fn choose(current: usize, nodes: &[Standing], settled: bool) -> usize {
    let Some((now, latency)) = nodes.get(current) else { return 0 };
    let best = nodes.iter().enumerate().min_by(|(_, a), (_, b)| {
        let time = |latency: &Option<f64>| latency.unwrap_or(f64::INFINITY);
        a.0.cmp(&b.0).then(time(&a.1).total_cmp(&time(&b.1)))
    });
    let Some((at, (grade, best_latency))) = best else { return current };
    let faster = match (latency, best_latency) {
        (Some(latency), Some(best)) => *best < latency / 2.0 && *best + FASTER_MS < *latency,
        _ => false,
    };
    if grade < now || (grade == now && settled && faster) { at } else { current }
}

const UNKNOWN: &str = "a node does not report its chain; it is asked again before its first use";

fn no_url() -> NodeError {
    NodeError::Retry { node: "-".into(), why: "no RPC URL is configured".into(), after: None }
}

impl Pool {
    /// The memory limit for the answers of all nodes together.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The nodes of `chain`'s configuration.
    ///
    /// # Errors
    /// [`NodeError::Retry`] if no HTTP client can be built.
    pub fn new(chain: &Chain) -> Result<Self, NodeError> {
        let expected = Arc::new(OnceLock::new());
        let budget = Budget::new(chain.fetch_buffer_bytes);
        let mut nodes: Vec<Node> = Vec::with_capacity(chain.rpc_urls.len());
        for url in &chain.rpc_urls {
            let name = endpoint(url.expose());
            // Without numbers, several keys of one provider look the same.
            let same = nodes.iter().filter(|node| node.name().split('#').next() == Some(&name)).count();
            let name = if same == 0 { name } else { format!("{name}#{}", same + 1) };
            nodes.push(Node::new(name, url, chain, expected.clone(), budget.clone())?);
        }
        if nodes.is_empty() {
            return Err(no_url());
        }
        let (current, moved) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        Ok(Self { nodes, current, moved, chain_id: chain.chain_id, expected, budget })
    }

    /// The best node for the next call.
    pub fn node(&self) -> &Node {
        let now = Instant::now();
        let at = self.current.load(Ordering::Relaxed);
        if self.nodes.len() > 1 {
            let standings: Vec<Standing> = self.nodes.iter().map(|node| node.standing(now)).collect();
            let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            let best = choose(at, &standings, now.saturating_duration_since(*moved) >= DWELL);
            if best != at {
                let (from_node, to_node) = (self.nodes[at].name(), self.nodes[best].name());
                // If every node fails sometimes, this happens at every failure.
                match now.saturating_duration_since(*moved) >= QUIET {
                    true => info!(from_node, to_node, "calls go to another node"),
                    false => debug!(from_node, to_node, "calls go to another node"),
                }
                *moved = now;
                self.current.store(best, Ordering::Relaxed);
            }
            return &self.nodes[best];
        }
        &self.nodes[at]
    }

    /// Whether the next call goes to another node than `failed`, and that node is known to work.
    pub fn moves_on(&self, failed: &str) -> bool {
        let next = self.node();
        next.name() != failed && next.standing(Instant::now()).0 <= Grade::Lagging
    }

    /// Finds the nodes' chain. The first one that serves the configured chain decides on its genesis.
    pub async fn identity(&self) -> Result<Identity, NodeError> {
        let mut told = self.ask_all().await;
        let answers = || told.iter().filter_map(|answer| answer.as_ref()?.as_ref().ok());
        let Some(first) = answers().find(|found| found.chain_id == self.chain_id).or_else(|| answers().next()) else {
            let failure = told.drain(..).flatten().find_map(Result::err);
            return Err(failure.unwrap_or_else(no_url));
        };
        let expected = *self.expected.get_or_init(|| *first);
        for (node, answer) in self.nodes.iter().zip(&told) {
            match answer {
                // The warning is enough: this node gets no other request.
                Some(Ok(found)) => _ = node.judge(*found, expected),
                Some(Err(error)) => node.tell(|| warn!(%error, "{UNKNOWN}")),
                None => node.tell(|| warn!("no answer yet: {UNKNOWN}")),
            }
        }
        Ok(expected)
    }

    /// The chain of each node; `None` for a silent node while others answer.
    async fn ask_all(&self) -> Vec<Option<Result<Identity, NodeError>>> {
        let mut told: Vec<_> = self.nodes.iter().map(|_| None).collect();
        let ask = |(at, node)| async move { (at, Node::identity(node).await) };
        let mut asking: FuturesUnordered<_> = self.nodes.iter().enumerate().map(ask).collect();
        let mut known_at: Option<tokio::time::Instant> = None;
        loop {
            let patience = async {
                match known_at {
                    Some(at) => tokio::time::sleep_until(at + PATIENCE).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                next = asking.next() => {
                    let Some((at, answer)) = next else { return told };
                    let known = answer.as_ref().is_ok_and(|found: &Identity| found.chain_id == self.chain_id);
                    known_at = known_at.or(known.then(tokio::time::Instant::now));
                    told[at] = Some(answer);
                }
                () = patience => return told,
            }
        }
    }

    /// The chain that all nodes must serve, once it is known.
    pub fn expected(&self) -> Option<Identity> {
        self.expected.get().copied()
    }

    /// A node reported its newest block: it is compared with the recent reports of the others.
    pub fn saw_head(&self, node: &Node, head: &Header) {
        let now = Instant::now();
        let others = self.nodes.iter().filter(|other| !std::ptr::eq(*other, node));
        let best = others.filter_map(|other| other.head(now)).max_by_key(|head| head.number);
        node.saw_head(head, best);
    }

    /// The nodes in reserve that are due for a request of their heads.
    pub fn due(&self) -> Vec<&Node> {
        let (now, current) = (Instant::now(), self.node());
        let due = |node: &&Node| match node.standing(now).0 {
            Grade::Resting(_) => false,
            // A node of another chain is asked only for its chain, from time to time.
            Grade::Refused | Grade::Unchecked | Grade::Troubled | Grade::Caught => true,
            Grade::Good | Grade::Lagging => node.head_age(now).is_none_or(|age| age >= SURVEY),
        };
        self.nodes.iter().filter(|node| !std::ptr::eq(*node, current)).filter(due).collect()
    }

    /// The nodes that may prove themselves now.
    pub fn on_probation(&self) -> impl Iterator<Item = (&Node, Source, u64)> {
        self.nodes.iter().filter_map(|node| node.on_probation().map(|(source, block)| (node, source, block)))
    }

    /// The state of each node.
    pub fn reports(&self) -> Vec<NodeReport> {
        self.nodes.iter().map(Node::report).collect()
    }

    /// Adopts the limits of an earlier run.
    pub fn remember(&self, reports: &[NodeReport]) {
        for node in &self.nodes {
            if let Some(report) = reports.iter().find(|report| report.name == node.name()) {
                node.remember(report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_stay_where_they_are_unless_another_node_is_clearly_better() {
        use Grade::*;
        let check = |current, nodes: &[Standing], settled| choose(current, nodes, settled);
        let quick = Some(20.0);
        assert_eq!(check(0, &[(Good, Some(30.0)), (Good, quick)], true), 0, "similar ones do not take turns");
        assert_eq!(check(0, &[(Good, Some(110.0)), (Good, quick)], true), 0);
        assert_eq!(check(0, &[(Good, Some(500.0)), (Good, quick)], true), 1);
        assert_eq!(check(0, &[(Good, Some(500.0)), (Good, quick)], false), 0, "not yet");
        assert_eq!(check(0, &[(Good, Some(500.0)), (Good, None)], true), 0, "nobody knows how fast it is");
        assert_eq!(check(1, &[(Good, None), (Good, None)], true), 1);
        assert_eq!(check(0, &[(Troubled, quick), (Good, Some(900.0))], false), 1, "slow is better than wrong");
        assert_eq!(check(0, &[(Lagging, quick), (Troubled, quick), (Good, None)], false), 2);
        assert_eq!(check(0, &[(Lagging, quick), (Troubled, quick)], false), 0, "behind is better than wrong");
        assert_eq!(check(0, &[(Unchecked, None), (Troubled, None)], false), 1);
    }

    #[test]
    fn with_all_resting_the_first_to_be_back_is_asked_and_another_chain_never() {
        use Grade::*;
        let now = Instant::now();
        let rest = |ms| (Resting(now + Duration::from_millis(ms)), Some(10.0));
        assert_eq!(choose(0, &[rest(900), rest(300), rest(600)], true), 1);
        assert_eq!(choose(1, &[rest(900), rest(300), (Refused, Some(1.0))], true), 1);
        assert_eq!(choose(2, &[rest(900), (Unchecked, None), (Refused, Some(1.0))], true), 1);
        assert_eq!(choose(0, &[(Refused, None), (Refused, None)], true), 0);
    }
}
