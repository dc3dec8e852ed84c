//! The set of tables for the logs of chains.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use alloy::primitives::{Address, B256, keccak256};

use super::contracts::{Contract, Contracts, Emitters, KindAt, Known};
use super::factory::{Factory, Finds};
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
    /// By the first topic and number of topics.
    factories: Arc<[Finds]>,
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
            factories: Arc::default(),
        })
    }

    /// The same tables, with these configured contracts of their kinds.
    #[must_use]
    pub fn of_contracts(&self, contracts: Contracts) -> Self {
        Self { contracts: Arc::new(contracts), ..self.clone() }
    }

    /// The same tables, with these factories of contracts of their kinds. One whose kinds have no tables finds nothing.
    #[must_use]
    pub fn with_factories<'f>(&self, factories: impl IntoIterator<Item = &'f Factory>) -> Self {
        let finds = |factory: &Factory| {
            let (of, child) = (self.kind_at(&factory.of)?, self.kind_at(&factory.child)?);
            Some(Finds { of, topic0: factory.topic0, topics: factory.topics, place: factory.place, child })
        };
        let mut factories: Vec<Finds> = factories.into_iter().filter_map(finds).collect();
        factories.sort_unstable();
        factories.dedup();
        let is_found = |typed: &Typed| {
            let is_of = |finds: &Finds| Some(finds.of) == typed.kind && typed.is_of(&finds.topic0, finds.topics);
            Typed { announces: factories.iter().any(is_of), ..*typed }
        };
        let events = self.events.iter().map(is_found).collect();
        Self { factories: factories.into(), events, ..self.clone() }
    }

    /// The configured contracts of the kinds.
    pub fn contracts(&self) -> &Contracts {
        &self.contracts
    }

    /// The names of the kinds, in order: the index of one is its place among [`Emitters`].
    pub fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// The index of a kind.
    pub fn kind_at(&self, name: &str) -> Option<KindAt> {
        self.kinds.binary_search_by(|kind| kind.as_str().cmp(name)).ok().and_then(|at| KindAt::try_from(at).ok())
    }

    /// These contracts, for [`Datasets::typed`].
    pub fn emitters_of<'c>(&self, contracts: impl IntoIterator<Item = &'c Contract>) -> Emitters {
        let mut emitters = Emitters::default();
        for contract in contracts {
            if let Some(kind) = self.kind_at(&contract.kind) {
                emitters.set(&contract.address, kind, Some(contract.from), None);
                emitters.end(&contract.address, kind, contract.to);
            }
        }
        emitters
    }

    /// Whether contracts of this kind announce others.
    pub fn is_factory(&self, kind: &str) -> bool {
        self.kind_at(kind).is_some_and(|kind| self.factories.iter().any(|finds| finds.of == kind))
    }

    /// Whether any contract announces others.
    pub fn has_factories(&self) -> bool {
        !self.factories.is_empty()
    }

    /// The contracts that a log of this event announces, each with its kind.
    pub fn announced<'d>(&'d self, typed: &Typed, log: &Log<'d>) -> impl Iterator<Item = (Address, KindAt)> + use<'d> {
        let (of, topic0, topics) = (typed.kind, typed.topic0, typed.topics);
        let factories = if typed.announces { &self.factories[..] } else { &[] };
        let is_of = move |finds: &&Finds| Some(finds.of) == of && finds.topics == topics && finds.topic0 == topic0;
        let log = *log;
        factories.iter().filter(is_of).filter_map(move |finds| Some((finds.child(&log)?, finds.child)))
    }

    /// The tables of a kind.
    pub fn of_kind<'d>(&'d self, kind: &'d str) -> impl Iterator<Item = &'d Dataset> + use<'d> {
        self.iter().filter(move |dataset| dataset.event().is_some_and(|event| event.of.as_deref() == Some(kind)))
    }

    /// The hash of a kind's tables, their columns, their events, and what these announce: a changed one is decoded again.
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
        let of = self.kind_at(kind);
        for finds in self.factories.iter().filter(|finds| Some(finds.of) == of) {
            let _ = writeln!(text, "{} {:?} {}", finds.topic0, finds.place, self.kinds[usize::from(finds.child)]);
        }
        keccak256(text)
    }

    /// These, and one more.
    ///
    /// # Errors
    /// See [`Datasets::new`].
    pub fn with(&self, more: Dataset) -> Result<Self, String> {
        let datasets = Self::new(self.iter().cloned().chain([more]))?.of_contracts(Contracts::clone(&self.contracts));
        let named = |finds: &Finds| Factory {
            of: self.kinds[usize::from(finds.of)].clone(),
            topic0: finds.topic0,
            topics: finds.topics,
            place: finds.place,
            child: self.kinds[usize::from(finds.child)].clone(),
        };
        Ok(datasets.with_factories(&self.factories.iter().map(named).collect::<Vec<_>>()))
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

    /// The tables for a log of block `number`: their event has its first topic and number of topics, and its contract is known to be
    /// of their kind. Runs for every log: no allocation, and few compared bytes.
    pub fn typed<'d>(
        &'d self,
        known: Known<'d>,
        number: u64,
        log: &Log<'_>,
    ) -> impl Iterator<Item = &'d Typed> + use<'d> {
        let (address, of) = (log.address, self.of_event(log));
        of.iter().filter(move |typed| typed.kind.is_none_or(|kind| known.has(&address, kind, number)))
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
    kind: Option<KindAt>,
    /// Whether its logs announce contracts.
    announces: bool,
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
            announces: false,
        };
        event.forms.iter().enumerate().map(form).collect()
    }

    #[inline(always)]
    fn is_of(&self, topic0: &B256, topics: usize) -> bool {
        self.topics == topics && self.topic0 == *topic0
    }
}

fn kind_of(event: &Event, kinds: &[String]) -> Option<KindAt> {
    let name = event.of.as_ref()?;
    kinds.iter().position(|kind| kind == name).and_then(|at| KindAt::try_from(at).ok())
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
