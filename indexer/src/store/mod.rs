//! PostgreSQL: the pool, and one transaction for each change of a chain.
//!
//! Never asks a node. Everything here works through PgBouncer in transaction mode: only unnamed statements, and no setting
//! outlives a transaction.

pub mod append;
pub mod bus;
pub mod chain;
mod claim;
pub mod commit;
pub mod connect;
pub mod contracts;
pub mod decode;
pub mod error;
pub mod history;
mod known;
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
pub mod token;
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
use self::known::KnownContracts;
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
    /// The wait for a connection.
    patience: Duration,
    /// Connections that history may use at the same time.
    history: Arc<Semaphore>,
    /// For connections beside the pool.
    database: Database,
    /// The tables for rows.
    datasets: Datasets,
    bus: Arc<Bus>,
    floors: Arc<RwLock<HashMap<u64, Floors>>>,
    /// The contracts that this process knows, by chain.
    directories: Arc<RwLock<HashMap<u64, KnownContracts>>>,
    /// Whether the database can hold any character: in UTF8 it can. None while this is unknown.
    unicode: Arc<OnceLock<bool>>,
}

impl Store {
    /// A pool on `database.url`. Connects once, so that a wrong URL is reported at once.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        let (database, datasets) = (&config.database, config.datasets.clone());
        let (config, tls) = connector(database, &database.url)?;
        // For the attempt, and for the query to the server itself.
        let (endpoint, patience) = (database_endpoint(&config), connect::limit(&config) * 2 + Duration::from_secs(1));
        let manager = Manager::new(database.clone(), config, tls);
        let pool = Pool::builder()
            .max_size(database.pool_size)
            // An attempt to connect ends by itself before this, with its cause.
            .connection_timeout(patience)
            // Off: a failed attempt is reported at once with its cause, and the caller decides about the next try.
            .retry_connection(false)
            // The last used one: its caches hold the current leaves, and the others may sleep.
            .queue_strategy(QueueStrategy::Lifo)
            .build_unchecked(manager.clone());
        // One connection is reserved for the tails, under any load of history.
        let writers = database.write_parallelism.min(database.pool_size - 1).max(1);
        let history = Arc::new(Semaphore::new(writers as usize));
        let (floors, directories, unicode) = (Arc::default(), Arc::default(), Arc::default());
        let database = database.clone();
        let bus = Arc::new(Bus::new());
        let store =
            Self { pool, manager, endpoint, patience, history, database, datasets, bus, floors, directories, unicode };
        // A fault that no retry mends is reported here, and waited for later: an administrator may be changing a password.
        store.pooled().await.map_err(|unpooled| match unpooled {
            Unpooled::Refused(error) => error.into(),
            other => store.unpooled(other),
        })?;
        Ok(store)
    }

    /// The tables for rows.
    pub fn datasets(&self) -> &Datasets {
        &self.datasets
    }

    /// A listener to every future change that this store commits.
    pub fn listen(&self) -> Listener {
        self.bus.listen()
    }

    async fn connection(&self) -> Result<Connection<'_>, StoreError> {
        self.pooled().await.map_err(|error| self.unpooled(error))
    }

    /// A connection of the pool. While the pool has no connection at all, every caller gets the server's reason for the refusal:
    /// none waits for a free one.
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
                "database {}: all {} connections of the pool are in use, and none became free within {:?}: raise \
                 database.pool_size, or see the active sessions of PostgreSQL in pg_stat_activity",
                self.endpoint, self.database.pool_size, self.patience
            ),
        };
        StoreError::Retry { why }
    }

    /// Checks that this database is writable and has a schema that this binary can use.
    ///
    /// # Errors
    /// The fault, and the command that mends it.
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
    /// A text of others in a form that this database can hold: no NUL, and only ASCII if its encoding may lack other characters.
    /// A refused character would freeze the stored status.
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

/// Why the pool has no free connection.
enum Unpooled {
    /// The server refuses, or is unreachable.
    Refused(ConnectError),
    /// All are in use; and why no further one was made, if it was tried.
    Busy(Option<ConnectError>),
}

/// Begins a data transaction.
async fn begin<'c>(connection: &'c mut Connection<'_>, claim: &Claim) -> Result<WholeTransaction<'c>, StoreError> {
    let tx = connection.transaction();
    limit(&tx, "BEGIN", claim).await?;
    Ok(tx)
}

/// A transaction that reads one state of the database.
async fn begin_reading<'c>(
    connection: &'c mut Connection<'_>,
    claim: &Claim,
) -> Result<WholeTransaction<'c>, StoreError> {
    let tx = connection.transaction();
    limit(&tx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", claim).await?;
    Ok(tx)
}

/// Begins a short transaction that takes a chain's locks without a token. A process that leaves it idle is paused, and must not
/// block running processes.
async fn begin_brief<'c>(
    connection: &'c mut Connection<'_>,
    chain_id: u64,
) -> Result<WholeTransaction<'c>, StoreError> {
    let tx = connection.transaction();
    tx.begin("BEGIN", LIMIT_BRIEF, &[(&int8(chain_id), Type::INT8)]).await?;
    Ok(tx)
}

/// Begins `tx` with time limits and its owner's name: after a takeover, [`lease`] finds transactions of older tokens by their
/// name.
async fn limit(tx: &WholeTransaction<'_>, begin: &str, claim: &Claim) -> Result<(), StoreError> {
    let writer: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8)];
    tx.begin(begin, LIMIT, &writer).await
}

// The settings end with the transaction: behind a pooler, the next one may belong to another process.
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

/// A stored block number. The tables' CHECKs exclude invalid ones.
pub(crate) fn uint8(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_negative| StoreError::Fatal {
        why: format!(
            "the database holds block number {number}, and no dalp-indexer writes such a number: find its \
            writer, then run `dalp-indexer reindex --from … --yes`"
        ),
    })
}

/// A stored hash: 32 bytes, by the tables' CHECKs.
pub(crate) fn hash(bytes: &[u8]) -> Result<B256, StoreError> {
    B256::try_from(bytes).map_err(|_length| StoreError::Fatal {
        why: format!(
            "the database holds a hash of {} bytes instead of 32, and no dalp-indexer writes such a hash: find its \
             writer, then run `dalp-indexer reindex --from … --yes`",
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
