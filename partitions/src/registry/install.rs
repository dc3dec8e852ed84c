//! Makes a missing registry, and the table of its record.

use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use crate::leaves::create::LANE_KEY;
use crate::pg::session::{self, BEGIN, Kind};
use crate::pure::names::quoted;
use crate::{Error, Registry};

const REGISTRY: &str = include_str!("sql/registry.sql");
const RECORD: &str = include_str!("sql/record.sql");

/// $1 schema, $2 table: whether the schema and the table exist.
const STANDS: &str = "
    SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1),
           EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE nspname = $1 AND relname = $2)";

/// Makes the registry, and its schemas, for the current role as owner. Existing tables stay unchanged, so each start may call it.
/// Returns whether it made a table.
///
/// Other roles need SELECT, INSERT and UPDATE on its tables, and EXECUTE on its functions.
///
/// # Errors
/// [`Error::Unfit`] for a schema whose name holds a quote; otherwise if the server refuses. Then nothing was made.
pub async fn install(client: &mut Client, registry: &Registry) -> Result<bool, Error> {
    let doing = || Error::doing("install the registry", &registry.schema);
    for schema in [&registry.schema, &registry.record] {
        // A function's text contains the name.
        if schema.contains(['\'', '$']) {
            let why = "the schema name of a registry has no quote and no dollar sign".to_owned();
            return Err(Error::Unfit { what: schema.clone(), why });
        }
    }
    let settings = format!("{BEGIN}; SELECT pg_advisory_xact_lock({LANE_KEY})");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    let mut made = false;
    for (schema, table, sql) in [(&registry.schema, "leaf", REGISTRY), (&registry.record, "activity", RECORD)] {
        made |= make(&transaction, registry, (schema, table), sql).await.map_err(doing())?;
    }
    transaction.commit().await.map_err(doing())?;
    Ok(made)
}

/// Makes the schema and the objects in `sql`, unless the table exists.
async fn make(
    transaction: &Transaction<'_>,
    registry: &Registry,
    (schema, table): (&str, &str),
    sql: &str,
) -> Result<bool, tokio_postgres::Error> {
    let names: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&table, Type::TEXT)];
    let row = transaction.query_typed_one(STANDS, &names).await?;
    let (has_schema, has_table): (bool, bool) = (row.get(0), row.get(1));
    if has_table {
        return Ok(false);
    }
    if !has_schema {
        transaction.batch_execute(&format!("CREATE SCHEMA {}", quoted(schema))).await?;
    }
    transaction.batch_execute(&registry.sql(sql)).await?;
    Ok(true)
}
