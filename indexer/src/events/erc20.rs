//! ERC-20 `Transfer(address indexed from, address indexed to, uint256 value)`.

use alloy::primitives::{Address, B256, b256};

use crate::chain::logs::Log;

/// keccak256("Transfer(address,address,uint256)"). ERC-721 shares it with a fourth topic, some old tokens with fewer.
pub const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// The name under which undecodable logs are quarantined.
pub const DECODER: &str = "erc20_transfer";

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

/// What a log is to this decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not this event: another topic0, or another indexed layout.
    Other,
    /// A transfer.
    Transfer(Transfer<'a>),
    /// This event by its topics, but its words are not what the ABI allows. Kept raw and quarantined.
    Malformed(&'static str),
}

/// Decodes one log. The decoder is chosen by topic0 and the number of topics; which emitters are watched is decided by
/// the source's filter.
pub fn decode<'a>(log: &Log<'a>) -> Decoded<'a> {
    let [topic0, from, to] = log.topics else { return Decoded::Other };
    if *topic0 != TRANSFER {
        return Decoded::Other;
    }
    let (Some(from), Some(to)) = (address(from), address(to)) else {
        return Decoded::Malformed("an indexed address has non-zero high bytes");
    };
    match log.data.try_into() {
        Ok(value) => Decoded::Transfer(Transfer { from, to, value }),
        Err(_wrong_length) => Decoded::Malformed("the data is not one 32-byte word"),
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
        assert_eq!(decode(&log(&topics[..3], &value)), Decoded::Transfer(Transfer { from, to, value: &value }));
        assert_eq!(decode(&log(&topics, &value)), Decoded::Other, "ERC-721");
        assert_eq!(decode(&log(&topics[..1], &value)), Decoded::Other);
        assert_eq!(decode(&log(&[], &value)), Decoded::Other);
        assert!(matches!(decode(&log(&topics[..3], &value[..31])), Decoded::Malformed(_)));
        let dirty = [TRANSFER, B256::repeat_byte(1), to.into_word()];
        assert!(matches!(decode(&log(&dirty, &value)), Decoded::Malformed(_)));
    }
}
