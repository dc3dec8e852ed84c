//! The rule that forbids a move, judged by the rows committed at that moment.

use tokio_postgres::{
    Transaction,
    types::{ToSql, Type},
};

use super::seal::MARK;
use crate::{Action, Entry, Error, Table};

/// The hold that keeps a leaf, as committed now: the transaction locks the leaf's row, and new holds wait for this lock.
const HELD: &str = "
    SELECT format('a legal hold touches it (hold %s by %s: %s)', hold_id, author, reason) FROM registry.leaf AS e
    JOIN registry.legal_hold AS h ON h.table_schema = e.table_schema AND h.table_name = e.table_name AND h.released_at IS NULL
     AND (h.key IS NULL OR h.key = e.key) AND (h.from_time IS NULL OR h.from_time < e.to_time)
     AND (h.to_time IS NULL OR e.from_time IS NULL OR e.from_time < h.to_time)
    WHERE e.leaf_id = $1 ORDER BY hold_id LIMIT 1";

pub(crate) async fn refuse_held(transaction: &Transaction<'_>, table: &Table, entry: &Entry) -> Result<(), Error> {
    let row = transaction.query_typed_opt(&table.registered(HELD), &[(&entry.id, Type::INT8)]).await;
    match row.map_err(Error::doing("look for legal holds", table))? {
        Some(hold) => Err(Error::Refused { leaf: entry.relation(), why: hold.get(0) }),
        None => Ok(()),
    }
}

/// The other reasons that forbid a move, as committed now. With a grace period, it is the rule for drops. $1 row, $2 whether it
/// must be archived, $3 grace in seconds or null.
const RULE: &str = "
    WITH root AS (
        SELECT to_regclass(format('%I.%I', table_schema, table_name))::oid AS oid FROM registry.leaf WHERE leaf_id = $1
    ), parent AS (
        SELECT oid FROM root UNION ALL SELECT inhrelid FROM pg_inherits JOIN root ON inhparent = root.oid
    )
    SELECT array_to_string(ARRAY[
        CASE WHEN $2 AND e.manifest IS NULL THEN 'it is not archived' END,
        CASE WHEN NOT EXISTS (SELECT FROM registry.leaf AS n JOIN pg_inherits AS i ON i.inhrelid = n.relid
                              JOIN parent ON parent.oid = i.inhparent
                              WHERE n.table_schema = e.table_schema AND n.table_name = e.table_name AND n.key = e.key
                                AND n.state <> 'DROPPED' AND NOT i.inhdetachpending AND n.to_time > e.to_time)
             THEN 'it is the newest leaf of its key' END,
        CASE WHEN $2 AND e.seal IS DISTINCT FROM mark.now THEN 'its seal was broken since its rows were counted' END,
        CASE WHEN mark.now IS NULL THEN 'it is not sealed' END,
        CASE WHEN $3::float8 IS NOT NULL AND e.state <> 'DETACHED' THEN 'its state is ' || e.state END,
        CASE WHEN e.relid IS DISTINCT FROM to_regclass(format('%I.%I', e.leaf_schema, e.leaf))::oid
                  OR e.catalog <> registry.catalog_identity()
             THEN 'it is no longer the same table' END,
        CASE WHEN $3 IS NOT NULL AND (EXISTS (SELECT FROM pg_inherits WHERE inhrelid = e.relid)
                                      OR NOT EXISTS (SELECT FROM pg_class WHERE oid = e.relid AND relname = e.leaf AND NOT relispartition
                                                     AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = e.leaf_schema)))
             THEN 'it is attached, or not the table that was detached' END,
        CASE WHEN $3 IS NOT NULL AND NOT EXISTS (SELECT FROM registry.retention_floor AS f
                                                 WHERE f.table_schema = e.table_schema AND f.table_name = e.table_name
                                                   AND f.key = e.key AND e.to_time <= f.floor)
             THEN 'the floor is below its end' END,
        CASE WHEN $3 IS NOT NULL AND (e.detached_at IS NULL OR clock_timestamp() < e.detached_at + make_interval(secs => $3))
             THEN 'its grace period is not over' END
    ], '; ')
    FROM registry.leaf AS e, LATERAL (SELECT ";

pub(crate) async fn rule(
    transaction: &Transaction<'_>,
    table: &Table,
    entry: &Entry,
    action: Action,
    grace: Option<chrono::TimeDelta>,
) -> Result<(), Error> {
    refuse_held(transaction, table, entry).await?;
    let must_archive = action == Action::Archive;
    #[expect(clippy::cast_precision_loss, reason = "seconds of a grace period")]
    let grace = grace.map(|grace| grace.num_milliseconds() as f64 / 1_000.0);
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&entry.id, Type::INT8), (&must_archive, Type::BOOL), (&grace, Type::FLOAT8)];
    let sql = table.registered(&format!("{RULE} {MARK} AS now) AS mark WHERE e.leaf_id = $1"));
    let row = transaction.query_typed_one(&sql, &parameters).await.map_err(Error::doing("look at the rule", table))?;
    match row.get::<_, String>(0).as_str() {
        "" => Ok(()),
        why => Err(Error::Refused { leaf: entry.relation(), why: why.to_owned() }),
    }
}
