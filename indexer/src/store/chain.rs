//! A chain's identity and its one writer.

use alloy::primitives::B256;
use chrono::{DateTime, Utc};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{Claim, Store, StoreError, begin, begin_brief, hash, history, int8, uint8};
use crate::chain::block::BlockRef;
use crate::chain::machine::Tail;
use crate::chain::source::Source;

/// A chain, from the configuration and its node.
#[derive(Clone, Debug)]
pub struct NewChain {
    /// `eth_chainId`.
    pub chain_id: u64,
    /// Its name in the configuration.
    pub name: String,
    /// Hash of block 0.
    pub genesis: B256,
    /// First block to index.
    pub start_block: u64,
    /// The source that the tail follows.
    pub source: Source,
    /// Whether blocks become final, so that the history of a changed filter can be fetched beside the head.
    pub finality: bool,
    /// Whether the stored chain is removed if its genesis block differs.
    pub reset: bool,
}

/// A chain's state row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The committed tail.
    pub tail: Tail,
    /// Time of the tail's block.
    pub tail_time: Option<DateTime<Utc>>,
    /// The highest stored block that is final.
    pub finalized: Option<u64>,
    /// The newest stored blocks, ascending.
    pub recent: Vec<BlockRef>,
}

/// Stored blocks that are read with the state: as many as the part of a chain that is not final may have.
const RECENT: i64 = 16_384;

impl Store {
    /// Registers a new chain, or checks that it is the stored one, and writes beside a running writer, under its token: for
    /// backfill. To become the writer, bid for its [lease](super::lease::Lease).
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if the stored chain is another one, with the remedy.
    pub async fn join(&self, chain: &NewChain) -> Result<Claim, StoreError> {
        let mut connection = self.connection().await?;
        let tx = begin_brief(&mut connection, chain.chain_id).await?;
        let claim = enter(&tx, chain, false).await?;
        tx.commit().await?;
        Ok(claim)
    }

    /// The state row, read under its lock: this waits for a commit with a lost answer, which a plain read could miss.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process claimed the chain after us.
    pub async fn load(&self, claim: &Claim) -> Result<State, StoreError> {
        self.bus.forget(claim.chain_id);
        let mut connection = self.connection().await?;
        let tx = begin(&mut connection, claim).await?;
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&int8(claim.chain_id), Type::INT8)];
        let row = tx
            .query_typed_one(
                "SELECT token, tail_number, tail_hash, finalized, tail_time FROM dalp_indexed.chain_state WHERE chain_id = $1 FOR UPDATE",
                &params,
            )
            .await?;
        tx.commit().await?;
        if row.get::<_, i64>(0) != claim.token {
            return Err(StoreError::Fenced { chain_id: claim.chain_id });
        }
        drop(connection);
        let next = uint8(row.get::<_, i64>(1) + 1)?;
        let mut recent = self.blocks_below(claim.chain_id, next, 0, RECENT).await?;
        recent.reverse();
        let hash = row.get::<_, Option<&[u8]>>(2).map(hash).transpose()?;
        let finalized = row.get::<_, Option<i64>>(3).map(uint8).transpose()?;
        Ok(State { tail: Tail { next, hash }, tail_time: row.get(4), finalized, recent })
    }
}

impl Store {
    /// Records that stored blocks up to this one are final, if no append does: a head may stop.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another process claimed the chain after us.
    pub async fn settle(&self, claim: &Claim, finalized: Option<u64>) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        let finalized = finalized.map(int8);
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&int8(claim.chain_id), Type::INT8), (&claim.token, Type::INT8), (&finalized, Type::INT8)];
        match connection.execute_typed(SETTLE, &params).await? {
            0 => Err(StoreError::Fenced { chain_id: claim.chain_id }),
            _ => Ok(()),
        }
    }
}

const SETTLE: &str = "UPDATE dalp_indexed.chain_state SET finalized = GREATEST(finalized, $3), updated_at = now() \
                      WHERE chain_id = $1 AND token = $2";

/// Registers and checks the chain; with `take_over`, the commits of earlier claims fail from this commit on.
pub(super) async fn enter(tx: &Client, chain: &NewChain, take_over: bool) -> Result<Claim, StoreError> {
    register(tx, chain).await?;
    let bump = i64::from(take_over);
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain.chain_id), Type::INT8), (&bump, Type::INT8)];
    let row = tx
        .query_typed_one(
            "UPDATE dalp_indexed.chain_state SET token = token + $2 WHERE chain_id = $1 \
             RETURNING token, genesis_hash, name, start_block, source_id",
            &params,
        )
        .await?;
    check_same(chain, row.get(1), row.get(2), row.get(3))?;
    follow(tx, chain, row.get(4), take_over).await?;
    Ok(Claim::new(chain.chain_id, row.get(0)))
}

async fn register(tx: &Client, chain: &NewChain) -> Result<(), StoreError> {
    let (start, below) = (int8(chain.start_block), int8(chain.start_block) - 1);
    let genesis = chain.genesis.as_slice();
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&int8(chain.chain_id), Type::INT8),
        (&chain.name, Type::TEXT),
        (&genesis, Type::BYTEA),
        (&start, Type::INT8),
        (&below, Type::INT8),
    ];
    tx.execute_typed(
        "INSERT INTO dalp_indexed.chain_state (chain_id, name, genesis_hash, start_block, tail_number) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (chain_id) DO NOTHING",
        &params,
    )
    .await?;
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain.chain_id), Type::INT8), (&chain.name, Type::TEXT)];
    let other = tx
        .query_typed_opt("SELECT chain_id FROM dalp_indexed.chain_state WHERE name = $2 AND chain_id <> $1", &params)
        .await?;
    match other {
        Some(row) => Err(StoreError::Fatal {
            why: format!(
                "the database holds chain {} under the name \"{}\", but the node and the configuration say {}: point \
                 chains.{}.rpc_urls to the right chain, or give this chain another name",
                row.get::<_, i64>(0),
                chain.name,
                chain.chain_id,
                chain.name
            ),
        }),
        None => Ok(()),
    }
}

