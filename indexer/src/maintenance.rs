//! Partition upkeep: leaves for a batch's times before its COPY, leaves ahead of the head on a timer, indexes of bare leaves
//! after their load.

mod book;
mod connector;
mod error;
mod index;
mod place;
mod policy;
pub(crate) mod retention;
mod tables;
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
pub use error::LeavesError;
pub(crate) use place::Place;
pub use policy::crowding;
pub(crate) use policy::policy;

use crate::config::{Config, Interval, ManagedTable, Partitions};
use crate::dataset::{Dataset, Floors, Sorted, Takes};
use crate::spans;
use crate::store::{StoreError, timestamp};
use crate::task::Beside;

/// The partition manager's connection, and the known leaves.
#[derive(Debug)]
pub struct Leaves {
    connector: Connector,
    partitions: Partitions,
    every: Duration,
    /// The chains' tables, in the order in which a batch needs them.
    tables: Vec<(Dataset, ManagedTable)>,
    /// All maintained tables.
    managed: Vec<ManagedTable>,
    archive: Place,
    /// Chains without raw logs, which have leaves of typed tables only.
    typed: HashSet<u64>,
    /// One DDL lane in this process; the database has one across processes.
    client: Mutex<Option<Client>>,
    /// The known leaves.
    pub book: Book,
    /// The failures of each chain's upkeep.
    upkeep: RwLock<HashMap<u64, Beside>>,
    /// Intervals chosen by size.
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
            tables: config.tables.iter().filter_map(|table| Some((table.dataset.clone()?, table.clone()))).collect(),
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

    /// Why the configured archive cannot be used at all.
    pub fn archive_fault(&self) -> Option<&str> {
        self.archive.fault.as_deref()
    }

    async fn connect(&self) -> Result<Client, LeavesError> {
        self.connector.connect().await
    }

