//! The pool's connections. A connection with an unfinished statement is closed, and not used again.
//!
//! A dropped statement or transaction leaves messages under way, and the next user's messages would follow directly. A server
//! answers in order. PgBouncer before 1.21 counts wrong, gives the server connection to another client in between, and the answer
//! never comes. A COPY that is refused before it begins leaves one extra answer.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use tokio::sync::watch;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::StoreError;
use super::connect::{self, ConnectError, MakeTls, classify};
use crate::config::{Database, database_endpoint};

/// The idle time after which a connection is tested before its next use.
const SILENCE: Duration = Duration::from_secs(5);

/// Makes and tests the pool's connections, and reports why the last one was not made: the pool itself has no message for it.
#[derive(Clone)]
pub(super) struct Manager {
    database: Database,
    config: tokio_postgres::Config,
    tls: MakeTls,
    failed: watch::Sender<Option<ConnectError>>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Manager {
    pub fn new(database: Database, config: tokio_postgres::Config, tls: MakeTls) -> Self {
        Self { database, config, tls, failed: watch::channel(None).0 }
    }

    /// With the full reason, which is kept for the callers that wait for a connection.
    async fn failed(&self, error: ConnectError) -> ConnectError {
        let error = connect::explained(&self.database, &self.database.url, error).await;
        self.failed.send_replace(Some(error.clone()));
        error
    }

    /// Why the last attempt failed; none if it did not. A failure reported before this call is not reported again as a change.
    pub fn failures(&self) -> watch::Receiver<Option<ConnectError>> {
        self.failed.subscribe()
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Session;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Session, ConnectError> {
        match connect::open(&self.config, self.tls.clone()).await {
            Ok(client) => {
                self.failed.send_replace(None);
                let (busy, checked) = (AtomicBool::new(false), Instant::now());
                let (endpoint, limit) = (database_endpoint(&self.config), connect::limit(&self.config));
                Ok(Session { client, busy, checked, endpoint, limit })
            }
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), ConnectError> {
        // A server that ends a connection says so at once; the test finds silently vanished ones.
        if !session.client.is_closed() && session.checked.elapsed() <= SILENCE {
            return Ok(());
        }
        let asked = session.whole(session.client.simple_query(""));
        let found = match tokio::time::timeout(session.limit, asked).await {
            Ok(answer) => answer.map_err(|error| classify(&self.config, session.endpoint.clone(), &error)),
            // A new one would be as silent; a closed one is replaced.
            Err(_late) => Err(self.failed(connect::silent(session.endpoint.clone(), session.limit)).await),
        };
        found?;
        session.checked = Instant::now();
        Ok(())
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.client.is_closed() || session.busy.load(Ordering::Relaxed)
    }
}

/// One connection of the pool.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    /// A statement or transaction was begun and has not ended.
    busy: AtomicBool,
    /// The time of its last successful test.
    checked: Instant,
    endpoint: String,
    /// The time limit of an answer that needs no lock.
    limit: Duration,
}

impl Session {
    /// Remembers, if it is dropped early, that `step` did not end.
    async fn whole<T>(&self, step: impl Future<Output = T>) -> T {
        self.busy.store(true, Ordering::Relaxed);
        let done = step.await;
        self.busy.store(false, Ordering::Relaxed);
        done
    }

    /// A transaction that [`WholeTransaction::begin`] will begin.
    pub fn transaction(&mut self) -> WholeTransaction<'_> {
        self.busy.store(true, Ordering::Relaxed);
        WholeTransaction { session: self }
    }

    /// As [`Client::query_typed`].
    pub async fn query_typed(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        self.whole(self.client.query_typed(sql, params)).await
    }

    /// As [`Client::execute_typed`].
    pub async fn execute_typed(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<u64, Error> {
        self.whole(self.client.execute_typed(sql, params)).await
    }

    /// As [`Client::query_typed_one`].
    pub async fn query_typed_one(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row, Error> {
        self.whole(self.client.query_typed_one(sql, params)).await
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A transaction that returns its connection to the pool only after the answer to its COMMIT. If it is dropped earlier, the pool
/// closes the connection inside the transaction: the server rolls back, and a pooler closes its server connection. The statements
/// prepared on this server connection end with it. Otherwise the next process that gets it could not prepare a statement of the same
/// name.
///
/// The driver's own transaction is not used: it takes a round trip to begin; if it is dropped, it rolls back and keeps the server
/// connection.
pub(super) struct WholeTransaction<'s> {
    session: &'s Session,
}

impl WholeTransaction<'_> {
    /// Sends `begin` and the first statement `sql`, which takes no lock; statements sent before their answers are part of the
    /// transaction.
    pub async fn begin(
        &self,
        begin: &str,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), StoreError> {
        let Session { client, endpoint, limit, .. } = self.session;
        // A pooler without its server lets statements wait for minutes.
        let begun = try_join(client.batch_execute(begin), client.query_typed(sql, params));
        match tokio::time::timeout(*limit, begun).await {
            Ok(begun) => Ok(begun.map(drop)?),
            Err(_late) => Err(connect::silent(endpoint.clone(), *limit).into()),
        }
    }

    /// Commits it.
    pub async fn commit(self) -> Result<(), Error> {
        self.session.client.batch_execute("COMMIT").await?;
        self.session.busy.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Deref for WholeTransaction<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.session.client
    }
}
