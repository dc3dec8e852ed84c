//! Indexes of bare leaves, built after their load; and of leaves in use, dropped before a large one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dalp_partitions::{Bounds, Catalog, INDEXER_KEYS, Indexed, Leaf, Table, build, read_leaf, sizes, strip};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::Client;
use tracing::{Instrument as _, debug, info, warn};

use super::{Leaves, LeavesError, key};
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
    /// Builds the indexes of bare leaves with complete history, until `stop` turns true. Uses its own connections, because a build
    /// may take minutes.
    pub async fn index(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        pulse: Pulse,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut builder =
            Builder { leaves: self, store, clients: [None, None], loaded: HashMap::new(), prepared: HashSet::new() };
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

/// Builds the indexes of bare leaves, and drops those that a load would maintain.
struct Builder {
    leaves: Arc<Leaves>,
    store: Store,
    /// One for each build that runs at a time. The second is made when two leaves are due.
    clients: [Option<Client>; INDEXER_KEYS.len()],
    /// The time since which a leaf lacks only indexes.
    loaded: HashMap<(u64, String), Instant>,
    /// The chains whose leaves are prepared for the load of their missing blocks.
    prepared: HashSet<u64>,
}

impl Builder {
    /// Builds the possible indexes of one chain. Nearly always the chain is complete, no leaf is bare, and no query runs.
    async fn turn(&mut self, chain_id: u64) -> Result<(), LeavesError> {
        self.prepare(chain_id).await?;
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
        let due = bare.into_iter().filter(|(_, leaf)| self.is_due(chain_id, leaf, &missing));
        let due = due.map(|(managed, leaf)| {
            let live = missing.tail.is_none_or(|tail| tail < leaf.bounds.to());
            (managed, leaf, live)
        });
        let mut due: Vec<_> = due.collect();
        // A build CONCURRENTLY waits for every older transaction, and the build of an unused leaf is a long one: it comes later.
        due.sort_by_key(|(_, _, live)| !live);
        let due = Due { chain_id, leaves: Mutex::new(due.into()) };
        let [first, second] = &mut self.clients;
        let (first, second) = tokio::join!(self.leaves.build_due(first, &due), self.leaves.build_due(second, &due));
        first.and(second)
    }

    /// After an outage, drops the indexes of leaves in use that lack many rows: once for each time that a chain is incomplete.
    async fn prepare(&mut self, chain_id: u64) -> Result<(), LeavesError> {
        if self.leaves.book.is_complete(chain_id) {
            self.prepared.remove(&chain_id);
            return Ok(());
        }
        let Some(head) = self.leaves.book.head_of(chain_id).filter(|_| !self.prepared.contains(&chain_id)) else {
            return Ok(());
        };
        let Ok(missing) = self.store.missing_times(chain_id).await else { return Ok(()) };
        let leaves = self.leaves.clone();
        for (_, ManagedTable { name, table, .. }) in leaves.tables_of(chain_id) {
            let Some(catalog) = leaves.book.catalog(chain_id, table) else { return Ok(()) };
            let has_indexes = |leaf: &&Leaf| leaf.lacks(&table.leaf_indexes).len() < table.leaf_indexes.len();
            let outage = |leaf: &Leaf| missing.outage(leaf.bounds, head);
            let loaded = catalog.leaves.iter().filter(has_indexes).filter(|leaf| !outage(leaf).missing.is_zero());
            let loaded: Vec<&Leaf> = loaded.collect();
            if loaded.is_empty() {
                continue;
            }
            let sizes = sizes(self.client().await?, table, key(chain_id)).await?;
            let sizes: HashMap<Bounds, i64> = sizes.iter().map(|size| (size.bounds, size.row_bytes)).collect();
            for leaf in loaded {
                if sizes.get(&leaf.bounds).is_some_and(|bytes| outage(leaf).is_faster_bare(*bytes)) {
                    self.strip(chain_id, table, &catalog, &leaf.name).instrument(spans::table(name)).await?;
                }
            }
        }
        self.prepared.insert(chain_id);
        Ok(())
    }

    async fn strip(&mut self, chain_id: u64, table: &Table, catalog: &Catalog, leaf: &str) -> Result<(), LeavesError> {
        let client = self.client().await?;
        let stripped = strip(client, table, catalog, leaf).await?;
        let now = read_leaf(client, table, catalog, leaf).await?;
        self.leaves.book.know_leaf(chain_id, table, leaf, now);
        if let Indexed::Dropped(indexes @ 1..) = stripped {
            info!(leaf, indexes, "dropped the indexes of a partition until its missing rows are loaded");
        }
        Ok(())
    }

    async fn client(&mut self) -> Result<&mut Client, LeavesError> {
        self.leaves.connected(&mut self.clients[0]).await
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
}

/// The leaves of a chain whose indexes are due, each with whether writers use it.
struct Due {
    chain_id: u64,
    leaves: Mutex<VecDeque<(ManagedTable, Leaf, bool)>>,
}

impl Due {
    fn next(&self) -> Option<(ManagedTable, Leaf, bool)> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Leaves {
    /// Builds the indexes of due leaves on the connection in `client`, until none is left.
    async fn build_due(&self, client: &mut Option<Client>, due: &Due) -> Result<(), LeavesError> {
        while let Some((ManagedTable { name, table, .. }, leaf, live)) = due.next() {
            let client = self.connected(client).await?;
            self.build(client, due.chain_id, &table, &leaf, live).instrument(spans::table(&name)).await?;
        }
        Ok(())
    }

    async fn build(
        &self,
        client: &mut Client,
        chain_id: u64,
        table: &Table,
        leaf: &Leaf,
        live: bool,
    ) -> Result<(), LeavesError> {
        let began = Instant::now();
        let Some(catalog) = self.book.catalog(chain_id, table) else { return Ok(()) };
        let indexed = build(client, table, &catalog, &leaf.name, live).await?;
        if let Indexed::Made(indexes @ 1..) = indexed {
            let took_seconds = began.elapsed().as_secs_f64();
            debug!(leaf = leaf.name, indexes, took_seconds, "built the indexes of a loaded partition");
        }
        if indexed != Indexed::Busy {
            let now = read_leaf(client, table, &catalog, &leaf.name).await?;
            self.book.know_leaf(chain_id, table, &leaf.name, now);
        }
        Ok(())
    }
}
