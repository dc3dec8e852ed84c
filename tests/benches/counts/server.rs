//! The PostgreSQL that is measured: one that does nothing of its own accord.

use std::time::{Duration, Instant};

use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Cluster, Settings};
use dalp_tests::stage::ADMIN;
use tokio_postgres::Client;

use super::Outcome;
use super::cluster::{SUPERUSER, TEMPLATE, connect, prepare};

/// How long connections get to end.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts it. No checkpoint and no vacuum comes by the clock, and a page is not written whole because of one.
pub async fn start() -> Outcome<Cluster> {
    let settings = [
        ("autovacuum", "off"),
        ("bgwriter_lru_maxpages", "0"),
        ("checkpoint_timeout", "1d"),
        ("max_wal_size", "8GB"),
        ("wal_compression", "off"),
        ("jit", "off"),
    ];
    let settings = settings.iter().fold(Settings::throwaway(), |all, (name, value)| all.with(name, value));
    let mut cluster = Cluster::temporary(&tools::postgres(say_stderr).await?, settings).await?;
    prepare(&mut cluster).await?;
    Ok(cluster)
}

/// Its major version.
pub async fn major(cluster: &Cluster) -> Outcome<u32> {
    let sql = "SELECT current_setting('server_version_num')::int4";
    let number: i32 = connect(cluster, SUPERUSER, SUPERUSER).await?.query_one(sql, &[]).await?.get(0);
    Ok(u32::try_from(number / 10_000)?)
}

/// An empty, migrated database.
pub async fn database(cluster: &Cluster, name: &str) -> Outcome<String> {
    let name = format!("counts_{name}");
    let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {ADMIN}");
    connect(cluster, SUPERUSER, SUPERUSER).await?.batch_execute(&create).await?;
    Ok(name)
}

/// The server's counters so far.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Bytes of WAL, of all databases.
    pub wal: f64,
    /// Buffers that the sessions of one database have looked at.
    pub buffers: f64,
}

impl Used {
    /// The server's work between `before` and this.
    pub fn since(self, before: Self) -> Self {
        Self { wal: self.wal - before.wal, buffers: self.buffers - before.buffers }
    }
}

/// Looks at the server from a database in which nothing happens.
pub struct Watch(Client);

impl Watch {
    /// On `cluster`.
    pub async fn on(cluster: &Cluster) -> Outcome<Self> {
        Ok(Self(connect(cluster, SUPERUSER, SUPERUSER).await?))
    }

    /// The server's counters when all sessions of `database` have ended: then they have reported.
    pub async fn used(&self, database: &str) -> Outcome<Used> {
        let began = Instant::now();
        while self.0.query_opt(SESSION, &[&database]).await?.is_some() {
            if began.elapsed() > LIMIT {
                return Err(format!("a session of {database} does not end").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let row = self.0.query_one(USED, &[&database]).await?;
        Ok(Used { wal: row.get(0), buffers: row.get(1) })
    }

    /// Bytes of WAL by now.
    pub async fn wal(&self) -> Outcome<f64> {
        Ok(self.0.query_one(WAL, &[]).await?.get(0))
    }
}

const SESSION: &str = "SELECT FROM pg_stat_activity WHERE datname = $1::text LIMIT 1";
const WAL: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";
const USED: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8, (blks_hit + blks_read)::float8 \
                    FROM pg_stat_database WHERE datname = $1::text";