pub(super) fn check_same(chain: &NewChain, genesis: &[u8], name: &str, start_block: i64) -> Result<(), StoreError> {
    let fatal = |why| Err(StoreError::Fatal { why });
    if genesis != chain.genesis.as_slice() {
        let stored = hash(genesis)?;
        return fatal(format!(
            "chain {} (\"{name}\") is stored with genesis {stored}, but the node's genesis is {}: it is another chain, or \
             a devnet that was restarted. Nothing was changed. Point chains.{}.rpc_urls to the stored chain, or use \
             another database. For a devnet, run `dalp-indexer dev --fresh` with the arguments of this run, or \
             `dalp-indexer run --reset-on-chain-change`, which removes all stored rows of chain {}",
            chain.chain_id, chain.genesis, chain.name, chain.chain_id
        ));
    }
    if start_block != int8(chain.start_block) {
        return fatal(format!(
            "chains.{}.start_block is {}, but chain {} was indexed from block {start_block}: set it back; blocks below it \
             are fetched with `dalp-indexer backfill --from … --to …`",
            chain.name, chain.start_block, chain.chain_id
        ));
    }
    Ok(())
}

/// Registers the source as the tail's source. Logs that another source selected are not fetched again.
async fn follow(tx: &Client, chain: &NewChain, current: Option<&[u8]>, take_over: bool) -> Result<(), StoreError> {
    let source_id = chain.source.id();
    if current.is_some_and(|current| current == source_id.as_slice()) {
        return Ok(());
    }
    refuse_other_rows(tx, chain).await?;
    if current.is_some() && (!take_over || !chain.finality) {
        refuse_change(tx, chain).await?;
    }
    let (chain_id, start) = (int8(chain.chain_id), int8(chain.start_block));
    let (id, definition) = (source_id.as_slice(), chain.source.filter().definition());
    let params: [(&(dyn ToSql + Sync), Type); 4] =
        [(&chain_id, Type::INT8), (&id, Type::BYTEA), (&definition, Type::JSONB), (&start, Type::INT8)];
    tx.execute_typed(
        "INSERT INTO dalp_indexed.source (chain_id, source_id, definition, start_block) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (chain_id, source_id) DO NOTHING",
        &params,
    )
    .await?;
    tx.execute_typed("UPDATE dalp_indexed.chain_state SET source_id = $2 WHERE chain_id = $1", &params[..2]).await?;
    history::inherit(tx, chain.chain_id, &chain.source).await
}

/// A filter that cannot be followed now. Without stored rows, no filter conflicts.
async fn refuse_change(tx: &Client, chain: &NewChain) -> Result<(), StoreError> {
    let chain_id = int8(chain.chain_id);
    let params: [(&(dyn ToSql + Sync), Type); 1] = [(&chain_id, Type::INT8)];
    let Some(row) = tx.query_typed_opt(CURRENT_FILTER, &params).await? else { return Ok(()) };
    let (name, stored, wanted) = (&chain.name, row.get::<_, String>(0), chain.source.filter().definition());
    let advice = if chain.finality {
        "`dalp-indexer run` follows a changed filter and fetches its history; start `dalp-indexer run` with this \
         configuration first"
            .to_owned()
    } else {
        format!(
            "with finality \"never\" no history is fetched beside the head: stop the indexer and remove the stored blocks \
             with `dalp-indexer reindex --chain {name} --from {} --yes`, or restore the filter",
            chain.start_block
        )
    };
    Err(StoreError::Fatal {
        why: format!(
            "chain {} is indexed with the filter {stored}, but chains.{name}.addresses and .topics now say {wanted}: {advice}",
            chain.chain_id
        ),
    })
}

/// Rows of another setting: with raw logs in one part and without them in another, no range could be complete.
async fn refuse_other_rows(tx: &Client, chain: &NewChain) -> Result<(), StoreError> {
    let raw = chain.source.filter().raw;
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain.chain_id), Type::INT8), (&raw, Type::BOOL)];
    match tx.query_typed_opt(OTHER_ROWS, &params).await? {
        None => Ok(()),
        Some(_) => Err(StoreError::Fatal {
            why: format!(
                "chain {} is stored with raw = {}, but chains.{name}.raw is now {raw}: restore the old value, or stop the indexer and \
                 remove the stored blocks with `dalp-indexer reindex --chain {name} --from {} --yes`; the indexer fetches them again",
                chain.chain_id,
                !raw,
                chain.start_block,
                name = chain.name
            ),
        }),
    }
}

const OTHER_ROWS: &str = "SELECT 1 FROM dalp_indexed.source s WHERE chain_id = $1 \
                          AND COALESCE((definition ->> 'raw')::bool, true) <> $2 AND EXISTS \
                            (SELECT FROM dalp_indexed.coverage v WHERE v.chain_id = $1 AND v.source_id = s.source_id) LIMIT 1";
const CURRENT_FILTER: &str = "SELECT s.definition::text FROM dalp_indexed.chain_state c JOIN dalp_indexed.source s USING (chain_id, source_id) \
                              WHERE c.chain_id = $1 AND EXISTS (SELECT FROM dalp_indexed.coverage v WHERE v.chain_id = $1)";
