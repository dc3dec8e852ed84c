//! Indexes of bare leaves, built after their load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dalp_partitions::{Indexed, Leaf, Table, build, read_leaf};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::Client;
use tracing::{Instrument as _, debug, warn};

use super::{Leaves, LeavesError};
use crate::config::ManagedTable;
use crate::service::tasks::Pulse;
use crate::spans;
use crate::status::{ChainStatus, Role};
use crate::store::Store;
use crate::store::history::MissingTimes;

/// The time that a leaf stays bare after its last row while history continues elsewhere: a load of minutes ends sooner without a
/// build beside it, but a load of hours must not keep its finished leaves from being served.
const SETTLED: Duration = Duration::from_secs(60);

/// Pause between two searches for leaves that can be indexed.
const INDEX_LOOK: Duration = Duration::from_millis(250);

/// Pause after a failed build.
const INDEX_PAUSE: Duration = Duration::from_secs(5);

impl Leaves {
    /// Builds the indexes of bare leaves with complete history, until `stop` turns true. Uses its own connection, because a build
    /// may take minutes.
    pub async fn index(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        pulse: Pulse,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut builder = Builder { leaves: self, store, client: None, loaded: HashMap::new() };
        loop {
            let led: Vec<(u64, String)> = chains
                .iter()
                .map(|chain| chain.borrow())
                .filter(|status| status.role == Role::Leader)
                .map(|status| (status.chain_id, status.name.clone()))
                .collect();
            let (mut pause, mut failed) = (INDEX_LOOK, None);
            for (chain_id, name) in led {
                let span = spans::chain(&name);
                if let Err(error) = builder.turn(chain_id).instrument(span.clone()).await {
                    span.in_scope(|| warn!("indexes of partitions: {error}"));
                    (pause, failed) = (INDEX_PAUSE, Some(format!("chain {chain_id}: {error}")));
                }
            }
            pulse.turn(failed);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
        }
    }
}

/// Builds the indexes of bare leaves.
struct Builder {
    leaves: Arc<Leaves>,
    store: Store,
    client: Option<Client>,
    /// The time since which a leaf lacks only indexes.
    loaded: HashMap<(u64, String), Instant>,
}

impl Builder {
    /// Builds the possible indexes of one chain. Nearly always no leaf is bare, and no query runs.
    async fn turn(&mut self, chain_id: u64) -> Result<(), LeavesError> {
        let bare: Vec<(ManagedTable, Leaf)> = self
            .leaves
            .tables
            .iter()
            .flat_map(|(_, managed)| {
                let bare = self.leaves.book.bare_of(chain_id, &managed.table);
                bare.into_iter().map(|leaf| (managed.clone(), leaf))
            })
            .collect();
        if bare.is_empty() {
            self.loaded.retain(|(chain, _), _| *chain != chain_id);
            return Ok(());
        }
        let missing = match self.store.missing_times(chain_id).await {
            Ok(missing) => missing,
            Err(error) => {
                debug!(%error, "the missing times are unknown");
                return Ok(());
            }
        };
        for (ManagedTable { name, table, .. }, leaf) in bare {
            let live = missing.tail.is_none_or(|tail| tail < leaf.bounds.to());
            if self.is_due(chain_id, &leaf, &missing) {
                self.build(chain_id, &table, &leaf, live).instrument(spans::table(&name)).await?;
            }
        }
        Ok(())
    }

    /// Whether a leaf lacks no rows of history, for long enough, or no history of the chain is missing.
    fn is_due(&mut self, chain_id: u64, leaf: &Leaf, missing: &MissingTimes) -> bool {
        let (key, head) = ((chain_id, leaf.name.clone()), self.leaves.book.head_of(chain_id));
        if missing.touch(leaf.bounds, head) {
            self.loaded.remove(&key);
            return false;
        }
        let since = *self.loaded.entry(key).or_insert_with(Instant::now);
        missing.is_none(head) || since.elapsed() >= SETTLED
    }

    async fn build(&mut self, chain_id: u64, table: &Table, leaf: &Leaf, live: bool) -> Result<(), LeavesError> {
        let client = match &mut self.client {
            Some(client) if !client.is_closed() => client,
            slot => slot.insert(self.leaves.connect().await?),
        };
        let began = Instant::now();
        let Some(catalog) = self.leaves.book.catalog(chain_id, table) else { return Ok(()) };
        let indexed = build(client, table, &catalog, &leaf.name, live).await?;
        if let Indexed::Made(indexes @ 1..) = indexed {
            let took_seconds = began.elapsed().as_secs_f64();
            debug!(leaf = leaf.name, indexes, took_seconds, "built the indexes of a loaded partition");
        }
        if indexed != Indexed::Busy {
            let now = read_leaf(client, table, &catalog, &leaf.name).await?;
            self.leaves.book.know_leaf(chain_id, table, &leaf.name, now);
        }
        Ok(())
    }
}
