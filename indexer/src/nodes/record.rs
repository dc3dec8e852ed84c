//! The knowledge about a node, under its name in messages.

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

/// A node's name, the secret parts of its URL, and the knowledge about it.
#[derive(Debug)]
pub(super) struct Record {
    name: String,
    pub secrets: UrlSecrets,
    known: Mutex<Known>,
    span: Span,
}

/// The knowledge about a node.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub health: Health,
    pub limits: Limits,
    /// Whether it reported the right chain since its last failed call.
    pub checked: bool,
    /// The other chain that it served at the last check.
    pub refused: Option<Refused>,
    /// The proof of its wrong logs, by receipts.
    pub caught: Option<Caught>,
    /// The first and the last block whose logs from this node nothing else confirms.
    pub gave: Option<BlockRange>,
    /// Requests under way.
    pub running: u64,
    /// Refusals for unknown reasons in a row, per part that could be smaller.
    pub doubts: Doubts,
    /// The size of its requests.
    pub pace: Pace,
}

/// A node of another chain.
#[derive(Debug)]
pub(super) struct Refused {
    pub why: String,
    /// The time of this report.
    pub at: Instant,
}

/// A node whose logs were proved wrong.
#[derive(Debug)]
pub(super) struct Caught {
    /// The source of the wrong logs.
    pub source: Source,
    /// The block with the wrong logs.
    pub block: u64,
    pub why: String,
    /// The time from which it may prove itself.
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

    /// The span of its log lines.
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
