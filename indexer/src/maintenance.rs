//! Partition upkeep: leaves for a batch's times before its COPY, leaves ahead of the head on a timer.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use dalp_partitions::{Catalog, Need, Policy, Table, ensure, read};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::{debug, info, warn};

use crate::chain::batch::BlockBatch;
use crate::config::{Config, Database, Partitions};
use crate::status::{ChainStatus, Role};
use crate::store::connect::{ConnectError, connect_direct, explain};
use crate::store::{Store, StoreError, timestamp};

/// The partitioned tables, in the order in which a batch needs them.
const TABLES: [&str; 2] = ["logs", "erc20_transfer"];

/// Pause of the upkeep while a chain's head is not known yet.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// Why leaves cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LeavesError {
    /// No direct connection.
    #[error("database.admin_url: {0}")]
    Connect(#[from] ConnectError),
    /// The connection may not act for the partitioner.
    #[error(
        "database.admin_url: its user cannot act as \"{role}\": {why}. Run `dalp-indexer migrate` with that user, or as an \
         administrator: GRANT \"{role}\" TO that user"
    )]
    Role {
        /// The group role.
        role: String,
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
}

impl LeavesError {
    /// What the writer that waits for a leaf should do.
    fn for_writer(self) -> StoreError {
        let why = self.to_string();
        match self {
            Self::Connect(error) => error.into(),
            Self::Lost { why } => StoreError::Retry { why },
            Self::Partitions(dalp_partitions::Error::Locked { .. } | dalp_partitions::Error::Database { .. }) => {
                StoreError::Retry { why }
            }
            Self::Role { .. } | Self::Partitions(_) => StoreError::Fatal { why },
        }
    }
}

/// The partition manager's connection, and what is known about the leaves that exist.
#[derive(Debug)]
pub struct Leaves {
    database: Database,
    role: String,
    policy: Policy,
    every: Duration,
    /// One DDL lane in this process; the database has one across processes.
    client: Mutex<Option<Client>>,
    known: RwLock<HashMap<(u64, &'static str), Catalog>>,
}

impl Leaves {
    /// Connects to `database.admin_url` as the partitioner.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn open(config: &Config) -> Result<Self, LeavesError> {
        let leaves = Self {
            database: config.database.clone(),
            role: config.roles.partitioner.clone(),
            policy: policy(&config.partitions),
            every: config.partitions.maintenance_interval,
            client: Mutex::new(None),
            known: RwLock::default(),
        };
        *leaves.client.lock().await = Some(leaves.connect().await?);
        Ok(leaves)
    }

    async fn connect(&self) -> Result<Client, LeavesError> {
        let client = connect_direct(&self.database, &self.database.admin_url).await?;
        let set_role = format!("SET ROLE \"{}\"", self.role.replace('"', "\"\""));
        client.batch_execute(&set_role).await.map_err(|error| self.refused(&error))?;
        Ok(client)
    }

    /// Why SET ROLE failed: for want of a right (42501) or of the role (22023), or because the connection went away.
    fn refused(&self, error: &tokio_postgres::Error) -> LeavesError {
        let why = explain(error);
        match error.code() {
            Some(&(SqlState::INSUFFICIENT_PRIVILEGE | SqlState::INVALID_PARAMETER_VALUE)) => {
                LeavesError::Role { role: self.role.clone(), why }
            }
            _ => LeavesError::Lost { why },
        }
    }

    /// Makes sure that every row of `batch` has a leaf. Nearly always it has, and nothing is asked.
    ///
    /// # Errors
    /// As the writer should take it.
    pub async fn cover(&self, chain_id: u64, batch: &BlockBatch) -> Result<(), StoreError> {
        for table in TABLES {
            let times = self.missing(chain_id, table, batch);
            if !times.is_empty() {
                self.make(chain_id, table, &Need::rows(times)).await.map_err(LeavesError::for_writer)?;
            }
        }
        Ok(())
    }

    fn missing(&self, chain_id: u64, table: &'static str, batch: &BlockBatch) -> Vec<DateTime<Utc>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // Absurd times are refused by the append, with the block's number.
        let times = batch.row_times().filter_map(timestamp);
        match known.get(&(chain_id, table)) {
            Some(catalog) => catalog.uncovered(times),
            None => Catalog::default().uncovered(times),
        }
    }

    async fn make(&self, chain_id: u64, table: &'static str, need: &Need) -> Result<(), LeavesError> {
        let mut lane = self.client.lock().await;
        let client = match &mut *lane {
            Some(client) if !client.is_closed() => client,
            slot => slot.insert(self.connect().await?),
        };
        let key = i64::try_from(chain_id).unwrap_or(i64::MAX);
        let report = ensure(client, &managed(table), key, &self.policy, Utc::now(), need).await?;
        if !report.created.is_empty() {
            info!(
                table,
                chain_id,
                created = report.created.len(),
                leaves = report.catalog.leaves.len(),
                "partitions made"
            );
        }
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert((chain_id, table), report.catalog);
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
        for table in TABLES {
            let catalog = read(client, &managed(table), i64::try_from(chain_id).unwrap_or(i64::MAX)).await?;
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert((chain_id, table), catalog);
        }
        Ok(())
    }

    /// Forgets what is known of a chain's leaves: the database said that it is not so.
    pub fn forget(&self, chain_id: u64) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|(chain, _), _| *chain != chain_id);
    }

    /// Leaves of a chain, over all tables.
    pub fn count(&self, chain_id: u64) -> u64 {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|((chain, _), _)| *chain == chain_id).map(|(_, catalog)| catalog.leaves.len() as u64).sum()
    }

    /// Keeps leaves ahead of each chain's head, and the coverage compact, until `stop` turns true. A failure is told
    /// and tried again at the next turn: writing goes on meanwhile, and makes what it needs itself.
    pub async fn keep(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            // Before the first head is known there is nothing to make ahead of it: look again soon.
            // A standby leaves it to the leader, and learns what that made when it takes over.
            let statuses: Vec<ChainStatus> = chains.iter().map(|chain| chain.borrow().clone()).collect();
            let known = statuses.iter().all(|status| status.head_time.is_some());
            for status in statuses.iter().filter(|status| status.role == Role::Leader) {
                self.turn(status, &store).await;
            }
            let pause = if known { self.every } else { FIRST_LOOK };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn turn(&self, status: &ChainStatus, store: &Store) {
        let chain_id = status.chain_id;
        if let Err(error) = self.ahead(chain_id, status.head_time).await {
            warn!(chain_id, "partitions ahead of the head: {error}");
        }
        if let Err(error) = store.compact_coverage(chain_id).await {
            debug!(chain_id, %error, "coverage not compacted");
        }
    }

    async fn ahead(&self, chain_id: u64, head: Option<DateTime<Utc>>) -> Result<(), LeavesError> {
        let Some(head) = head else { return Ok(()) };
        for table in TABLES {
            self.make(chain_id, table, &Need::ahead_of(head)).await?;
        }
        Ok(())
    }
}

fn managed(table: &str) -> Table {
    Table::new("dalp_indexed", table, "block_time")
}

fn policy(partitions: &Partitions) -> Policy {
    Policy {
        interval: partitions.interval,
        history: partitions.history_interval,
        history_after: TimeDelta::from_std(partitions.history_after).unwrap_or(TimeDelta::MAX),
        premake: partitions.premake,
        max_leaves: partitions.max_leaves as usize,
        ..Policy::default()
    }
}
