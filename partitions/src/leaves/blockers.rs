//! Finds the sessions that block a move.

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use crate::pg::session::{self, Kind};
use crate::{Entry, Error, Table};

/// The sessions that a move of a leaf waited for: holders of locks on the leaf or its parent.
pub(crate) async fn blockers_of(
    client: &mut Client,
    table: &Table,
    entry: &Entry,
    with_snapshots: bool,
) -> Result<String, Error> {
    blockers(client, &[entry.relation(), entry.parent_in(table)], with_snapshots).await
}

/// The holders of locks on these tables, and, `with_snapshots`, on any table: FINALIZE waits for older snapshots, and their
/// owners are hidden from other roles.
pub(crate) async fn blockers(client: &mut Client, relations: &[String], with_snapshots: bool) -> Result<String, Error> {
    let doing = || Error::doing("look up the blocking sessions", "the table");
    let transaction = session::begin(client, Kind::Read, "SET LOCAL lock_timeout = '2s'").await.map_err(doing())?;
    let oids = transaction.query_typed_one(OIDS, &[(&relations, Type::TEXT_ARRAY)]).await.map_err(doing())?;
    let oids: Vec<u32> = oids.get(0);
    // The login may see more than the manager's role.
    transaction.batch_execute("SET LOCAL ROLE NONE").await.map_err(doing())?;
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&oids, Type::OID_ARRAY), (&with_snapshots, Type::BOOL)];
    let sql = format!("SELECT COALESCE(string_agg(DISTINCT {SESSION}, ', '), 'nobody any more') {BLOCKERS}");
    let row = transaction.query_typed_one(&sql, &parameters).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    Ok(row.get(0))
}

const OIDS: &str =
    "SELECT ARRAY(SELECT to_regclass(name)::oid FROM unnest($1) AS name WHERE to_regclass(name) IS NOT NULL)";

/// The description of a session, from the row `a` of pg_stat_activity.
pub(crate) const SESSION: &str = "
    CASE WHEN a.state IS NULL
         THEN format('pid %s (%s; its statement is hidden from this role without pg_read_all_stats)', a.pid, a.usename)
         ELSE format('pid %s (%s, %s, %s for %s s: %s)', a.pid, a.usename, a.application_name, a.state,
                     round(extract(epoch FROM clock_timestamp() - a.xact_start)),
                     left(regexp_replace(a.query, '[[:space:]]+', ' ', 'g'), 100)) END";

const BLOCKERS: &str = "
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid <> pg_backend_pid()
      AND EXISTS (SELECT FROM pg_catalog.pg_locks AS l
                  WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation'
                    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                    AND (l.relation = ANY ($1) OR $2 AND l.relation >= 16384))";
