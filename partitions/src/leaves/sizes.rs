//! Reads the sizes of leaves.

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::catalog::bounds;
use crate::pg::session::{self, Kind};
use crate::{Error, LeafSize, Table};

/// The attached leaves of one key that accept rows, with their bytes. Unmanaged partitions have no times and are left out.
const SIZES: &str = r"
    WITH root AS (
        SELECT oid FROM pg_catalog.pg_class
        WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND relname = $2 AND relkind = 'p'
    ), parent AS (
        SELECT oid FROM root WHERE $4
      UNION ALL
        SELECT sub.oid FROM root JOIN pg_catalog.pg_inherits ON inhparent = root.oid
        JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid
        WHERE NOT $4 AND pg_get_expr(sub.relpartbound, 0) IN
              (format('FOR VALUES IN (%s)', $3), format('FOR VALUES IN (%L)', $3::text))
    )
    SELECT CASE WHEN part[1] <> 'MINVALUE' THEN trim('''' FROM part[1])::timestamptz END,
           CASE WHEN part[2] <> 'MAXVALUE' THEN trim('''' FROM part[2])::timestamptz END,
           COALESCE(pg_total_relation_size(leaf.oid), 0), COALESCE(pg_relation_size(leaf.oid), 0)
    FROM parent JOIN pg_catalog.pg_inherits ON inhparent = parent.oid
    JOIN pg_catalog.pg_class AS leaf ON leaf.oid = inhrelid,
         LATERAL string_to_array(left(substr(pg_get_expr(leaf.relpartbound, 0), 18), -1), ') TO (') AS part
    WHERE NOT inhdetachpending AND part[2] IS NOT NULL
    ORDER BY 2 NULLS LAST";

/// Reads the bytes of all leaves of one key, ascending in time. Needs no rights on the table.
///
/// # Errors
/// If the server refuses; also if another session holds ACCESS EXCLUSIVE on a leaf for more than 0.2 s: each leaf is read under
/// ACCESS SHARE. Try again later.
pub async fn sizes(client: &mut Client, table: &Table, key: i64) -> Result<Vec<LeafSize>, Error> {
    let doing = || Error::doing("read the sizes of the leaves", table);
    let settings = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL jit = off; \
                    SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '60s'";
    let transaction = session::begin(client, Kind::Read, settings).await.map_err(doing())?;
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&key, Type::INT8), (&table.flat, Type::BOOL)];
    let rows = transaction.query_typed(SIZES, &parameters).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    let sizes = rows.iter().filter_map(|row| {
        let bounds = bounds(row, 0, 1)?;
        Some(LeafSize { bounds, bytes: row.get(2), row_bytes: row.get(3) })
    });
    Ok(sizes.collect())
}
