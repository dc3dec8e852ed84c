//! The time of the newest row of a table: its retention counts back from this time if no time is known to be final.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::{Client, Transaction};

use super::inventory::read_inventory;
use crate::leaves::blockers::blockers_of;
use crate::pg::session::{self, Kind};
use crate::pure::names::quoted;
use crate::{Entry, Error, Inventory, Presence, Table};

/// The time of the newest row of each key with a leaf older than `retention_time` by the clock. In the other keys no leaf is due,
/// whatever their rows, so they are not read. A table without rows has no time, and none of its leaves is due.
///
/// A clock that jumped ahead ages no rows, and a table with a stopped writer keeps its rows. A row of a future time counts as a
/// row of now. A leaf under an exclusive lock is skipped.
///
/// # Errors
/// If the server refuses; if a policy hides rows from us, because an older row would pass for the newest; and with the blocking
/// sessions, if no leaf is due because a leaf was skipped.
pub async fn newest_rows(
    client: &mut Client,
    table: &Table,
    retention_time: TimeDelta,
) -> Result<BTreeMap<i64, DateTime<Utc>>, Error> {
    let doing = || Error::doing("read the newest row", table);
    let inventory = read_inventory(client, table).await?;
    let settings = "SET LOCAL TimeZone = 'UTC'; SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '60s'; \
                    SET LOCAL jit = off";
    let transaction = session::begin(client, Kind::Read, settings).await.map_err(doing())?;
    let (mut newest, mut closed) = (BTreeMap::new(), Vec::new());
    for key in aged(&inventory, retention_time) {
        for entry in downwards(&inventory, key) {
            transaction.batch_execute("SAVEPOINT leaf").await.map_err(doing())?;
            match newest_of(&transaction, table, entry).await.map_err(doing()) {
                Ok(None) => {}
                Ok(Some(time)) => {
                    newest.insert(key, time);
                    break;
                }
                // An older row ages less: no leaf goes too early.
                Err(error) if error.is_passing() => {
                    transaction.batch_execute("ROLLBACK TO leaf").await.map_err(doing())?;
                    closed.push(entry);
                }
                Err(error) => return Err(error),
            }
        }
    }
    transaction.commit().await.map_err(doing())?;
    match closed.iter().find(|entry| !ages(&inventory, entry.key, newest.get(&entry.key), retention_time)) {
        None => Ok(newest),
        Some(entry) => Err(Error::InTheWay {
            act: "a read of the newest row",
            leaf: entry.relation(),
            holders: blockers_of(client, table, entry, false).await?,
        }),
    }
}

/// Whether the time of some leaf of a key is over, by this newest row.
fn ages(inventory: &Inventory, key: i64, newest: Option<&DateTime<Utc>>, retention_time: TimeDelta) -> bool {
    let Some(cutoff) = newest.and_then(|newest| newest.checked_sub_signed(retention_time)) else { return false };
    let mut attached = inventory.entries.iter().filter(|entry| entry.presence == Presence::Attached);
    attached.any(|entry| entry.key == key && entry.bounds.to() <= cutoff)
}

/// The keys with a leaf that is older than `retention_time` by the clock.
fn aged(inventory: &Inventory, retention_time: TimeDelta) -> BTreeSet<i64> {
    let Some(cutoff) = inventory.now.checked_sub_signed(retention_time) else { return BTreeSet::new() };
    let old = inventory.entries.iter().filter(|entry| entry.bounds.to() <= cutoff);
    old.map(|entry| entry.key).collect()
}

/// The existing leaves of a key, from now downwards.
fn downwards(inventory: &Inventory, key: i64) -> impl Iterator<Item = &Entry> {
    let now = inventory.now;
    inventory.entries.iter().rev().filter(move |entry| {
        let is_begun = entry.bounds.from().is_none_or(|from| from <= now);
        entry.key == key && entry.presence == Presence::Attached && is_begun
    })
}

async fn newest_of(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
) -> Result<Option<DateTime<Utc>>, tokio_postgres::Error> {
    let (time, leaf) = (quoted(&table.time_column), entry.relation());
    let sql = format!(
        "SELECT CASE WHEN newest > clock_timestamp() THEN clock_timestamp() ELSE NULLIF(newest, '-infinity') END \
         FROM (SELECT max({time}) AS newest FROM {leaf}) AS rows"
    );
    Ok(transaction.query_typed_one(&sql, &[]).await?.get(0))
}