    /// The connection in `client`, made if there is none.
    async fn connected<'c>(&self, client: &'c mut Option<Client>) -> Result<&'c mut Client, LeavesError> {
        if client.as_ref().is_none_or(Client::is_closed) {
            *client = Some(self.connect().await?);
        }
        client.as_mut().ok_or_else(|| LeavesError::Lost { why: "the connection was not made".to_owned() })
    }

    /// Makes sure that every row of `batch` above the floors has a leaf. Nearly always it has, and no query runs.
    ///
    /// # Errors
    /// The error in the form for the writer.
    pub async fn cover(&self, chain_id: u64, batch: &Sorted, floors: &Floors) -> Result<(), StoreError> {
        self.cover_times(chain_id, batch.all_times(), floors).await.map_err(LeavesError::for_writer)
    }

    /// As [`Leaves::cover`], for rows at these times (Unix seconds) of each dataset, by its index.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn cover_times(&self, chain_id: u64, times: &[Vec<i64>], floors: &Floors) -> Result<(), LeavesError> {
        for (dataset, table) in self.tables_of(chain_id) {
            let times = times.get(dataset.at()).map_or(&[][..], Vec::as_slice);
            // Near the head, the newest come last.
            if let Some(time) = times.last().copied().and_then(timestamp) {
                self.book.row(chain_id, &table.table, time);
            }
            let times = self.missing(chain_id, &table.table, times, floors.of(dataset));
            if !times.is_empty() {
                let need = Need::rows(times).bare_before(self.book.bare_before(chain_id));
                let need = need.of_load(self.book.load_of(chain_id));
                self.make(chain_id, table, &need).instrument(spans::table(&table.name)).await?;
            }
        }
        Ok(())
    }

    /// Whether the known leaves cover these times of each dataset.
    pub fn has_leaves(&self, chain_id: u64, times: &[Vec<i64>], floors: &Floors) -> bool {
        self.tables_of(chain_id).all(|(dataset, table)| {
            let times = times.get(dataset.at()).map_or(&[][..], Vec::as_slice);
            self.missing(chain_id, &table.table, times, floors.of(dataset)).is_empty()
        })
    }

    /// Unseals the leaves that rows of `batch` above the floors belong to; their archives become void, and are made again later.
    ///
    /// # Errors
    /// The error in the form for the writer.
    pub async fn unseal(&self, chain_id: u64, batch: &Sorted, floors: &Floors) -> Result<(), StoreError> {
        let mut client = self.connect().await.map_err(LeavesError::for_writer)?;
        for (dataset, table) in self.tables_of(chain_id) {
            // The times of all blocks with logs, for any table: a repair removes rows from every table.
            let times: Vec<i64> = batch.row_times().collect();
            let unseal = self.unseal_of(&mut client, chain_id, &table.table, &times, floors.of(dataset));
            unseal.instrument(spans::table(&table.name)).await.map_err(LeavesError::for_writer)?;
        }
        Ok(())
    }

    async fn unseal_of(
        &self,
        client: &mut Client,
        chain_id: u64,
        table: &Table,
        times: &[i64],
        floor: Option<DateTime<Utc>>,
    ) -> Result<(), LeavesError> {
        let catalog = read(client, table, key(chain_id)).await?;
        let times = times.iter().copied().filter_map(timestamp).filter(|time| floor.is_none_or(|floor| floor <= *time));
        let names: HashSet<String> = times.filter_map(|time| Some(catalog.leaf_at(time)?.name.clone())).collect();
        for name in names {
            let void = unseal(client, table, &name).await?;
            if let (Some(manifest), Some(archive)) = (&void, &self.archive.archive) {
                info!(
                    leaf = name,
                    version = manifest.version,
                    "a sealed partition was unsealed for new rows: its archive is void"
                );
                match set_aside(client, table, archive, manifest).await {
                    // The archive of the database that this one was copied from: it is valid there.
                    Err(dalp_partitions::Error::Archive(error @ ArchiveError::NotOurs { .. })) => {
                        warn!(leaf = name, "{error}")
                    }
                    aside => aside?,
                }
            }
        }
        Ok(())
    }

    /// The tables with rows of a chain.
    fn tables_of(&self, chain_id: u64) -> impl Iterator<Item = (&Dataset, &ManagedTable)> {
        let typed = self.typed.contains(&chain_id);
        let has_rows = move |dataset: &Dataset| !typed || !matches!(dataset.takes(), Takes::Every);
        self.tables.iter().filter(move |(dataset, _)| has_rows(dataset)).map(|(dataset, table)| (dataset, table))
    }

    fn missing(&self, chain_id: u64, table: &Table, times: &[i64], floor: Option<DateTime<Utc>>) -> Vec<DateTime<Utc>> {
        // The append refuses absurd times, with the block's number; rows below the floor are not written.
        let times = times.iter().copied().filter_map(timestamp).filter(|time| floor.is_none_or(|floor| floor <= *time));
        self.book.uncovered(chain_id, table, times)
    }

    /// Makes the missing leaves of `need`. For rows, the known leaves are trusted while they are current. For leaves ahead, the
    /// catalog is read again: the upkeep also finds changes by others.
    async fn make(&self, chain_id: u64, managed: &ManagedTable, need: &Need) -> Result<(), LeavesError> {
        let (table, mut policy) = (&managed.table, policy(&self.partitions, managed));
        let chosen =
            self.chosen.read().unwrap_or_else(PoisonError::into_inner).get(&(chain_id, managed.name.clone())).copied();
        policy.interval = chosen.unwrap_or(policy.interval);
        let mut lane = self.client.lock().await;
        let client = self.connected(&mut lane).await?;
        let (now, known) = (Utc::now(), self.book.catalog(chain_id, table).filter(|_| need.head.is_none()));
        let report = match known {
            Some(known) => extend(client, table, key(chain_id), &policy, now, need, known).await?,
            None => ensure(client, table, key(chain_id), &policy, now, need).await?,
        };
        let (created, leaves) = (report.created.len(), report.catalog.leaves.len());
        match (created, need.head) {
            (0, _) => {}
            (_, Some(_)) => info!(created, leaves, "made partitions ahead of the head"),
            // History makes one leaf after the other; its own log line shows the progress.
            (_, None) => debug!(created, leaves, "partitions made"),
        }
        self.book.know(chain_id, table, report.catalog);
        Ok(())
    }

    /// Reads the existing leaves of a chain.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn learn(&self, chain_id: u64) -> Result<(), LeavesError> {
        for (_, table) in self.tables_of(chain_id) {
            self.learn_table(chain_id, &table.table).await?;
        }
        Ok(())
    }

    async fn learn_table(&self, chain_id: u64, table: &Table) -> Result<(), LeavesError> {
        let mut lane = self.client.lock().await;
        let client = self.connected(&mut lane).await?;
        let catalog = read(client, table, key(chain_id)).await?;
        self.book.know(chain_id, table, catalog);
        Ok(())
    }
}

/// A chain's id as the key of its sub-parents.
fn key(chain_id: u64) -> i64 {
    i64::try_from(chain_id).unwrap_or(i64::MAX)
}
