//! Partition upkeep: leaves for a batch's times before its COPY, leaves ahead of the head on a timer, indexes of leaves
//! that were made bare when they are loaded.

mod book;
mod connector;
mod index;
mod place;
mod policy;
pub(crate) mod retention;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use dalp_partitions::{ArchiveError, Need, Table, ensure, extend, read, set_aside, unseal};
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tracing::{Instrument as _, debug, info, warn};

pub use book::Book;
pub(crate) use connector::Connector;
pub(crate) use place::Place;
pub use policy::crowding;
pub(crate) use policy::policy;

use crate::chain::batch::BlockBatch;
use crate::config::{Config, Interval, ManagedTable, Partitions};
use crate::spans;
use crate::store::connect::ConnectError;
use crate::store::{Floors, StoreError, timestamp};
use crate::task::Beside;

/// Why leaves cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LeavesError {
    /// No direct connection.
    #[error("database.admin_url: {0}")]
    Connect(#[from] ConnectError),
    /// The connection may not act for the partitioner.
    #[error(
        "database.admin_url: its user cannot act as \"{role}\": {why}. Run `dalp-indexer migrate` with that user, or as an \
         administrator: {grant};"
    )]
    Role {
        /// The group role.
        role: String,
        /// The statement that lets the user act as it.
        grant: String,
        /// What the server said.
        why: String,
    },
    /// The connection was lost before it could be used.
    #[error("database.admin_url: {why}")]
    Lost {
        /// What happened.
        why: String,
    },
    /// The partition manager failed.
    #[error("{0}")]
    Partitions(#[from] dalp_partitions::Error),
    /// A run came to its end, and did not do all that it should.
    #[error("{why}")]
    Undone {
        /// What is left.
        why: String,
    },
    /// Part of the program failed at it.
    #[error("{0}")]
    Panicked(String),
}

impl LeavesError {
    /// What the writer that waits for a leaf should do.
    fn for_writer(self) -> StoreError {
        let why = self.to_string();
        match self {
            // Who may log in, or which database there is, may be changing.
            Self::Connect(_) | Self::Lost { .. } => StoreError::Retry { why },
            // A leaf that is refused was retired a moment ago: its rows are below the floor that is read next, and left out.
            Self::Partitions(
                dalp_partitions::Error::Locked { .. }
                | dalp_partitions::Error::Database { .. }
                | dalp_partitions::Error::Refused { .. },
            ) => StoreError::Retry { why },
            Self::Role { .. } | Self::Partitions(_) | Self::Panicked(_) | Self::Undone { .. } => {
                StoreError::Fatal { why }
            }
        }
    }
}

/// The partition manager's connection, and what is known about the leaves that exist.
#[derive(Debug)]
pub struct Leaves {
    connector: Connector,
    partitions: Partitions,
    every: Duration,
    /// The chains' tables, in the order in which a batch needs them.
    tables: Vec<ManagedTable>,
    /// All tables that are looked after.
    managed: Vec<ManagedTable>,
    archive: Place,
    /// Chains without raw logs, which have leaves of typed tables only.
    typed: HashSet<u64>,
    /// One DDL lane in this process; the database has one across processes.
    client: Mutex<Option<Client>>,
    /// What is known of the leaves.
    pub book: Book,
    /// What of each chain's upkeep failed.
    upkeep: RwLock<HashMap<u64, Beside>>,
    /// Intervals that were chosen by size.
    chosen: RwLock<HashMap<(u64, String), Interval>>,
}

