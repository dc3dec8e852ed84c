//! A durable server, databases on it, and rows.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use dalp_fixtures::tools::{postgres, say_stderr};
use dalp_fixtures::{Cluster, Settings};
use dalp_migrations::Roles;
use dalp_partitions::{Index, Policy, Table};
use tokio_postgres::{Client, NoTls};

pub const KEY: i64 = 1;

pub struct Server(Cluster);

impl Server {
    pub async fn start() -> Self {
        let settings = Settings::bench().with("max_locks_per_transaction", "1024");
        Self(Cluster::temporary(&postgres(say_stderr).await.unwrap(), settings).await.unwrap())
    }

    pub async fn stop(self) {
        self.0.stop().await.unwrap();
    }

    pub async fn version(&self) -> String {
        one(&self.connect("postgres").await, "SELECT current_setting('server_version')").await
    }

    pub async fn connect(&self, database: &str) -> Client {
        let (client, connection) = self.0.superuser_config().dbname(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        client
    }

    /// A migrated database with rows to copy from: one day of logs, as a busy chain makes them.
    pub async fn database(&self, rows: u32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bench_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut client = self.connect(&name).await;
        dalp_migrations::migrate(&mut client, &Roles::default()).await.unwrap();
        let source = format!(
            "CREATE TABLE public.day AS
             SELECT i / 100 AS n, make_interval(secs => (i / 100) * 8640000.0 / {rows}) AS after, i % 100 AS at,
                    sha256(('b' || i / 100)::bytea) AS block, sha256(('t' || i)::bytea) AS tx,
                    substr(sha256(('c' || floor(random() ^ 3 * 300))::bytea), 1, 20) AS address, sha256(('e' || i % 3)::bytea) AS topic0,
                    sha256(('a' || floor(random() ^ 2 * 5000))::bytea) AS topic1, sha256(('v' || i)::bytea) AS data
             FROM generate_series(0, {rows} - 1) AS i"
        );
        client.batch_execute(&source).await.unwrap();
        name
    }
}

pub async fn one(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Midnight so many days from today's.
pub fn day(days: i64) -> DateTime<Utc> {
    Utc::now().date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::days(days)
}

pub fn logs() -> Table {
    let indexes = [Index::on(["address", "topic0", "block_time"]), Index::on(["tx_hash"])];
    Table::new("dalp_indexed", "logs", "block_time").with_leaf_indexes(indexes)
}

pub fn policy() -> Policy {
    Policy { history_after: TimeDelta::MAX, max_leaves: 2_000, ..Policy::default() }
}

/// The source's rows as rows of a day.
pub fn copied(into: &str, day: DateTime<Utc>, limit: u32) -> String {
    format!(
        "INSERT INTO {into} SELECT {KEY}, '{}'::timestamptz + after, n, at, at, block, tx, address, topic0, topic1, NULL, NULL, data \
         FROM public.day LIMIT {limit}",
        day.to_rfc3339()
    )
}
