//! PostgreSQL: the pool, and one transaction for each thing that may happen to a chain.
//!
//! Never asks a node. Through PgBouncer in transaction mode everything here works: unnamed statements only, nothing set
//! beyond a transaction.

pub mod append;
pub mod bus;
pub mod chain;
mod claim;
pub mod commit;
pub mod connect;
pub mod error;
pub mod history;
pub mod lease;
pub mod nodes;
pub mod read;
mod recent;
pub mod repair;
pub mod reset;
pub mod retention;
pub mod rights;
mod session;
mod stages;
pub mod unwind;
pub mod verify;

use alloy::primitives::B256;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use bb8::{Pool, QueueStrategy};
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio_postgres::types::{ToSql, Type};

pub use self::chain::NewChain;
pub use self::claim::Claim;
pub use self::commit::{Change, Commit};
pub use self::error::StoreError;

use self::bus::{Bus, Listener};
use self::connect::{ConnectError, connector};
use self::rights::Duty;
use self::session::{Manager, WholeTransaction};
use crate::config::{Config, Database, database_endpoint};
use crate::dataset::copy::pg_micros;
use crate::dataset::{Datasets, Floors};

type Connection<'p> = bb8::PooledConnection<'p, Manager>;

/// The writer's way into the database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool<Manager>,
    manager: Manager,
    endpoint: String,
    /// How long a connection is waited for.
    patience: Duration,
    /// Connections that history may take at once.
    history: Arc<Semaphore>,
    /// For connections beside the pool.
    database: Database,
    /// The tables that rows go to.
    datasets: Datasets,
    bus: Arc<Bus>,
    floors: Arc<RwLock<HashMap<u64, Floors>>>,
    /// Whether the database holds any character: it does in UTF8. None while that is not known.
    unicode: Arc<OnceLock<bool>>,
}

impl Store {
    /// A pool on `database.url`. Connects once, so that a wrong URL is said at once.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        let (database, datasets) = (&config.database, config.datasets.clone());
        let (config, tls) = connector(database, &database.url)?;
        // For the attempt, and for the question to the server itself.
        let (endpoint, patience) = (database_endpoint(&config), connect::limit(&config) * 2 + Duration::from_secs(1));
        let manager = Manager::new(database.clone(), config, tls);
        let pool = Pool::builder()
            .max_size(database.pool_size)
            // An attempt to connect ends by itself before this, with its cause.
            .connection_timeout(patience)
            // Off: a failed attempt is told at once and with its cause, and the caller decides when to try again.
            .retry_connection(false)
            // The one that was just used: its caches hold the leaves that are being written, and the others may sleep.
            .queue_strategy(QueueStrategy::Lifo)
            .build_unchecked(manager.clone());
        // One connection is left to the tails, whatever history does.
        let writers = database.write_parallelism.min(database.pool_size - 1).max(1);
        let history = Arc::new(Semaphore::new(writers as usize));
        let (floors, unicode) = (Arc::default(), Arc::default());
        let database = database.clone();
        let bus = Arc::new(Bus::new());
        let store = Self { pool, manager, endpoint, patience, history, database, datasets, bus, floors, unicode };
        // What no retry mends is said as such here, and waited for later: an administrator may be changing a password.
        store.pooled().await.map_err(|unpooled| match unpooled {
            Unpooled::Refused(error) => error.into(),
            other => store.unpooled(other),
        })?;
        Ok(store)
    }

    /// The tables that rows go to.
    pub fn datasets(&self) -> &Datasets {
        &self.datasets
    }

    /// A listener to every change of a chain that this store commits from now on.
    pub fn listen(&self) -> Listener {
        self.bus.listen()
    }

    async fn connection(&self) -> Result<Connection<'_>, StoreError> {
        self.pooled().await.map_err(|error| self.unpooled(error))
    }

    /// A connection of the pool. While the pool has none at all, the server's reason for refusing another is everybody's: nobody
    /// waits for one to come free.
    async fn pooled(&self) -> Result<Connection<'_>, Unpooled> {
        let mut failures = self.manager.failures();
        let refused = async {
            loop {
                // The store itself keeps the sender.
                failures.changed().await.ok();
                if let Some(error) = failures.borrow().clone().filter(|_| self.pool.state().connections == 0) {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            connection = self.pool.get() => match connection {
                Ok(connection) => Ok(connection),
                Err(bb8::RunError::User(error)) => Err(Unpooled::Refused(error)),
                Err(bb8::RunError::TimedOut) => Err(Unpooled::Busy(self.manager.failures().borrow().clone())),
            },
            error = refused => Err(Unpooled::Refused(error)),
        }
    }

    fn unpooled(&self, error: Unpooled) -> StoreError {
        let why = match error {
            Unpooled::Refused(error) | Unpooled::Busy(Some(error)) => error.to_string(),
            Unpooled::Busy(None) => format!(
                "database {}: all {} connections of the pool are in use, and none came free within {:?}: raise \
                 database.pool_size, or look for what PostgreSQL is busy with (pg_stat_activity)",
                self.endpoint, self.database.pool_size, self.patience
            ),
        };
        StoreError::Retry { why }
    }

    /// Whether this database can be written and has a schema this binary can use.
    ///
    /// # Errors
    /// What is wrong and the command that mends it.
    pub async fn check(&self) -> Result<dalp_migrations::SchemaState, StoreError> {
        let client = self.connection().await?;
        let sql = "SELECT current_setting('transaction_read_only') = 'on', current_setting('server_encoding') = 'UTF8'";
        let row = client.query_typed_one(sql, &[]).await?;
        self.unicode.get_or_init(|| row.get(1));
        if row.get::<_, bool>(0) {
            return Err(StoreError::read_only());
        }
        rights::fit(&client, Duty::Write).await
    }
}

