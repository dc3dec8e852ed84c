//! The wanted logs: a source's immutable filter, by emitter and first topic.

use alloy::primitives::{Address, B256, keccak256};
use serde::{Deserialize, Serialize};

use super::block::Header;
use super::bloom::may_hold;
use super::logs::Log;

/// The requested logs, and their stored form. Empty sets mean all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Emitters.
    pub addresses: Vec<Address>,
    /// First topics.
    pub topics: Vec<B256>,
    /// Whether each log is stored unchanged, beside its typed row.
    #[serde(default = "raw")]
    pub raw: bool,
}

fn raw() -> bool {
    true
}

impl Default for Filter {
    fn default() -> Self {
        Self { addresses: Vec::new(), topics: Vec::new(), raw: true }
    }
}

impl Filter {
    /// Whether every log passes, so that blooms can prove an answer complete.
    pub fn is_everything(&self) -> bool {
        self.addresses.is_empty() && self.topics.is_empty()
    }

    /// The filter as canonical JSON: sets sorted and without repeats. A source is named by the hash of this text.
    pub fn definition(&self) -> serde_json::Value {
        let (mut addresses, mut topics) = (self.addresses.clone(), self.topics.clone());
        addresses.sort_unstable();
        addresses.dedup();
        topics.sort_unstable();
        topics.dedup();
        match self.raw {
            true => serde_json::json!({ "addresses": addresses, "topics": topics }),
            false => serde_json::json!({ "addresses": addresses, "topics": topics, "raw": false }),
        }
    }

    /// The name of the source with this filter: keccak256 of its canonical JSON.
    pub fn id(&self) -> B256 {
        keccak256(self.definition().to_string())
    }

    /// Whether a log passes.
    pub fn selects(&self, log: &Log<'_>) -> bool {
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && (self.topics.is_empty() || log.topics.first().is_some_and(|topic| self.topics.contains(topic)))
    }

    /// Whether every log that passes `other` also passes this filter, and makes the same rows.
    pub fn contains(&self, other: &Filter) -> bool {
        let holds = |ours: bool, theirs: bool, all: bool| ours || (!theirs && all);
        let addresses = other.addresses.iter().all(|address| self.addresses.contains(address));
        let topics = other.topics.iter().all(|topic| self.topics.contains(topic));
        self.raw == other.raw
            && holds(self.addresses.is_empty(), other.addresses.is_empty(), addresses)
            && holds(self.topics.is_empty(), other.topics.is_empty(), topics)
    }

    /// Whether a block may have a passing log; a header without a bloom proves nothing.
    pub fn may_select_from(&self, header: &Header) -> bool {
        header.bloom.as_deref().is_none_or(|bloom| may_hold(bloom, &self.addresses, &self.topics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(addresses: &[u8], topics: &[u8]) -> Filter {
        Filter {
            addresses: addresses.iter().map(|n| Address::repeat_byte(*n)).collect(),
            topics: topics.iter().map(|n| B256::repeat_byte(*n)).collect(),
            raw: true,
        }
    }

    #[test]
    fn a_filter_is_named_by_what_it_selects() {
        let (one, two) = (filter(&[2, 1, 2], &[]), filter(&[1, 2], &[]));
        assert_eq!((one.definition(), one.id()), (two.definition(), two.id()));
        assert_ne!(one.id(), filter(&[1], &[]).id());
        assert!(!one.is_everything() && Filter::default().is_everything());
        let read: Filter = serde_json::from_value(one.definition()).unwrap();
        assert_eq!(read, two);
        let typed = Filter { raw: false, ..two.clone() };
        assert_ne!(typed.id(), two.id());
        assert!(!typed.contains(&two) && !two.contains(&typed));
        assert_eq!(serde_json::from_value::<Filter>(typed.definition()).unwrap(), typed);
    }

    #[test]
    fn a_wider_filter_contains_a_narrower_one() {
        for (wide, narrow, contains) in [
            (filter(&[], &[]), filter(&[1], &[9]), true),
            (filter(&[1], &[9]), filter(&[], &[]), false),
            (filter(&[1, 2], &[]), filter(&[2], &[9]), true),
            (filter(&[1, 2], &[9]), filter(&[2], &[]), false),
            (filter(&[1], &[]), filter(&[1, 2], &[]), false),
            (filter(&[], &[9]), filter(&[], &[9]), true),
            (filter(&[], &[9]), filter(&[3], &[8]), false),
        ] {
            assert_eq!(wide.contains(&narrow), contains, "{wide:?} contains {narrow:?}");
        }
    }

    #[test]
    fn a_log_passes_by_its_emitter_and_its_first_topic() {
        let log = |emitter: u8, topics: &'static [B256]| Log {
            log_index: 0,
            tx_index: 0,
            tx_hash: B256::ZERO,
            address: Address::repeat_byte(emitter),
            topics,
            data: &[],
        };
        const TOPICS: &[B256] = &[B256::repeat_byte(9), B256::repeat_byte(8)];
        for (filter, emitter, topics, passes) in [
            (filter(&[], &[]), 1, &[][..], true),
            (filter(&[1], &[]), 1, &[], true),
            (filter(&[1], &[]), 2, TOPICS, false),
            (filter(&[], &[9]), 2, TOPICS, true),
            (filter(&[], &[8]), 2, TOPICS, false),
            (filter(&[], &[9]), 2, &[], false),
            (filter(&[1], &[9]), 1, TOPICS, true),
            (filter(&[1], &[9]), 2, TOPICS, false),
            (filter(&[1], &[8]), 1, TOPICS, false),
        ] {
            assert_eq!(filter.selects(&log(emitter, topics)), passes, "{filter:?} {emitter} {topics:?}");
            let bloom = super::super::bloom::of([(Address::repeat_byte(emitter), topics)].into_iter());
            let header = Header { number: 1, hash: B256::ZERO, parent: None, time: 0, bloom: Some(Box::new(bloom)) };
            assert!(!passes || filter.may_select_from(&header), "what passes shows in the bloom");
            assert!(filter.may_select_from(&Header { bloom: None, ..header }), "no bloom proves nothing");
        }
        assert!(!filter(&[1], &[]).is_everything() && !filter(&[], &[1]).is_everything());
        let old: Filter = serde_json::from_str(r#"{"addresses":[],"topics":[]}"#).unwrap();
        assert!(old.raw && old == Filter::default(), "definitions without the word are of raw logs");
    }
}
