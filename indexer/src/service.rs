//! Starts all parts of a deployment, and stops them on one path.

mod error;
mod keeper;
mod ledger;
mod meet;
pub mod tasks;
mod tenure;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tracing::{Instrument as _, error, info, warn};

use crate::api::Published;
use crate::config::{Chain, Config};
use crate::driver::ChainError;
use crate::maintenance::Leaves;
use crate::spans;
use crate::status::{ChainStatus, CommitReport, TableReport, TaskReport};
use crate::store::Store;
use crate::task::{Group, Watched};
use crate::timings::Timings;

pub use self::error::ServiceError;
pub use self::meet::{join, meet, source};

use self::keeper::{First, Keeper};
use self::tasks::{Tasks, watched};

/// A running indexer.
pub struct Service {
    status: watch::Receiver<Vec<ChainStatus>>,
    tables: watch::Receiver<Vec<TableReport>>,
    commits: watch::Receiver<Vec<CommitReport>>,
    tasks: Tasks,
    timings: Timings,
    stop: watch::Sender<bool>,
    /// Each task by its name.
    chains: Group<String, ()>,
    /// Helpers that end with `stop` or with their chain.
    helpers: Vec<Watched<()>>,
    http: Option<std::net::SocketAddr>,
}

/// The wait for the first start of the chains: a fault that only an operator can mend is reported at once. A silent node is
/// waited for beside the others.
const FIRST: Duration = Duration::from_secs(5);

/// The time limit of a clean stop; then the rest is dropped. Dropping is safe, only less polite.
const GRACE: Duration = Duration::from_secs(3);

impl Service {
    /// Connects, checks, and begins to index the chains without a leader; it stands by for the others.
    ///
    /// # Errors
    /// The first fault, before any write.
    pub async fn start(config: &Config) -> Result<Self, ServiceError> {
        if config.chains.is_empty() {
            let why = "no chain is configured: add a [chains.NAME] section (see `dalp-indexer config example`)";
            return Err(ServiceError::Usage(why.into()));
        }
        for skipped in &config.skipped {
            warn!("{skipped}; its logs stay raw");
        }
        let store = Store::open(config).await?;
        if let dalp_migrations::SchemaState::Newer { version } = store.check().await? {
            info!(version, "the database's schema is newer than this binary and compatible with it");
        }
        let leaves = Arc::new(Leaves::open(config).await?);
        leaves.make_tables(&config.datasets, &config.roles).await?;
        let (stop, stopped) = watch::channel(false);
        let (reports, tables) = watch::channel(Vec::new());
        let mut service = Self {
            status: watch::channel(Vec::new()).1,
            tables,
            commits: watch::channel(Vec::new()).1,
            tasks: Tasks::default(),
            timings: Timings::default(),
            stop,
            chains: Group::default(),
            helpers: Vec::new(),
            http: None,
        };
        service.count(config, &store, &stopped);
        let (mut statuses, mut firsts) = (Vec::new(), Vec::new());
        for chain in &config.chains {
            let (status, first) = service.begin(chain, &store, &leaves, stopped.clone());
            statuses.push(status);
            firsts.push(first);
        }
        let patience = tokio::time::Instant::now() + FIRST;
        for first in firsts {
            if let Ok(Ok(Err(error))) = tokio::time::timeout_at(patience, first).await {
                return Err(error);
            }
        }
        service.maintain(&leaves, &statuses, &store, &reports, &stopped);
        service.status = gather(statuses, &mut service.helpers);
        service.listen(config, stopped).await?;
        Ok(service)
    }

    /// Begins to count commits, before the first one.
    fn count(&mut self, config: &Config, store: &Store, stop: &watch::Receiver<bool>) {
        let (sender, reports) = watch::channel(Vec::new());
        self.commits = reports;
        let names: HashMap<_, _> = config.chains.iter().map(|chain| (chain.chain_id, chain.name.clone())).collect();
        let first = Arc::new(std::sync::Mutex::new(Some(store.listen())));
        let (pulse, store, stopped) = (self.tasks.pulse("commits"), store.clone(), stop.clone());
        self.helpers.push(Watched::spawn(watched(pulse.clone(), stop.clone(), move || {
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let listener = first.unwrap_or_else(|| store.listen());
            let with = (store.datasets().clone(), names.clone());
            ledger::count(listener, with, sender.clone(), pulse.clone(), stopped.clone())
        })));
    }