impl Store {
    /// What others wrote, as this database can hold it: no NUL, and nothing beyond ASCII where its encoding may lack it. A character that
    /// is refused would freeze what it was to tell.
    fn text(&self, text: &str) -> String {
        text_in(*self.unicode.get().unwrap_or(&false), text)
    }
}

fn text_in(unicode: bool, text: &str) -> String {
    let held = |character: char| match character {
        '\0' => '\u{20}',
        character if unicode || character.is_ascii() => character,
        '…' => '.',
        _ => '?',
    };
    text.chars().map(held).collect()
}

/// Why the pool has no connection for us.
enum Unpooled {
    /// The server refuses, or is not there.
    Refused(ConnectError),
    /// Others have them; and why there is not another one, if that was tried.
    Busy(Option<ConnectError>),
}

/// Begins a data transaction.
async fn begin<'c>(connection: &'c mut Connection<'_>, claim: &Claim) -> Result<WholeTransaction<'c>, StoreError> {
    let tx = connection.transaction();
    limit(&tx, "BEGIN", claim).await?;
    Ok(tx)
}

/// The same for reading one state of the database.
async fn begin_reading<'c>(
    connection: &'c mut Connection<'_>,
    claim: &Claim,
) -> Result<WholeTransaction<'c>, StoreError> {
    let tx = connection.transaction();
    limit(&tx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", claim).await?;
    Ok(tx)
}

/// Begins a short transaction that takes a chain's locks without a token. A process that leaves it idle is stopped, and
/// must not hold up those that run.
async fn begin_brief<'c>(
    connection: &'c mut Connection<'_>,
    chain_id: u64,
) -> Result<WholeTransaction<'c>, StoreError> {
    let tx = connection.transaction();
    tx.begin("BEGIN", LIMIT_BRIEF, &[(&int8(chain_id), Type::INT8)]).await?;
    Ok(tx)
}

/// Begins `tx`, within limits, and says whose it is: after a takeover [`lease`] finds those of older tokens by their name.
async fn limit(tx: &WholeTransaction<'_>, begin: &str, claim: &Claim) -> Result<(), StoreError> {
    let writer: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8)];
    tx.begin(begin, LIMIT, &writer).await
}

// The settings end with the transaction: behind a pooler the next one may be somebody else's.
const LIMIT: &str = "SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '120s', true), \
                       set_config('idle_in_transaction_session_timeout', '60s', true), \
                       set_config('application_name', 'dalp-indexer ' || $1 || '/' || $2, true)";
const LIMIT_BRIEF: &str = "SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '60s', true), \
                             set_config('idle_in_transaction_session_timeout', '1s', true), \
                             set_config('application_name', 'dalp-indexer ' || $1, true)";

/// Unix seconds as a timestamp; the range of block times that PostgreSQL and chrono both hold.
pub(crate) fn timestamp(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0).filter(|_| pg_micros(seconds).is_some())
}

/// A block number as it is stored. The tables' CHECKs keep out what is none.
pub(crate) fn uint8(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_negative| StoreError::Fatal {
        why: format!("the database holds block number {number}, which no dalp-indexer writes: find out who did, and `dalp-indexer reindex`"),
    })
}

/// A hash as it is stored: 32 bytes, by the tables' CHECKs.
pub(crate) fn hash(bytes: &[u8]) -> Result<B256, StoreError> {
    B256::try_from(bytes).map_err(|_length| StoreError::Fatal {
        why: format!(
            "the database holds a hash of {} bytes where 32 are, which no dalp-indexer writes: find out who did, and \
             `dalp-indexer reindex`",
            bytes.len()
        ),
    })
}

pub(crate) fn int8(number: u64) -> i64 {
    // Block numbers past 2^63 do not exist; saturating keeps the fence from ever matching one.
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_the_database_holds() {
        assert_eq!(text_in(true, "a\0b 请 …"), "a b 请 …");
        assert_eq!(text_in(false, "a\0b 请 …"), "a b ? .");
    }
}
