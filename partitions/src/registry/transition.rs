//! One step of a leaf's life as a transaction: it locks the unchanged registry row, its statement waits briefly, and it records
//! the new state.

use std::time::{Duration, Instant};

use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use super::activity::{Deed, record};
use crate::pg::patience::PATIENCE;
use crate::pg::session::{self, BEGIN, Kind};
use crate::{Entry, Error, Presence, State, Table};

/// Removes the remains of an interrupted restore by an older program.
pub(crate) async fn discard(client: &mut Client, table: &Table, entry: &Entry) -> Result<Duration, Error> {
    let began = Instant::now();
    let doing = || Error::doing("drop the table of an interrupted restore", table);
    let drop = format!("DROP TABLE {}", entry.relation());
    let transaction = locked(client, table, entry).await?;
    if entry.presence == Presence::Standalone {
        is_the_leaf(&transaction, table, entry).await?;
        let sql = format!("SET LOCAL lock_timeout = '{PATIENCE}'; {drop}");
        transaction.batch_execute(&sql).await.map_err(doing())?;
    }
    set_state(&transaction, table, entry, State::Dropped).await.map_err(doing())?;
    let deed = Deed { statement: Some(drop), ..Deed::new("partition.discard", entry.to_string()) };
    finish(transaction, table, deed, began, Duration::ZERO).await
}

/// A transaction with our settings that locks the leaf's registry row, in the state of the entry.
pub(crate) async fn locked<'c>(client: &'c mut Client, table: &Table, entry: &Entry) -> Result<Transaction<'c>, Error> {
    let doing = || Error::doing("lock a leaf in the registry", table);
    let settings =
        format!("{BEGIN}; SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '60s'");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    let row =
        transaction.query_typed_opt(&table.registered(LOCK_ENTRY), &[(&entry.id, Type::INT8)]).await.map_err(doing())?;
    match row.map(|row| (row.get::<_, String>(0), row.get::<_, i32>(1))) {
        Some((state, version)) if state == entry.state.word() && version == entry.version => Ok(transaction),
        found => Err(Error::Refused {
            leaf: entry.relation(),
            why: format!(
                "another session moved it meanwhile ({} instead of {})",
                found.map_or_else(|| "gone".to_owned(), |(state, _)| state),
                entry.state
            ),
        }),
    }
}

/// Refuses if the name now means another table than the registry's row: a user renamed or moved it meanwhile. Asked behind a lock
/// on the table, or after the statement that locks it, the answer stays true until the transaction ends.
pub(crate) async fn is_the_leaf(transaction: &Transaction<'_>, table: &Table, entry: &Entry) -> Result<(), Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&entry.id, Type::INT8), (&entry.relation(), Type::TEXT)];
    let row = transaction.query_typed_opt(&table.registered(IS_THE_LEAF), &parameters).await;
    match row.map_err(Error::doing("check that a table is the leaf", table))? {
        Some(_) => Ok(()),
        None => Err(Error::Refused { leaf: entry.relation(), why: "it is no longer the same table".to_owned() }),
    }
}

const IS_THE_LEAF: &str = "SELECT FROM registry.leaf WHERE leaf_id = $1 AND relid = to_regclass($2)::oid \
                           AND catalog = registry.catalog_identity()";

/// Runs `statement`, which takes a lock, within `patience`; returns its wait.
pub(crate) async fn lock(
    transaction: &Transaction<'_>,
    statement: &str,
    patience: &str,
) -> Result<Duration, tokio_postgres::Error> {
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{patience}'")).await?;
    let began = Instant::now();
    transaction.batch_execute(statement).await?;
    Ok(began.elapsed())
}

pub(crate) async fn finish(
    transaction: Transaction<'_>,
    table: &Table,
    deed: Deed,
    began: Instant,
    waited: Duration,
) -> Result<Duration, Error> {
    let deed = Deed { took: began.elapsed(), waited, ..deed };
    record(&transaction, &table.registry, &deed).await?;
    transaction.commit().await.map_err(Error::doing("commit a move of a leaf", &deed.object))?;
    Ok(waited)
}

const LOCK_ENTRY: &str = "SELECT state, version FROM registry.leaf WHERE leaf_id = $1 FOR UPDATE";

const SET_STATE: &str = "
    UPDATE registry.leaf AS e
    SET state = $2, updated_at = clock_timestamp(),
        sealed_at = CASE $2 WHEN 'SEALED' THEN clock_timestamp() ELSE sealed_at END,
        rows = CASE $2 WHEN 'SEALED' THEN COALESCE(NULLIF((SELECT reltuples FROM pg_class WHERE oid = e.relid), -1)::int8, rows) ELSE rows END,
        bytes = CASE $2 WHEN 'SEALED' THEN COALESCE(pg_total_relation_size(e.relid), bytes) ELSE bytes END,
        checks = CASE $2 WHEN 'DETACHING' THEN ARRAY(SELECT conname::text FROM pg_constraint WHERE conrelid = e.relid AND contype = 'c')
                         ELSE checks END,
        retired_at = CASE $2 WHEN 'RETIRED' THEN clock_timestamp() ELSE retired_at END,
        detached_at = CASE WHEN $2 = 'DETACHED' THEN COALESCE(detached_at, clock_timestamp())
                           WHEN $2 = 'DROPPED' THEN detached_at END,
        dropped_at = CASE $2 WHEN 'DROPPED' THEN clock_timestamp() END
    WHERE leaf_id = $1";

/// Moves the registry's row, which the transaction has locked.
pub(crate) async fn set_state(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
    state: State,
) -> Result<(), tokio_postgres::Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&entry.id, Type::INT8), (&state.word(), Type::TEXT)];
    transaction.query_typed(&table.registered(SET_STATE), &parameters).await.map(drop)
}
