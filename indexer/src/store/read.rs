//! Plain reads, and the heartbeat row.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{Store, StoreError, int8, uint8};
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::coverage::Coverage;
use crate::chain::source::Source;
use crate::status::{ChainStatus, VerifiedTo};

impl Store {
    /// Stored blocks below `next` and not below `floor`, highest first, at most `limit`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn blocks_below(
        &self,
        chain_id: u64,
        next: u64,
        floor: u64,
        limit: i64,
    ) -> Result<Vec<BlockRef>, StoreError> {
        let connection = self.connection().await?;
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&int8(chain_id), Type::INT8),
            (&int8(next), Type::INT8),
            (&int8(floor), Type::INT8),
            (&limit, Type::INT8),
        ];
        let rows = connection
            .query_typed(
                "SELECT number, hash FROM dalp_indexed.blocks WHERE chain_id = $1 AND number < $2 AND number >= $3 \
                 ORDER BY number DESC LIMIT $4",
                &params,
            )
            .await?;
        rows.iter().map(|row| block_ref(row.get(0), row.get(1))).collect()
    }

    /// The coverage of a chain's source.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn coverage(&self, chain_id: u64, source: &Source) -> Result<Coverage, StoreError> {
        let connection = self.connection().await?;
        let id = source.id();
        let id = id.as_slice();
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain_id), Type::INT8), (&id, Type::BYTEA)];
        let rows = connection
            .query_typed(
                "SELECT from_block, to_block FROM dalp_indexed.coverage WHERE chain_id = $1 AND source_id = $2",
                &params,
            )
            .await?;
        let ranges = rows.iter().map(|row| Ok(BlockRange::new(uint8(row.get(0))?, uint8(row.get(1))?)));
        Ok(Coverage::new(ranges.collect::<Result<Vec<_>, StoreError>>()?.into_iter().flatten()))
    }

    /// The reach of each level of verification.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn verified_to(&self, chain_id: u64) -> Result<VerifiedTo, StoreError> {
        let connection = self.connection().await?;
        Ok(stored_verified_to(&connection, int8(chain_id)).await?)
    }

    /// Writes the heartbeat row, which `dalp-indexer status` reads from anywhere.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn heartbeat(&self, status: &ChainStatus, instance: &str) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        let (waits_for, instance) = (self.text(&status.waits_for), self.text(instance));
        let untyped = status.untyped.as_deref().map(|untyped| self.text(untyped));
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&int8(status.chain_id), Type::INT8),
            (&status.head.map(int8), Type::INT8),
            (&status.head_time, Type::TIMESTAMPTZ),
            (&status.finalized.map(int8), Type::INT8),
            (&waits_for, Type::TEXT),
            (&instance, Type::TEXT),
            (&untyped, Type::TEXT),
        ];
        connection.execute_typed(HEARTBEAT, &params).await?;
        Ok(())
    }
}

/// The reach of each level of verification of a chain, for any reader; none for a chain that is not stored.
///
/// # Errors
/// The server's.
pub async fn stored_verified_to(client: &Client, chain_id: i64) -> Result<VerifiedTo, tokio_postgres::Error> {
    let row = client.query_typed_one(VERIFIED_TO, &[(&chain_id, Type::INT8)]).await?;
    let to = |level: &str| row.get::<_, Option<i64>>(level).and_then(|number| u64::try_from(number).ok());
    Ok(VerifiedTo { returned: to("returned"), linked: to("linked"), bloom: to("bloom"), receipts: to("receipts") })
}

const VERIFIED_TO: &str = "SELECT max(verified_to) FILTER (WHERE level = 'returned') AS returned, \
                           max(verified_to) FILTER (WHERE level = 'linked') AS linked, \
                           max(verified_to) FILTER (WHERE level = 'bloom') AS bloom, \
                           max(verified_to) FILTER (WHERE level = 'receipts') AS receipts \
                           FROM dalp_indexed.verified WHERE chain_id = $1";

/// A stored block.
pub(super) fn block_ref(number: i64, hash: &[u8]) -> Result<BlockRef, StoreError> {
    Ok(BlockRef { number: uint8(number)?, hash: super::hash(hash)? })
}

const HEARTBEAT: &str = "INSERT INTO dalp_indexed.chain_status (chain_id, head_number, head_time, finalized, waits_for, instance, untyped, updated_at) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7, now()) \
                         ON CONFLICT (chain_id) DO UPDATE SET head_number = excluded.head_number, head_time = excluded.head_time, \
                         finalized = excluded.finalized, waits_for = excluded.waits_for, instance = excluded.instance, untyped = excluded.untyped, updated_at = now()";
