//! The logs bloom of a header (Yellow Paper 4.3.1): a superset of the block's logs.

use alloy::primitives::{Address, B256, Bloom, BloomInput};

/// The bloom of logs, from emitters and topics. Values equal to the values of the previous log, nearly always the event and often
/// the emitter, are hashed once: hashing is most of the work.
pub fn of<'l>(logs: impl Iterator<Item = (Address, &'l [B256])>) -> Bloom {
    let mut bloom = Bloom::ZERO;
    let (mut emitter, mut before): (Option<Address>, &[B256]) = (None, &[]);
    for (address, topics) in logs {
        if emitter.replace(address) != Some(address) {
            bloom.accrue(BloomInput::Raw(address.as_slice()));
        }
        for (at, topic) in topics.iter().enumerate() {
            if before.get(at) != Some(topic) {
                bloom.accrue(BloomInput::Raw(topic.as_slice()));
            }
        }
        before = topics;
    }
    bloom
}

/// Whether a block with this bloom may have a log of one of `addresses` and one of `topics` (empty: of any). `false` proves that
/// it has none.
pub fn may_hold(bloom: &Bloom, addresses: &[Address], topics: &[B256]) -> bool {
    let holds = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
    (addresses.is_empty() || addresses.iter().any(|address| holds(address.as_slice())))
        && (topics.is_empty() || topics.iter().any(|topic| holds(topic.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_emitted_may_be_held_and_most_else_is_not() {
        let (emitter, topic) = (Address::repeat_byte(1), B256::repeat_byte(2));
        let bloom = of([(emitter, &[topic][..])].into_iter());
        let (other, odd) = (Address::repeat_byte(9), B256::repeat_byte(8));
        assert!(may_hold(&bloom, &[], &[]) && may_hold(&bloom, &[other, emitter], &[odd, topic]));
        assert!(!may_hold(&bloom, &[other], &[]) && !may_hold(&bloom, &[emitter], &[odd]));
        assert!(!may_hold(&Bloom::ZERO, &[emitter], &[]));
    }

    #[test]
    fn what_is_hashed_once_is_there_all_the_same() {
        let (emitters, words) = ([1, 2].map(Address::repeat_byte), [3, 4, 5].map(B256::repeat_byte));
        let [a, b, c] = words;
        let logs: [(Address, &[B256]); 7] = [
            (emitters[0], &[a, b]),
            (emitters[0], &[a, c]),
            (emitters[1], &[b, c]),
            (emitters[1], &[]),
            (emitters[0], &[a, a, b]),
            (emitters[0], &[c]),
            (emitters[0], &[c, b, a]),
        ];
        for end in 0..=logs.len() {
            let mut expected = Bloom::ZERO;
            for (address, topics) in &logs[..end] {
                expected.accrue(BloomInput::Raw(address.as_slice()));
                topics.iter().for_each(|topic| expected.accrue(BloomInput::Raw(topic.as_slice())));
            }
            assert_eq!(of(logs[..end].iter().copied()), expected, "{end} logs");
        }
    }
}
