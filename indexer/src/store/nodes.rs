//! The learned limits of each node, kept over restarts. No row depends on them.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{Store, StoreError, int8};
use crate::status::NodeReport;

impl Store {
    /// The stored limits of a chain's nodes from earlier runs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn nodes(&self, chain_id: u64) -> Result<Vec<NodeReport>, StoreError> {
        let connection = self.connection().await?;
        Ok(stored_nodes(&connection, int8(chain_id)).await?)
    }

    /// Writes the states of a chain's nodes.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn save_nodes(&self, chain_id: u64, reports: &[NodeReport]) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        for report in reports {
            let last_error = report.last_error.as_ref().map(|error| self.text(error));
            let max_batch = report.max_batch.map(|max| i32::try_from(max).unwrap_or(i32::MAX));
            let params: [(&(dyn ToSql + Sync), Type); 13] = [
                (&int8(chain_id), Type::INT8),
                (&report.name, Type::TEXT),
                (&report.state, Type::TEXT),
                (&report.latency_ms, Type::FLOAT8),
                (&int8(report.failures), Type::INT8),
                (&last_error, Type::TEXT),
                (&report.max_blocks.map(int8), Type::INT8),
                (&report.max_logs.map(int8), Type::INT8),
                (&report.max_bytes.map(int8), Type::INT8),
                (&max_batch, Type::INT4),
                (&report.refused_methods, Type::TEXT_ARRAY),
                (&report.max_list.map(int8), Type::INT8),
                (&report.max_parallel.map(int8), Type::INT8),
            ];
            connection.execute_typed(SAVE, &params).await?;
        }
        Ok(())
    }
}

/// The stored states of a chain's nodes, for any reader.
///
/// # Errors
/// The server's.
pub async fn stored_nodes(client: &Client, chain_id: i64) -> Result<Vec<NodeReport>, tokio_postgres::Error> {
    let rows = client.query_typed(NODES, &[(&chain_id, Type::INT8)]).await?;
    let report = |row: &tokio_postgres::Row| {
        let limit = |at: usize| row.get::<_, Option<i64>>(at).and_then(|value| u64::try_from(value).ok());
        NodeReport {
            name: row.get(0),
            state: row.get(1),
            latency_ms: row.get(2),
            failures: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
            last_error: row.get(4),
            max_blocks: limit(5),
            max_logs: limit(6),
            max_bytes: limit(7),
            max_batch: limit(8),
            refused_methods: row.get(9),
            max_list: limit(10),
            max_parallel: limit(11),
        }
    };
    Ok(rows.iter().map(report).collect())
}

const NODES: &str = "SELECT name, state, latency_ms, failures, last_error, max_blocks, max_logs, max_bytes, \
                     max_batch::int8, refused_methods, max_list, max_parallel FROM dalp_indexed.node WHERE chain_id = $1 ORDER BY name";

const SAVE: &str = "INSERT INTO dalp_indexed.node (chain_id, name, state, latency_ms, failures, last_error, \
                    max_blocks, max_logs, max_bytes, max_batch, refused_methods, max_list, max_parallel, updated_at) \
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, now()) \
                    ON CONFLICT (chain_id, name) DO UPDATE SET state = excluded.state, \
                    latency_ms = excluded.latency_ms, failures = excluded.failures, \
                    last_error = excluded.last_error, max_blocks = excluded.max_blocks, \
                    max_logs = excluded.max_logs, max_bytes = excluded.max_bytes, max_batch = excluded.max_batch, \
                    refused_methods = excluded.refused_methods, max_list = excluded.max_list, \
                    max_parallel = excluded.max_parallel, updated_at = now()";
