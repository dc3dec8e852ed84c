//! What is known of each chain's leaves, without a question to the database.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chrono::{DateTime, Utc};
use dalp_partitions::{Bounds, Catalog, Leaf, Table};

/// The leaves of each chain's tables as they were when they were last read, and how far each chain is.
#[derive(Debug, Default)]
pub struct Book {
    tables: RwLock<HashMap<(u64, Place), Known>>,
    chains: RwLock<HashMap<u64, Times>>,
    /// The time of the newest row that came, by chain and table.
    newest: RwLock<HashMap<(u64, Place), DateTime<Utc>>>,
}

/// Schema and name of a table: others may have its name in other schemas.
type Place = (String, String);

/// What is known of one chain's leaves of a table.
#[derive(Debug)]
struct Known {
    catalog: Catalog,
    /// Those that lack indexes: told when the catalog is read, as the status is asked for at every step.
    bare: Vec<Leaf>,
}

/// How far a chain is.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// The newest time known of the head: what lies before is history, whose leaves are loaded bare.
    head: Option<DateTime<Utc>>,
    /// The time of the lowest missing block: from there to the head, history goes through its leaves in a row.
    lowest: Option<DateTime<Utc>>,
}

impl Book {
    /// Takes note of the head's time: leaves that end before it are made bare from now on, and indexed when they are loaded.
    /// Without it all are made with their indexes.
    pub fn head(&self, chain_id: u64, time: DateTime<Utc>) {
        write(&self.chains).entry(chain_id).or_default().head = Some(time);
    }

    /// Takes note of a row of a table at this time.
    pub(super) fn row(&self, chain_id: u64, table: &Table, time: DateTime<Utc>) {
        let mut newest = write(&self.newest);
        let known = newest.entry((chain_id, place(table))).or_insert(time);
        *known = time.max(*known);
    }

    /// The time of the newest row of a table that came.
    pub(super) fn newest(&self, chain_id: u64, table: &Table) -> Option<DateTime<Utc>> {
        read(&self.newest).get(&(chain_id, place(table))).copied()
    }

    /// Takes note of the time of a chain's lowest missing block: history goes down to it, or up from it.
    pub fn load_from(&self, chain_id: u64, time: DateTime<Utc>) {
        write(&self.chains).entry(chain_id).or_default().lowest = Some(time);
    }

    /// The newest time known of a chain's head.
    pub(super) fn head_of(&self, chain_id: u64) -> Option<DateTime<Utc>> {
        read(&self.chains).get(&chain_id)?.head
    }

    /// The chains whose head is known.
    pub(super) fn followed(&self) -> Vec<u64> {
        read(&self.chains).iter().filter_map(|(chain, times)| times.head.and(Some(*chain))).collect()
    }

    /// From the lowest missing block to the head.
    pub(super) fn load_of(&self, chain_id: u64) -> Option<Bounds> {
        let times = read(&self.chains).get(&chain_id).copied()?;
        Bounds::new(Some(times.lowest?), times.head?)
    }

    /// Those of `times` that no leaf of the table is known for.
    pub(super) fn uncovered(
        &self,
        chain_id: u64,
        table: &Table,
        times: impl Iterator<Item = DateTime<Utc>>,
    ) -> Vec<DateTime<Utc>> {
        match read(&self.tables).get(&(chain_id, place(table))) {
            Some(known) => known.catalog.uncovered(times),
            None => Catalog::default().uncovered(times),
        }
    }

    /// All that is known of a table's leaves.
    pub(super) fn catalog(&self, chain_id: u64, table: &Table) -> Option<Catalog> {
        read(&self.tables).get(&(chain_id, place(table))).map(|known| known.catalog.clone())
    }

    /// Takes note of how the leaves are now.
    pub(super) fn know(&self, chain_id: u64, table: &Table, catalog: Catalog) {
        let is_bare = |leaf: &&Leaf| !leaf.detaching && !leaf.lacks(&table.leaf_indexes).is_empty();
        let bare = catalog.leaves.iter().filter(is_bare).cloned().collect();
        write(&self.tables).insert((chain_id, place(table)), Known { catalog, bare });
    }

    /// Takes note of how a leaf is now; `None` when it is gone.
    pub(super) fn know_leaf(&self, chain_id: u64, table: &Table, name: &str, leaf: Option<Leaf>) {
        let Some(mut catalog) = self.catalog(chain_id, table) else { return };
        match leaf {
            Some(leaf) => catalog.put(leaf),
            None => catalog.leaves.retain(|leaf| leaf.name != name),
        }
        self.know(chain_id, table, catalog);
    }

    /// Forgets what is known of a chain's leaves: the database said that it is not so.
    pub fn forget(&self, chain_id: u64) {
        write(&self.tables).retain(|(chain, _), _| *chain != chain_id);
    }

    /// Leaves of a chain, over all tables.
    pub fn count(&self, chain_id: u64) -> u64 {
        self.sum(chain_id, |known| known.catalog.leaves.len())
    }

    /// Leaves of a chain that lack indexes, over all tables: loaded or about to be, and slow to search.
    pub fn bare(&self, chain_id: u64) -> u64 {
        self.sum(chain_id, |known| known.bare.len())
    }

    fn sum(&self, chain_id: u64, count: impl Fn(&Known) -> usize) -> u64 {
        let known = read(&self.tables);
        known.iter().filter(|((chain, _), _)| *chain == chain_id).map(|(_, known)| count(known) as u64).sum()
    }

    /// The leaves of a table that lack indexes.
    pub(super) fn bare_of(&self, chain_id: u64, table: &Table) -> Vec<Leaf> {
        let known = read(&self.tables);
        known.get(&(chain_id, place(table))).map(|known| known.bare.clone()).unwrap_or_default()
    }
}

fn place(table: &Table) -> Place {
    (table.schema.clone(), table.name.clone())
}

// What a panic left behind is as good as before: each change is one insertion.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
