//! PostgreSQL: the pool, and one transaction for each thing that may happen to a chain.
//!
//! Never asks a node. Through PgBouncer in transaction mode everything here works: unnamed statements only, nothing set
//! beyond a transaction.

pub mod append;
pub mod audit;
pub mod chain;
pub mod connect;
pub mod encode;
pub mod error;
pub mod read;
pub mod repair;
pub mod rows;
pub mod unwind;

use bb8::Pool;
use bb8_postgres::PostgresConnectionManager;
use chrono::{DateTime, Utc};
use tokio_postgres::Transaction;

pub use self::chain::{Claim, NewChain};
pub use self::error::StoreError;

use self::connect::{MakeTls, connector};
use self::error::pool_error;
use crate::config::Database;

type Manager = PostgresConnectionManager<MakeTls>;
type Connection<'p> = bb8::PooledConnection<'p, Manager>;

/// The writer's way into the database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool<Manager>,
    config: tokio_postgres::Config,
}

impl Store {
    /// A pool on `database.url`. Connects once, so that a wrong URL is said at once.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let (config, tls) = connector(database, &database.url)?;
        let manager = PostgresConnectionManager::new(config.clone(), tls);
        let pool = Pool::builder()
            .max_size(database.pool_size)
            .connection_timeout(database.connect_timeout)
            // Off: a failed attempt is told at once and with its cause, and the caller decides when to try again.
            .retry_connection(false)
            .build_unchecked(manager);
        let store = Self { pool, config };
        store.connection().await?;
        Ok(store)
    }

    async fn connection(&self) -> Result<Connection<'_>, StoreError> {
        self.pool.get().await.map_err(|error| pool_error(&self.config, error))
    }

    /// Whether this database can be written and has a schema this binary can use.
    ///
    /// # Errors
    /// What is wrong and the command that mends it.
    pub async fn check(&self) -> Result<dalp_migrations::SchemaState, StoreError> {
        let client = self.connection().await?;
        let row = client.query_typed_one("SELECT current_setting('transaction_read_only') = 'on'", &[]).await?;
        if row.get::<_, bool>(0) {
            return Err(StoreError::read_only());
        }
        dalp_migrations::check(&client).await.map_err(|error| StoreError::Fatal { why: error.to_string() })
    }
}

/// Limits of every data transaction. SET LOCAL: behind a pooler the next transaction may be somebody else's.
async fn limit(tx: &Transaction<'_>) -> Result<(), StoreError> {
    let limits = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '120s'; \
                  SET LOCAL idle_in_transaction_session_timeout = '60s'";
    tx.batch_execute(limits).await.map_err(StoreError::from)
}

/// Unix seconds as a timestamp; the range of block times that PostgreSQL and chrono both hold.
pub(crate) fn timestamp(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0).filter(|_| encode::pg_micros(seconds).is_some())
}

fn int8(number: u64) -> i64 {
    // Block numbers past 2^63 do not exist; saturating keeps the fence from ever matching one.
    i64::try_from(number).unwrap_or(i64::MAX)
}
