//! The way back: a leaf that was sealed, retired or detached is served again, in milliseconds, as long as it is not dropped.

use chrono::{DateTime, Utc};
use tokio_postgres::{
    Client, GenericClient, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::{
    Bounds, Error, Manifest, Scope, Table, Time,
    activity::{Deed, ensure_activity, record},
    apply::{LANE_KEY, is_passing, pause},
    blockers::blockers_of,
    exclusive::{begin_session, end_session},
    hold::{place, release_hold},
    moves::{FINALIZE_PATIENCE, manifest_of, parent_of},
    registry::{Entry, Inventory, Presence, State, read_inventory, register},
    seal::unseal_statements,
    transition::{PATIENCE, TRIES, is_the_leaf, locked, set_state},
};

/// What [`undo`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Undone {
    /// The leaves that are served again, oldest first.
    pub leaves: Vec<String>,
    /// The hold that keeps them from being retired at the next run.
    pub hold: i64,
    /// The earliest time served now; `None` if all is.
    pub floor: Option<DateTime<Utc>>,
}

/// Serves a leaf again, and every newer one of its key that was on its way: what is served has no holes. A hold is put on them, or
/// the policy would retire them at its next run; `release_hold` lets them go.
///
/// Wants a direct connection of its own whose current role owns the table; its session settings are changed.
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
        let why = "there is no such leaf that is not dropped: `dalp-indexer partitions plan` shows those that are on their way, \
                   `dalp-indexer partitions archive list` those that `dalp-indexer partitions restore` brings back";
        return Err(Error::Unfit { what: leaf.to_owned(), why: why.to_owned() });
    };
    let what = first.to_string();
    if first.presence == Presence::Elsewhere {
        let why = format!(
            "somebody renamed it, or made it a partition of another table: once it is free again, ALTER TABLE {} ATTACH PARTITION {} \
             FOR VALUES {}",
            parent_of(table, first),
            first.relation(),
            first.bounds
        );
        return Err(Error::Unfit { what, why });
    }
    if first.state == State::Planned {
        let why = format!(
            "a restore of it was cut short: `dalp-indexer partitions restore {} --reason …` takes that back and begins anew",
            first.leaf
        );
        return Err(Error::Unfit { what, why });
    }
    let back = on_their_way(&inventory, first);
    let Some(last) = back.last() else {
        let why = "nothing was begun with it, nor with a newer leaf of its key: there is nothing to undo";
        return Err(Error::Unfit { what, why: why.to_owned() });
    };
    let scope = Scope::of(first.key, first.bounds.lower(), last.bounds.upper());
    let hold = place(client, table, &scope, reason, author).await?.id;
    // The newest first, each with its floor: cut short anywhere, what is served has no holes, and the same command goes on.
    for (at, entry) in back.iter().rev().enumerate() {
        if let Err(error) = bring_back(client, table, entry, true).await {
            // What came back is held; a hold on nothing would be in the way of what is done next.
            if at == 0 {
                release_hold(client, &table.registry, hold, author).await?;
            }
            return Err(error);
        }
    }
    let floor = lower_floor(client, table, first.key, first.bounds).await?;
    Ok(Undone { leaves: back.iter().map(|entry| entry.leaf.clone()).collect(), hold, floor })
}

/// The leaf and the newer ones of its key with which something was begun, oldest first.
fn on_their_way(inventory: &Inventory, first: &Entry) -> Vec<Entry> {
    let is_begun = |entry: &&Entry| {
        // What somebody took out of the table comes back when it is asked for by name alone.
        let is_meant = entry.id == first.id || entry.state != State::Taken && entry.bounds.to() > first.bounds.to();
        let is_begun = entry.state > State::Attached || entry.presence == Presence::Pending;
        entry.key == first.key && is_meant && is_begun && entry.presence != Presence::Absent
    };
    inventory.entries.iter().filter(is_begun).cloned().collect()
}

/// Attaches a leaf again, and lowers the floor to it if it `serves` its rows from now on. Tries for a while: each try waits briefly, as
/// others wait behind it.
pub(crate) async fn bring_back(client: &mut Client, table: &Table, entry: &Entry, serves: bool) -> Result<(), Error> {
    for again in 1..=TRIES {
        match attach(client, table, entry, serves).await {
            Err(error) if is_passing(&error) => tokio::time::sleep(pause(again)).await,
            ended => return ended,
        }
    }
    let holders = blockers_of(client, table, entry, entry.presence == Presence::Pending).await?;
    Err(Error::Locked { table: entry.relation(), tries: TRIES, holders })
}

