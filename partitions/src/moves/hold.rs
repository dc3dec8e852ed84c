//! Adds legal holds and releases them.
//!
//! A new hold locks the registry's rows of the touched leaves, as retiring and dropping do: the operation that comes second sees
//! the first.

use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use super::attach::bring_back;
use super::exclusive::{begin_session, end_session};
use crate::pg::session::{self, BEGIN, Kind};
use crate::registry::activity::{Deed, ensure_activity, record};
use crate::registry::inventory::{read_inventory, register};
use crate::{Advice, Entry, Error, Presence, Registry, Scope, Table};

/// A move holds its leaf's registry row for less than this time, except while it counts rows.
const BRIEFLY: &str = "SET LOCAL lock_timeout = '2s'";
/// Tries to lock the registry's rows.
const TRIES: u32 = 3;

const LOCK: &str = "SELECT CASE WHEN state = 'DETACHING' THEN leaf_id END FROM registry.leaf WHERE table_schema = $1 AND table_name = $2 AND state <> 'DROPPED' \
                      AND ($3::int8 IS NULL OR key = $3) AND ($4::timestamptz IS NULL OR $4 < to_time) \
                      AND ($5::timestamptz IS NULL OR from_time IS NULL OR from_time < $5) ORDER BY leaf_id FOR UPDATE";
const ADD: &str = "INSERT INTO registry.legal_hold (table_schema, table_name, key, from_time, to_time, reason, author) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING hold_id";
const RELEASE: &str = "UPDATE registry.legal_hold SET released_at = clock_timestamp(), released_by = $2 \
                       WHERE hold_id = $1 AND released_at IS NULL RETURNING format('%s.%s', table_schema, table_name)";

/// Adds a hold. After it returns, no touched leaf is sealed, retired, detached or dropped until the hold is released; a dropped
/// leaf does not return. A detach of such a leaf that has begun is reverted. Returns the id, and the number of touched existing
/// leaves.
///
/// # Errors
/// [`Error::TooLate`] if a detach could not be reverted: the hold is valid all the same.
pub async fn add_hold(
    client: &mut Client,
    table: &Table,
    scope: &Scope,
    reason: &str,
    author: &str,
) -> Result<(i64, usize), Error> {
    let Placed { id, touched, going } = place(client, table, scope, reason, author).await?;
    let inventory = read_inventory(client, table).await?;
    let hold =
        |entry: &&Entry| inventory.holds.iter().any(|hold| hold.id == id && hold.touches(entry.key, &entry.bounds));
    // A run may have finished a detach meanwhile.
    let going = |entry: &&Entry| going.contains(&entry.id) || entry.presence == Presence::Pending;
    for entry in inventory.entries.iter().filter(hold).filter(going) {
        stop(client, table, entry).await.map_err(|error| Error::TooLate {
            hold: id,
            leaf: entry.to_string(),
            why: error.to_string(),
        })?;
    }
    Ok((id, touched))
}

/// A hold that was added.
pub(crate) struct Placed {
    pub id: i64,
    /// The number of touched existing leaves.
    touched: usize,
    /// The leaves whose detach had begun.
    going: Vec<i64>,
}

/// Reverts a detach, unless a run is active.
async fn stop(client: &mut Client, table: &Table, entry: &Entry) -> Result<(), Error> {
    begin_session(client, table).await?;
    let stopped = bring_back(client, table, entry, false).await;
    let ended = end_session(client, table).await;
    stopped.and(ended)
}

/// Adds a hold, and stops no move that has begun.
pub(crate) async fn place(
    client: &mut Client,
    table: &Table,
    scope: &Scope,
    reason: &str,
    author: &str,
) -> Result<Placed, Error> {
    refuse_unfit(client, table, scope, reason, author).await?;
    for _ in 1..TRIES {
        match add(client, table, scope, reason, author).await {
            Err(error) if error.is_passing() => {}
            added => return added,
        }
    }
    add(client, table, scope, reason, author).await
}

/// Refuses a hold without content or scope, and prepares a valid one.
pub(crate) async fn refuse_unfit(
    client: &mut Client,
    table: &Table,
    scope: &Scope,
    reason: &str,
    author: &str,
) -> Result<(), Error> {
    if reason.trim().is_empty() || author.trim().is_empty() {
        return Err(Error::Unfit {
            what: format!("hold on {table}"),
            why: "a hold needs a reason and an author: give both".to_owned(),
        });
    }
    if let (Some(from), Some(to)) = (scope.from, scope.to)
        && from >= to
    {
        return Err(Error::Unfit {
            what: format!("hold on {table}"),
            why: format!("the hold would be empty: {from} is not before {to}; swap them"),
        });
    }
    ensure_activity(client, &table.registry).await?;
    refuse_unknown_key(client, table, scope).await?;
    // A leaf without a row could not be locked: a run that registers the leaf meanwhile would not wait for the hold.
    register(client, table).await
}

