//! What is known of a node, under the name that messages give it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Span;

use super::asked::Doubts;
use super::error::NodeError;
use super::health::Health;
use super::http::UrlSecrets;
use super::limits::Limits;
use super::pace::Pace;
use crate::chain::block::BlockRange;
use crate::chain::source::Source;
use crate::spans;

/// A node's name, what must not be told of its URL, and what is known of it.
#[derive(Debug)]
pub(super) struct Record {
    name: String,
    pub secrets: UrlSecrets,
    known: Mutex<Known>,
    span: Span,
}

/// What is known of a node.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub health: Health,
    pub limits: Limits,
    /// Whether it told that it serves the right chain since a call to it last failed.
    pub checked: bool,
    /// It served another chain when it was last asked.
    pub refused: Option<Refused>,
    /// What it was caught at: its logs were proved wrong by receipts.
    pub caught: Option<Caught>,
    /// Blocks of which it gave logs that nothing but their own agreement vouches for, the first and the last.
    pub gave: Option<BlockRange>,
    /// Requests under way.
    pub running: u64,
    /// Requests that were refused for reasons unknown, in a row, by what could be less of them.
    pub doubts: Doubts,
    /// How much is asked for in one call.
    pub pace: Pace,
}

/// A node of another chain.
#[derive(Debug)]
pub(super) struct Refused {
    pub why: String,
    /// When it told that chain.
    pub at: Instant,
}

/// A node whose logs were proved wrong.
#[derive(Debug)]
pub(super) struct Caught {
    /// The source that its logs were asked for.
    pub source: Source,
    /// The block whose logs were wrong.
    pub block: u64,
    pub why: String,
    /// When it may prove itself.
    pub again: Instant,
}

impl Record {
    /// Nothing is known yet.
    pub fn new(name: String, secrets: UrlSecrets) -> Self {
        let span = spans::node(&name);
        Self { name, secrets, known: Mutex::default(), span }
    }

    /// Scheme, host and port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its log lines stand in.
    pub fn span(&self) -> &Span {
        &self.span
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn error(&self, why: String, after: Option<Duration>) -> NodeError {
        NodeError::Retry { node: self.name.clone(), why, after }
    }
}
