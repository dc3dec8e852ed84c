//! Reads the existing leaves from pg_catalog. Bounds come from the catalog, in UTC; names are labels.

use std::collections::BTreeSet;

use tokio_postgres::{
    Client, Row, Transaction,
    types::{ToSql, Type},
};

use super::shape::must_fit;
use crate::pg::session::{self, Kind};
use crate::pure::names::qualified;
use crate::{Bounds, Catalog, Edge, Error, Index, Leaf, Step, Table, Time};

/// The table, the sub-parent of one key (the table itself if flat), the used names, and whether the times are dates.
const TABLES: &str = "
    SELECT CASE WHEN $4 THEN root.relname ELSE sub.relname END::text,
           (SELECT nspname::text FROM pg_catalog.pg_namespace WHERE oid = CASE WHEN $4 THEN root.relnamespace ELSE sub.relnamespace END),
           COALESCE((SELECT atttypid = 'date'::regtype FROM pg_catalog.pg_attribute WHERE attrelid = root.oid AND attname = $5), false),
           ARRAY(SELECT relname::text FROM pg_catalog.pg_class
                 WHERE relnamespace = root.relnamespace AND relkind <> 'i' AND starts_with(relname::text, left($2, 20)))
    FROM pg_catalog.pg_class AS root
    JOIN pg_catalog.pg_partitioned_table AS partitioned ON partitioned.partrelid = root.oid
           AND partstrat = CASE WHEN $4 THEN 'r' ELSE 'l' END
    LEFT JOIN (pg_catalog.pg_inherits JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid)
           ON inhparent = root.oid AND pg_get_expr(sub.relpartbound, 0) IN
              (format('FOR VALUES IN (%s)', $3), format('FOR VALUES IN (%L)', $3::text))
    WHERE root.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND root.relname = $2";

/// The leaves of a sub-parent, or the leaves with certain names. The server parses its own printed times in the same session, so
/// they are exact. The text between `FOR VALUES FROM (` and `)` is cut at its middle: a regular expression takes ten times as
/// long. The bounds are printed without the leaf's oid, so the leaf is neither opened nor locked. Indexes count if they are valid
/// B-trees over plain columns, of all rows.
const LEAVES: &str = r"
    SELECT leaf.relname::text, inhdetachpending, printed,
           CASE WHEN part[1] <> 'MINVALUE' THEN trim('''' FROM part[1])::timestamptz END,
           CASE WHEN part[2] <> 'MAXVALUE' THEN trim('''' FROM part[2])::timestamptz END,
           ARRAY(SELECT (SELECT string_agg(attname::text, ',' ORDER BY place)
                         FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (attnum, place)
                         JOIN pg_catalog.pg_attribute AS a ON attrelid = indrelid AND a.attnum = key.attnum)
                 FROM pg_catalog.pg_index JOIN pg_catalog.pg_class AS index ON index.oid = indexrelid
                 JOIN pg_catalog.pg_am AS method ON method.oid = index.relam AND amname = 'btree'
                 WHERE indrelid = leaf.oid AND indisvalid AND indpred IS NULL AND indexprs IS NULL)
    FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class AS leaf ON leaf.oid = inhrelid,
         LATERAL pg_get_expr(leaf.relpartbound, 0) AS printed,
         LATERAL string_to_array(left(substr(printed, 18), -1), ') TO (') AS part
    WHERE inhparent = to_regclass($1) AND ($2::text[] IS NULL OR leaf.relname = ANY ($2::text[]::name[]))";

/// The part that changes with each attach and detach.
const STAMP: &str = "
    SELECT COALESCE(md5(string_agg(inhrelid::text || inhdetachpending, ',' ORDER BY inhrelid)), '')
    FROM pg_catalog.pg_inherits WHERE inhparent = to_regclass($1)";

/// Reads the leaves of one key of a table. Needs no rights on the table, and works through a pooler: one transaction, unnamed
/// statements, no session state. The caller may keep the answer; PostgreSQL reports (SQLSTATE 23514) when it is too old.
pub async fn read(client: &mut Client, table: &Table, key: i64) -> Result<Catalog, Error> {
    let transaction = reading(client, table).await?;
    let catalog = read_in(&transaction, table, key).await?;
    transaction.commit().await.map_err(Error::doing("read partitions", table))?;
    Ok(catalog)
}

/// Reads one leaf of `catalog` again; `None` if it is gone. Reading all of 1,000 leaves takes 35 ms.
pub async fn read_leaf(
    client: &mut Client,
    table: &Table,
    catalog: &Catalog,
    leaf: &str,
) -> Result<Option<Leaf>, Error> {
    let transaction = reading(client, table).await?;
    let found = match &catalog.parent {
        Some(parent) => leaves(&transaction, table, parent, Some(&[leaf])).await?.pop(),
        None => None,
    };
    transaction.commit().await.map_err(Error::doing("read partitions", table))?;
    Ok(found)
}

async fn reading<'c>(client: &'c mut Client, table: &Table) -> Result<Transaction<'c>, Error> {
    let doing = || Error::doing("read partitions", table);
    // No default of the login may change the printed form of times.
    let utc = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'";
    session::begin(client, Kind::Read, utc).await.map_err(doing())
}