/// A key is known if it has a sub-parent, a registered leaf, or a floor.
const KEYS: &str = "
    SELECT key FROM registry.leaf WHERE table_schema = $1 AND table_name = $2
    UNION SELECT key FROM registry.retention_floor WHERE table_schema = $1 AND table_name = $2";

/// An empty hold would look like a hold that keeps rows.
async fn refuse_unknown_key(client: &mut Client, table: &Table, scope: &Scope) -> Result<(), Error> {
    let Some(key) = scope.key else { return Ok(()) };
    let mut known = read_inventory(client, table).await?.keys;
    let names = [(&table.schema as &(dyn ToSql + Sync), Type::TEXT), (&table.name, Type::TEXT)];
    let rows = client.query_typed(&table.registered(KEYS), &names).await;
    known.extend(rows.map_err(Error::doing("read the keys", table))?.iter().map(|row| row.get::<_, i64>(0)));
    if known.contains(&key) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().take(20).map(i64::to_string).collect();
    let why = format!("there is no key {key}; keys: {}. Give one of them, or none for all", known.join(", "));
    Err(Error::Unfit { what: format!("hold on {table}"), why })
}

async fn add(client: &mut Client, table: &Table, scope: &Scope, reason: &str, author: &str) -> Result<Placed, Error> {
    let doing = || Error::doing("add a legal hold", table);
    let settings = format!("{BEGIN}; {BRIEFLY}");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    let placed = insert(&transaction, table, scope, reason, author).await?;
    transaction.commit().await.map_err(doing())?;
    Ok(placed)
}

/// Adds a valid hold inside a larger transaction.
pub(crate) async fn insert(
    transaction: &Transaction<'_>,
    table: &Table,
    scope: &Scope,
    reason: &str,
    author: &str,
) -> Result<Placed, Error> {
    let doing = || Error::doing("add a legal hold", table);
    let scope_of: [(&(dyn ToSql + Sync), Type); 5] = [
        (&table.schema, Type::TEXT),
        (&table.name, Type::TEXT),
        (&scope.key, Type::INT8),
        (&scope.from, Type::TIMESTAMPTZ),
        (&scope.to, Type::TIMESTAMPTZ),
    ];
    let touched = transaction.query_typed(&table.registered(LOCK), &scope_of).await.map_err(doing())?;
    let said: [(&(dyn ToSql + Sync), Type); 2] = [(&reason, Type::TEXT), (&author, Type::TEXT)];
    let parameters: Vec<_> = scope_of.into_iter().chain(said).collect();
    let id = transaction.query_typed_one(&table.registered(ADD), &parameters).await.map_err(doing())?.get(0);
    let deed = Deed::new("hold.add", format!("{}.{}", table.schema, table.name))
        .with_detail(serde_json::json!({ "hold": id, "scope": scope.to_string(), "reason": reason, "author": author }));
    record(transaction, &table.registry, &deed).await?;
    Ok(Placed { id, touched: touched.len(), going: touched.iter().filter_map(|row| row.get(0)).collect() })
}

/// Releases a hold of a registry; its row stays. An error if there is no valid hold with this id.
pub async fn release_hold(client: &mut Client, registry: &Registry, id: i64, by: &str) -> Result<(), Error> {
    let what = format!("hold {id}");
    if by.trim().is_empty() {
        return Err(Error::Unfit { what, why: "a release needs an author: give one".to_owned() });
    }
    ensure_activity(client, registry).await?;
    let doing = || Error::doing("release a legal hold", &registry.schema);
    let settings = format!("{BEGIN}; {BRIEFLY}");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&id, Type::INT8), (&by, Type::TEXT)];
    let Some(row) = transaction.query_typed_opt(&registry.sql(RELEASE), &parameters).await.map_err(doing())? else {
        let why = format!("there is no valid hold with this number: {} lists the valid holds", Advice::ListHolds);
        return Err(Error::Unfit { what, why });
    };
    let deed = Deed::new("hold.release", row.get::<_, String>(0))
        .with_detail(serde_json::json!({ "hold": id, "released_by": by }));
    record(&transaction, registry, &deed).await?;
    transaction.commit().await.map_err(doing())
}
