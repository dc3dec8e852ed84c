//! A durable server, migrated databases on it, and rows as a busy chain makes them.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use dalp_fixtures::tools::{postgres, say_stderr};
use dalp_fixtures::{Cluster, Settings};
use dalp_migrations::Roles;
use dalp_partitions::{Index, Policy, Registry, Table};
use tokio_postgres::{Client, NoTls};

/// The chain of all rows, unless a part needs several.
pub const KEY: i64 = 1;

/// The server of all parts.
pub struct Server(Cluster);

impl Server {
    pub async fn start() -> Self {
        // Autovacuum is on, but does not meet one run in fifteen by chance. A reader of everything locks each leaf and its indexes.
        let settings = Settings::bench().with("max_locks_per_transaction", "1024").with("autovacuum_naptime", "1h");
        Self(Cluster::temporary(&postgres(say_stderr).await.unwrap(), settings).await.unwrap())
    }

    pub async fn stop(self) {
        self.0.stop().await.unwrap();
    }

    /// Of the server, and of pg_partman where it has it.
    pub async fn versions(&self) -> String {
        let client = self.connect("postgres").await;
        let server = one(&client, "SELECT current_setting('server_version')").await;
        let partman = partman_version(&client).await;
        format!("PostgreSQL {server}, pg_partman {}", partman.as_deref().unwrap_or("not installed"))
    }

    pub async fn connect(&self, database: &str) -> Client {
        let (client, connection) = self.0.superuser_config().dbname(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        client
    }

    /// A connection as the partition manager has it.
    pub async fn manager(&self, database: &str) -> Client {
        let client = self.connect(database).await;
        client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
        client
    }

    /// A migrated database with a day of logs to copy from, in `public.day`: random hashes, a few hundred contracts, some
    /// thousand accounts, 311 bytes each.
    pub async fn database(&self, rows: u32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bench_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut client = self.connect(&name).await;
        dalp_migrations::migrate(&mut client, &Roles::default()).await.unwrap();
        client.batch_execute("GRANT CREATE ON SCHEMA public TO dalp_partitioner").await.unwrap();
        let source = format!(
            "CREATE UNLOGGED TABLE public.day AS
             SELECT i / 100 AS n, make_interval(secs => (i / 100) * 8640000.0 / {rows}) AS after, i % 100 AS at,
                    sha256(('b' || i / 100)::bytea) AS block, sha256(('t' || i)::bytea) AS tx,
                    substr(sha256(('c' || floor(random() ^ 3 * 300))::bytea), 1, 20) AS address, sha256(('e' || i % 3)::bytea) AS topic0,
                    sha256(('a' || floor(random() ^ 2 * 5000))::bytea) AS topic1,
                    sha256(('a' || floor(random() ^ 2 * 5000))::bytea) AS topic2, sha256(('v' || i)::bytea) AS data
             FROM generate_series(0, {rows} - 1) AS i;
             ANALYZE public.day"
        );
        client.batch_execute(&source).await.unwrap();
        name
    }
}

/// `None` where the server has none.
pub async fn partman_version(client: &Client) -> Option<String> {
    let sql = "SELECT default_version::text FROM pg_available_extensions WHERE name = 'pg_partman'";
    client.query_opt(sql, &[]).await.unwrap().map(|row| row.get(0))
}

/// The one value of a query, as text.
pub async fn one(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Midnight so many days from today's.
pub fn day(days: i64) -> DateTime<Utc> {
    Utc::now().date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::days(days)
}

/// The raw logs, with the indexes that the shipped configuration gives each leaf.
pub fn logs() -> Table {
    let indexes = [Index::on(["address", "topic0", "block_time"]), Index::on(["tx_hash"])];
    Table::new("dalp_indexed", "logs", "block_time")
        .registered_in(Registry::new("dalp_indexed").recorded_in("dalp_audit"))
        .with_leaf_indexes(indexes)
}

/// Daily leaves, however old.
pub fn policy() -> Policy {
    Policy { history_after: TimeDelta::MAX, max_leaves: 5_000, ..Policy::default() }
}

/// The source's first rows as rows of a day.
pub fn copied(into: &str, day: DateTime<Utc>, limit: u32) -> String {
    format!(
        "INSERT INTO {into} SELECT {KEY}, '{}'::timestamptz + after, n, at, at, block, tx, address, topic0, topic1, topic2, NULL, data \
         FROM public.day LIMIT {limit}",
        day.to_rfc3339()
    )
}
