//! The set of tables for the logs of chains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use alloy::primitives::{B256, keccak256};

use super::contracts::{Contract, Contracts, Emitters};
use super::table::{Dataset, Event, Takes};
use crate::chain::logs::Log;

/// The tables for a chain's logs. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Datasets {
    all: Arc<[Dataset]>,
    /// The tables for one event, by its first topic and number of topics.
    events: Arc<[Typed]>,
    /// The indexes of the table for every log, and of the table for refused logs.
    every: usize,
    refused: usize,
    /// The names of the kinds, in order: a kind is known by its index.
    kinds: Arc<[String]>,
    contracts: Arc<Contracts>,
    /// The same by chain, for lookups.
    emitters: Arc<BTreeMap<u64, Arc<Emitters>>>,
    /// Those of a chain without contracts.
    none: Arc<Emitters>,
}

impl Datasets {
    /// These tables, in the order in which they are written and reported.
    ///
    /// # Errors
    /// The conflict: two tables with one name or one place, no table or several for every log or for refused logs, a missing
    /// column.
    pub fn new(all: impl IntoIterator<Item = Dataset>) -> Result<Self, String> {
        let mut all: Vec<Dataset> = all.into_iter().collect();
        for (at, dataset) in all.iter_mut().enumerate() {
            dataset.at = at;
        }
        for dataset in &all {
            let is_twin = |other: &&Dataset| {
                other.name() == dataset.name() || (other.schema(), other.table()) == (dataset.schema(), dataset.table())
            };
            if let Some(twin) = all[..dataset.at].iter().find(is_twin) {
                return Err(format!("{} and {} are one table, or have the same name", twin.name(), dataset.name()));
            }
            if let Some(fault) = dataset.fault() {
                return Err(format!("{}: {fault}", dataset.name()));
            }
        }
        let one = |what: &str, is: fn(&Takes) -> bool| {
            let mut of = all.iter().filter(|dataset| is(dataset.takes())).map(Dataset::at);
            of.next()
                .filter(|_| of.next().is_none())
                .ok_or_else(|| format!("no table, or more than one table, takes {what}"))
        };
        let every = one("every log", |takes| matches!(takes, Takes::Every))?;
        let refused = one("what is refused", |takes| matches!(takes, Takes::Refused))?;
        let kinds = all.iter().filter_map(|dataset| dataset.event()?.of.clone());
        let kinds: Arc<[String]> = kinds.collect::<BTreeSet<String>>().into_iter().collect();
        let mut events: Vec<Typed> = all.iter().flat_map(|dataset| Typed::of(dataset, &kinds)).collect();
        events.sort_unstable();
        Ok(Self {
            all: all.into(),
            events: events.into(),
            every,
            refused,
            kinds,
            contracts: Arc::default(),
            emitters: Arc::default(),
            none: Arc::default(),
        })
    }

    /// The same tables, with these contracts of their kinds.
    #[must_use]
    pub fn of_contracts(&self, contracts: Contracts) -> Self {
        let of = |chain_id| (chain_id, Arc::new(self.emitters_of(contracts.of(chain_id))));
        let emitters = Arc::new(contracts.chains().map(of).collect());
        Self { contracts: Arc::new(contracts), emitters, ..self.clone() }
    }

    /// The contracts of the kinds.
    pub fn contracts(&self) -> &Contracts {
        &self.contracts
    }

