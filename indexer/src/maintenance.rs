//! Partition upkeep: leaves for a batch's times before its COPY, leaves ahead of the head on a timer, indexes of leaves
//! that were made bare when they are loaded.

pub(crate) mod retention;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use dalp_partitions::{
    Archive, ArchiveError, Bounds, Catalog, Fate, Indexed, Leaf, Need, Policy, Table, Target, build, ensure, extend,
    read, read_leaf, set_aside, sizes, unseal,
};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tracing::{debug, info, warn};

use crate::chain::batch::BlockBatch;
use crate::config::{Config, Database, Interval, ManagedTable, Partitions};
use crate::service::tasks::Pulse;
use crate::status::{ChainStatus, Role};
use crate::store::connect::{ConnectError, connect_direct, explain};
use crate::store::history::MissingTimes;
use crate::store::{Floors, Store, StoreError, timestamp};
use crate::task::Beside;

/// How long a leaf stays bare after its last row while history goes on elsewhere: a load of minutes is done sooner
/// without building beside it, one of hours must not keep what it has finished from being served.
const SETTLED: Duration = Duration::from_secs(60);

/// Pause between two looks for leaves that can be indexed.
const INDEX_LOOK: Duration = Duration::from_millis(250);

/// Pause after an index could not be built.
const INDEX_PAUSE: Duration = Duration::from_secs(5);

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

/// Makes connections that act as the partitioner.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    database: Database,
    role: String,
}

impl Connector {
    pub fn new(config: &Config) -> Self {
        Self { database: config.database.clone(), role: config.roles.partitioner.clone() }
    }

