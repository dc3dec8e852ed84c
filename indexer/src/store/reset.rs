//! An operator's requests: blocks to read again, and a restarted devnet.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use tokio_postgres::types::{ToSql, Type};

use super::commit::{Change, Commit};
use super::{Claim, NewChain, Store, StoreError, begin_brief, hash, int8, uint8};
use crate::chain::machine::Tail;
use crate::status::instance;

/// A stored chain, under our own token.
#[derive(Clone, Debug)]
pub struct Seized {
    /// The right to write it.
    pub claim: Claim,
    /// Its first block.
    pub start_block: u64,
    /// Its tail.
    pub tail: Tail,
    /// Its genesis block.
    pub genesis: B256,
}

impl Store {
    /// Takes a stored chain over unchanged, without asking a node or waiting for its leader: earlier claims commit nothing more.
    /// The lease expires by itself unless [`Store::clear_down`] continues. `None` if no block of it is stored.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn seize(&self, chain_id: u64) -> Result<Option<Seized>, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_brief(&mut connection, chain_id).await?;
        let (holder, lease) = (instance(), LEASE.as_secs_f64());
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&int8(chain_id), Type::INT8), (&holder, Type::TEXT), (&lease, Type::FLOAT8)];
        let Some(row) = tx.query_typed_opt(SEIZE, &params[..1]).await? else { return Ok(None) };
        tx.execute_typed(TAKE, &params).await?;
        tx.commit().await?;
        let stored = |at: usize| row.get::<_, Option<&[u8]>>(at).map(hash).transpose();
        let (claim, start_block) = (Claim::new(chain_id, row.get(0)), uint8(row.get(2))?);
        let tail = Tail { next: uint8(row.get::<_, i64>(3) + 1)?, hash: stored(4)? };
        Ok(Some(Seized { claim, start_block, tail, genesis: hash(row.get(1))? }))
    }

    /// The tail for reading blocks from `from` upwards again: at the highest stored block below it, or at the first block.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tail_below(&self, chain: &Seized, from: u64) -> Result<Tail, StoreError> {
        let below = self.blocks_below(chain.claim.chain_id, from, chain.start_block, 1).await?;
        Ok(below.first().map_or(Tail { next: chain.start_block, hash: None }, |block| Tail::after(*block)))
    }

    /// Removes the next blocks on the way from `from` down to `to`, and keeps the lease meanwhile; returns the new tail.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn clear_down(&self, claim: &Claim, from: Tail, to: Tail) -> Result<Tail, StoreError> {
        self.hold(claim, LEASE.as_secs_f64()).await?;
        let step = self.step_down(claim, from, to).await?;
        self.clear(claim, from, step).await?;
        Ok(step)
    }

    /// Ends the lease of [`Store::seize`].
    ///
    /// # Errors
    /// See [`StoreError`]; it then expires by itself.
    pub async fn let_go(&self, claim: &Claim) -> Result<(), StoreError> {
        self.hold(claim, 0.0).await
    }

    async fn hold(&self, claim: &Claim, seconds: f64) -> Result<(), StoreError> {
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8), (&seconds, Type::FLOAT8)];
        match self.connection().await?.execute_typed(HOLD, &params).await? {
            0 => Err(StoreError::Fenced { chain_id: claim.chain_id }),
            _ => Ok(()),
        }
    }

    /// Removes a chain whose genesis is not `chain`'s, and makes it a new one. A crash in between leaves a shorter prefix of the
    /// old chain, and the next start continues.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reset_if_changed(&self, chain: &NewChain) -> Result<Option<Arc<Commit>>, StoreError> {
        if self.genesis(chain.chain_id).await?.is_none_or(|stored| stored == chain.genesis) {
            return Ok(None);
        }
        let Some(Seized { claim, mut tail, genesis, .. }) = self.seize(chain.chain_id).await? else { return Ok(None) };
        tracing::warn!(stored_genesis = %genesis, node_genesis = %chain.genesis, "another chain under the same id: \
            removing the stored one");
        let bottom = Tail { next: 0, hash: None };
        while tail != bottom {
            tail = self.clear_down(&claim, tail, bottom).await?;
        }
        let genesis = chain.genesis.as_slice();
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&int8(chain.chain_id), Type::INT8),
            (&claim.token, Type::INT8),
            (&genesis, Type::BYTEA),
            (&int8(chain.start_block), Type::INT8),
        ];
        // Its connection returns to the pool before the next step needs one: the pool may have no other.
        let under_way = self.bus.begin(chain.chain_id);
        let renewed = self.connection().await?.query_typed(RENEW, &params).await?;
        let Some(row) = renewed.first() else { return Err(StoreError::Fenced { chain_id: chain.chain_id }) };
        let commit = under_way.committed(row.get(0), Change::Reset, Vec::new());
        self.let_go(&claim).await?;
        Ok(Some(commit))
    }

    async fn genesis(&self, chain_id: u64) -> Result<Option<B256>, StoreError> {
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(chain_id), Type::INT8)];
        let connection = self.connection().await?;
        let row = connection
            .query_typed_opt("SELECT genesis_hash FROM dalp_indexed.chain_state WHERE chain_id = $1", &params)
            .await?;
        row.map(|row| hash(row.get(0))).transpose()
    }
}

/// The wait of a standby after an operator's command was killed.
const LEASE: Duration = Duration::from_secs(30);

const TAKE: &str = "INSERT INTO dalp_indexed.lease AS l (chain_id, token, holder, expires_at) \
                    SELECT chain_id, token, $2, clock_timestamp() + make_interval(secs => $3) FROM dalp_indexed.chain_state WHERE chain_id = $1 \
                    ON CONFLICT (chain_id) DO UPDATE SET token = excluded.token, holder = excluded.holder, \
                      renewed_at = clock_timestamp(), expires_at = excluded.expires_at";
const HOLD: &str = "UPDATE dalp_indexed.lease SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $3) \
                    WHERE chain_id = $1 AND token = $2";
const SEIZE: &str = "UPDATE dalp_indexed.chain_state SET token = token + 1 WHERE chain_id = $1 \
                     RETURNING token, genesis_hash, start_block, tail_number, tail_hash";
/// The metadata of tokens goes with the chain that they were of.
const RENEW: &str = "WITH renewed AS (UPDATE dalp_indexed.chain_state SET genesis_hash = $3, start_block = $4, tail_number = $4 - 1, tail_hash = NULL, \
                     tail_time = NULL, finalized = NULL, source_id = NULL, epoch = epoch + 1, updated_at = now() \
                     WHERE chain_id = $1 AND token = $2 RETURNING chain_id, epoch), \
                     gone AS (DELETE FROM dalp_indexed.token AS k USING renewed AS r WHERE k.chain_id = r.chain_id) \
                     SELECT epoch FROM renewed";
