//! The way back: returns a sealed, retired or detached leaf to its table in milliseconds, before its drop.

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::attach::bring_back;
use super::exclusive::{begin_session, end_session};
use super::hold::{place, release_hold};
use crate::registry::activity::ensure_activity;
use crate::registry::floor::lower_floor;
use crate::registry::inventory::{read_inventory, register};
use crate::{Advice, Entry, Error, Inventory, Presence, Scope, State, Table};

/// The result of [`undo`].
#[derive(Debug, Clone, PartialEq)]
pub struct Undone {
    /// The returned leaves, oldest first.
    pub leaves: Vec<String>,
    /// The hold that keeps them from being retired at the next run.
    pub hold: i64,
    /// The earliest time served now; `None` if all times are.
    pub floor: Option<DateTime<Utc>>,
}

/// Returns a leaf to its table, with every newer leaf of its key that was on its way: the served range has no holes. A hold is
/// put on these leaves, otherwise the policy would retire them at its next run; `release_hold` ends it.
///
/// Needs a separate direct connection whose current role owns the table; its session settings are changed.
pub async fn undo(client: &mut Client, table: &Table, leaf: &str, reason: &str, author: &str) -> Result<Undone, Error> {
    begin_session(client, table).await?;
    let undone = undo_all(client, table, leaf, reason, author).await;
    let ended = end_session(client, table).await;
    let undone = undone?;
    ended.map(|()| undone)
}

async fn undo_all(client: &mut Client, table: &Table, leaf: &str, reason: &str, author: &str) -> Result<Undone, Error> {
    ensure_activity(client, &table.registry).await?;
    register(client, table).await?;
    let inventory = read_inventory(client, table).await?;
    let Some(first) =
        inventory.entries.iter().find(|entry| entry.is_called(leaf) && entry.presence != Presence::Absent)
    else {
        let why = format!(
            "there is no such leaf, or it is dropped: {} lists leaves on their way, {} lists leaves that {} can restore",
            Advice::Plan,
            Advice::ListArchives,
            Advice::Restore(None)
        );
        return Err(Error::Unfit { what: leaf.to_owned(), why });
    };
    let what = first.to_string();
    if first.presence == Presence::Elsewhere {
        let why = format!(
            "another user renamed it, or made it a partition of another table. If it is one, detach it there; then run \
             ALTER TABLE {} ATTACH PARTITION {} FOR VALUES {}",
            first.parent_in(table),
            first.relation(),
            first.bounds
        );
        return Err(Error::Unfit { what, why });
    }
    if first.state == State::Planned {
        let why = format!(
            "a restore of it was interrupted: {} reverts the attempt and starts again",
            Advice::Restore(Some(&first.leaf))
        );
        return Err(Error::Unfit { what, why });
    }
    let back = on_their_way(&inventory, first);
    let Some(last) = back.last() else {
        let why = "neither this leaf nor a newer leaf of its key has left its table: there is nothing to undo";
        return Err(Error::Unfit { what, why: why.to_owned() });
    };
    let scope = Scope::of(first.key, first.bounds.lower(), last.bounds.upper());
    let hold = place(client, table, &scope, reason, author).await?.id;
    // The newest leaf first, each with its floor: if the undo is interrupted, the served range has no holes, and the same command
    // continues.
    for (at, entry) in back.iter().rev().enumerate() {
        if let Err(error) = bring_back(client, table, entry, true).await {
            // The returned leaves are held; an empty hold would block later operations.
            if at == 0 {
                release_hold(client, &table.registry, hold, author).await?;
            }
            return Err(error);
        }
    }
    let floor = lower_floor(client, table, first.key, first.bounds).await?;
    Ok(Undone { leaves: back.iter().map(|entry| entry.leaf.clone()).collect(), hold, floor })
}

/// The leaf, and the newer leaves of its key that are on their way, oldest first.
fn on_their_way(inventory: &Inventory, first: &Entry) -> Vec<Entry> {
    let is_begun = |entry: &&Entry| {
        // A leaf that another user detached returns only if the request names it.
        let is_meant = entry.id == first.id || entry.state != State::Taken && entry.bounds.to() > first.bounds.to();
        let is_begun = entry.state > State::Attached || entry.presence == Presence::Pending;
        entry.key == first.key && is_meant && is_begun && entry.presence != Presence::Absent
    };
    inventory.entries.iter().filter(is_begun).cloned().collect()
}
