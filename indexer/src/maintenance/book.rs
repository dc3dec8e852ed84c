//! The known leaves of each chain, without a query of the database.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chrono::{DateTime, Utc};
use dalp_partitions::{Bounds, Catalog, Leaf, Table};

/// The leaves of each chain's tables at the last read, and the progress of each chain.
#[derive(Debug, Default)]
pub struct Book {
    tables: RwLock<HashMap<(u64, Place), Known>>,
    chains: RwLock<HashMap<u64, Times>>,
    /// The time of the newest arrived row, by chain and table.
    newest: RwLock<HashMap<(u64, Place), DateTime<Utc>>>,
}

/// Schema and name of a table: a table in another schema may have its name.
type Place = (String, String);

/// The known leaves of one chain in a table.
#[derive(Debug)]
struct Known {
    catalog: Catalog,
    /// The number of leaves without indexes: computed at the read of the catalog, because the status uses it at every step.
    bare: Vec<Leaf>,
}

/// The progress of a chain.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// The newest known time of the head.
    head: Option<DateTime<Utc>>,
    /// Whether no block up to the head is missing.
    complete: bool,
    /// The time of the lowest missing block: from there to the head, history passes through its leaves in a row.
    lowest: Option<DateTime<Utc>>,
}

impl Book {
    /// Records the head's time.
    pub fn head(&self, chain_id: u64, time: DateTime<Utc>) {
        write(&self.chains).entry(chain_id).or_default().head = Some(time);
    }

    /// Records whether no block of a chain up to its head is missing.
    pub fn complete(&self, chain_id: u64, complete: bool) {
        write(&self.chains).entry(chain_id).or_default().complete = complete;
    }

    /// Whether no block of a chain up to its head is missing.
    pub(super) fn is_complete(&self, chain_id: u64) -> bool {
        read(&self.chains).get(&chain_id).is_some_and(|times| times.complete)
    }

    /// The time before which rows of a chain are loaded: leaves with earlier times are made bare, the head's own leaf too, and get
    /// their indexes after the load. `None` where no block is missing: leaves that are made then get single rows.
    pub(super) fn bare_before(&self, chain_id: u64) -> Option<DateTime<Utc>> {
        self.head_of(chain_id).filter(|_| !self.is_complete(chain_id))
    }

    /// Records a row of a table at this time.
    pub(super) fn row(&self, chain_id: u64, table: &Table, time: DateTime<Utc>) {
        let mut newest = write(&self.newest);
        let known = newest.entry((chain_id, place(table))).or_insert(time);
        *known = time.max(*known);
    }

    /// The time of the newest arrived row of a table.
    pub(super) fn newest(&self, chain_id: u64, table: &Table) -> Option<DateTime<Utc>> {
        read(&self.newest).get(&(chain_id, place(table))).copied()
    }

    /// Records the time of a chain's lowest missing block: history goes down to it, or up from it.
    pub fn load_from(&self, chain_id: u64, time: DateTime<Utc>) {
        write(&self.chains).entry(chain_id).or_default().lowest = Some(time);
    }

    /// The newest known time of a chain's head.
    pub(super) fn head_of(&self, chain_id: u64) -> Option<DateTime<Utc>> {
        read(&self.chains).get(&chain_id)?.head
    }

    /// The chains with a known head.
    pub(super) fn followed(&self) -> Vec<u64> {
        read(&self.chains).iter().filter_map(|(chain, times)| times.head.and(Some(*chain))).collect()
    }

    /// From the lowest missing block to the head.
    pub(super) fn load_of(&self, chain_id: u64) -> Option<Bounds> {
        let times = read(&self.chains).get(&chain_id).copied()?;
        Bounds::new(Some(times.lowest?), times.head?)
    }

    /// The `times` without a known leaf of the table.
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

    /// All known leaves of a table.
    pub(super) fn catalog(&self, chain_id: u64, table: &Table) -> Option<Catalog> {
        read(&self.tables).get(&(chain_id, place(table))).map(|known| known.catalog.clone())
    }

    /// Records the present leaves.
    pub(super) fn know(&self, chain_id: u64, table: &Table, catalog: Catalog) {
        let is_bare = |leaf: &&Leaf| !leaf.detaching && !leaf.lacks(&table.leaf_indexes).is_empty();
        let bare = catalog.leaves.iter().filter(is_bare).cloned().collect();
        write(&self.tables).insert((chain_id, place(table)), Known { catalog, bare });
    }

    /// Records the present state of a leaf; `None` if it is gone.
    pub(super) fn know_leaf(&self, chain_id: u64, table: &Table, name: &str, leaf: Option<Leaf>) {
        let Some(mut catalog) = self.catalog(chain_id, table) else { return };
        match leaf {
            Some(leaf) => catalog.put(leaf),
            None => catalog.leaves.retain(|leaf| leaf.name != name),
        }
        self.know(chain_id, table, catalog);
    }

    /// Forgets the known leaves of a chain: the database contradicted them.
    pub fn forget(&self, chain_id: u64) {
        write(&self.tables).retain(|(chain, _), _| *chain != chain_id);
    }

    /// Leaves of a chain, over all tables.
    pub fn count(&self, chain_id: u64) -> u64 {
        self.sum(chain_id, |known| known.catalog.leaves.len())
    }

    /// Leaves of a chain without indexes, over all tables: loaded or about to be, and slow to search.
    pub fn bare(&self, chain_id: u64) -> u64 {
        self.sum(chain_id, |known| known.bare.len())
    }

    fn sum(&self, chain_id: u64, count: impl Fn(&Known) -> usize) -> u64 {
        let known = read(&self.tables);
        known.iter().filter(|((chain, _), _)| *chain == chain_id).map(|(_, known)| count(known) as u64).sum()
    }

    /// The leaves of a table without indexes.
    pub(super) fn bare_of(&self, chain_id: u64, table: &Table) -> Vec<Leaf> {
        let known = read(&self.tables);
        known.get(&(chain_id, place(table))).map(|known| known.bare.clone()).unwrap_or_default()
    }
}

fn place(table: &Table) -> Place {
    (table.schema.clone(), table.name.clone())
}

// A panic leaves it intact: each change is one insertion.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