    /// These contracts, for [`Datasets::typed`].
    pub fn emitters_of<'c>(&self, contracts: impl IntoIterator<Item = &'c Contract>) -> Emitters {
        Emitters::of(contracts, &self.kinds)
    }

    /// The tables of a kind.
    pub fn of_kind<'d>(&'d self, kind: &'d str) -> impl Iterator<Item = &'d Dataset> + use<'d> {
        self.iter().filter(move |dataset| dataset.event().is_some_and(|event| event.of.as_deref() == Some(kind)))
    }

    /// The hash of a kind's tables, their columns, and their events: a changed one is decoded again.
    pub fn hash_of_kind(&self, kind: &str) -> B256 {
        let mut text = String::new();
        for dataset in self.of_kind(kind) {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{}", dataset.table());
            for column in dataset.columns() {
                let _ = writeln!(text, " {} {} {}", column.name, column.of.sql(), column.nullable);
            }
            for (topic0, form) in
                dataset.event().into_iter().flat_map(|of| of.forms.iter().map(|form| (of.topic0, form)))
            {
                let _ = writeln!(text, " {topic0} {}", form.topics);
            }
        }
        keccak256(text)
    }

    /// The contracts of the kinds on one chain, for [`Datasets::typed`].
    pub fn emitters(&self, chain_id: u64) -> Arc<Emitters> {
        self.emitters.get(&chain_id).unwrap_or(&self.none).clone()
    }

    /// These, and one more.
    ///
    /// # Errors
    /// See [`Datasets::new`].
    pub fn with(&self, more: Dataset) -> Result<Self, String> {
        Ok(Self::new(self.iter().cloned().chain([more]))?.of_contracts(Contracts::clone(&self.contracts)))
    }

    /// Each table, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Dataset> {
        self.all.iter()
    }

    /// The number of tables: their indexes are below it.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The table with that name in the configuration.
    pub fn get(&self, name: &str) -> Option<&Dataset> {
        self.iter().find(|dataset| dataset.name() == name)
    }

    /// The description of that table.
    pub fn of_table(&self, schema: &str, table: &str) -> Option<&Dataset> {
        self.iter().find(|dataset| dataset.schema() == schema && dataset.table() == table)
    }

    /// The tables that the partition manager maintains.
    pub fn partitioned(&self) -> impl Iterator<Item = &Dataset> {
        self.iter().filter(|dataset| dataset.is_partitioned())
    }

    /// The table of every log, unchanged.
    pub fn every(&self) -> &Dataset {
        &self.all[self.every]
    }

    /// The table of refused logs.
    pub fn refused(&self) -> &Dataset {
        &self.all[self.refused]
    }

    /// The first topics of the events that make typed rows.
    pub fn topics(&self) -> Vec<B256> {
        let mut topics: Vec<B256> = self.events.iter().map(|event| event.topic0).collect();
        topics.dedup();
        topics
    }

    /// The tables for a log of block `number`: their event has its first topic and number of topics, and `emitters` has its
    /// contract under their kind. Runs for every log: no allocation, and few compared bytes.
    pub fn typed<'d>(
        &'d self,
        emitters: &'d Emitters,
        number: u64,
        log: &Log<'_>,
    ) -> impl Iterator<Item = &'d Typed> + use<'d> {
        let (address, of) = (log.address, self.of_event(log));
        of.iter().filter(move |typed| typed.kind.is_none_or(|kind| emitters.has(&address, kind, number)))
    }

    /// The tables whose event matches a log's topics.
    fn of_event(&self, log: &Log<'_>) -> &[Typed] {
        let Some(topic0) = log.topics.first() else { return &[] };
        let (prefix, count) = (prefix(topic0), log.topics.len());
        let (mut from, mut to) = (0, self.events.len());
        while from < to {
            let middle = (from + to) / 2;
            if self.events[middle].prefix < prefix { from = middle + 1 } else { to = middle }
        }
        let known = &self.events[..];
        // Others with that prefix may come first: other numbers of topics, or in theory another event.
        while from < known.len() && known[from].prefix == prefix {
            if known[from].is_of(topic0, count) {
                let mut until = from + 1;
                while until < known.len() && known[until].is_of(topic0, count) {
                    until += 1;
                }
                return &known[from..until];
            }
            from += 1;
        }
        &[]
    }
}

/// A form of an event, and its table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Typed {
    prefix: u64,
    topic0: B256,
    topics: usize,
    /// The table's index among the datasets.
    pub at: usize,
    /// The form's index in its event.
    pub form: usize,
    /// The index of the kind of its contracts; `None`: any contract.
    kind: Option<u16>,
}

impl Typed {
    /// Whether its rows are of contracts of one kind, and not of any contract.
    pub fn is_of_kind(&self) -> bool {
        self.kind.is_some()
    }
}

impl Typed {
    fn of(dataset: &Dataset, kinds: &[String]) -> Vec<Self> {
        let Some(event) = dataset.event() else { return Vec::new() };
        let kind = kind_of(event, kinds);
        let form = |(form, of): (usize, &super::table::Form)| Self {
            prefix: prefix(&event.topic0),
            topic0: event.topic0,
            topics: of.topics,
            at: dataset.at(),
            form,
            kind,
        };
        event.forms.iter().enumerate().map(form).collect()
    }

    #[inline(always)]
    fn is_of(&self, topic0: &B256, topics: usize) -> bool {
        self.topics == topics && self.topic0 == *topic0
    }
}

fn kind_of(event: &Event, kinds: &[String]) -> Option<u16> {
    let name = event.of.as_ref()?;
    kinds.iter().position(|kind| kind == name).and_then(|at| u16::try_from(at).ok())
}

/// The beginning of a topic, in its order.
fn prefix(topic: &B256) -> u64 {
    topic.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl std::ops::Index<usize> for Datasets {
    type Output = Dataset;

    fn index(&self, at: usize) -> &Dataset {
        &self.all[at]
    }
}
