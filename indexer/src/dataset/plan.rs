//! From a log to the row of its event: compiled once from the types of the event's parameters and the columns of the table.
//!
//! Cells of known sizes that stand side by side are one template, which is copied and filled in place. Only numbers, texts, bytes,
//! lists and structs have cells of their own.

use std::sync::Arc;

use super::column::Type;
use super::copy::CopyBuffer;
use super::place::Place;
use super::table::{Decode, Form, Refusal};
use crate::chain::logs::Log;
use crate::events::abi::Event;
use crate::events::data::{Data, as_text};
use crate::events::ty::Ty;

/// The content of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The chain's id.
    Chain,
    /// The time of the block.
    Time,
    /// The block's number.
    Block,
    /// The position of the log in its block.
    LogIndex,
    /// The contract.
    Emitter,
    /// The transaction's hash.
    Transaction,
    /// The value of a parameter, by its position; of a text, NULL if it is not valid.
    Param(usize),
    /// The bytes of a text that is not valid; otherwise NULL.
    Invalid(usize),
}

/// The type of the column of a parameter.
pub fn type_of(ty: &Ty, indexed: bool) -> Type {
    if is_hashed(ty, indexed) {
        return Type::Bytes;
    }
    match ty {
        Ty::Uint(8) | Ty::Int(8 | 16) => Type::Int2,
        Ty::Uint(16 | 24) | Ty::Int(24 | 32) => Type::Int4,
        Ty::Uint(32..=56) | Ty::Int(40..=64) => Type::Int8,
        Ty::Uint(64) => Type::Uint64,
        Ty::Uint(_) | Ty::Int(_) => Type::Numeric,
        Ty::Address | Ty::FixedBytes(_) | Ty::Bytes => Type::Bytes,
        Ty::Bool => Type::Bool,
        Ty::Text => Type::Text,
        Ty::Array(_) | Ty::FixedArray(..) | Ty::Tuple(_) => Type::Json,
    }
}

/// Whether a topic has the hash of the value in place of the value.
pub fn is_hashed(ty: &Ty, indexed: bool) -> bool {
    indexed && (ty.is_dynamic() || !ty.is_single())
}

/// How the logs of one form of an event (the same types, these indexed) become rows of a table.
#[derive(Debug)]
pub struct Plan {
    topics: usize,
    /// The words of the parameters at the beginning of the data.
    head: usize,
    /// Whether values are behind offsets. Otherwise the data has exactly the words of the head.
    has_offsets: bool,
    steps: Vec<Step>,
    /// The names of the parameters, for messages.
    params: Vec<String>,
}

#[derive(Debug)]
enum Step {
    /// Cells of known sizes.
    Run {
        template: Vec<u8>,
        fills: Vec<Fill>,
    },
    /// An integer of more than 64 bits.
    Number {
        word: Word,
        param: usize,
    },
    /// What is behind the offset at this byte of the data.
    Bytes {
        at: usize,
        param: usize,
    },
    Text {
        at: usize,
        param: usize,
    },
    Invalid {
        at: usize,
    },
    Json {
        at: usize,
        ty: Ty,
        param: usize,
    },
}

/// A cell of a template: `at` is its place there.
#[derive(Debug)]
struct Fill {
    at: usize,
    from: From,
}

#[derive(Debug)]
enum From {
    Chain,
    Time,
    Block,
    LogIndex,
    Emitter,
    Transaction,
    /// These bytes of a word.
    Word {
        word: Word,
        first: usize,
        last: usize,
        param: usize,
    },
}

/// A word of a log that has a value of this type.
#[derive(Debug)]
struct Word {
    place: WordPlace,
    ty: Ty,
}

/// Where a word stands in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WordPlace {
    /// The topic of this index.
    Topic(usize),
    /// The word at this byte of the data.
    Data(usize),
}

impl WordPlace {
    /// The word, if the log has it.
    #[inline(always)]
    pub(super) fn word<'l>(self, log: &Log<'l>) -> Option<&'l [u8; 32]> {
        match self {
            Self::Topic(at) => log.topics.get(at).map(|topic| &topic.0),
            Self::Data(at) => log.data.get(at..).and_then(|rest| rest.first_chunk()),
        }
    }
}

