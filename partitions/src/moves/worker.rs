//! Makes one move of one leaf, in transactions that leave a state from which the next run continues.

use std::time::{Duration, Instant};

use tokio_postgres::{
    Client, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};

use super::attach;
use crate::archive;
use crate::leaves::blockers::blockers_of;
use crate::pg::patience::{FINALIZE_PATIENCE, PATIENCE, pause};
use crate::pg::session;
use crate::registry::activity::{Deed, record};
use crate::registry::claim::Entered;
use crate::registry::floor::raise_floor;
use crate::registry::rule::{refuse_held, rule};
use crate::registry::seal::{MARK, seal_statements};
use crate::registry::survey::{manifest_of, prove};
use crate::registry::transition::{discard, finish, is_the_leaf, lock, locked, set_state};
use crate::{Act, Action, Advice, Archive, Entry, Error, Identity, Manifest, Move, State, Subject, Table};

/// The time that `DETACH CONCURRENTLY` waits for older readers. It holds no lock meanwhile, and no session waits behind it; a
/// shorter time would leave more pending detaches.
const DETACH_PATIENCE: &str = "30s";

/// The statements of a move as they are sent, without the registry's own.
pub fn statements(table: &Table, next: &Move) -> Vec<String> {
    let (leaf, parent) = (next.entry.relation(), next.entry.parent_in(table));
    match next.act {
        Act::Seal => seal_statements(table, &leaf),
        Act::Detach => vec![format!("ALTER TABLE {parent} DETACH PARTITION {leaf} CONCURRENTLY")],
        Act::Finalize => vec![format!("ALTER TABLE {parent} DETACH PARTITION {leaf} FINALIZE")],
        Act::Attach => attach::statements(&next.entry, &parent),
        Act::Drop | Act::Discard => vec![format!("DROP TABLE {leaf}")],
        Act::Archive | Act::Recount => vec![format!("COPY (SELECT … FROM {leaf}) TO STDOUT (FORMAT binary)")],
        Act::Retire => {
            let floor = table.registered("registry.retention_floor");
            vec![format!("UPDATE {floor} SET floor = '{}'", next.entry.bounds.upper().time())]
        }
        Act::Note(_) => Vec::new(),
    }
}

/// The locks of the first half of `DETACH CONCURRENTLY`.
fn lock_for_detach(table: &Table, entry: &Entry) -> String {
    [entry.parent_in(table), entry.relation()]
        .map(|name| format!("LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE"))
        .join("; ")
}

/// A session that uses the leaf by its own name, and not by the table's, prevents the end of a detach that has begun; and the
/// parent allows no second detach until then. So the detach does not begin if the lock for its end is not available.
async fn refuse_used_alone(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
) -> Result<(), tokio_postgres::Error> {
    let (leaf, parent) = (entry.relation(), entry.parent_in(table));
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::TEXT), (&parent, Type::TEXT)];
    if transaction.query_typed(USED_ALONE, &parameters).await?.is_empty() {
        return Ok(());
    }
    transaction.batch_execute(&format!("LOCK TABLE ONLY {leaf} IN ACCESS EXCLUSIVE MODE NOWAIT")).await
}

/// $1 leaf, $2 parent.
const USED_ALONE: &str = "
    WITH held AS (
        SELECT relation, virtualtransaction AS holder FROM pg_catalog.pg_locks
        WHERE locktype = 'relation' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
          AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    )
    SELECT FROM held WHERE relation = to_regclass($1)
      AND NOT EXISTS (SELECT FROM held AS of_parent WHERE of_parent.relation = to_regclass($2) AND of_parent.holder = held.holder)";

/// A completed move.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The move.
    pub act: Act,
    /// The leaf's schema.
    pub schema: String,
    /// The leaf's name.
    pub leaf: String,
    /// Value of the list level.
    pub key: i64,
    /// The duration, with waits.
    pub took: Duration,
    /// The wait for its first lock.
    pub waited: Duration,
}

pub(crate) struct Worker<'w> {
    pub client: &'w mut Client,
    pub table: &'w Table,
    pub archive: Option<&'w Archive>,
    /// The archive as a place that this database may write to.
    pub entered: Option<&'w Entered>,
    pub action: Action,
    pub grace: chrono::TimeDelta,
    /// Whether the detach was begun: then the registry no longer has the move's state, so the move is not retried.
    pub has_begun: bool,
}

