//! The set of tables for the logs of chains.

use std::sync::Arc;

use alloy::primitives::B256;

use super::table::{Dataset, Takes};
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
        let mut events: Vec<Typed> = all.iter().filter_map(Typed::of).collect();
        events.sort_unstable();
        Ok(Self { all: all.into(), events: events.into(), every, refused })
    }

    /// These, and one more.
    ///
    /// # Errors
    /// See [`Datasets::new`].
    pub fn with(&self, more: Dataset) -> Result<Self, String> {
        Self::new(self.iter().cloned().chain([more]))
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

    /// The tables whose event matches a log's topics. Runs for every log: no allocation, and few compared bytes.
    pub fn typed(&self, log: &Log<'_>) -> &[Typed] {
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

/// A table for one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Typed {
    prefix: u64,
    topic0: B256,
    topics: usize,
    /// The table's index among the datasets.
    pub at: usize,
}

impl Typed {
    fn of(dataset: &Dataset) -> Option<Self> {
        let event = dataset.event()?;
        Some(Self { prefix: prefix(&event.topic0), topic0: event.topic0, topics: event.topics, at: dataset.at() })
    }

    #[inline(always)]
    fn is_of(&self, topic0: &B256, topics: usize) -> bool {
        self.topics == topics && self.topic0 == *topic0
    }
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
