//! The pool's connections, which are given up rather than used again when something that was begun on them did not end.
//!
//! A dropped statement or transaction leaves messages on their way: the next user's would follow them at once. A server
//! answers in order; PgBouncer before 1.21 counts wrong, gives the server connection to somebody else in between, and
//! the answer never comes. And a COPY that was refused before it began leaves one answer too many.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Transaction};

use super::connect::MakeTls;

/// How long a connection may go unasked before it is used again.
const SILENCE: Duration = Duration::from_secs(5);

/// Makes and checks the pool's connections.
#[derive(Debug)]
pub(super) struct Manager(PostgresConnectionManager<MakeTls>);

impl Manager {
    pub fn new(config: tokio_postgres::Config, tls: MakeTls) -> Self {
        Self(PostgresConnectionManager::new(config, tls))
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Session;
    type Error = Error;

    async fn connect(&self) -> Result<Session, Error> {
        Ok(Session { client: self.0.connect().await?, busy: AtomicBool::new(false), checked: Instant::now() })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), Error> {
        // A server that ends a connection says so at once; asking is for what vanished without a word.
        if session.client.is_closed() || session.checked.elapsed() > SILENCE {
            session.whole(session.client.simple_query("")).await?;
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

    /// As [`Client::transaction`].
    pub async fn transaction(&mut self) -> Result<WholeTransaction<'_>, Error> {
        self.busy.store(true, Ordering::Relaxed);
        Ok(WholeTransaction { inner: ManuallyDrop::new(self.client.transaction().await?), busy: &self.busy })
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
pub(super) struct WholeTransaction<'s> {
    /// Never dropped, as that would roll back and let the server connection live on.
    inner: ManuallyDrop<Transaction<'s>>,
    busy: &'s AtomicBool,
}

impl WholeTransaction<'_> {
    /// As [`Transaction::commit`].
    pub async fn commit(self) -> Result<(), Error> {
        self.inner.batch_execute("COMMIT").await?;
        self.busy.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl<'s> Deref for WholeTransaction<'s> {
    type Target = Transaction<'s>;

    fn deref(&self) -> &Transaction<'s> {
        &self.inner
    }
}

impl DerefMut for WholeTransaction<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}
