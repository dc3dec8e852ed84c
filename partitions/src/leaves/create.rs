//! Makes the leaves of a plan, a few per transaction, without blocking readers or writers.
//!
//! An empty leaf is created alone, then attached. `ATTACH` takes SHARE UPDATE EXCLUSIVE on the parent, which conflicts only with
//! other DDL, and ACCESS EXCLUSIVE on the new leaf, which no other session sees yet. `ATTACH` also makes its indexes: made
//! before, they cost as much and must be matched. The leaf needs no CHECK to avoid a scan, because it is empty; dropping a CHECK
//! later would take ACCESS EXCLUSIVE on a leaf in use.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Transaction, error::SqlState, types::Type};

use super::blockers::SESSION;
use super::catalog::{is_current, read, read_created, read_in};
use super::template::Template;
use crate::pg::patience::pause;
use crate::pg::session::{self, BEGIN, Kind};
use crate::pure::names::quoted;
use crate::{Catalog, Error, Index, Need, Plan, PlanError, Policy, Step, Table, plan};

/// Most leaves per transaction: the parent stays locked while they are made.
pub const BATCH: usize = 8;

/// Key of the advisory lock that lets one session of a database do partition DDL at a time: "dalpddl" in ASCII.
pub const LANE_KEY: i64 = 0x64_616c_7064_646c;

/// Tries while rows wait for a leaf, about two minutes.
const TRIES: u32 = 50;
/// Tries for leaves ahead of the head: a few seconds, because other tables wait, and the next turn tries again.
const TRIES_AHEAD: u32 = 8;
/// The properties that a leaf inherits from its parent beside columns and NOT NULL. Comments are left out: nobody reads them on a
/// leaf.
pub(crate) const LIKE: &str = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE \
                    INCLUDING COMPRESSION INCLUDING STATISTICS";

/// The result of [`ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The leaves that this call created, in order; empty if all existed, or if another session made them meanwhile.
    pub created: Vec<Step>,
    /// The number of tries without the lock.
    pub retries: u32,
    /// The present leaves. Of the needed times, only absurd ones may still be uncovered: see [`Plan::quarantined`].
    pub catalog: Catalog,
}

/// Makes the missing leaves of a need. Safe to call from several processes at once, and again after a crash anywhere.
///
/// Needs a direct connection whose current role owns the table. Each transaction reads the catalog and plans again inside the
/// lane, so it makes only leaves that are missing then.
pub async fn ensure(
    client: &mut Client,
    table: &Table,
    key: i64,
    policy: &Policy,
    now: DateTime<Utc>,
    need: &Need,
) -> Result<Report, Error> {
    let catalog = read(client, table, key).await?;
    extend(client, table, key, policy, now, need, catalog).await
}