impl Leaves {
    /// Connects to `database.admin_url` as the partitioner.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn open(config: &Config) -> Result<Self, LeavesError> {
        let leaves = Self {
            connector: Connector::new(config),
            partitions: config.partitions.clone(),
            every: config.partitions.maintenance_interval,
            tables: config.tables.iter().filter(|table| table.is_of_chains()).cloned().collect(),
            managed: config.tables.clone(),
            archive: Place::open(&config.partitions),
            typed: config.chains.iter().filter(|chain| !chain.raw).map(|chain| chain.chain_id).collect(),
            client: Mutex::new(None),
            book: Book::default(),
            upkeep: RwLock::default(),
            chosen: RwLock::default(),
        };
        *leaves.client.lock().await = Some(leaves.connect().await?);
        Ok(leaves)
    }

    /// Why the archive that is configured cannot be used at all.
    pub fn archive_fault(&self) -> Option<&str> {
        self.archive.fault.as_deref()
    }

    async fn connect(&self) -> Result<Client, LeavesError> {
        self.connector.connect().await
    }

    /// Makes sure that every row of `batch` above the floors has a leaf. Nearly always it has, and nothing is asked.
    ///
    /// # Errors
    /// As the writer should take it.
    pub async fn cover(&self, chain_id: u64, batch: &BlockBatch, floors: Floors) -> Result<(), StoreError> {
        let head = self.book.head_of(chain_id);
        for table in self.tables_of(chain_id) {
            let times = self.missing(chain_id, &table.table, batch, floors);
            if !times.is_empty() {
                let need = Need::rows(times).bare_until(head).of_load(self.book.load_of(chain_id));
                let make = self.make(chain_id, table, &need).instrument(spans::table(&table.name));
                make.await.map_err(LeavesError::for_writer)?;
            }
        }
        Ok(())
    }

    /// Opens the sealed leaves that rows of `batch` above the floors belong into; their archives are void, and made again later.
    ///
    /// # Errors
    /// As the writer should take it.
    pub async fn unseal(&self, chain_id: u64, batch: &BlockBatch, floors: Floors) -> Result<(), StoreError> {
        let mut client = self.connect().await.map_err(LeavesError::for_writer)?;
        for table in self.tables_of(chain_id) {
            let unseal = self.unseal_of(&mut client, chain_id, &table.table, batch, floors);
            unseal.instrument(spans::table(&table.name)).await.map_err(LeavesError::for_writer)?;
        }
        Ok(())
    }

    async fn unseal_of(
        &self,
        client: &mut Client,
        chain_id: u64,
        table: &Table,
        batch: &BlockBatch,
        floors: Floors,
    ) -> Result<(), LeavesError> {
        let catalog = read(client, table, key(chain_id)).await?;
        let floor = floors.of(&table.name);
        let times = batch.row_times().filter_map(timestamp).filter(|time| floor.is_none_or(|floor| floor <= *time));
        let names: HashSet<String> = times.filter_map(|time| Some(catalog.leaf_at(time)?.name.clone())).collect();
        for name in names {
            let void = unseal(client, table, &name).await?;
            if let (Some(manifest), Some(archive)) = (&void, &self.archive.archive) {
                info!(
                    leaf = name,
                    version = manifest.version,
                    "a sealed partition is written again: its archive is void"
                );
                match set_aside(client, table, archive, manifest).await {
                    // The archive of the database that this one is a copy of: there it is valid.
                    Err(dalp_partitions::Error::Archive(error @ ArchiveError::NotOurs { .. })) => {
                        warn!(leaf = name, "{error}")
                    }
                    aside => aside?,
                }
            }
        }
        Ok(())
    }

    /// The tables that a chain has rows in.
    fn tables_of(&self, chain_id: u64) -> impl Iterator<Item = &ManagedTable> {
        let typed = self.typed.contains(&chain_id);
        self.tables.iter().filter(move |table| !typed || table.name != LOGS)
    }

    fn missing(&self, chain_id: u64, table: &Table, batch: &BlockBatch, floors: Floors) -> Vec<DateTime<Utc>> {
        let floor = floors.of(&table.name);
        // Absurd times are refused by the append, with the block's number; what is below the floor is not written.
        let times = batch.row_times().filter_map(timestamp).filter(|time| floor.is_none_or(|floor| floor <= *time));
        self.book.uncovered(chain_id, table, times)
    }

    /// Makes what `need` lacks. For rows, what is known of the leaves is trusted as far as it is still so; for what lies ahead, it is
    /// read anew: the upkeep is the time to learn what others did.
    async fn make(&self, chain_id: u64, managed: &ManagedTable, need: &Need) -> Result<(), LeavesError> {
        let (table, mut policy) = (&managed.table, policy(&self.partitions, managed));
        let chosen =
            self.chosen.read().unwrap_or_else(PoisonError::into_inner).get(&(chain_id, table.name.clone())).copied();
        policy.interval = chosen.unwrap_or(policy.interval);
        let mut lane = self.client.lock().await;
        let client = match &mut *lane {
            Some(client) if !client.is_closed() => client,
            slot => slot.insert(self.connect().await?),
        };
        let (now, known) = (Utc::now(), self.book.catalog(chain_id, table).filter(|_| need.head.is_none()));
        let report = match known {
            Some(known) => extend(client, table, key(chain_id), &policy, now, need, known).await?,
            None => ensure(client, table, key(chain_id), &policy, now, need).await?,
        };
        let (created, leaves) = (report.created.len(), report.catalog.leaves.len());
        match (created, need.head) {
            (0, _) => {}
            (_, Some(_)) => info!(created, leaves, "partitions made ahead of the head"),
            // History makes one after the other; how far it is, its own line says.
            (_, None) => debug!(created, leaves, "partitions made"),
        }
        self.book.know(chain_id, table, report.catalog);
        Ok(())
    }

    /// Reads the leaves of a chain that exist already.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn learn(&self, chain_id: u64) -> Result<(), LeavesError> {
        let mut lane = self.client.lock().await;
        let client = match &mut *lane {
            Some(client) if !client.is_closed() => client,
            slot => slot.insert(self.connect().await?),
        };
        for table in self.tables_of(chain_id) {
            let catalog = read(client, &table.table, key(chain_id)).await?;
            self.book.know(chain_id, &table.table, catalog);
        }
        Ok(())
    }
}

/// A chain's id as the key of its sub-parents.
fn key(chain_id: u64) -> i64 {
    i64::try_from(chain_id).unwrap_or(i64::MAX)
}

/// The table of raw logs.
const LOGS: &str = "logs";
