//! Chores beside the loop, once a second: the heartbeat, the state of the nodes, the levels of blocks, the final block. A slow
//! database must not delay the loop for them, and a failing chore gives one warning until it works again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::status::{ChainStatus, NodeReport, instance};
use crate::store::{Claim, Store, StoreError};
use crate::task::{Beside, Group};

/// The time limit of a chore.
const LIMIT: Duration = Duration::from_secs(2);
/// The interval between two reads of the levels, which read the whole coverage of the chain.
const LEVELS_EVERY: Duration = Duration::from_secs(10);
/// The state of the nodes is written when it changed, and always after this time: latencies move, and a write may fail.
const NODES_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Chores {
    /// Each chore by its subject.
    running: Group<&'static str, Result<(), String>>,
    beside: Beside,
    nodes: Vec<NodeReport>,
    nodes_at: Option<Instant>,
    levels_at: Option<Instant>,
    /// The highest written final block.
    settled: Option<u64>,
}

impl Chores {
    /// Begins the due chores, and reports the finished ones; returns the number of failures so far.
    pub fn beat(
        &mut self,
        store: &Store,
        claim: &Claim,
        status: &watch::Sender<ChainStatus>,
        settled: Option<u64>,
    ) -> u64 {
        while let Some((what, ended)) = self.running.try_next() {
            let outcome = ended.unwrap_or_else(|lost| Err(lost.to_string()));
            if self.beside.tell(what, outcome) {
                // Written again at the next beat.
                (self.nodes_at, self.settled) = (None, None);
            }
        }
        let now = status.borrow().clone();
        self.save_nodes(store, &now);
        if settled > self.settled {
            self.settled = settled;
            let (store, claim) = (store.clone(), claim.clone());
            self.begin("what is final", async move { store.settle(&claim, settled).await });
        }
        if self.levels_at.is_none_or(|at| at.elapsed() >= LEVELS_EVERY) {
            self.levels_at = Some(Instant::now());
            let (store, status, chain_id) = (store.clone(), status.clone(), claim.chain_id);
            self.begin("how far blocks are verified", async move {
                let verified_to = store.verified_to(chain_id).await?;
                status.send_modify(|status| status.verified_to = verified_to);
                Ok(())
            });
        }
        let store = store.clone();
        self.begin("the heartbeat", async move { store.heartbeat(&now, &instance()).await });
        self.beside.failures()
    }

    fn save_nodes(&mut self, store: &Store, status: &ChainStatus) {
        let changed = self.nodes.len() != status.nodes.len()
            || self.nodes.iter().zip(&status.nodes).any(|(old, new)| old.differs(new));
        if !changed && self.nodes_at.is_some_and(|at| at.elapsed() < NODES_EVERY) {
            return;
        }
        (self.nodes, self.nodes_at) = (status.nodes.clone(), Some(Instant::now()));
        let (store, chain_id, reports) = (store.clone(), status.chain_id, status.nodes.clone());
        self.begin("what is known of the nodes", async move { store.save_nodes(chain_id, &reports).await });
    }

    fn begin(&mut self, what: &'static str, work: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
        self.running.spawn(what, async move {
            match timeout(LIMIT, work).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_late) => Err(format!("it took longer than {} s", LIMIT.as_secs())),
            }
        });
    }
}