    /// A direct connection to `database.admin_url`.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn connect(&self) -> Result<Client, LeavesError> {
        let client = connect_direct(&self.database, &self.database.admin_url).await?;
        // What decides about rows sees all of them, or is refused.
        let set_role = format!("SET row_security = off; SET ROLE \"{}\"", self.role.replace('"', "\"\""));
        match client.batch_execute(&set_role).await {
            Err(error) => Err(self.refused(&client, &error).await),
            Ok(()) => Ok(client),
        }
    }

    /// Why SET ROLE failed: for want of a right (42501) or of the role (22023), or because the connection went away.
    async fn refused(&self, client: &Client, error: &tokio_postgres::Error) -> LeavesError {
        let said = error.as_db_error().filter(|_| {
            matches!(error.code(), Some(&(SqlState::INSUFFICIENT_PRIVILEGE | SqlState::INVALID_PARAMETER_VALUE)))
        });
        let Some(said) = said else { return LeavesError::Lost { why: explain(error) } };
        let why = format!("{} (SQLSTATE {})", said.message(), said.code().code());
        let sql = "SELECT format('GRANT %I TO %I', $1, session_user)";
        match client.query_typed_one(sql, &[(&self.role, Type::TEXT)]).await {
            Ok(row) => LeavesError::Role { role: self.role.clone(), grant: row.get(0), why },
            Err(error) => LeavesError::Lost { why: explain(&error) },
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
    known: RwLock<HashMap<(u64, String), Known>>,
    /// What of each chain's upkeep failed.
    upkeep: RwLock<HashMap<u64, Beside>>,
    /// Intervals that were chosen by size.
    chosen: RwLock<HashMap<(u64, String), Interval>>,
    /// The newest time known of each chain's head: what lies before is history, whose leaves are loaded bare.
    heads: RwLock<HashMap<u64, DateTime<Utc>>>,
    /// The time of each chain's lowest missing block: from there to the head, history goes through its leaves in a row.
    lowest: RwLock<HashMap<u64, DateTime<Utc>>>,
}

/// What is known of one chain's leaves of a table.
#[derive(Debug)]
struct Known {
    catalog: Catalog,
    /// Those that lack indexes: told when the catalog is read, as the status is asked for at every step.
    bare: Vec<Leaf>,
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
            known: RwLock::default(),
            upkeep: RwLock::default(),
            chosen: RwLock::default(),
            heads: RwLock::default(),
            lowest: RwLock::default(),
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
        let head = self.head_of(chain_id);
        for table in self.tables_of(chain_id) {
            let times = self.missing(chain_id, &table.table, batch, floors);
            if !times.is_empty() {
                let lowest = self.lowest.read().unwrap_or_else(PoisonError::into_inner).get(&chain_id).copied();
                let load = head.and_then(|head| Bounds::new(Some(lowest?), head));
                let need = Need::rows(times).bare_until(head).of_load(load);
                self.make(chain_id, table, &need).await.map_err(LeavesError::for_writer)?;
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
            let opened = self.unseal_of(&mut client, chain_id, &table.table, batch, floors).await;
            opened.map_err(LeavesError::for_writer)?;
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

    /// Takes note of the head's time: leaves that end before it are made bare from now on, and indexed when they are loaded.
    /// Without it all are made with their indexes.
    pub fn head(&self, chain_id: u64, time: DateTime<Utc>) {
        self.heads.write().unwrap_or_else(PoisonError::into_inner).insert(chain_id, time);
    }

    /// Takes note of the time of a chain's lowest missing block: history goes down to it, or up from it.
    pub fn load_from(&self, chain_id: u64, time: DateTime<Utc>) {
        self.lowest.write().unwrap_or_else(PoisonError::into_inner).insert(chain_id, time);
    }

    /// The tables that a chain has rows in.
    fn tables_of(&self, chain_id: u64) -> impl Iterator<Item = &ManagedTable> {
        let typed = self.typed.contains(&chain_id);
        self.tables.iter().filter(move |table| !typed || table.name != LOGS)
    }

    fn head_of(&self, chain_id: u64) -> Option<DateTime<Utc>> {
        self.heads.read().unwrap_or_else(PoisonError::into_inner).get(&chain_id).copied()
    }

    fn missing(&self, chain_id: u64, table: &Table, batch: &BlockBatch, floors: Floors) -> Vec<DateTime<Utc>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let floor = floors.of(&table.name);
        // Absurd times are refused by the append, with the block's number; what is below the floor is not written.
        let times = batch.row_times().filter_map(timestamp).filter(|time| floor.is_none_or(|floor| floor <= *time));
        match known.get(&(chain_id, table.name.clone())) {
            Some(known) => known.catalog.uncovered(times),
            None => Catalog::default().uncovered(times),
        }
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
        let (now, known) = (Utc::now(), self.catalog(chain_id, table).filter(|_| need.head.is_none()));
        let report = match known {
            Some(known) => extend(client, table, key(chain_id), &policy, now, need, known).await?,
            None => ensure(client, table, key(chain_id), &policy, now, need).await?,
        };
        let (created, leaves) = (report.created.len(), report.catalog.leaves.len());
        match (created, need.head) {
            (0, _) => {}
            (_, Some(_)) => info!(table = table.name, chain_id, created, leaves, "partitions made ahead of the head"),
            // History makes one after the other; how far it is, its own line says.
            (_, None) => debug!(table = table.name, chain_id, created, leaves, "partitions made"),
        }
        self.know(chain_id, table, report.catalog);
        Ok(())
    }

    fn catalog(&self, chain_id: u64, table: &Table) -> Option<Catalog> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(chain_id, table.name.clone())).map(|known| known.catalog.clone())
    }

    /// Takes note of how a leaf is now; `None` when it is gone.
    fn know_leaf(&self, chain_id: u64, table: &Table, name: &str, leaf: Option<Leaf>) {
        let Some(mut catalog) = self.catalog(chain_id, table) else { return };
        match leaf {
            Some(leaf) => catalog.put(leaf),
            None => catalog.leaves.retain(|leaf| leaf.name != name),
        }
        self.know(chain_id, table, catalog);
    }

    fn know(&self, chain_id: u64, table: &Table, catalog: Catalog) {
        let is_bare = |leaf: &&Leaf| !leaf.detaching && !leaf.lacks(&table.leaf_indexes).is_empty();
        let bare = catalog.leaves.iter().filter(is_bare).cloned().collect();
        let known = Known { catalog, bare };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert((chain_id, table.name.clone()), known);
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
            self.know(chain_id, &table.table, catalog);
        }
        Ok(())
    }

    /// Forgets what is known of a chain's leaves: the database said that it is not so.
    pub fn forget(&self, chain_id: u64) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|(chain, _), _| *chain != chain_id);
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
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|((chain, _), _)| *chain == chain_id).map(|(_, known)| count(known) as u64).sum()
    }

    fn bare_of(&self, chain_id: u64, table: &Table) -> Vec<Leaf> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(chain_id, table.name.clone())).map(|known| known.bare.clone()).unwrap_or_default()
    }

    /// Builds the indexes of bare leaves that no more history is missing of, until `stop` turns true. On a connection of its own, since
    /// a build may take minutes.
    pub async fn index(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        pulse: Pulse,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut builder = Builder { leaves: self, store, client: None, loaded: HashMap::new() };
        loop {
            let led: Vec<u64> = chains
                .iter()
                .map(|chain| chain.borrow())
                .filter(|status| status.role == Role::Leader)
                .map(|status| status.chain_id)
                .collect();
            let (mut pause, mut failed) = (INDEX_LOOK, None);
            for chain_id in led {
                if let Err(error) = builder.turn(chain_id).await {
                    warn!(chain_id, "indexes of partitions: {error}");
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

    /// Keeps leaves ahead of each chain's head, and the coverage compact, until `stop` turns true. A failure is told
    /// and tried again at the next turn: writing goes on meanwhile, and makes what it needs itself.
    pub async fn keep(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        pulse: Pulse,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            // Before the first head is known there is nothing to make ahead of it: look again soon.
            // A standby leaves it to the leader, and learns what that made when it takes over.
            // A chain that cannot begin keeps no other waiting.
            let statuses = chains.iter().map(|chain| chain.borrow().clone());
            let led: Vec<ChainStatus> = statuses.filter(|status| status.role == Role::Leader).collect();
            let known = !led.is_empty() && led.iter().all(|status| status.head_time.is_some());
            let mut failed = None;
            for status in &led {
                failed = self.turn(status, &store).await.err().or(failed);
            }
            pulse.turn(failed);
            let pause = if known { self.every } else { FIRST_LOOK };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// An error says which chain has no leaves ahead, and why.
    async fn turn(&self, status: &ChainStatus, store: &Store) -> Result<(), String> {
        let chain_id = status.chain_id;
        let floors = store.learn_floors(chain_id).await.map(drop).map_err(|error| error.to_string());
        let sizes = self.choose_intervals(chain_id).await.map_err(|error| error.to_string());
        let ahead = self.ahead(chain_id, status.head_time).await.map_err(|error| error.to_string());
        let outcomes = [
            ("the retention floors", floors),
            ("the sizes of the partitions", sizes),
            ("partitions ahead of the head", ahead.clone()),
            ("compacting the coverage", store.compact_coverage(chain_id).await.map_err(|error| error.to_string())),
        ];
        let mut upkeep = self.upkeep.write().unwrap_or_else(PoisonError::into_inner);
        let upkeep = upkeep.entry(chain_id).or_default();
        for (what, outcome) in outcomes {
            upkeep.tell(what, outcome);
        }
        ahead.map_err(|error| format!("chain {chain_id}: {error}"))
    }

    /// How often upkeep of a chain failed.
    pub fn failures(&self, chain_id: u64) -> u64 {
        self.upkeep.read().unwrap_or_else(PoisonError::into_inner).get(&chain_id).map_or(0, Beside::failures)
    }

    /// Chooses each table's interval by the sizes of its full leaves, where that is wanted.
    async fn choose_intervals(&self, chain_id: u64) -> Result<(), LeavesError> {
        let Some(head) = self.head_of(chain_id).filter(|_| self.partitions.interval_by_size) else { return Ok(()) };
        let mut client = self.connect().await?;
        for managed in self.tables_of(chain_id) {
            let table = &managed.table;
            let sizes = sizes(&mut client, table, key(chain_id)).await?;
            let keep = (managed.retention.fate != Fate::Keep).then_some(managed.retention.keep);
            let target = Target { narrowest: managed.interval, keep, ..Target::default() };
            let choice = policy(&self.partitions, managed).sized(&sizes, &target, head);
            let mut chosen = self.chosen.write().unwrap_or_else(PoisonError::into_inner);
            if chosen.insert((chain_id, table.name.clone()), choice.interval) != Some(choice.interval) {
                info!(table = table.name, chain_id, reason = choice.reason, "interval of new partitions");
            }
        }
        Ok(())
    }

    async fn ahead(&self, chain_id: u64, head: Option<DateTime<Utc>>) -> Result<(), LeavesError> {
        let Some(head) = head.filter(|_| self.partitions.switches.create) else { return Ok(()) };
        let mut ended = Ok(());
        for table in self.tables_of(chain_id) {
            // One that fails keeps no other from its leaves.
            ended = self.make(chain_id, table, &Need::ahead_of(head)).await.and(ended);
        }
        ended
    }
}

/// Gives bare leaves their indexes.
struct Builder {
    leaves: Arc<Leaves>,
    store: Store,
    client: Option<Client>,
    /// Since when a leaf was seen to lack nothing but indexes.
    loaded: HashMap<(u64, String), Instant>,
}

impl Builder {
    /// Builds what can be built of one chain. Nearly always no leaf is bare, and nothing is asked.
    async fn turn(&mut self, chain_id: u64) -> Result<(), LeavesError> {
        let bare: Vec<(Table, Leaf)> = self
            .leaves
            .tables
            .iter()
            .flat_map(|table| {
                let bare = self.leaves.bare_of(chain_id, &table.table);
                bare.into_iter().map(|leaf| (table.table.clone(), leaf))
            })
            .collect();
        if bare.is_empty() {
            self.loaded.retain(|(chain, _), _| *chain != chain_id);
            return Ok(());
        }
        let missing = match self.store.missing_times(chain_id).await {
            Ok(missing) => missing,
            Err(error) => {
                debug!(chain_id, %error, "which times are missing is not known");
                return Ok(());
            }
        };
        for (table, leaf) in bare {
            let live = missing.tail.is_none_or(|tail| tail < leaf.bounds.to());
            if self.is_due(chain_id, &leaf, &missing) {
                self.build(chain_id, &table, &leaf, live).await?;
            }
        }
        Ok(())
    }

    /// Whether a leaf lacks no rows of history, and long enough or nothing else of the chain lacks any.
    fn is_due(&mut self, chain_id: u64, leaf: &Leaf, missing: &MissingTimes) -> bool {
        let (key, head) = ((chain_id, leaf.name.clone()), self.leaves.head_of(chain_id));
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
        let Some(catalog) = self.leaves.catalog(chain_id, table) else { return Ok(()) };
        let indexed = build(client, table, &catalog, &leaf.name, live).await?;
        if let Indexed::Made(indexes @ 1..) = indexed {
            let seconds = began.elapsed().as_secs_f64();
            debug!(chain_id, leaf = leaf.name, indexes, seconds, "a loaded partition has its indexes");
        }
        if indexed != Indexed::Busy {
            let now = read_leaf(client, table, &catalog, &leaf.name).await?;
            self.leaves.know_leaf(chain_id, table, &leaf.name, now);
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

/// How a table is cut into leaves.
pub(crate) fn policy(partitions: &Partitions, table: &ManagedTable) -> Policy {
    Policy {
        interval: table.interval,
        history: partitions.history_interval,
        history_after: TimeDelta::from_std(partitions.history_after).unwrap_or(TimeDelta::MAX),
        premake: partitions.premake,
        max_leaves: partitions.max_leaves as usize,
        ..Policy::default()
    }
}

/// What is wrong with a policy that keeps more leaves than there may be: said before they are made.
pub fn crowding(partitions: &Partitions, table: &ManagedTable) -> Option<String> {
    let keep = (table.retention.fate != Fate::Keep).then_some(table.retention.keep.as_seconds_f64())?;
    // Its own and those made ahead stand beside those that are kept.
    let leaves = (keep / table.interval.seconds()).ceil() + f64::from(partitions.premake) + 1.0;
    (leaves > f64::from(partitions.max_leaves)).then(|| {
        format!(
            "tables.{}: retention at interval = \"{}\" keeps {leaves:.0} leaves of a key, more than partitions.max_leaves = {}: from there \
             on leaves are a step wider",
            table.name,
            table.interval.name(),
            partitions.max_leaves
        )
    })
}

/// Where archives are. What is wrong with it stops archiving alone.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The archive that is configured, if one is and can be used.
    pub archive: Option<Archive>,
    /// Why the one that is configured cannot be used.
    pub fault: Option<String>,
}

impl Place {
    /// By its URL and options; it is not connected to.
    pub fn open(partitions: &Partitions) -> Self {
        let Some(url) = &partitions.archive_url else { return Self::default() };
        let pairs = partitions.archive_options.iter().filter_map(|pair| pair.expose().split_once('='));
        match Archive::open(url, pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))) {
            Ok(archive) => Self { archive: Some(archive), fault: None },
            Err(error) => Self { archive: None, fault: Some(format!("partitions.archive_url: {error}")) },
        }
    }
}
