//! Attaches a leaf to its table again.

use tokio_postgres::{
    Client, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::leaves::blockers::blockers_of;
use crate::leaves::create::LANE_KEY;
use crate::pg::patience::{FINALIZE_PATIENCE, PATIENCE, TRIES, pause};
use crate::pure::names::quoted;
use crate::registry::activity::{Deed, record};
use crate::registry::floor::lower_floor;
use crate::registry::seal::unseal_statements;
use crate::registry::transition::{is_the_leaf, locked, set_state};
use crate::{Entry, Error, Presence, State, Table};

/// Attaches a leaf again, and lowers the floor to it if its rows are served from now on (`serves`). Retries for a while: each try
/// waits briefly, because other sessions wait behind it.
pub(crate) async fn bring_back(client: &mut Client, table: &Table, entry: &Entry, serves: bool) -> Result<(), Error> {
    for again in 1..=TRIES {
        match attach(client, table, entry, serves).await {
            Err(error) if error.is_passing() => tokio::time::sleep(pause(again)).await,
            ended => return ended,
        }
    }
    let holders = blockers_of(client, table, entry, entry.presence == Presence::Pending).await?;
    Err(Error::Locked { table: entry.relation(), tries: TRIES, holders })
}

/// The statement that attaches it.
pub(crate) fn statements(entry: &Entry, parent: &str) -> Vec<String> {
    let leaf = entry.relation();
    let finalize =
        (entry.presence == Presence::Pending).then(|| format!("ALTER TABLE {parent} DETACH PARTITION {leaf} FINALIZE"));
    let attach = (entry.presence != Presence::Attached)
        .then(|| format!("ALTER TABLE {parent} ATTACH PARTITION {leaf} FOR VALUES {}", entry.bounds));
    finalize.into_iter().chain(attach).collect()
}

/// Attaches the leaf if it is detached, and returns whether it did. The CHECK left by `DETACH CONCURRENTLY` avoids the scan; the
/// same transaction drops it, before other sessions see the leaf.
pub(crate) async fn attach(client: &mut Client, table: &Table, entry: &Entry, serves: bool) -> Result<(), Error> {
    let doing = || Error::doing("attach a leaf again", table);
    let (leaf, parent) = (entry.relation(), entry.parent_in(table));
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
    record(&transaction, &table.registry, &deed).await?;
    transaction.commit().await.map_err(doing())
}

/// The columns of the table have changed since the detach: the server names the first difference.
fn unlike(table: &Table, entry: &Entry, error: Error) -> Error {
    match &error {
        Error::Database { source, message, .. } if source.code() == Some(&SqlState::DATATYPE_MISMATCH) => {
            Error::Unfit {
                what: table.sibling(&entry.leaf),
                why: format!(
                    "the table has changed since the detach: {message}. ALTER TABLE {} until its columns equal the \
                 table's columns, then run `undo` again; nothing was changed",
                    table.sibling(&entry.leaf)
                ),
            }
        }
        _ => error,
    }
}

/// CHECKs that repeat the bounds of an attached leaf, without the CHECKs from before our detach. $1 leaf, $2 its row.
const CHECKS: &str = "SELECT conname::text FROM pg_catalog.pg_constraint AS c JOIN registry.leaf AS e ON e.leaf_id = $2 \
                      WHERE conrelid = to_regclass($1) AND contype = 'c' AND coninhcount = 0 AND conname <> ALL (e.checks) \
                        AND pg_get_expr(conbin, conrelid) = pg_get_partition_constraintdef(conrelid)";

/// Drops the CHECK of our detach; all other CHECKs stay.
async fn drop_check(transaction: &Transaction<'_>, table: &Table, entry: &Entry) -> Result<(), Error> {
    let doing = || Error::doing("drop the CHECK of a detaching", table);
    let leaf = entry.relation();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&leaf, Type::TEXT), (&entry.id, Type::INT8)];
    for row in transaction.query_typed(&table.registered(CHECKS), &parameters).await.map_err(doing())? {
        let drop = format!("ALTER TABLE {leaf} DROP CONSTRAINT {}", quoted(row.get(0)));
        transaction.batch_execute(&drop).await.map_err(doing())?;
    }
    Ok(())
}
