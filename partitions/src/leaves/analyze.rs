//! Keeps the planner's statistics: of leaves that were loaded, and of parents, which autovacuum never analyzes.
//!
//! ANALYZE takes SHARE UPDATE EXCLUSIVE on the table for as long as it reads, so that ATTACH waits for it on a parent. It
//! runs outside the lane of partition DDL, gives up when the lock is not had in a fifth of a second, and ends when its time is over:
//! less than the two minutes for which partition DDL tries again. Each table is a transaction of its own.

use std::time::Duration;

use tokio_postgres::{
    Client, Row,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::{Error, Table};

/// Key of the advisory lock that lets one session of a database analyze at a time: "dalpana" in ASCII.
pub const ANALYZER_KEY: i64 = 0x64_616c_7061_6e61;

/// The first version with `ANALYZE ONLY`; before it, ANALYZE of a parent analyzes each of its leaves as well.
const ONLY: i32 = 180_000;

/// How [`analyze`] ended, and what was analyzed before: leaves, then parents, without schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Analyzed {
    /// All that was asked for and due.
    Done(Vec<String>),
    /// Somebody holds a lock in the way, or analyzes already. The rest was not: come back later.
    Busy(Vec<String>),
    /// The time was over. Before PostgreSQL 18 a parent's own statistics, which come first, may be new all the same.
    OutOfTime(Vec<String>),
}

/// Whether a parent's statistics are too old: none were made, or rows grew by a tenth since. `parent` is what
/// it was found to have when it was last analyzed, `None` if never; `leaves` what its leaves have now.
pub fn is_analyze_due(parent: Option<i64>, leaves: i64) -> bool {
    match parent {
        None => leaves > 0,
        Some(parent) => leaves > parent && leaves.saturating_sub(parent) >= parent / 10,
    }
}

/// The parents of one key, the table last; rows of both by the server's own counts. What statistics say was counted lately comes
/// before what the last ANALYZE or VACUUM of a leaf left.
const DUE: &str = "
    WITH root AS (
        SELECT oid, relname FROM pg_catalog.pg_class
        WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND relname = $2 AND relkind = 'p'
    ), parent AS (
        SELECT oid, relname, 1 AS level FROM root
      UNION ALL
        SELECT sub.oid, sub.relname, 0 FROM root JOIN pg_catalog.pg_inherits ON inhparent = root.oid
        JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid
        WHERE NOT $4 AND pg_get_expr(sub.relpartbound, 0) IN
              (format('FOR VALUES IN (%s)', $3), format('FOR VALUES IN (%L)', $3::text))
    )
    SELECT parent.relname::text, NULLIF(class.reltuples, -1)::int8, COALESCE(rows, 0)::int8,
           current_setting('server_version_num')::int4, pg_has_role(class.relowner, 'USAGE')
    FROM parent JOIN pg_catalog.pg_class AS class USING (oid),
         LATERAL (SELECT sum(COALESCE(NULLIF(pg_stat_get_live_tuples(leaf.oid), 0), GREATEST(leaf.reltuples, 0))) AS rows
                  FROM pg_partition_tree(parent.oid) AS tree JOIN pg_catalog.pg_class AS leaf ON leaf.oid = tree.relid
                  WHERE isleaf AND leaf.relkind <> 'p') AS leaves
    ORDER BY level";

const LOCK: &str = "SELECT pg_try_advisory_lock($1)";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

