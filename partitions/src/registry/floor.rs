//! The floor: the earliest served time of a key.

use chrono::{DateTime, Utc};
use tokio_postgres::{
    GenericClient, Transaction,
    types::{ToSql, Type},
};

use crate::{Bounds, Error, Table, Time};

const RAISE_FLOOR: &str = "
    INSERT INTO registry.retention_floor AS f (table_schema, table_name, key, floor, moves)
    VALUES ($1, $2, $3, $4, 1)
    ON CONFLICT (table_schema, table_name, key) DO UPDATE
    SET floor = EXCLUDED.floor, moves = f.moves + 1, moved_at = clock_timestamp() WHERE f.floor < EXCLUDED.floor";

/// Raises the floor to the end of a leaf, which is no longer served.
pub(crate) async fn raise_floor(
    transaction: &Transaction<'_>,
    table: &Table,
    key: i64,
    bounds: Bounds,
) -> Result<(), tokio_postgres::Error> {
    let to = bounds.upper().time();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&key, Type::INT8), (&to, Type::TIMESTAMPTZ)];
    transaction.query_typed(&table.registered(RAISE_FLOOR), &parameters).await.map(drop)
}

/// Moves down to the start of a leaf, but not below the end of a newer missing leaf: the served range has no holes.
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

/// Lowers the floor so that an attached leaf is served. Returns the new floor.
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
