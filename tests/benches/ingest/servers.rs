//! The node with its load, and a durable PostgreSQL with a database for each run.

use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Anvil, Cluster, Deployed, LoadPlan, Settings, deploy, load};
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, WRITER};
use tokio_postgres::Client;

use super::cluster::{SUPERUSER, TEMPLATE, connect, prepare};
use super::options::{Options, TXS_PER_BLOCK};
use super::{Outcome, machine};

/// Anvil's default.
pub const CHAIN_ID: u64 = 31_337;

/// What the indexer stands between.
pub struct Servers {
    cluster: Cluster,
    /// The node.
    pub anvil: Anvil,
    /// Its contracts.
    pub deployed: Deployed,
    /// Its newest block, and that block's Unix time in seconds.
    pub head: (u64, u64),
    /// ERC-20 transfers emitted up to that block.
    pub emitted: u64,
    databases: u32,
    /// Process ids of the PostgreSQL server and of Anvil.
    pids: (u32, u32),
}

/// Seconds of CPU that both have used.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub postgres: f64,
    pub anvil: f64,
}

impl Servers {
    /// Starts both and emits the load.
    pub async fn start(options: &Options) -> Outcome<Self> {
        let tools = tools::postgres(say_stderr).await?;
        // On, but not awake by chance in one run of fifteen, over the databases of those before.
        let settings = Settings::bench().with("autovacuum_naptime", "1h");
        let mut cluster = Cluster::temporary(&tools, settings).await?;
        prepare(&mut cluster).await?;
        let program = tools::anvil(say_stderr).await?;
        let anvil = Anvil::start(&program, LoadPlan::anvil()).await?;
        let deployed = deploy(anvil.rpc()).await?;
        let plan = LoadPlan {
            blocks: options.blocks,
            txs_per_block: TXS_PER_BLOCK,
            transfers_per_tx: options.transfers / options.blocks / TXS_PER_BLOCK,
            ..LoadPlan::default()
        };
        eprintln!("emitting {} transfers in {} blocks over {} days", plan.transfers(), plan.blocks, days(&plan));
        let (_, last) = load(anvil.rpc(), &deployed, &plan).await?;
        let head = (last, plan.begin + plan.spread.as_secs());
        let postmaster = connect(&cluster, SUPERUSER, SUPERUSER).await?;
        let pid_file: String = postmaster.query_one("SELECT pg_read_file('postmaster.pid')", &[]).await?.get(0);
        let server = pid_file.lines().next().and_then(|line| line.parse().ok()).ok_or("no process id of the server")?;
        let pids = (server, machine::child_named("anvil")?);
        Ok(Self { cluster, anvil, deployed, head, emitted: plan.transfers(), databases: 0, pids })
    }

    /// An empty, migrated database.
    pub async fn database(&mut self) -> Outcome<String> {
        self.databases += 1;
        let name = format!("bench_{}", self.databases);
        let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {ADMIN}");
        connect(&self.cluster, SUPERUSER, SUPERUSER).await?.batch_execute(&create).await?;
        Ok(name)
    }

    /// A connection that may do anything.
    pub async fn superuser(&self, database: &str) -> Outcome<Client> {
        connect(&self.cluster, database, SUPERUSER).await
    }

    /// A connection with the indexer's own rights, by its own way: TCP and a password.
    pub async fn writer(&self, database: &str) -> Outcome<Client> {
        connect(&self.cluster, database, WRITER).await
    }

    /// The indexer's configuration: as shipped, but for a chain that may move back and daily leaves for times that lie
    /// months back.
    pub fn site(&self, database: &str) -> Site {
        Site {
            url: self.cluster.url(database, WRITER),
            admin_url: self.cluster.url(database, ADMIN),
            reader_url: self.cluster.url(database, WRITER),
            rpc_urls: vec![self.anvil.http_url()],
            chain_id: CHAIN_ID,
            chain: "bench".into(),
            chain_lines: vec!["finality = \"never\"".into()],
            more: "[partitions]\nhistory_interval = \"day\"".into(),
        }
    }

    /// What both have used so far.
    pub fn cpu(&self) -> Outcome<Cpu> {
        Ok(Cpu { postgres: machine::cpu_of_family(self.pids.0)?, anvil: machine::cpu(self.pids.1)? })
    }

    /// What both are.
    pub async fn versions(&self) -> Outcome<String> {
        let client = self.superuser(SUPERUSER).await?;
        let postgres: String = client.query_one("SHOW server_version", &[]).await?.get(0);
        let anvil: String = self.anvil.rpc().call("web3_clientVersion", serde_json::json!([])).await?;
        Ok(format!("PostgreSQL {postgres}, {anvil}"))
    }

    /// Shuts both down.
    pub async fn stop(self) -> Outcome<()> {
        // Its chain is not kept; nothing is lost by ending it at once.
        drop(self.anvil);
        Ok(self.cluster.stop().await?)
    }
}

fn days(plan: &LoadPlan) -> u64 {
    plan.spread.as_secs() / 86_400
}
