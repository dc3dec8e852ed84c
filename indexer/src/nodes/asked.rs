//! The content of a failed request, and the evidence that its size is the reason.

use std::time::Instant;

use super::error::NodeError;
use super::limits::Sizes;
use super::refusal::Refusal;
use super::rpc::{Call, ErrorAnswer};

/// Refusals in a row, each with its weight, that make the size of a request the likely reason: two for unknown reasons, four for
/// reasons that sound different.
const DOUBTS: u32 = 4;
pub(super) const UNKNOWN: u32 = 2;
const SOUNDS_OTHERWISE: u32 = 1;

/// Why a request has no answers.
pub(super) enum Failure {
    /// It must be sent in smaller batches; the limit is known by now.
    Batch,
    /// The size of the request may be the reason.
    Doubted(Doubt),
    /// Any other reason.
    Error(NodeError),
}

/// A failure that may be caused by the size of the request.
pub(super) struct Doubt {
    /// The error if size is not the reason.
    pub error: NodeError,
    /// The parts that could be smaller.
    pub part: Part,
    /// The request, and the node's message.
    pub why: String,
    pub began: Instant,
}

/// A part of a request that could be smaller, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Blocks of a request for logs.
    Blocks(u64),
    /// Values of a list in its filter.
    List(u64),
    /// Calls of a batch.
    Calls(u64),
}

/// The evidence for size as the reason, per part.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    blocks: u32,
    list: u32,
    calls: u32,
}

impl Doubts {
    pub fn of(&mut self, part: Part) -> &mut u32 {
        match part {
            Part::Blocks(_) => &mut self.blocks,
            Part::List(_) => &mut self.list,
            Part::Calls(_) => &mut self.calls,
        }
    }
}

/// The content of a request, for the judgement of failures.
#[derive(Clone, Copy)]
pub(super) struct Asked<'c> {
    pub began: Instant,
    calls: &'c [Call],
    /// The failed calls; all, if unknown.
    at: Option<usize>,
    /// Blocks of its requests for logs, together.
    pub blocks: Option<u64>,
    pub sizes: Sizes,
    /// Whether the node is known to accept batches.
    takes_batches: bool,
}

impl<'c> Asked<'c> {
    /// `beside`: requests under way, with this one.
    pub fn new(calls: &'c [Call], beside: u64, takes_batches: bool) -> Self {
        let widest = calls.iter().filter_map(Call::log_blocks).max();
        let sizes = Sizes {
            blocks: widest.unwrap_or(0),
            list: calls.iter().map(Call::list).max().unwrap_or(0),
            calls: calls.len() as u64,
            parallel: beside,
        };
        let blocks = widest.map(|_| calls.iter().filter_map(Call::log_blocks).sum());
        Self { began: Instant::now(), calls, at: None, blocks, sizes, takes_batches }
    }

    /// The request with only the failed call.
    pub fn failed_at(self, at: usize) -> Self {
        Self { at: Some(at), ..self }
    }

    fn call(&self) -> Option<&'c Call> {
        // A request for logs has the most possible faults.
        let likely = || self.calls.iter().find(|call| call.log_blocks().is_some()).or(self.calls.first());
        self.at.map_or_else(likely, |at| self.calls.get(at))
    }

    pub fn method(&self) -> &'static str {
        self.call().map_or("", |call| call.method)
    }

    /// The request, with the node's message.
    pub fn told(&self, words: &str) -> String {
        match (self.call(), self.calls.len()) {
            (None, _) => words.to_owned(),
            (Some(call), 1) => format!("{call}: {words}"),
            (Some(call), calls) => format!("{call} (in a batch of {calls}): {words}"),
        }
    }

    pub fn part(&self) -> Option<Part> {
        match self.sizes {
            Sizes { blocks: blocks @ 2.., .. } => Some(Part::Blocks(blocks)),
            Sizes { list: list @ 2.., .. } => Some(Part::List(list)),
            Sizes { calls: calls @ 2.., .. } => Some(Part::Calls(calls)),
            _ => None,
        }
    }

    pub fn refusal_of(&self, error: &ErrorAnswer) -> Refusal {
        match Refusal::of(error.code, &error.message, self.blocks, self.sizes.list) {
            // To a node without batches, an array is an invalid request. For a node that has accepted a batch, the refusal means
            // something else.
            Refusal::Other if self.at.is_none() && [-32600, -32700].contains(&error.code) && self.sizes.calls > 1 => {
                match self.takes_batches {
                    true => Refusal::Other,
                    false => Refusal::Batch { max: Some(1) },
                }
            }
            refusal => refusal,
        }
    }
}

pub(super) fn in_words(error: &ErrorAnswer) -> String {
    format!("error {}: {}", error.code, error.message)
}

/// A message that sounds like another reason than size, but appears only for wide ranges.
pub(super) fn doubted(doubts: &mut Doubts, error: NodeError, why: String, asked: Asked<'_>) -> Failure {
    match asked.part() {
        Some(Part::Blocks(_)) => doubt(doubts, SOUNDS_OTHERWISE, error, why, asked),
        _ => Failure::Error(error),
    }
}

pub(super) fn doubt(doubts: &mut Doubts, weight: u32, error: NodeError, why: String, asked: Asked<'_>) -> Failure {
    let Some(part) = asked.part() else { return Failure::Error(error) };
    let times = doubts.of(part);
    *times += weight;
    if *times < DOUBTS {
        return Failure::Error(error);
    }
    *times = 0;
    Failure::Doubted(Doubt { error, part, why, began: asked.began })
}