    /// Begins the maintenance of partitions.
    fn maintain(
        &mut self,
        leaves: &Arc<Leaves>,
        chains: &[watch::Receiver<ChainStatus>],
        store: &Store,
        reports: &watch::Sender<Vec<TableReport>>,
        stop: &watch::Receiver<bool>,
    ) {
        let [retention, indexes, premake, archive] =
            ["retention", "indexes", "premake", "archive"].map(|name| self.tasks.pulse(name));
        if let Some(why) = leaves.archive_fault() {
            error!("nothing is archived: {why}");
            archive.failing(why.to_owned());
        }
        let shared = || (leaves.clone(), chains.to_vec(), store.clone(), stop.clone());
        let (with, pulse, told) = (shared(), retention.clone(), reports.clone());
        self.helpers.push(Watched::spawn(watched(retention, stop.clone(), move || {
            let (leaves, chains, store, stop) = with.clone();
            leaves.retire(chains, store, told.clone(), pulse.clone(), stop)
        })));
        let (with, pulse) = (shared(), indexes.clone());
        self.helpers.push(Watched::spawn(watched(indexes, stop.clone(), move || {
            let (leaves, chains, store, stop) = with.clone();
            leaves.index(chains, store, pulse.clone(), stop)
        })));
        let (with, pulse) = (shared(), premake.clone());
        self.helpers.push(Watched::spawn(watched(premake, stop.clone(), move || {
            let (leaves, chains, store, stop) = with.clone();
            leaves.keep(chains, store, pulse.clone(), stop)
        })));
    }

    /// Begins a chain, which runs until the process gets the stop signal; also returns the result of its first start.
    fn begin(
        &mut self,
        chain: &Chain,
        store: &Store,
        leaves: &Arc<Leaves>,
        stopped: watch::Receiver<bool>,
    ) -> (watch::Receiver<ChainStatus>, oneshot::Receiver<Result<(), ServiceError>>) {
        let (status, seen) = watch::channel(ChainStatus::new(chain.name.clone(), chain.chain_id));
        let (first, started) = oneshot::channel();
        let first: First = Arc::new(std::sync::Mutex::new(Some(first)));
        let timings = self.timings.of_chain(&chain.name);
        let keeper =
            Keeper { chain: chain.clone(), store: store.clone(), leaves: leaves.clone(), status, first, timings };
        self.chains.spawn(chain.name.clone(), keeper.run(stopped).instrument(spans::chain(&chain.name)));
        (seen, started)
    }

    async fn listen(&mut self, config: &Config, stopped: watch::Receiver<bool>) -> Result<(), ServiceError> {
        let Some(address) = config.http.listen else { return Ok(()) };
        let listen = |error| ServiceError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        self.http = Some(listener.local_addr().map_err(listen)?);
        let published = Published {
            chains: self.status.clone(),
            tables: self.tables.clone(),
            tasks: self.tasks.reports(),
            commits: self.commits.clone(),
            timings: self.timings.clone(),
        };
        let listener = Arc::new(std::sync::Mutex::new(Some(listener)));
        let (pulse, stop) = (self.tasks.pulse("http"), stopped.clone());
        self.helpers.push(Watched::spawn(watched(pulse, stop, move || {
            let (published, listener, mut stopped) = (published.clone(), listener.clone(), stopped.clone());
            async move {
                let first = listener.lock().unwrap_or_else(PoisonError::into_inner).take();
                let listener = match first {
                    Some(listener) => Ok(listener),
                    None => TcpListener::bind(address).await,
                };
                let stop = async move { _ = stopped.wait_for(|stop| *stop).await };
                let served = match listener {
                    Ok(listener) => crate::api::serve(listener, published, stop).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    warn!(%error, "the HTTP server ended");
                }
            }
        })));
        Ok(())
    }

    /// Every chain's status, as it changes.
    pub fn status(&self) -> watch::Receiver<Vec<ChainStatus>> {
        self.status.clone()
    }

    /// The states of the background tasks, as they change.
    pub fn tasks(&self) -> watch::Receiver<Vec<TaskReport>> {
        self.tasks.reports()
    }

    /// The address of the HTTP server.
    pub fn http(&self) -> Option<std::net::SocketAddr> {
        self.http
    }

    /// Waits until the service itself cannot continue: a failing chain restarts. Cancel-safe.
    pub async fn failed(&mut self) -> ServiceError {
        loop {
            if let (chain, Err(lost)) = self.chains.next().await {
                return ChainError { chain, why: lost.to_string() }.into();
            }
        }
    }

    /// Stops everything, in order: the chains first, then their helpers.
    pub async fn stop(mut self) {
        _ = self.stop.send(true);
        let chains = async {
            while !self.chains.is_empty() {
                if let (chain, Err(lost)) = self.chains.next().await {
                    spans::chain(&chain).in_scope(|| warn!("{lost}"));
                }
            }
        };
        if tokio::time::timeout(GRACE, chains).await.is_err() {
            warn!("a chain did not stop in time; its uncommitted batch is discarded");
        }
        drop(self.helpers);
    }
}

/// One watch over all chains.
fn gather(
    chains: Vec<watch::Receiver<ChainStatus>>,
    helpers: &mut Vec<Watched<()>>,
) -> watch::Receiver<Vec<ChainStatus>> {
    let now: Vec<ChainStatus> = chains.iter().map(|chain| chain.borrow().clone()).collect();
    let (all, seen) = watch::channel(now);
    let all = Arc::new(all);
    for (at, mut chain) in chains.into_iter().enumerate() {
        let all = all.clone();
        helpers.push(Watched::spawn(async move {
            while chain.changed().await.is_ok() {
                let status = chain.borrow_and_update().clone();
                all.send_modify(|all| all[at] = status);
            }
        }));
    }
    seen
}
