//! The logs bloom of a header (Yellow Paper 4.3.1): a superset of the block's logs.

use alloy::primitives::{Address, B256, Bloom, BloomInput};

/// The bloom of logs, from emitters and topics. Most values return within a block: the event, often the emitter, sometimes a party.
/// A value that was seen a short time ago is not hashed again: hashing is most of the work.
pub fn of<'l>(logs: impl Iterator<Item = (Address, &'l [B256])>) -> Bloom {
    let mut bloom = Bloom::ZERO;
    let (mut emitters, mut words) = (Recent::<Address, 16>::default(), Recent::<B256, 64>::default());
    for (address, topics) in logs {
        if emitters.is_new(address, address[19]) {
            bloom.accrue(BloomInput::Raw(address.as_slice()));
        }
        for topic in topics {
            if words.is_new(*topic, topic[31]) {
                bloom.accrue(BloomInput::Raw(topic.as_slice()));
            }
        }
    }
    bloom
}

/// Values that were seen, one in each slot: a newer value takes the slot of an older one.
struct Recent<T, const SLOTS: usize>([Option<T>; SLOTS]);

impl<T: Copy, const SLOTS: usize> Default for Recent<T, SLOTS> {
    fn default() -> Self {
        Self([None; SLOTS])
    }
}

impl<T: PartialEq, const SLOTS: usize> Recent<T, SLOTS> {
    /// Whether the value is not in its slot. `low` is its lowest byte, the most random one.
    fn is_new(&mut self, value: T, low: u8) -> bool {
        let slot = &mut self.0[usize::from(low) % SLOTS];
        let is_new = slot.as_ref() != Some(&value);
        if is_new {
            *slot = Some(value);
        }
        is_new
    }
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
        // 3 and 67 share a slot.
        let (emitters, words) = ([1, 2].map(Address::repeat_byte), [3, 4, 67].map(B256::repeat_byte));
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
