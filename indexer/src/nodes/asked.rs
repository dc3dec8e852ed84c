//! What a request asked, as far as its failure is judged by it, and what speaks for its size as the reason.

use std::time::Instant;

use super::error::NodeError;
use super::limits::Sizes;
use super::refusal::Refusal;
use super::rpc::{Call, ErrorAnswer};

/// Refusals in a row, each with its weight, that make the size of a question their likely reason: two for reasons unknown, four for
/// reasons that sound like others.
const DOUBTS: u32 = 4;
pub(super) const UNKNOWN: u32 = 2;
const SOUNDS_OTHERWISE: u32 = 1;

/// Why a request has no answers.
pub(super) enum Failure {
    /// It has to be sent in smaller batches, which is known by now.
    Batch,
    /// The size of what was asked may be the reason.
    Doubted(Doubt),
    /// Anything else.
    Error(NodeError),
}

/// A failure that may be for the size of what was asked.
pub(super) struct Doubt {
    /// What it is if size is not the reason.
    pub error: NodeError,
    /// What could be less.
    pub part: Part,
    /// What was asked, and what the node said.
    pub why: String,
    pub began: Instant,
}

/// What of a request could be less, and how much it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Blocks of a question for logs.
    Blocks(u64),
    /// Values of a list in its filter.
    List(u64),
    /// Calls of a batch.
    Calls(u64),
}

/// How much speaks for size as the reason of what fails, by what could be less.
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

/// What a request asked, as far as failures are judged by it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'c> {
    pub began: Instant,
    calls: &'c [Call],
    /// Which of them failed; all, where it is not known.
    at: Option<usize>,
    /// Blocks of its questions for logs, together.
    pub blocks: Option<u64>,
    pub sizes: Sizes,
    /// Whether the node is known to take batches.
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

    /// The same, of which one call failed.
    pub fn failed_at(self, at: usize) -> Self {
        Self { at: Some(at), ..self }
    }

    fn call(&self) -> Option<&'c Call> {
        // The question for logs is what most can be wrong with.
        let likely = || self.calls.iter().find(|call| call.log_blocks().is_some()).or(self.calls.first());
        self.at.map_or_else(likely, |at| self.calls.get(at))
    }

    pub fn method(&self) -> &'static str {
        self.call().map_or("", |call| call.method)
    }

    /// What was asked, with what was said to it.
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
            // To a node that knows no batches, an array is no valid request. One that took some before means something else.
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

/// What sounds like another reason than size, and is told of a wide range only.
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