/// What attaches it again.
pub(crate) fn statements(entry: &Entry, parent: &str) -> Vec<String> {
    let leaf = entry.relation();
    let finalize =
        (entry.presence == Presence::Pending).then(|| format!("ALTER TABLE {parent} DETACH PARTITION {leaf} FINALIZE"));
    let attach = (entry.presence != Presence::Attached)
        .then(|| format!("ALTER TABLE {parent} ATTACH PARTITION {leaf} FOR VALUES {}", entry.bounds));
    finalize.into_iter().chain(attach).collect()
}

/// Attaches it if it is not, and says so. The CHECK that `DETACH CONCURRENTLY` left spares the scan; it goes in the same transaction,
/// while nobody else sees the leaf.
pub(crate) async fn attach(client: &mut Client, table: &Table, entry: &Entry, serves: bool) -> Result<(), Error> {
    let doing = || Error::doing("attach a leaf again", table);
    let (leaf, parent) = (entry.relation(), parent_of(table, entry));
    let transaction = locked(client, table, entry).await?;
    transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({LANE_KEY})")).await.map_err(doing())?;
    if entry.presence == Presence::Pending {
        let finalize = format!(
            "SET LOCAL lock_timeout = '{FINALIZE_PATIENCE}'; ALTER TABLE {parent} DETACH PARTITION {leaf} FINALIZE"
        );
        transaction.batch_execute(&finalize).await.map_err(doing())?;
    }
    if entry.presence != Presence::Attached {
        let lock = format!(
            "SET LOCAL lock_timeout = '{PATIENCE}'; LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE; \
             ALTER TABLE {parent} ATTACH PARTITION {leaf} FOR VALUES {}",
            entry.bounds
        );
        transaction.batch_execute(&lock).await.map_err(|error| unlike(table, entry, doing()(error)))?;
        is_the_leaf(&transaction, table, entry).await?;
        drop_check(&transaction, table, entry).await?;
    }
    let state = if entry.is_proved() { State::Archived } else { State::Attached };
    if !entry.is_proved() {
        let unseal = format!("SET LOCAL lock_timeout = '{PATIENCE}'; {}", unseal_statements(&leaf).join("; "));
        transaction.batch_execute(&unseal).await.map_err(doing())?;
    }
    set_state(&transaction, table, entry, state).await.map_err(doing())?;
    if serves {
        lower_floor(&transaction, table, entry.key, entry.bounds).await?;
    }
    let deed = Deed::new("partition.undo", entry.to_string())
        .with_detail(serde_json::json!({ "key": entry.key, "state": entry.state.word() }));
    record(&transaction, &deed).await?;
    transaction.commit().await.map_err(doing())
}

/// The table has other columns than when the leaf was detached: the server names the first.
fn unlike(table: &Table, entry: &Entry, error: Error) -> Error {
    match &error {
        Error::Database { source, message, .. } if source.code() == Some(&SqlState::DATATYPE_MISMATCH) => {
            Error::Unfit {
                what: table.sibling(&entry.leaf),
                why: format!(
                    "the table is another than when it was detached: {message}. ALTER TABLE {} until its columns are those of the table, then \
                 `undo` it again; nothing was changed",
                    table.sibling(&entry.leaf)
                ),
            }
        }
        _ => error,
    }
}

/// CHECKs that say what the bounds of an attached leaf say, beside those that it had before we detached it. $1 leaf, $2 its row.
const CHECKS: &str = "SELECT conname::text FROM pg_catalog.pg_constraint AS c JOIN registry.leaf AS e ON e.leaf_id = $2 \
                      WHERE conrelid = to_regclass($1) AND contype = 'c' AND coninhcount = 0 AND conname <> ALL (e.checks) \
                        AND pg_get_expr(conbin, conrelid) = pg_get_partition_constraintdef(conrelid)";

/// Drops the CHECK that our detaching left; those of others stay.
async fn drop_check(transaction: &Transaction<'_>, table: &Table, entry: &Entry) -> Result<(), Error> {
    let doing = || Error::doing("drop the CHECK of a detaching", table);
    let leaf = entry.relation();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::TEXT), (&entry.id, Type::INT8)];
    for row in transaction.query_typed(&table.registered(CHECKS), &parameters).await.map_err(doing())? {
        let drop = format!("ALTER TABLE {leaf} DROP CONSTRAINT {}", crate::catalog::quoted(row.get(0)));
        transaction.batch_execute(&drop).await.map_err(doing())?;
    }
    Ok(())
}

