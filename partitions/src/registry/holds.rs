//! Reads the holds that the registry has.

use chrono::{DateTime, Utc};
use tokio_postgres::{
    Client, GenericClient, Row,
    types::{ToSql, Type},
};

use crate::{Error, Hold, Registry, Scope, Table, Time};

const LIST: &str = "SELECT hold_id, key, from_time, to_time, reason, author, created_at, released_at, released_by \
                    FROM registry.legal_hold WHERE table_schema = $1 AND table_name = $2 AND ($3 OR released_at IS NULL) \
                    ORDER BY hold_id";

/// The valid holds.
pub(crate) async fn standing(client: &impl GenericClient, table: &Table) -> Result<Vec<Hold>, Error> {
    read(client, table, false).await
}

/// The holds of a table in the order of their creation; with `all`, also the released ones.
pub async fn holds(client: &Client, table: &Table, all: bool) -> Result<Vec<Hold>, Error> {
    read(client, table, all).await
}

async fn read(client: &impl GenericClient, table: &Table, all: bool) -> Result<Vec<Hold>, Error> {
    let parameters =
        [(&table.schema as &(dyn ToSql + Sync), Type::TEXT), (&table.name, Type::TEXT), (&all, Type::BOOL)];
    let rows = client
        .query_typed(&table.registered(LIST), &parameters)
        .await
        .map_err(Error::doing("read the legal holds", table))?;
    Ok(rows.iter().map(hold).collect())
}

fn hold(row: &Row) -> Hold {
    let released: Option<DateTime<Utc>> = row.get(7);
    let time = |at: usize| row.get::<_, Option<Time>>(at).and_then(Time::finite);
    Hold {
        id: row.get(0),
        scope: Scope { key: row.get(1), from: time(2), to: time(3) },
        reason: row.get(4),
        author: row.get(5),
        created_at: row.get(6),
        released: released.map(|at| (at, row.get::<_, Option<String>>(8).unwrap_or_default())),
    }
}

const ALL: &str = "SELECT hold_id, key, from_time, to_time, reason, author, created_at, released_at, released_by, table_schema, \
                   table_name FROM registry.legal_hold WHERE $1 OR released_at IS NULL ORDER BY hold_id";

/// The holds of all tables of a registry, maintained or not, each with its table's schema and name.
pub async fn all_holds(client: &Client, registry: &Registry, all: bool) -> Result<Vec<(String, String, Hold)>, Error> {
    let sql = registry.sql(ALL);
    let rows = client.query_typed(&sql, &[(&all, Type::BOOL)]).await;
    let rows = rows.map_err(Error::doing("read the legal holds", &registry.schema))?;
    Ok(rows.iter().map(|row| (row.get(9), row.get(10), hold(row))).collect())
}
