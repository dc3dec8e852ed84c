//! ERC-20 `Transfer(address indexed from, address indexed to, uint256 value)`.

use alloy::primitives::{Address, B256, b256};

use crate::chain::logs::Log;

/// keccak256("Transfer(address,address,uint256)"). ERC-721 shares it with a fourth topic, some old tokens with fewer.
pub const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// The number of its topics. Tokens of other standards share the first one.
pub const TOPICS: usize = 3;

/// One transfer; borrowed from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// Payer; zero on a mint.
    pub from: Address,
    /// Payee; zero on a burn.
    pub to: Address,
    /// Raw units, big-endian uint256.
    pub value: &'a [u8; 32],
}

/// Decodes a log that is this event by its first topic and the number of its topics. The source's filter decides about emitters.
///
/// # Errors
/// The violation of the ABI in its words.
pub fn decode<'a>(log: &Log<'a>) -> Result<Transfer<'a>, &'static str> {
    let [_, from, to] = log.topics else { return Err("it does not have three topics") };
    let (Some(from), Some(to)) = (address(from), address(to)) else {
        return Err("an indexed address has non-zero high bytes");
    };
    match log.data.try_into() {
        Ok(value) => Ok(Transfer { from, to, value }),
        Err(_wrong_length) => Err("the data is not one 32-byte word"),
    }
}

fn address(word: &B256) -> Option<Address> {
    let (high, low) = word.split_at(12);
    high.iter().all(|b| *b == 0).then(|| Address::from_slice(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log<'a>(topics: &'a [B256], data: &'a [u8]) -> Log<'a> {
        Log { log_index: 0, tx_index: 0, tx_hash: B256::ZERO, address: Address::ZERO, topics, data }
    }

    #[test]
    fn only_the_erc20_layout_is_a_transfer() {
        let (from, to) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let topics = [TRANSFER, from.into_word(), to.into_word(), B256::ZERO];
        let value = [9; 32];
        assert_eq!(decode(&log(&topics[..3], &value)), Ok(Transfer { from, to, value: &value }));
        let refused = |topics: &[B256], data: &[u8]| decode(&log(topics, data)).unwrap_err();
        assert_eq!(refused(&topics, &value), "it does not have three topics", "ERC-721");
        assert_eq!(refused(&topics[..3], &value[..31]), "the data is not one 32-byte word");
        let dirty = [TRANSFER, B256::repeat_byte(1), to.into_word()];
        assert_eq!(refused(&dirty, &value), "an indexed address has non-zero high bytes");
    }
}