/// Down to the start of a leaf, but not below the end of a newer one that is gone: what is served has no holes.
const LOWER_FLOOR: &str = "
    UPDATE registry.retention_floor AS f
    SET floor = low.floor, moves = f.moves + 1, moved_at = clock_timestamp()
    FROM (SELECT GREATEST($4::timestamptz,
                          (SELECT max(to_time) FROM registry.leaf AS e
                           WHERE e.table_schema = $1 AND e.table_name = $2 AND e.key = $3 AND e.to_time > $4
                             AND e.retired_at IS NOT NULL
                             AND NOT EXISTS (SELECT FROM registry.leaf AS l JOIN pg_catalog.pg_inherits ON inhrelid = l.relid
                                             WHERE l.table_schema = $1 AND l.table_name = $2 AND l.key = $3
                                               AND l.state <> 'DROPPED' AND l.from_time IS NOT DISTINCT FROM e.from_time
                                               AND l.to_time = e.to_time))) AS floor) AS low
    WHERE f.table_schema = $1 AND f.table_name = $2 AND f.key = $3 AND low.floor < f.floor";
const FLOOR: &str = "SELECT NULLIF(floor, '-infinity') FROM registry.retention_floor \
                     WHERE table_schema = $1 AND table_name = $2 AND key = $3";

/// Lowers the floor so that a leaf that is attached is served. Answers where it is.
pub(crate) async fn lower_floor(
    client: &impl GenericClient,
    table: &Table,
    key: i64,
    bounds: Bounds,
) -> Result<Option<DateTime<Utc>>, Error> {
    let doing = || Error::doing("lower the floor", table);
    let from = bounds.lower().time();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&key, Type::INT8), (&from, Type::TIMESTAMPTZ)];
    client.query_typed(&table.registered(LOWER_FLOOR), &parameters).await.map_err(doing())?;
    let row = client.query_typed_opt(&table.registered(FLOOR), &parameters[..3]).await.map_err(doing())?;
    Ok(row.and_then(|row| row.get::<_, Option<Time>>(0)).map(Time::utc))
}

/// Opens a sealed leaf that rows must be written to, which voids its archive: it is archived again later, as a new version. Answers the
/// manifest that is void now, for [`crate::Archive::void`]; `Ok(None)` also where there is nothing to open.
///
/// A leaf below the floor stays sealed: [`Error::Refused`].
pub async fn unseal(client: &mut Client, table: &Table, leaf: &str) -> Result<Option<Manifest>, Error> {
    ensure_activity(client, &table.registry).await?;
    register(client, table).await?;
    let inventory = read_inventory(client, table).await?;
    let Some(entry) = inventory.entries.iter().find(|entry| entry.is_called(leaf) && entry.state > State::Attached)
    else {
        return Ok(None);
    };
    let name = table.sibling(leaf);
    if entry.state >= State::Retired {
        let why = format!("it is {}: rows of its times are not stored any more", entry.state);
        return Err(Error::Refused { leaf: name, why });
    }
    let void = entry.manifest.is_some().then(|| manifest_of(entry)).transpose()?;
    for again in 1..=TRIES {
        match open(client, table, entry).await {
            Err(error) if is_passing(&error) => tokio::time::sleep(pause(again)).await,
            opened => return opened.map(|()| void),
        }
    }
    let holders = blockers_of(client, table, entry, false).await?;
    Err(Error::Locked { table: name, tries: TRIES, holders })
}

async fn open(client: &mut Client, table: &Table, entry: &Entry) -> Result<(), Error> {
    let doing = || Error::doing("open a sealed leaf", table);
    let name = entry.relation();
    let transaction = locked(client, table, entry).await?;
    let open = format!(
        "SET LOCAL lock_timeout = '{PATIENCE}'; LOCK TABLE ONLY {name} IN ACCESS EXCLUSIVE MODE; {}",
        unseal_statements(&name).join("; ")
    );
    transaction.batch_execute(&open).await.map_err(doing())?;
    transaction.query_typed(&table.registered(VOID), &[(&entry.id, Type::INT8)]).await.map_err(doing())?;
    let deed = Deed::new("partition.unseal", entry.to_string());
    record(&transaction, &deed).await?;
    transaction.commit().await.map_err(doing())
}

const VOID: &str = "UPDATE registry.leaf SET state = 'ATTACHED', manifest = NULL, seal = NULL, sealed_at = NULL, \
                    archived_at = NULL, updated_at = clock_timestamp() WHERE leaf_id = $1";