/// Analyzes `leaves` (those that were loaded, without schema; one that is gone is passed over), then the key's sub-parent and the
/// table: each if leaves were named, since a roll-over moves the end of what its statistics know, or if it [is due](is_analyze_due).
/// With PostgreSQL 18 parents are analyzed ONLY; before, their leaves are along with them.
///
/// `limit` bounds each ANALYZE. Half a minute is enough for a parent, whose sample is bounded; longer than two minutes would make
/// partition DDL give up.
///
/// Wants a direct connection whose current role owns the table. Where the call is cut short, the connection is to be given up: its
/// timeouts and the advisory lock are the session's.
///
/// # Errors
/// When the role does not own the tables, when the server refuses, and [`Error::NotManaged`].
pub async fn analyze(
    client: &mut Client,
    table: &Table,
    key: i64,
    leaves: &[&str],
    limit: Duration,
) -> Result<Analyzed, Error> {
    let doing = || Error::doing("analyze the partitions", table);
    let locked = client.query_typed_one(LOCK, &[(&ANALYZER_KEY, Type::INT8)]).await.map_err(doing())?;
    if !locked.get::<_, bool>(0) {
        return Ok(Analyzed::Busy(Vec::new()));
    }
    let mut done = Vec::new();
    let outcome = analyze_locked(client, table, key, leaves, limit, &mut done).await;
    let unlocked = client.query_typed(UNLOCK, &[(&ANALYZER_KEY, Type::INT8)]).await;
    let reset = client.batch_execute("RESET statement_timeout; RESET lock_timeout").await;
    let outcome = match outcome {
        Ok(()) => Analyzed::Done(done),
        Err(error) if error.is_passing() => Analyzed::Busy(done),
        Err(error) if has_code(&error, &SqlState::QUERY_CANCELED) => Analyzed::OutOfTime(done),
        Err(error) => return Err(error),
    };
    unlocked.map(drop).and(reset).map_err(doing())?;
    Ok(outcome)
}

async fn analyze_locked(
    client: &Client,
    table: &Table,
    key: i64,
    leaves: &[&str],
    limit: Duration,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    // Not SET LOCAL: in a transaction, a parent's ANALYZE would keep the locks of all its leaves until the end.
    let timeouts =
        format!("SET lock_timeout = '200ms'; SET statement_timeout = {}", limit.as_millis().clamp(1, i32::MAX as u128));
    client.batch_execute(&timeouts).await.map_err(Error::doing("analyze the partitions", table))?;
    let parents = parents(client, table, key).await?;
    // The server would only warn, and analyze nothing.
    if parents.iter().any(|parent| !parent.owned) {
        return Err(Error::NotOwner { table: table.to_string(), message: "only its owner can analyze it".to_owned() });
    }
    for leaf in leaves {
        match run(client, table, "ANALYZE", leaf).await {
            Err(error) if has_code(&error, &SqlState::UNDEFINED_TABLE) => {}
            ran => ran.map(|()| done.push((*leaf).to_owned()))?,
        }
    }
    for parent in parents {
        if !leaves.is_empty() || is_analyze_due(parent.rows, parent.of_leaves) {
            run(client, table, if parent.version >= ONLY { "ANALYZE ONLY" } else { "ANALYZE" }, &parent.name).await?;
            done.push(parent.name);
        }
    }
    Ok(())
}

struct Parent {
    name: String,
    /// When it was last analyzed, if ever.
    rows: Option<i64>,
    /// Of its leaves, now.
    of_leaves: i64,
    /// The server's.
    version: i32,
    /// By the current role.
    owned: bool,
}

async fn parents(client: &Client, table: &Table, key: i64) -> Result<Vec<Parent>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&key, Type::INT8), (&table.flat, Type::BOOL)];
    let rows = client.query_typed(DUE, &parameters).await.map_err(Error::doing("look at the rows", table))?;
    if rows.is_empty() {
        return Err(Error::NotManaged { table: table.to_string() });
    }
    let parent = |row: &Row| Parent {
        name: row.get(0),
        rows: row.get(1),
        of_leaves: row.get(2),
        version: row.get(3),
        owned: row.get(4),
    };
    Ok(rows.iter().map(parent).collect())
}

/// One message with one statement, or the server would make one transaction of it.
async fn run(client: &Client, table: &Table, analyze: &str, name: &str) -> Result<(), Error> {
    let statement = format!("{analyze} {}", table.sibling(name));
    client.batch_execute(&statement).await.map_err(Error::doing("analyze the partitions", table))
}

fn has_code(error: &Error, code: &SqlState) -> bool {
    matches!(error, Error::Database { source, .. } if source.code() == Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_due_when_a_tenth_came_or_nothing_is_known() {
        for (parent, leaves, expected) in [
            (None, 0, false),
            (None, 1, true),
            (Some(0), 0, false),
            (Some(0), 1, true),
            (Some(1_000), 1_000, false),
            (Some(1_000), 1_099, false),
            (Some(1_000), 1_100, true),
            (Some(1_000), 10, false),
            (Some(5), 6, true),
            (Some(i64::MAX), i64::MAX, false),
            (Some(0), i64::MAX, true),
        ] {
            assert_eq!(is_analyze_due(parent, leaves), expected, "{parent:?}, {leaves}");
        }
    }
}
