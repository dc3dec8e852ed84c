//! A durable PostgreSQL with a database per run, and the other servers of a deployment.

use std::time::{Duration, Instant};

use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Authority, Cluster, PgBouncer, Pooling, Settings};
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, READER, WRITER};
use tokio_postgres::Client;

use super::cluster::{SUPERUSER, TEMPLATE, connect, prepare};
use super::node::Node;
use super::{Outcome, cluster, machine};

/// PgBouncer's own default.
const POOLED: u32 = 20;
/// How long a standby gets to catch up with an empty primary.
const LIMIT: Duration = Duration::from_secs(60);

/// The servers beside PostgreSQL, or between it and the indexer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deployment {
    /// A standby that has flushed each commit before it returns.
    pub standby: bool,
    /// TLS on each connection of the indexer, the pooler and the standby, with certificates verified in full.
    pub tls: bool,
    /// PgBouncer in transaction mode before `database.url`.
    pub pooler: bool,
}

/// The server.
pub struct Servers {
    // Fields drop in this order: first who is connected to the others.
    pooler: Option<PgBouncer>,
    standby: Option<Cluster>,
    cluster: Cluster,
    authority: Option<Authority>,
    databases: u32,
}

/// Seconds of CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub server: f64,
    pub standby: Option<f64>,
    pub pooler: Option<f64>,
}

impl Servers {
    /// Starts it, and nothing beside it.
    pub async fn start() -> Outcome<Self> {
        Self::deploy(Deployment::default()).await
    }

    /// Starts it with all that is wanted.
    pub async fn deploy(wanted: Deployment) -> Outcome<Self> {
        let tools = tools::postgres(say_stderr).await?;
        let authority = wanted.tls.then(Authority::create).transpose()?;
        // On, but not awake by chance in one run of fifteen, over the databases of those before.
        let settings = Settings::bench().with("autovacuum_naptime", "1h");
        let settings = authority.iter().fold(settings, Settings::with_tls);
        let mut cluster = Cluster::temporary(&tools, settings.clone()).await?;
        prepare(&mut cluster).await?;
        let standby = match wanted.standby {
            true => Some(cluster.standby(&tools, settings, authority.as_ref()).await?),
            false => None,
        };
        if standby.is_some() {
            await_standby(&connect(&cluster, SUPERUSER, SUPERUSER).await?).await?;
        }
        let pooling = Pooling { users: &[WRITER], connections: POOLED, tls: authority.as_ref() };
        let pooler = match wanted.pooler {
            true => Some(PgBouncer::start_with(&cluster, pooling).await?),
            false => None,
        };
        Ok(Self { pooler, standby, cluster, authority, databases: 0 })
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

    /// A connection with the indexer's own rights, by TCP and a password.
    pub async fn writer(&self, database: &str) -> Outcome<Client> {
        connect(&self.cluster, database, WRITER).await
    }

    /// A connection with an analyst's rights.
    pub async fn reader(&self, database: &str) -> Outcome<Client> {
        connect(&self.cluster, database, READER).await
    }

    /// The indexer's configuration, with this node.
    pub fn site(&self, database: &str, node: &Node) -> Site {
        let direct = |user| self.verified(self.cluster.url(database, user));
        let url = match &self.pooler {
            Some(pooler) => self.verified(pooler.url(database, WRITER)),
            None => direct(WRITER),
        };
        let site = Site {
            url,
            admin_url: direct(ADMIN),
            reader_url: direct(WRITER),
            rpc_urls: vec![node.url.clone()],
            ..cluster::site(&self.cluster, database)
        };
        let quoted: Vec<String> = node.watched.iter().map(|address| format!("\"{address}\"")).collect();
        if quoted.is_empty() { site } else { site.with(&format!("addresses = [{}]", quoted.join(", "))) }
    }

    fn verified(&self, url: String) -> String {
        match &self.authority {
            Some(authority) => format!("{url}?{}", authority.url_parameters()),
            None => url,
        }
    }

    /// The resources used by all of them so far.
    pub fn used(&self) -> Outcome<Used> {
        Ok(Used {
            server: machine::cpu_of_family(self.cluster.pid())?,
            standby: self.standby.as_ref().map(|standby| machine::cpu_of_family(standby.pid())).transpose()?,
            pooler: self.pooler.as_ref().map(|pooler| machine::cpu(pooler.pid())).transpose()?,
        })
    }

    /// Its name.
    pub async fn version(&self) -> Outcome<String> {
        let version: String = self.superuser(SUPERUSER).await?.query_one("SHOW server_version", &[]).await?.get(0);
        Ok(format!("PostgreSQL {version}"))
    }

    /// Shuts all of it down.
    pub async fn stop(self) -> Outcome<()> {
        drop(self.pooler);
        self.cluster.stop().await?;
        match self.standby {
            Some(standby) => Ok(standby.stop().await?),
            None => Ok(()),
        }
    }
}

/// Makes the standby synchronous, and waits until it is.
async fn await_standby(superuser: &Client) -> Outcome<()> {
    superuser.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
    superuser.batch_execute("SELECT pg_reload_conf()").await?;
    let began = Instant::now();
    while superuser.query_opt("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'", &[]).await?.is_none() {
        if began.elapsed() > LIMIT {
            return Err(format!("no standby became synchronous in {LIMIT:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