impl Worker<'_> {
    /// Makes one move, and retries a little later if a lock was not available.
    pub async fn carry_out(&mut self, next: &Move, tries: u32) -> Result<Done, Error> {
        let began = Instant::now();
        for again in 1.. {
            match self.once(next).await {
                Ok(waited) => {
                    let (schema, leaf) = (next.entry.schema.clone(), next.entry.leaf.clone());
                    let (key, took) = (next.entry.key, began.elapsed());
                    return Ok(Done { act: next.act, schema, leaf, key, took, waited });
                }
                Err(error) if error.is_passing() && again < tries && !self.has_begun => {
                    tokio::time::sleep(pause(again)).await;
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("it returns from within")
    }

    /// Returns the wait for its first lock.
    async fn once(&mut self, next: &Move) -> Result<Duration, Error> {
        match next.act {
            Act::Note(state) => self.note(next, state).await,
            Act::Seal => self.seal(next).await,
            Act::Archive => self.archive(next).await,
            Act::Retire => self.retire(next).await,
            Act::Detach => self.detach(next).await,
            Act::Finalize => self.finalize(next).await,
            Act::Attach => attach::attach(self.client, self.table, &next.entry, false).await.map(|()| Duration::ZERO),
            Act::Recount => self.recount(next).await,
            Act::Drop => self.drop(next).await,
            Act::Discard => self.discard(next).await,
        }
    }

    fn deed(&self, action: &'static str, next: &Move) -> Deed {
        let statement = statements(self.table, next).pop();
        let detail = serde_json::json!({ "key": next.entry.key, "state": next.entry.state.word() });
        Deed { statement, ..Deed::new(action, next.entry.to_string()).with_detail(detail) }
    }

    /// A transaction that holds the leaf's registry row, unchanged since the decision for the move.
    async fn locked(&mut self, next: &Move) -> Result<Transaction<'_>, Error> {
        locked(self.client, self.table, &next.entry).await
    }

    async fn note(&mut self, next: &Move, state: State) -> Result<Duration, Error> {
        let table = self.table;
        let doing = || Error::doing("record the state of the catalog", table);
        let deed = self.deed("partition.note", next);
        let entry = &next.entry;
        // A leaf that is attached again with an intact seal has its state from before the detach.
        let state = match state {
            State::Attached if entry.is_proved() => State::Archived,
            State::Attached if entry.seal_now.is_some() => State::Sealed,
            state => state,
        };
        let transaction = self.locked(next).await?;
        set_state(&transaction, table, entry, state).await.map_err(doing())?;
        finish(transaction, table, deed, Instant::now(), Duration::ZERO).await
    }

    async fn seal(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began) = (self.table, Instant::now());
        let doing = || Error::doing("seal a leaf", table);
        let deed = self.deed("partition.seal", next);
        let transaction = self.locked(next).await?;
        refuse_held(&transaction, table, &next.entry).await?;
        let leaf = next.entry.relation();
        let waited = lock(&transaction, &format!("LOCK TABLE ONLY {leaf} IN SHARE ROW EXCLUSIVE MODE"), PATIENCE)
            .await
            .map_err(doing())?;
        transaction.batch_execute(&seal_statements(table, &leaf).join("; ")).await.map_err(doing())?;
        is_the_leaf(&transaction, table, &next.entry).await?;
        let state = if next.entry.state == State::Detached { State::Detached } else { State::Sealed };
        set_state(&transaction, table, &next.entry, state).await.map_err(doing())?;
        finish(transaction, table, deed, began, waited).await
    }

    /// Exports, reads back and compares. The seal is equal before and after, so the counted rows are the present rows.
    async fn archive(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, entry) = (self.table, Instant::now(), &next.entry);
        let doing = || Error::doing("archive a leaf", table);
        let (Some(store), Some(entered)) = (self.archive, self.entered) else {
            let why = format!("no archive is configured: set {}", Advice::ArchivePlace);
            return Err(Error::Unfit { what: entry.relation(), why });
        };
        let deed = self.deed("partition.archive", next);
        let transaction = self.locked(next).await?;
        let state = if entry.state == State::Detached { State::Detached } else { State::Archiving };
        let version = entry.version + 1;
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&entry.id, Type::INT8), (&state.word(), Type::TEXT), (&version, Type::INT4)];
        transaction.query_typed(&table.registered(BEGIN_ARCHIVE), &parameters).await.map_err(doing())?;
        transaction.commit().await.map_err(doing())?;
        self.client.batch_execute("SET statement_timeout = 0").await.map_err(doing())?;
        let identity = Identity {
            installation: entered.installation.clone(),
            incarnation: entry.incarnation.clone(),
            server: entered.server.clone(),
        };
        let (leaf, version_of) = (entry.leaf.as_str(), version.unsigned_abs());
        let subject = Subject { key: entry.key, leaf, bounds: entry.bounds, version: version_of, identity: &identity };
        let placed = table.of_leaf_in(&entry.schema);
        let written = store.write(self.client, &placed, &subject).await;
        self.client.batch_execute("SET statement_timeout = '60s'").await.map_err(doing())?;
        let manifest = written?;
        let begun = Entry { state, version, ..entry.clone() };
        let transaction = locked(self.client, table, &begun).await?;
        archived(&transaction, table, &begun, &manifest, store.name()).await?;
        finish(transaction, table, deed, began, Duration::ZERO).await?;
        store.void_earlier(&manifest).await?;
        Ok(Duration::ZERO)
    }

    async fn retire(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, action, entry) = (self.table, Instant::now(), self.action, &next.entry);
        let doing = || Error::doing("raise the floor over a leaf", table);
        let deed = self.deed("partition.retire", next);
        let transaction = self.locked(next).await?;
        rule(&transaction, table, entry, action, None).await?;
        raise_floor(&transaction, table, entry.key, entry.bounds).await.map_err(doing())?;
        if entry.state != State::Detached {
            set_state(&transaction, table, entry, State::Retired).await.map_err(doing())?;
        }
        finish(transaction, table, deed, began, Duration::ZERO).await
    }

    /// The registry gets the new state first: after a crash, the pending detach is known as ours.
    async fn detach(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, action, entry) = (self.table, Instant::now(), self.action, &next.entry);
        let doing = || Error::doing("detach a leaf", table);
        let deed = self.deed("partition.detach", next);
        let transaction = self.locked(next).await?;
        // Asks briefly for the first lock of DETACH. Inside DETACH, the lock would wait as long as for readers, with the parent
        // locked against makers of leaves; and past deadlock_timeout, a blocking autovacuum would be cancelled.
        let waited = lock(&transaction, &lock_for_detach(table, entry), PATIENCE).await.map_err(doing())?;
        refuse_used_alone(&transaction, table, entry).await.map_err(doing())?;
        rule(&transaction, table, entry, action, None).await?;
        set_state(&transaction, table, entry, State::Detaching).await.map_err(doing())?;
        transaction.commit().await.map_err(doing())?;
        self.has_begun = true;
        // PostgreSQL refuses it inside a transaction, so it runs alone, and SET LOCAL is impossible.
        self.client.batch_execute(&format!("SET lock_timeout = '{DETACH_PATIENCE}'")).await.map_err(doing())?;
        let statement = statements(table, next).concat();
        let detached = self.client.batch_execute(&statement).await.map_err(doing());
        self.client.batch_execute("SET lock_timeout = '2s'").await.map_err(doing())?;
        detached?;
        let begun = Entry { state: State::Detaching, ..entry.clone() };
        let transaction = locked(self.client, table, &begun).await?;
        set_state(&transaction, table, entry, State::Detached).await.map_err(doing())?;
        finish(transaction, table, deed, began, waited).await
    }

    async fn finalize(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began) = (self.table, Instant::now());
        let doing = || Error::doing("end the detaching of a leaf", table);
        let deed = self.deed("partition.finalize", next);
        let transaction = self.locked(next).await?;
        refuse_held(&transaction, table, &next.entry).await?;
        let statement = statements(table, next).concat();
        let waited = lock(&transaction, &statement, FINALIZE_PATIENCE).await.map_err(doing())?;
        is_the_leaf(&transaction, table, &next.entry).await?;
        // A detach that another user began belongs to that user.
        let state =
            if matches!(next.entry.state, State::Detaching | State::Detached) { State::Detached } else { State::Taken };
        set_state(&transaction, table, &next.entry, state).await.map_err(doing())?;
        finish(transaction, table, deed, began, waited).await
    }

    /// Checks that the table's rows are the archived rows.
    async fn recount(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, entry) = (self.table, Instant::now(), &next.entry);
        let doing = || Error::doing("count the rows of a leaf", table);
        let deed = self.deed("partition.recount", next);
        let manifest = manifest_of(entry)?;
        let transaction = self.locked(next).await?;
        let settings = format!("SET LOCAL statement_timeout = 0; {}", session::AS_WRITTEN);
        transaction.batch_execute(&settings).await.map_err(doing())?;
        let counted = archive::recount(&transaction, &manifest, &entry.relation()).await?;
        if !manifest.is_of(&counted) {
            let why = format!(
                "its seal was broken, and {} rows in the table are not the {} in the archive: compare both",
                counted.rows, manifest.counted.rows
            );
            return Err(Error::Refused { leaf: entry.relation(), why });
        }
        transaction
            .query_typed(
                &table.registered(&format!("{SET_SEAL} {MARK} WHERE leaf_id = $1")),
                &[(&entry.id, Type::INT8)],
            )
            .await
            .map_err(doing())?;
        finish(transaction, table, deed, began, Duration::ZERO).await
    }

    /// Reads the whole archive once more, then checks the rule behind the lock, and drops the table in the same transaction.
    async fn drop(&mut self, next: &Move) -> Result<Duration, Error> {
        let (table, began, action, grace, entry) = (self.table, Instant::now(), self.action, self.grace, &next.entry);
        let doing = || Error::doing("drop a leaf", table);
        if action == Action::Archive {
            let manifest = manifest_of(entry)?;
            let Some(store) = self.archive else {
                let why = format!("its archive cannot be read: set {}", Advice::ArchivePlace);
                return Err(Error::Refused { leaf: entry.relation(), why });
            };
            prove(store, table, entry, &manifest).await?;
        }
        let deed = self.deed("partition.drop", next);
        let transaction = self.locked(next).await?;
        let leaf = entry.relation();
        let waited = lock(&transaction, &format!("LOCK TABLE ONLY {leaf} IN ACCESS EXCLUSIVE MODE"), PATIENCE)
            .await
            .map_err(doing())?;
        rule(&transaction, table, entry, action, Some(grace)).await?;
        transaction.batch_execute(&statements(table, next).concat()).await.map_err(doing())?;
        set_state(&transaction, table, entry, State::Dropped).await.map_err(doing())?;
        finish(transaction, table, deed, began, waited).await
    }

    async fn discard(&mut self, next: &Move) -> Result<Duration, Error> {
        discard(self.client, self.table, &next.entry).await
    }

    /// The same error; after a lock timeout, with the holders of the lock.
    pub async fn named(&mut self, next: &Move, error: Error) -> Result<Error, Error> {
        if !error.is_passing() && !is_cancelled(&error) {
            return Ok(error);
        }
        let holders = blockers_of(self.client, self.table, &next.entry, next.act == Act::Finalize).await?;
        Ok(Error::InTheWay { act: next.act.word(), leaf: next.entry.relation(), holders })
    }

    pub async fn record_failure(&mut self, next: &Move, error: &Error) -> Result<(), Error> {
        let deed = Deed { failure: Some(error.to_string()), ..self.deed("partition.failed", next) };
        record(self.client, &self.table.registry, &deed).await
    }
}

