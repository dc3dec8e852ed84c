//! Starts everything a deployment runs, and stops it on one path.

pub mod tasks;
mod tenure;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info, warn};

use crate::api::Published;
use crate::config::{Chain, Config, Finality};
use crate::driver::ChainError;
use crate::maintenance::{Leaves, LeavesError};
use crate::source::heads::{News, follow};
use crate::source::{Identity, Source, SourceError};
use crate::status::{ChainStatus, TableReport, TaskReport};
use crate::store::lease::Lease;
use crate::store::{Claim, NewChain, Store, StoreError};

use self::tasks::{Tasks, watched};
use self::tenure::Tenure;

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration cannot be run.
    #[error("{0}")]
    Usage(String),
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The partition manager's connection.
    #[error("{0}")]
    Leaves(#[from] LeavesError),
    /// No node of a chain told which chain it serves.
    #[error("chain \"{chain}\": no RPC answers: {error}. Check chains.{chain}.rpc_urls and that a node runs there")]
    Node {
        /// The chain's name.
        chain: String,
        /// What the last node said.
        error: SourceError,
    },
    /// The node serves another chain than the configuration says.
    #[error(
        "chain \"{chain}\": the node serves chain {found}, but chains.{chain}.chain_id is {configured}: point \
         chains.{chain}.rpc_urls to the right node, or set chain_id to {found} if this is the chain you mean"
    )]
    WrongChain {
        /// The chain's name.
        chain: String,
        /// What the node said.
        found: u64,
        /// What the configuration says.
        configured: u64,
    },
    /// The HTTP address cannot be listened on.
    #[error("http.listen {address}: {error}. Choose another address or port, or \"off\"")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A chain ended.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

/// A running indexer.
pub struct Service {
    status: watch::Receiver<Vec<ChainStatus>>,
    tables: watch::Receiver<Vec<TableReport>>,
    tasks: Tasks,
    stop: watch::Sender<bool>,
    chains: JoinSet<Result<(), ChainError>>,
    /// Helpers that end with `stop` or with their chain.
    helpers: Vec<JoinHandle<()>>,
    http: Option<std::net::SocketAddr>,
}

/// How long a clean stop may take before what is left is dropped. Dropping is safe, only less polite.
const GRACE: Duration = Duration::from_secs(3);

impl Service {
    /// Connects, checks, and begins to index the chains that nobody else leads; for the others it stands by.
    ///
    /// # Errors
    /// The first thing that is wrong, before anything is written.
    pub async fn start(config: &Config) -> Result<Self, ServiceError> {
        if config.chains.is_empty() {
            let why = "no chain is configured: add a [chains.NAME] section (see `dalp-indexer config example`)";
            return Err(ServiceError::Usage(why.into()));
        }
        let store = Store::open(&config.database).await?;
        if let dalp_migrations::SchemaState::Newer { version } = store.check().await? {
            info!(version, "the database's schema is newer than this binary and compatible with it");
        }
        let leaves = Arc::new(Leaves::open(config).await?);
        let (stop, stopped) = watch::channel(false);
        let (reports, tables) = watch::channel(Vec::new());
        let mut service = Self {
            status: watch::channel(Vec::new()).1,
            tables,
            tasks: Tasks::default(),
            stop,
            chains: JoinSet::new(),
            helpers: Vec::new(),
            http: None,
        };
        let mut statuses = Vec::new();
        for chain in &config.chains {
            statuses.push(service.start_chain(chain, &store, &leaves, stopped.clone()).await?);
        }
        service.maintain(&leaves, &statuses, &store, &reports, &stopped);
        service.status = gather(statuses, &mut service.helpers);
        service.listen(config, stopped).await?;
        Ok(service)
    }

