//! Keeps the planner's statistics: of loaded leaves, and of parents, which autovacuum never analyzes.
//!
//! ANALYZE holds SHARE UPDATE EXCLUSIVE on the table while it reads, so ATTACH waits for it on a parent. ANALYZE runs outside the
//! lane of partition DDL. It gives up after 0.2 s without the lock, and it ends when its time is over: in less than the two
//! minutes for which partition DDL retries. Each table has its own transaction.

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

/// The end of [`analyze`], and the tables analyzed before it: leaves, then parents, without schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Analyzed {
    /// All requested and due tables.
    Done(Vec<String>),
    /// Another session holds a blocking lock, or analyzes already. The other tables were not analyzed: call again later.
    Busy(Vec<String>),
    /// The time was over. Before PostgreSQL 18, the parent's own statistics may be new all the same, because they come first.
    OutOfTime(Vec<String>),
}

/// Whether a parent's statistics are too old: there are none, or the rows grew by 10 % since. `parent` is the row count at the
/// last ANALYZE, `None` if there was none; `leaves` is the present count of its leaves.
pub fn is_analyze_due(parent: Option<i64>, leaves: i64) -> bool {
    match parent {
        None => leaves > 0,
        Some(parent) => leaves > parent && leaves.saturating_sub(parent) >= parent / 10,
    }
}

/// The parents of one key, the table last; rows of both by the server's own counters. Recent counts of the statistics system come
/// before the counts of the last ANALYZE or VACUUM of a leaf.
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

/// Analyzes `leaves` (loaded leaves, without schema; a missing leaf is skipped), then the key's sub-parent and the table. A
/// parent is analyzed if leaves were named, because a new leaf moves the end of its statistics, or if it [is
/// due](is_analyze_due). PostgreSQL 18 analyzes parents ONLY; earlier versions also analyze their leaves.
///
/// `limit` bounds each ANALYZE. Half a minute is enough for a parent, whose sample is bounded; more than two minutes would make
/// partition DDL give up.
///
/// Needs a direct connection whose current role owns the table. If the call is interrupted, close the connection: its timeouts
/// and the advisory lock belong to the session.
///
/// # Errors
/// If the role does not own the tables, if the server refuses, and [`Error::NotManaged`].
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
    // The server would only warn, and analyze no table.
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
    /// The time of the last ANALYZE, if any.
    rows: Option<i64>,
    /// The present rows of its leaves.
    of_leaves: i64,
    /// The server's version.
    version: i32,
    /// Whether the current role owns it.
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

/// One message per statement: the server runs several statements of one message in one transaction.
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
