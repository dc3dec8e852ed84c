//! What coverage is recorded of: a filter that never changes, under its name.

use std::sync::Arc;

use alloy::primitives::B256;

use super::filter::Filter;

/// A [`Filter`] under its name. A chain may have several: another address is another source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source(Arc<Named>);

#[derive(Debug)]
struct Named {
    id: B256,
    filter: Filter,
}

impl Source {
    /// The source of this filter.
    pub fn new(filter: Filter) -> Self {
        Self::stored(filter.id(), filter)
    }

    /// A source as a database names it.
    pub fn stored(id: B256, filter: Filter) -> Self {
        Self(Arc::new(Named { id, filter }))
    }

    /// Its name: [`Filter::id`].
    pub fn id(&self) -> B256 {
        self.0.id
    }

    /// Which logs are its own.
    pub fn filter(&self) -> &Filter {
        &self.0.filter
    }
}

impl Default for Source {
    /// Every log of a chain, as it came and typed.
    fn default() -> Self {
        Self::new(Filter::default())
    }
}

/// By their names: these tell the filters apart.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Source {}
