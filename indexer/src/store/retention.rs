//! The effects of retention on a chain's tables: the times from which rows are served, and the times from which retention counts
//! back.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use chrono::{DateTime, Utc};
use dalp_partitions::Table;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::{Store, StoreError, begin_brief, int8};
use crate::dataset::{Dataset, Datasets, Floors};

impl Store {
    /// The floors of a chain at the last read.
    pub fn floors(&self, chain_id: u64) -> Floors {
        let floors = self.floors.read().unwrap_or_else(PoisonError::into_inner);
        floors.get(&chain_id).cloned().unwrap_or_default().at(Utc::now())
    }

    /// Reads the floors of a chain. With outdated floors, rows of a dropped leaf get a new leaf, which is retired again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn learn_floors(&self, chain_id: u64) -> Result<Floors, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_brief(&mut connection, chain_id).await?;
        let floors = read_floors(&tx, &self.datasets, chain_id).await?;
        tx.commit().await?;
        self.floors.write().unwrap_or_else(PoisonError::into_inner).insert(chain_id, floors.clone());
        Ok(floors)
    }
}

impl Store {
    /// Whether a table has rows of a chain at a time or later.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn has_rows_since(
        &self,
        chain_id: u64,
        dataset: &Dataset,
        time: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let connection = self.connection().await?;
        Ok(has_rows_since(&connection, int8(chain_id), dataset, time).await?)
    }
}

/// Whether a table has rows of a chain, by its stored id, at a time or later.
///
/// # Errors
/// The server's.
pub async fn has_rows_since(
    client: &Client,
    chain_id: i64,
    dataset: &Dataset,
    time: DateTime<Utc>,
) -> Result<bool, Error> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&chain_id, Type::INT8), (&time, Type::TIMESTAMPTZ)];
    Ok(client.query_typed_one(&dataset.statements().recent, &params).await?.get(0))
}

pub(super) async fn read_floors(tx: &Client, datasets: &Datasets, chain_id: u64) -> Result<Floors, StoreError> {
    let params: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
    let mut floors = vec![None; datasets.count()];
    for row in tx.query_typed(FLOORS, &params).await? {
        // The floors of other tables are not used here.
        if let Some(dataset) = datasets.of_table(row.get(0), row.get(1)) {
            floors[dataset.at()] = row.get(2);
        }
    }
    Ok(Floors::new(floors, Utc::now()))
}

/// The time of each chain's newest stored final block, by chain id. For the partitioner's connection.
///
/// # Errors
/// The server's.
pub async fn final_times(client: &Client) -> Result<BTreeMap<i64, DateTime<Utc>>, Error> {
    let rows = client.query_typed("SELECT chain_id, time FROM dalp_indexed.final_time", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The newest known time of each chain's head, by chain id.
///
/// # Errors
/// The server's.
pub async fn head_times(client: &Client) -> Result<BTreeMap<i64, DateTime<Utc>>, Error> {
    let rows = client.query_typed(HEADS, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The last result of a table's maintenance.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Last run without a failure.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// The last failure, if no run has succeeded since.
    pub error: Option<String>,
}

/// The last result of a table's maintenance.
///
/// # Errors
/// The server's.
pub async fn last_run(client: &Client, table: &Table) -> Result<Run, Error> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let row = client.query_typed_opt(LAST_RUN, &params).await?;
    Ok(row.map(|row| Run { succeeded_at: row.get(0), error: row.get(1) }).unwrap_or_default())
}

/// The number of dropped leaves of a table, by key.
///
/// # Errors
/// The server's.
pub async fn gone(client: &Client, table: &Table) -> Result<BTreeMap<i64, i64>, Error> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let rows = client.query_typed(GONE, &params).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

const GONE: &str = "SELECT key, count(*) FROM dalp_indexed.leaf \
                    WHERE table_schema = $1 AND table_name = $2 AND state = 'DROPPED' GROUP BY key";
const HEADS: &str = "SELECT c.chain_id, GREATEST(s.head_time, c.tail_time) FROM dalp_indexed.chain_state AS c \
                     LEFT JOIN dalp_indexed.chain_status AS s USING (chain_id) WHERE GREATEST(s.head_time, c.tail_time) IS NOT NULL";
const LAST_RUN: &str = "SELECT succeeded_at, CASE WHEN failures > 0 THEN last_error END FROM dalp_indexed.partition_run \
                        WHERE table_schema = $1 AND table_name = $2";

/// If all leaves are retired (a table without writers), the floor is above every time.
const FLOORS: &str = "SELECT table_schema, table_name, NULLIF(LEAST(floor, '9999-12-31 23:59:59+00'), '-infinity') \
                      FROM dalp_indexed.retention_floor WHERE key = $1";