/// Like [`ensure`], with a catalog that was read before: unchanged parts are not read again. If no leaf is missing, no query
/// runs.
pub async fn extend(
    client: &mut Client,
    table: &Table,
    key: i64,
    policy: &Policy,
    now: DateTime<Utc>,
    need: &Need,
    catalog: Catalog,
) -> Result<Report, Error> {
    let mut report = Report { created: Vec::new(), retries: 0, catalog };
    // Nearly always no leaf is missing: then the lane is not used.
    while !plan(&report.catalog, policy, now, need)?.steps.is_empty() {
        match apply_some(client, table, key, &report.catalog, |catalog| plan(catalog, policy, now, need)).await {
            Ok((mut created, catalog)) => {
                report.created.append(&mut created);
                report.catalog = catalog;
            }
            Err(error) if error.is_passing() || is_taken(&error) => {
                report.retries += 1;
                let tries = if need.times.is_empty() { TRIES_AHEAD } else { TRIES };
                if report.retries >= tries {
                    let holders = holders(client, table).await?;
                    return Err(Error::Locked { table: table.to_string(), tries, holders });
                }
                tokio::time::sleep(pause(report.retries)).await;
                report.catalog = read(client, table, key).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// One transaction in the lane: the sub-parent, or up to [`BATCH`] of its leaves. Never two parents, so two sessions cannot wait
/// for each other. Returns the created leaves, and the present ones.
async fn apply_some(
    client: &mut Client,
    table: &Table,
    key: i64,
    known: &Catalog,
    make_plan: impl FnOnce(&Catalog) -> Result<Plan, PlanError>,
) -> Result<(Vec<Step>, Catalog), Error> {
    let doing = || Error::doing("make partitions", table);
    let settings = format!("{BEGIN}; SELECT pg_advisory_xact_lock({LANE_KEY})");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    let mut catalog = match is_current(&transaction, table, known).await? {
        true => known.clone(),
        false => read_in(&transaction, table, key).await?,
    };
    let mut steps = make_plan(&catalog)?.steps;
    steps.truncate(if catalog.sub_parent.is_none() { 1 } else { BATCH });
    if !steps.is_empty() {
        create(&transaction, table, &catalog, &steps).await.map_err(doing())?;
        read_created(&transaction, table, &mut catalog, &steps).await?;
    }
    transaction.commit().await.map_err(doing())?;
    Ok((steps, catalog))
}

/// All statements are in one message: a round trip costs as much as a small statement.
async fn create(
    transaction: &Transaction<'_>,
    table: &Table,
    catalog: &Catalog,
    steps: &[Step],
) -> Result<(), tokio_postgres::Error> {
    let parent = catalog.parent.clone().unwrap_or_else(|| table.to_string());
    let newest = catalog.leaves.iter().rfind(|leaf| !leaf.detaching).map(|leaf| table.sibling(&leaf.name));
    let template = Template::read(transaction, &parent, newest.as_deref()).await?;
    let mut made = Vec::new();
    // The parent before the leaf: the other order deadlocks with readers.
    let mut sql =
        format!("SET LOCAL lock_timeout = '200ms'; LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE;\n");
    for step in steps {
        let (name, cut, values) = match step {
            Step::CreateSubParent { name } => {
                let cut = format!(" PARTITION BY RANGE ({}){}", quoted(&table.time_column), template.clauses(false));
                (name, cut, format!("IN ({})", catalog.key))
            }
            Step::CreateLeaf { name, bounds, .. } => (name, template.clauses(true), bounds.to_string()),
        };
        let name = table.sibling(name);
        // Writing to a String cannot fail.
        let _ = writeln!(sql, "CREATE TABLE {name} (LIKE {parent} {LIKE}){cut};");
        for statement in template.statements(&name) {
            let _ = writeln!(sql, "{statement};");
        }
        let _ = writeln!(sql, "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES {values};");
        made.push(name.clone());
        if matches!(step, Step::CreateLeaf { bare: false, .. }) {
            for index in &table.leaf_indexes {
                let _ = writeln!(sql, "{};", create_index(&name, index, ""));
            }
        }
    }
    transaction.batch_execute(&sql).await?;
    template.identify(transaction, &made).await
}

/// The statement that makes an index of a leaf; the server names the index.
pub(crate) fn create_index(leaf: &str, index: &Index, concurrently: &str) -> String {
    let columns: Vec<String> = index.columns().iter().map(|column| quoted(column)).collect();
    format!("CREATE INDEX {concurrently} ON {leaf} ({})", columns.join(", "))
}

/// Whether a free name is no longer free: the next read of the catalog shows the name.
fn is_taken(error: &Error) -> bool {
    let Error::Database { source, .. } = error else { return false };
    source.code() == Some(&SqlState::DUPLICATE_TABLE)
}

/// The sessions with a lock that partition DDL on the table must wait for.
async fn holders(client: &mut Client, table: &Table) -> Result<String, Error> {
    let doing = || Error::doing("look up the locks", table);
    let transaction = session::begin(client, Kind::Read, "SET LOCAL lock_timeout = '2s'").await.map_err(doing())?;
    let name = table.to_string();
    let tree = transaction.query_typed_one(TREE, &[(&name, Type::TEXT)]).await.map_err(doing())?;
    let tree: Vec<u32> = tree.get(0);
    let sql = format!(
        "SELECT COALESCE(string_agg(DISTINCT CASE WHEN a.pid IS NULL THEN 'a prepared transaction' ELSE {SESSION} END, ', '), 'nobody any more') \
         FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid) \
         WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
           AND (l.locktype = 'advisory' AND (l.classid::int8 << 32 | l.objid::int8) = {LANE_KEY} \
             OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock') AND l.relation = ANY ($1))"
    );
    // The login may see more than the manager's role.
    transaction.batch_execute("SET LOCAL ROLE NONE").await.map_err(doing())?;
    let row = transaction.query_typed_one(&sql, &[(&tree, Type::OID_ARRAY)]).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    Ok(row.get(0))
}

/// A table and all tables below it. pg_partition_tree would lock each of them, and wait.
const TREE: &str = "
    WITH RECURSIVE tree AS (
        SELECT to_regclass($1)::oid AS oid UNION ALL SELECT inhrelid FROM tree JOIN pg_catalog.pg_inherits ON inhparent = tree.oid
    )
    SELECT ARRAY(SELECT oid FROM tree WHERE oid IS NOT NULL)";
