//! The pool's connections, which are given up rather than used again when something that was begun on them did not end.
//!
//! A dropped statement or transaction leaves messages on their way: the next user's would follow them at once. A server
//! answers in order; PgBouncer before 1.21 counts wrong, gives the server connection to somebody else in between, and
//! the answer never comes. And a COPY that was refused before it began leaves one answer too many.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use tokio::sync::watch;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::connect::{self, ConnectError, MakeTls, classify};
use crate::config::database_endpoint;

/// How long a connection may go unasked before it is used again.
const SILENCE: Duration = Duration::from_secs(5);

/// Makes and checks the pool's connections, and tells why the last one was not made: the pool itself has no word for it.
#[derive(Clone)]
pub(super) struct Manager {
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
    pub fn new(config: tokio_postgres::Config, tls: MakeTls) -> Self {
        Self { config, tls, failed: watch::channel(None).0 }
    }

    /// Why the last attempt failed; none where it did not. What was told before this call is not told again as a change.
    pub fn failures(&self) -> watch::Receiver<Option<ConnectError>> {
        self.failed.subscribe()
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Session;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Session, ConnectError> {
        let client = connect::open(&self.config, self.tls.clone()).await;
        self.failed.send_replace(client.as_ref().err().cloned());
        Ok(Session { client: client?, busy: AtomicBool::new(false), checked: Instant::now() })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), ConnectError> {
        // A server that ends a connection says so at once; asking is for what vanished without a word.
        if session.client.is_closed() || session.checked.elapsed() > SILENCE {
            let answered = session.whole(session.client.simple_query("")).await;
            answered.map_err(|error| classify(&self.config, database_endpoint(&self.config), &error))?;
            session.checked = Instant::now();
        }
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
    /// Something was begun and has not ended.
    busy: AtomicBool,
    /// When it last answered the question whether it is there.
    checked: Instant,
}

impl Session {
    /// Remembers, if it is dropped on the way, that `step` did not end.
    async fn whole<T>(&self, step: impl Future<Output = T>) -> T {
        self.busy.store(true, Ordering::Relaxed);
        let done = step.await;
        self.busy.store(false, Ordering::Relaxed);
        done
    }

    /// A transaction that [`WholeTransaction::begin`] has yet to begin.
    pub fn transaction(&mut self) -> WholeTransaction<'_> {
        self.busy.store(true, Ordering::Relaxed);
        WholeTransaction { client: &self.client, busy: &self.busy }
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

/// A transaction that gives its connection back only when its COMMIT was answered. Otherwise the connection ends inside
/// the transaction: the server rolls back, and a pooler closes its server connection with what was prepared on it, where
/// a statement of the same name would meet the next process that is given it.
///
/// Not the driver's own, which takes a round trip to begin, and which, dropped, rolls back and lets the server connection live on.
pub(super) struct WholeTransaction<'s> {
    client: &'s Client,
    busy: &'s AtomicBool,
}

impl WholeTransaction<'_> {
    /// Sends `begin` and the first statement `sql`; what is sent behind them before they are answered is part of it.
    pub async fn begin(&self, begin: &str, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<(), Error> {
        try_join(self.client.batch_execute(begin), self.client.query_typed(sql, params)).await.map(drop)
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<(), Error> {
        self.client.batch_execute("COMMIT").await?;
        self.busy.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Deref for WholeTransaction<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}