/// The place of a parameter's word, by the parameter's index.
pub(super) fn word_of(event: &Event, param: usize) -> WordPlace {
    Places::of(event).of[param]
}

impl Word {
    #[inline(always)]
    fn of<'l>(&self, log: &Log<'l>) -> Option<&'l [u8; 32]> {
        self.place.word(log).filter(|word| self.ty.holds(word))
    }
}

/// The bytes of a column's cells, if all have the same number.
fn size_of(of: Type, ty: &Ty, hashed: bool) -> Option<usize> {
    match (of, ty) {
        (Type::Int2, _) => Some(2),
        (Type::Int4, _) => Some(4),
        (Type::Int8 | Type::Time, _) => Some(8),
        (Type::Bool, _) => Some(1),
        (Type::Bytes, _) if hashed => Some(32),
        (Type::Bytes, Ty::Address) => Some(20),
        (Type::Bytes, Ty::FixedBytes(size)) => Some((*size).into()),
        _ => None,
    }
}

impl Plan {
    /// The plan for the logs of `event` into columns with these contents, in the table's order. An anonymous event has no first
    /// topic, so no plan chooses it.
    pub fn new(event: &Event, columns: &[Source]) -> Self {
        let places = Places::of(event);
        let mut plan = Self {
            topics: event.topics(),
            head: places.head,
            has_offsets: event.params.iter().any(|param| !param.indexed && param.ty.is_dynamic()),
            steps: Vec::new(),
            params: event.params.iter().enumerate().map(|(at, param)| called(&param.name, at)).collect(),
        };
        plan.run().0.extend((columns.len() as i16).to_be_bytes());
        for source in columns {
            plan.add(event, &places, *source);
        }
        plan
    }

    /// The template of the last step, which is made if the last step is no run.
    fn run(&mut self) -> (&mut Vec<u8>, &mut Vec<Fill>) {
        if !matches!(self.steps.last(), Some(Step::Run { .. })) {
            self.steps.push(Step::Run { template: Vec::new(), fills: Vec::new() });
        }
        match self.steps.last_mut() {
            Some(Step::Run { template, fills }) => (template, fills),
            _ => unreachable!("it was made above"),
        }
    }

    fn cell(&mut self, size: usize, from: From) {
        let (template, fills) = self.run();
        template.extend((size as i32).to_be_bytes());
        fills.push(Fill { at: template.len(), from });
        template.resize(template.len() + size, 0);
    }

    fn add(&mut self, event: &Event, places: &Places, source: Source) {
        match source {
            Source::Chain => self.cell(8, From::Chain),
            Source::Time => self.cell(8, From::Time),
            Source::Block => self.cell(8, From::Block),
            Source::LogIndex => self.cell(4, From::LogIndex),
            Source::Emitter => self.cell(20, From::Emitter),
            Source::Transaction => self.cell(32, From::Transaction),
            Source::Invalid(param) => self.steps.push(Step::Invalid { at: places.data(param) }),
            Source::Param(param) => self.value(event, places, param),
        }
    }

    fn value(&mut self, event: &Event, places: &Places, param: usize) {
        let of = &event.params[param];
        let hashed = is_hashed(&of.ty, of.indexed);
        // A hash may be any word.
        let ty = if hashed { Ty::FixedBytes(32) } else { of.ty.clone() };
        let (column, at) = (type_of(&of.ty, of.indexed), places.data(param));
        let word = Word { place: places.of[param], ty: ty.clone() };
        if let Some(size) = size_of(column, &ty, hashed) {
            // Bytes stand at the begin of a word, everything else at its end.
            let first = if matches!(ty, Ty::FixedBytes(_)) { 0 } else { 32 - size };
            return self.cell(size, From::Word { word, first, last: first + size, param });
        }
        self.steps.push(match ty {
            Ty::Uint(_) | Ty::Int(_) => Step::Number { word, param },
            Ty::Bytes => Step::Bytes { at, param },
            Ty::Text => Step::Text { at, param },
            ty => Step::Json { at, ty, param },
        });
    }

    fn refused(&self, param: usize, why: &str) -> Refusal {
        format!("parameter {}: {why}", self.params[param]).into()
    }

    fn not_held(&self, param: usize) -> Refusal {
        self.refused(param, "its word is not a value of its type")
    }
}