/// The same inside a transaction whose TimeZone and DateStyle are set.
pub(crate) async fn read_in(transaction: &Transaction<'_>, table: &Table, key: i64) -> Result<Catalog, Error> {
    let parameters = [
        (&table.schema as &(dyn ToSql + Sync), Type::TEXT),
        (&table.name, Type::TEXT),
        (&key, Type::INT8),
        (&table.flat, Type::BOOL),
        (&table.time_column, Type::NAME),
    ];
    must_fit(transaction, table).await?;
    let row = transaction
        .query_typed_opt(TABLES, &parameters)
        .await
        .map_err(Error::doing("read partitions", table))?
        .ok_or_else(|| Error::NotManaged { table: table.to_string() })?;
    let (sub_parent, schema): (Option<String>, Option<String>) = (row.get(0), row.get(1));
    let parent = schema.zip(sub_parent.as_ref()).map(|(schema, name)| qualified(&schema, name));
    let (leaves, stamp) = match &parent {
        Some(parent) => (leaves(transaction, table, parent, None).await?, stamp(transaction, table, parent).await?),
        None => Default::default(),
    };
    let names = row.get::<_, Vec<String>>(3).into_iter().collect::<BTreeSet<_>>();
    Ok(Catalog { table: table.name.clone(), key, sub_parent, parent, is_of_days: row.get(2), leaves, names, stamp })
}

/// Whether `catalog` is still current, apart from indexes.
pub(crate) async fn is_current(transaction: &Transaction<'_>, table: &Table, catalog: &Catalog) -> Result<bool, Error> {
    match &catalog.parent {
        Some(parent) => Ok(stamp(transaction, table, parent).await? == catalog.stamp),
        None => Ok(false),
    }
}

/// Adds the created leaves to `catalog`. A new sub-parent comes with indexes: then the whole catalog is read.
pub(crate) async fn read_created(
    transaction: &Transaction<'_>,
    table: &Table,
    catalog: &mut Catalog,
    steps: &[Step],
) -> Result<(), Error> {
    let Some(parent) = catalog.parent.clone() else {
        *catalog = read_in(transaction, table, catalog.key).await?;
        return Ok(());
    };
    let names = steps.iter().map(|(Step::CreateLeaf { name, .. } | Step::CreateSubParent { name })| name.as_str());
    let created: Vec<&str> = names.collect();
    for leaf in leaves(transaction, table, &parent, Some(&created)).await? {
        catalog.put(leaf);
    }
    catalog.stamp = stamp(transaction, table, &parent).await?;
    Ok(())
}

async fn leaves(
    transaction: &Transaction<'_>,
    table: &Table,
    parent: &str,
    names: Option<&[&str]>,
) -> Result<Vec<Leaf>, Error> {
    let parameters = [(&parent as &(dyn ToSql + Sync), Type::TEXT), (&names, Type::TEXT_ARRAY)];
    let rows = transaction.query_typed(LEAVES, &parameters).await.map_err(Error::doing("read partitions", table))?;
    let mut leaves: Vec<Leaf> = rows.iter().map(|row| leaf(row, table)).collect::<Result<_, _>>()?;
    leaves.sort_by_key(|leaf| leaf.bounds.upper());
    Ok(leaves)
}

async fn stamp(transaction: &Transaction<'_>, table: &Table, parent: &str) -> Result<String, Error> {
    let parameters = [(&parent as &(dyn ToSql + Sync), Type::TEXT)];
    let row = transaction.query_typed_one(STAMP, &parameters).await;
    Ok(row.map_err(Error::doing("read partitions", table))?.get(0))
}

/// The bounds in two columns; NULL means MINVALUE and MAXVALUE.
pub(crate) fn bounds(row: &Row, from: usize, to: usize) -> Option<Bounds> {
    let lower = row.get::<_, Option<Time>>(from).map_or(Edge::MinValue, Edge::At);
    let upper = row.get::<_, Option<Time>>(to).map_or(Edge::MaxValue, Edge::At);
    Bounds::between(lower, upper)
}

/// A DEFAULT partition has no times and is refused: every ATTACH would lock and scan it.
fn leaf(row: &Row, table: &Table) -> Result<Leaf, Error> {
    let (name, printed): (String, String) = (row.get(0), row.get(2));
    let bounds = if printed == "DEFAULT" { None } else { bounds(row, 3, 4) };
    match bounds {
        Some(bounds) => {
            let indexes = row.get::<_, Vec<String>>(5).iter().map(|columns| Index::on(columns.split(','))).collect();
            Ok(Leaf { name, bounds, detaching: row.get(1), indexes })
        }
        None => Err(Error::Foreign { table: table.to_string(), leaf: name, bounds: printed }),
    }
}
