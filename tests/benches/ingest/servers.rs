//! A durable PostgreSQL with a database for each run.

use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Cluster, Settings};
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, WRITER};
use tokio_postgres::Client;

use super::cluster::{SUPERUSER, TEMPLATE, connect, prepare};
use super::node::Node;
use super::{Outcome, machine};

/// Anvil's default.
pub const CHAIN_ID: u64 = 31_337;

/// The server.
pub struct Servers {
    cluster: Cluster,
    databases: u32,
    pid: u32,
}

impl Servers {
    /// Starts it.
    pub async fn start() -> Outcome<Self> {
        let tools = tools::postgres(say_stderr).await?;
        // On, but not awake by chance in one run of fifteen, over the databases of those before.
        let settings = Settings::bench().with("autovacuum_naptime", "1h");
        let mut cluster = Cluster::temporary(&tools, settings).await?;
        prepare(&mut cluster).await?;
        let postmaster = connect(&cluster, SUPERUSER, SUPERUSER).await?;
        let pid_file: String = postmaster.query_one("SELECT pg_read_file('postmaster.pid')", &[]).await?.get(0);
        let pid = pid_file.lines().next().and_then(|line| line.parse().ok()).ok_or("no process id of the server")?;
        Ok(Self { cluster, databases: 0, pid })
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

    /// The indexer's configuration: as shipped, but for daily leaves for times that lie months back.
    pub fn site(&self, database: &str, node: &Node) -> Site {
        let site = Site {
            url: self.cluster.url(database, WRITER),
            admin_url: self.cluster.url(database, ADMIN),
            reader_url: self.cluster.url(database, WRITER),
            rpc_urls: vec![node.url.clone()],
            chain_id: CHAIN_ID,
            chain: "bench".into(),
            chain_lines: Vec::new(),
            more: "[partitions]\nhistory_interval = \"day\"\n".into(),
        };
        let quoted: Vec<String> = node.watched.iter().map(|address| format!("\"{address}\"")).collect();
        if quoted.is_empty() { site } else { site.with(&format!("addresses = [{}]", quoted.join(", "))) }
    }

    /// Seconds of CPU that the server has used so far.
    pub fn cpu(&self) -> Outcome<f64> {
        machine::cpu_of_family(self.pid)
    }

    /// What it is.
    pub async fn version(&self) -> Outcome<String> {
        let version: String = self.superuser(SUPERUSER).await?.query_one("SHOW server_version", &[]).await?.get(0);
        Ok(format!("PostgreSQL {version}"))
    }

    /// Shuts it down.
    pub async fn stop(self) -> Outcome<()> {
        Ok(self.cluster.stop().await?)
    }
}