/// The place of each parameter, and the words of the data's head.
struct Places {
    of: Vec<WordPlace>,
    head: usize,
}

impl Places {
    fn of(event: &Event) -> Self {
        let (mut topic, mut head, mut of) = (usize::from(event.topic0.is_some()), 0, Vec::new());
        for param in &event.params {
            of.push(if param.indexed {
                topic += 1;
                WordPlace::Topic(topic - 1)
            } else {
                head += param.ty.head();
                WordPlace::Data((head - param.ty.head()) * 32)
            });
        }
        Self { of, head }
    }

    /// The byte of the data at which a parameter stands.
    fn data(&self, param: usize) -> usize {
        match self.of[param] {
            WordPlace::Data(at) => at,
            WordPlace::Topic(_) => 0,
        }
    }
}

/// A parameter in messages.
fn called(name: &str, at: usize) -> String {
    if name.is_empty() { format!("{} (without a name)", at + 1) } else { name.to_owned() }
}

impl Decode for Plan {
    fn decode(&self, place: &Place<'_>, log: &Log<'_>, row: &mut CopyBuffer) -> Result<(), Refusal> {
        if log.topics.len() != self.topics {
            return Err("it has another number of topics".into());
        }
        if !self.has_offsets && log.data.len() != self.head * 32 {
            let (has, takes) = (log.data.len(), self.head * 32);
            return Err(format!("the data has {has} bytes, and its parameters take {takes}").into());
        }
        let mut data = Data::new(log.data, self.head)?;
        for step in &self.steps {
            self.step(step, place, log, &mut data, row)?;
        }
        Ok(data.end()?)
    }
}

impl Plan {
    #[inline(always)]
    fn step(
        &self,
        step: &Step,
        place: &Place<'_>,
        log: &Log<'_>,
        data: &mut Data<'_>,
        row: &mut CopyBuffer,
    ) -> Result<(), Refusal> {
        match step {
            Step::Run { template, fills } => self.fill(row.template(template), fills, place, log)?,
            Step::Number { word, param } => {
                let value = word.of(log).ok_or_else(|| self.not_held(*param))?;
                match word.ty {
                    Ty::Int(_) => row.int256(value),
                    _ => row.uint256(value),
                };
            }
            Step::Bytes { at, param } => {
                row.bytes(data.bytes(*at).map_err(|why| self.refused(*param, why))?);
            }
            Step::Text { at, param } => {
                let bytes = data.bytes(*at).map_err(|why| self.refused(*param, why))?;
                row.optional(as_text(bytes).map(str::as_bytes));
            }
            Step::Invalid { at } => {
                let bytes = data.again(*at)?;
                row.optional(Some(bytes).filter(|bytes| as_text(bytes).is_none()));
            }
            Step::Json { at, ty, param } => {
                let mut text = String::new();
                data.json(ty, *at, &mut text).map_err(|why| self.refused(*param, why))?;
                row.json(&text);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn fill(&self, cells: &mut [u8], fills: &[Fill], place: &Place<'_>, log: &Log<'_>) -> Result<(), Refusal> {
        for fill in fills {
            let cell = &mut cells[fill.at..];
            match &fill.from {
                From::Chain => cell[..8].copy_from_slice(&place.chain_id.to_be_bytes()),
                From::Time => cell[..8].copy_from_slice(&place.time.to_be_bytes()),
                From::Block => cell[..8].copy_from_slice(&place.number.to_be_bytes()),
                From::LogIndex => cell[..4].copy_from_slice(&log.log_index.to_be_bytes()),
                From::Emitter => cell[..20].copy_from_slice(log.address.as_slice()),
                From::Transaction => cell[..32].copy_from_slice(log.tx_hash.as_slice()),
                From::Word { word, first, last, param } => {
                    let value = word.of(log).ok_or_else(|| self.not_held(*param))?;
                    cell[..last - first].copy_from_slice(&value[*first..*last]);
                }
            }
        }
        Ok(())
    }
}

/// The plan of each form of an event into columns with these contents.
pub(super) fn plans(forms: &[Event], sources: &[Source]) -> Vec<Form> {
    let form = |event: &Event| Form { topics: event.topics(), decoder: Arc::new(Plan::new(event, sources)) };
    forms.iter().map(form).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