/// The archive is written: the seal must still be the one from before the read.
async fn archived(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
    manifest: &Manifest,
    place: &str,
) -> Result<(), Error> {
    let doing = || Error::doing("note that a leaf is archived", table);
    let json = serde_json::to_value(manifest).unwrap_or_default();
    let rows = i64::try_from(manifest.counted.rows).unwrap_or(i64::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&entry.id, Type::INT8),
        (&json, Type::JSONB),
        (&rows, Type::INT8),
        (&entry.seal_now, Type::TEXT),
        (&place, Type::TEXT),
    ];
    match transaction
        .query_typed_opt(&table.registered(&format!("{END_ARCHIVE} {MARK} RETURNING leaf_id")), &parameters)
        .await
        .map_err(doing())?
    {
        Some(_) => Ok(()),
        None => {
            Err(Error::Refused { leaf: entry.relation(), why: "its seal was broken while it was archived".to_owned() })
        }
    }
}

const BEGIN_ARCHIVE: &str = "UPDATE registry.leaf SET state = $2, version = $3, manifest = NULL, seal = NULL, \
                             updated_at = clock_timestamp() WHERE leaf_id = $1";
const END_ARCHIVE: &str = "
    UPDATE registry.leaf AS e
    SET state = CASE WHEN state = 'DETACHED' THEN state ELSE 'ARCHIVED' END, manifest = $2, rows = $3, seal = $4,
        archived_at = clock_timestamp(), verified_at = clock_timestamp(), updated_at = clock_timestamp(), place = $5
    WHERE leaf_id = $1 AND $4 = ";
const SET_SEAL: &str = "UPDATE registry.leaf AS e SET updated_at = clock_timestamp(), seal = ";

/// Whether statement_timeout ended it: several waits, none of them too long alone.
fn is_cancelled(error: &Error) -> bool {
    let Error::Database { source, .. } = error else { return false };
    source.code() == Some(&SqlState::QUERY_CANCELED)
}
