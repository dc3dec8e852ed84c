//! Factories: an event of one kind of contracts announces contracts of another kind.

use alloy::primitives::{Address, B256};

use super::contracts::KindAt;
use super::plan::{WordPlace, word_of};
use crate::chain::logs::Log;
use crate::events::abi::Event;
use crate::events::ty::Ty;

/// An event whose address parameter is a contract of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factory {
    /// The kind of the contracts that emit it.
    pub of: String,
    /// The event.
    pub topic0: B256,
    /// The number of topics of this form of it.
    pub topics: usize,
    /// The place of the parameter.
    pub place: WordPlace,
    /// The kind of the announced contracts.
    pub child: String,
}

impl Factory {
    /// The factories of a kind whose events (of these) announce contracts of the kind `child`: each form of the event `name`, which is
    /// a name or a signature, with an address of the name `parameter`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(kind: &str, events: &[Event], name: &str, parameter: &str, child: &str) -> Result<Vec<Self>, String> {
        let named: Vec<&Event> = events.iter().filter(|event| event.name == name || event.signature == name).collect();
        if named.is_empty() {
            let mut names: Vec<&str> = events.iter().map(|event| &*event.name).collect();
            names.sort_unstable();
            names.dedup();
            return Err(format!("the kind {kind} has no event {name}: its events are {}", names.join(", ")));
        }
        let factory = |event: &&Event| {
            let at = event.params.iter().position(|param| param.name == parameter && param.ty == Ty::Address)?;
            let topic0 = event.topic0?;
            let (of, child) = (kind.to_owned(), child.to_owned());
            Some(Self { of, topic0, topics: event.topics(), place: word_of(event, at), child })
        };
        let factories: Vec<Self> = named.iter().filter_map(factory).collect();
        if factories.is_empty() {
            let forms: Vec<String> = named.iter().map(ToString::to_string).collect();
            return Err(format!("{parameter} is no address of the event {}", forms.join(" or ")));
        }
        Ok(factories)
    }
}

/// A factory with the indexes of its kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finds {
    pub of: KindAt,
    pub topic0: B256,
    pub topics: usize,
    pub place: WordPlace,
    pub child: KindAt,
}

impl Finds {
    /// The contract that a log of this event announces. The zero address stands for none.
    pub fn child(&self, log: &Log<'_>) -> Option<Address> {
        let word = self.place.word(log)?;
        let address = Address::from_slice(&word[12..]);
        (Ty::Address.holds(word) && !address.is_zero()).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::batch::BlockBatch;
    use crate::chain::block::{BlockRange, Header};
    use crate::chain::logs::Logs;
    use crate::chain::source::Source;
    use crate::dataset::{Datasets, Directory, Emitters, Sorted, tables};
    use crate::events::abi::Abi;

    const MADE: &str = "event Made(address indexed child, address other)";

    fn factory(kind: &str, parameter: &str, child: &str) -> Vec<Factory> {
        Factory::of(kind, &Abi::read(MADE).unwrap().events, "Made", parameter, child).unwrap()
    }

    /// The contracts that logs of `Made` announce, each with its kind and block: of these contracts, with these words.
    fn found(datasets: &Datasets, directory: &Directory, made: &[(u8, [B256; 2])]) -> Vec<(Address, String, u64)> {
        let hash = B256::repeat_byte;
        let headers: Vec<Header> = (1..=made.len() as u8)
            .map(|number| Header {
                number: number.into(),
                hash: hash(number),
                parent: Some(hash(number - 1)),
                time: number.into(),
                bloom: None,
            })
            .collect();
        let mut logs = Logs::default();
        for ((emitter, [child, other]), header) in made.iter().zip(&headers) {
            let topics = [alloy::primitives::keccak256("Made(address,address)"), *child];
            let address = Address::repeat_byte(*emitter);
            let (log_index, tx_index, tx_hash) = (0, 0, B256::ZERO);
            logs.push(header.block(), Log { log_index, tx_index, tx_hash, address, topics: &topics, data: &other.0 });
        }
        let range = BlockRange { first: 1, last: made.len() as u64 };
        let batch = BlockBatch::new(range, headers, logs, &Source::default()).unwrap();
        let sorted = Sorted::new(datasets, directory, batch);
        let named = |(address, kind, from)| (address, datasets.kinds()[usize::from(kind)].clone(), from);
        let mut found: Vec<_> = sorted.found().iter().map(named).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_contract_announces_what_its_kind_does_and_as_early_as_it_does() {
        let mut datasets = Datasets::own();
        for kind in ["a", "b", "c"] {
            for (table, _) in tables(kind, &Abi::read(MADE).unwrap().events) {
                datasets = datasets.with(table).unwrap();
            }
        }
        let rules = [factory("a", "child", "b"), factory("b", "other", "c"), factory("a", "child", "nothing")].concat();
        let datasets = datasets.with_factories(&rules);
        let mut emitters = Emitters::default();
        for (kind, from) in [("a", 2), ("b", 9)] {
            emitters.set(&Address::repeat_byte(1), datasets.kind_at(kind).unwrap(), Some(from), None);
        }
        let directory = Directory { version: 3, emitters };
        let of = |byte: u8| Address::repeat_byte(byte).into_word();
        let dirty = B256::repeat_byte(1);
        // In block 1, the contract is of no kind. Then it is of the kind a: its b announce c, even in earlier blocks.
        let made = [(1, [of(7), of(8)]), (6, [of(7), of(5)]), (1, [of(6), of(8)]), (6, [of(7), of(4)])];
        let (b, c) = ("b".to_owned(), "c".to_owned());
        let of_b = (Address::repeat_byte(6), b.clone(), 3);
        let of_c = (Address::repeat_byte(4), c, 4);
        assert_eq!(found(&datasets, &directory, &made), [of_c, of_b], "6 is of the kind b from block 3 on");
        let made = [(1, [of(6), of(1)]), (1, [of(6), of(2)]), (1, [dirty, of(9)]), (1, [B256::ZERO, of(9)])];
        let twice = [(1, [of(9), of(9)]); 4];
        assert_eq!(found(&datasets, &directory, &made), [(Address::repeat_byte(6), b.clone(), 2)]);
        assert_eq!(found(&datasets, &directory, &twice), [(Address::repeat_byte(9), b, 2)], "the first counts");
        assert_eq!(found(&Datasets::own(), &directory, &twice), []);
    }

    #[test]
    fn an_event_that_announces_nothing_is_explained() {
        let events = Abi::read(&format!("{MADE}\nevent Made(uint8 child)\nevent Other(string name)")).unwrap().events;
        let of = |event: &str, parameter: &str| Factory::of("k", &events, event, parameter, "c").map(|all| all.len());
        assert_eq!(of("Made", "child"), Ok(1));
        assert_eq!(of("Made(address,address)", "other"), Ok(1));
        assert!(of("Made(uint8)", "child").unwrap_err().contains("child is no address of the event Made(uint8 child)"));
        assert!(of("Mad", "child").unwrap_err().contains("the kind k has no event Mad: its events are Made, Other"));
    }
}
