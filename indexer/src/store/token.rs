//! The metadata of tokens. Each statement is a transaction of its own, without a fence: a row says the same whoever writes it.

use alloy::primitives::Address;
use tokio_postgres::types::{ToSql, Type};

use super::{Store, StoreError, int8};
use crate::chain::token::Token;

impl Store {
    /// The contracts of the newest stored transfers of a chain that have no row yet, each with the block of one of its transfers. Reads a
    /// bounded number of transfers.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unread_emitters(&self, chain_id: u64) -> Result<Vec<(Address, u64)>, StoreError> {
        let client = self.connection().await?;
        let rows = client.query_typed(EMITTERS, &[(&int8(chain_id), Type::INT8)]).await?;
        rows.iter().map(|row| Ok((address(row.get(0)), super::uint8(row.get(1))?))).collect()
    }

    /// Those of these contracts that have no row yet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unread_tokens(&self, chain_id: u64, contracts: &[Address]) -> Result<Vec<Address>, StoreError> {
        let client = self.connection().await?;
        let contracts: Vec<&[u8]> = contracts.iter().map(|contract| contract.as_slice()).collect();
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&int8(chain_id), Type::INT8), (&contracts, Type::BYTEA_ARRAY)];
        Ok(client.query_typed(UNREAD, &params).await?.iter().map(|row| address(row.get(0))).collect())
    }

    /// Stores the metadata of these contracts of a chain. A stored row stays.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn save_tokens(&self, chain_id: u64, tokens: &[Token]) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let text = |of: fn(&Token) -> &Option<String>| -> Vec<Option<String>> {
            tokens.iter().map(|token| of(token).as_deref().map(|text| self.text(text))).collect()
        };
        let addresses: Vec<&[u8]> = tokens.iter().map(|token| token.address.as_slice()).collect();
        let (names, symbols) = (text(|token| &token.name), text(|token| &token.symbol));
        let decimals: Vec<Option<i16>> = tokens.iter().map(|token| token.decimals).collect();
        let blocks: Vec<i64> = tokens.iter().map(|token| int8(token.at_block)).collect();
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&int8(chain_id), Type::INT8),
            (&addresses, Type::BYTEA_ARRAY),
            (&names, Type::TEXT_ARRAY),
            (&symbols, Type::TEXT_ARRAY),
            (&decimals, Type::INT2_ARRAY),
            (&blocks, Type::INT8_ARRAY),
        ];
        client.execute_typed(SAVE, &params).await?;
        Ok(())
    }
}

/// 20 bytes, by every decoder of a transfer.
fn address(bytes: &[u8]) -> Address {
    Address::try_from(bytes).unwrap_or_default()
}

/// By the key, backwards: the newest transfers, in any leaf.
const EMITTERS: &str = "SELECT n.token, max(n.block_number) FROM (\
                          SELECT token, block_number FROM dalp_indexed.erc20_transfer WHERE chain_id = $1 \
                          ORDER BY block_time DESC, block_number DESC, log_index DESC LIMIT 100000) AS n \
                        WHERE NOT EXISTS (SELECT FROM dalp_indexed.token AS k WHERE k.chain_id = $1 AND k.address = n.token) \
                        GROUP BY n.token";
const UNREAD: &str = "SELECT n.address FROM unnest($2) AS n (address) \
                      WHERE NOT EXISTS (SELECT FROM dalp_indexed.token AS k WHERE k.chain_id = $1 AND k.address = n.address)";
const SAVE: &str = "INSERT INTO dalp_indexed.token (chain_id, address, name, symbol, decimals, read_at_block) \
                    SELECT $1, address, name, symbol, decimals, at_block \
                    FROM unnest($2, $3, $4, $5, $6) AS n (address, name, symbol, decimals, at_block) \
                    ON CONFLICT (chain_id, address) DO NOTHING";