    /// Begins what looks after the partitions.
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
        self.helpers.push(tokio::spawn(watched(retention, stop.clone(), move || {
            let (leaves, chains, store, stop) = with.clone();
            leaves.retire(chains, store, told.clone(), pulse.clone(), stop)
        })));
        let (with, pulse) = (shared(), indexes.clone());
        self.helpers.push(tokio::spawn(watched(indexes, stop.clone(), move || {
            let (leaves, chains, store, stop) = with.clone();
            leaves.index(chains, store, pulse.clone(), stop)
        })));
        let (with, pulse) = (shared(), premake.clone());
        self.helpers.push(tokio::spawn(watched(premake, stop.clone(), move || {
            let (leaves, chains, store, stop) = with.clone();
            leaves.keep(chains, store, pulse.clone(), stop)
        })));
    }

    async fn start_chain(
        &mut self,
        chain: &Chain,
        store: &Store,
        leaves: &Arc<Leaves>,
        stopped: watch::Receiver<bool>,
    ) -> Result<watch::Receiver<ChainStatus>, ServiceError> {
        let (source, new) = meet(chain).await?;
        source.remember(&store.nodes(chain.chain_id).await?);
        leaves.learn(chain.chain_id).await?;
        if new.reset {
            store.reset_if_changed(&new).await?;
        }
        let mut lease = Lease::new(store, new);
        // The first bid is made here, so that what keeps it from ever being won is said before anything starts. What
        // may pass (another process that starts at the same moment) is left to the next bid.
        let bid = match lease.bid().await {
            Err(StoreError::Retry { why }) => {
                warn!(chain = chain.name, "the lease cannot be looked at yet: {why}");
                None
            }
            bid => Some(bid?),
        };
        let (status, status_seen) = watch::channel(ChainStatus::new(chain.name.clone(), chain.chain_id));
        let (news, news_seen) = watch::channel(News::default());
        self.helpers.push(tokio::spawn(follow(source.clone(), chain.clone(), news)));
        let tenure = Tenure {
            chain: chain.clone(),
            source,
            store: store.clone(),
            leaves: leaves.clone(),
            lease: Arc::new(Mutex::new(lease)),
            news: news_seen,
            status,
        };
        self.chains.spawn(tenure.run(bid, stopped));
        Ok(status_seen)
    }

    async fn listen(&mut self, config: &Config, mut stopped: watch::Receiver<bool>) -> Result<(), ServiceError> {
        let Some(address) = config.http.listen else { return Ok(()) };
        let listen = |error| ServiceError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        self.http = Some(listener.local_addr().map_err(listen)?);
        let published =
            Published { chains: self.status.clone(), tables: self.tables.clone(), tasks: self.tasks.reports() };
        self.helpers.push(tokio::spawn(async move {
            let stop = async move { _ = stopped.wait_for(|stop| *stop).await };
            if let Err(error) = crate::api::serve(listener, published, stop).await {
                warn!(%error, "the HTTP server ended");
            }
        }));
        Ok(())
    }

    /// Every chain's status, as it changes.
    pub fn status(&self) -> watch::Receiver<Vec<ChainStatus>> {
        self.status.clone()
    }

    /// How the background tasks do, as it changes.
    pub fn tasks(&self) -> watch::Receiver<Vec<TaskReport>> {
        self.tasks.reports()
    }

    /// Where the HTTP server listens.
    pub fn http(&self) -> Option<std::net::SocketAddr> {
        self.http
    }

    /// Waits until a chain ends by itself, which is a failure. Cancel-safe.
    pub async fn failed(&mut self) -> ServiceError {
        loop {
            match self.chains.join_next().await {
                Some(Ok(Err(error))) => return error.into(),
                Some(Ok(Ok(()))) => {}
                Some(Err(panic)) => {
                    let why = format!("its task ended unexpectedly: {panic}; please report this");
                    return ChainError { chain: "?".into(), why }.into();
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Stops everything, in order: the chains first, then what helps them.
    pub async fn stop(mut self) {
        _ = self.stop.send(true);
        let chains = async { while self.chains.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, chains).await.is_err() {
            warn!("a chain did not stop in time; its uncommitted batch is dropped");
        }
        for helper in self.helpers {
            helper.abort();
        }
    }
}

/// Asks the nodes which chain they serve, and describes it for the store.
///
/// # Errors
/// [`ServiceError::Node`], [`ServiceError::WrongChain`].
pub async fn meet(chain: &Chain) -> Result<(Arc<Source>, NewChain), ServiceError> {
    let node = |error| ServiceError::Node { chain: chain.name.clone(), error };
    let source = Arc::new(Source::new(chain).map_err(node)?);
    let Identity { chain_id, genesis } = source.identity().await.map_err(node)?;
    if chain_id != chain.chain_id {
        let (name, configured) = (chain.name.clone(), chain.chain_id);
        return Err(ServiceError::WrongChain { chain: name, found: chain_id, configured });
    }
    let new = NewChain {
        chain_id,
        name: chain.name.clone(),
        genesis,
        start_block: chain.start_block,
        filter: source.filter().clone(),
        finality: chain.finality != Finality::Never,
        reset: chain.reset_on_chain_change,
    };
    Ok((source, new))
}

/// Registers with a chain for a backfill beside a running writer.
///
/// # Errors
/// As [`meet`], and what the store says.
pub async fn join(chain: &Chain, store: &Store) -> Result<(Arc<Source>, Claim), ServiceError> {
    let (source, new) = meet(chain).await?;
    source.remember(&store.nodes(chain.chain_id).await?);
    Ok((source, store.join(&new).await?))
}

/// One watch over all chains.
fn gather(
    chains: Vec<watch::Receiver<ChainStatus>>,
    helpers: &mut Vec<JoinHandle<()>>,
) -> watch::Receiver<Vec<ChainStatus>> {
    let now: Vec<ChainStatus> = chains.iter().map(|chain| chain.borrow().clone()).collect();
    let (all, seen) = watch::channel(now);
    let all = Arc::new(all);
    for (at, mut chain) in chains.into_iter().enumerate() {
        let all = all.clone();
        helpers.push(tokio::spawn(async move {
            while chain.changed().await.is_ok() {
                let status = chain.borrow_and_update().clone();
                all.send_modify(|all| all[at] = status);
            }
        }));
    }
    seen
}
