//! The tables of a kind of contracts: one for each event of its ABI.

use std::collections::HashMap;

use alloy::primitives::keccak256;

use super::column::{Column, KEY, Type, key};
use super::plan::{Source, is_hashed, plans, type_of};
use super::sql::NAME;
use super::table::{Dataset, Event as Logs, Takes};
use crate::events::abi::{Event, Param};
use crate::events::name::{Columns, fitting, snake};
use crate::events::ty::Ty;

/// The schema of the tables.
const SCHEMA: &str = "dalp_indexed";
/// Most bytes of a table's name: the view of its retained rows needs a prefix.
const TABLE: usize = NAME - "retained_".len();

/// The tables of a kind, each with its events: the forms of one event.
pub fn tables(kind: &str, events: &[Event]) -> Vec<(Dataset, Vec<Event>)> {
    let mut tables: Vec<(Vec<Described>, Vec<Event>)> = Vec::new();
    for event in events.iter().filter(|event| event.topic0.is_some()) {
        let columns = columns(event);
        let is_same = |(other, of): &&mut (Vec<Described>, Vec<Event>)| {
            of[0].signature == event.signature && same_columns(other, &columns)
        };
        match tables.iter_mut().find(is_same) {
            Some((_, forms)) => forms.push(event.clone()),
            None => tables.push((columns, vec![event.clone()])),
        }
    }
    let mut names: HashMap<String, usize> = HashMap::new();
    let named = tables.into_iter().map(|(columns, forms)| {
        let mut name = format!("{kind}_{}", snake(&forms[0].name));
        let earlier = names.entry(name.clone()).or_default();
        *earlier += 1;
        if *earlier > 1 {
            // The first of a name has it alone; the hash of another one is always the same.
            name = format!("{name}_{}", &alloy::hex::encode(keccak256(shape(&forms[0])))[..8]);
        }
        (dataset(kind, &fitting(name, TABLE), columns, &forms), forms)
    });
    named.collect()
}

/// The types of an event's parameters and which of them are indexed: what tells it from the others of its name.
fn shape(event: &Event) -> String {
    let indexed: String = event.params.iter().map(|param| if param.indexed { '1' } else { '0' }).collect();
    format!("{} {indexed}", event.signature)
}

type Described = (Column, Source);

fn same_columns(one: &[Described], other: &[Described]) -> bool {
    let of = |columns: &[Described]| {
        let of = columns.iter().map(|(column, source)| (column.name.clone(), column.of, column.nullable, *source));
        of.collect::<Vec<_>>()
    };
    of(one) == of(other)
}

/// The columns of an event's table: the key, the contract, the transaction, then the parameters without gaps between them.
fn columns(event: &Event) -> Vec<Described> {
    let sources = [Source::Chain, Source::Time, Source::Block, Source::LogIndex];
    let mut all: Vec<Described> = key().into_iter().zip(sources).collect();
    all.push((Column::new(EMITTER, Type::Bytes, "Contract that emitted the event (20 bytes)."), Source::Emitter));
    all.push((Column::new(TRANSACTION, Type::Bytes, "Transaction hash (32 bytes)."), Source::Transaction));
    let mut names = Columns::beside(&[KEY.as_slice(), &[EMITTER, TRANSACTION]].concat());
    let mut own: Vec<Described> = Vec::new();
    for (at, param) in event.params.iter().enumerate() {
        own.extend(columns_of(param, at, &mut names));
    }
    own.sort_by_key(|(column, _)| std::cmp::Reverse(column.of.alignment()));
    all.extend(own);
    all
}

const EMITTER: &str = "address";
const TRANSACTION: &str = "tx_hash";

fn columns_of(param: &Param, at: usize, names: &mut Columns) -> Vec<Described> {
    let (of, hashed) = (type_of(&param.ty, param.indexed), is_hashed(&param.ty, param.indexed));
    let suffix = if hashed { "_hash" } else { "" };
    let name = names.name(&param.name, at, param.ty == Ty::Address, suffix);
    let indexed = if param.indexed { " indexed" } else { "" };
    let mut about = format!("{}{indexed} {}", param.solidity, param.name).trim_end().to_owned() + ".";
    if hashed {
        about.push_str(" A log has only the keccak256 of it (32 bytes), not the value.");
    }
    if !param.about.is_empty() {
        about = format!("{about} {}", param.about);
    }
    if of == Type::Text {
        let bytes = format!("{name}_bytes");
        let why = format!("The bytes of {name} if they are not valid UTF-8, or hold NUL; otherwise NULL.");
        let text = format!("{about} NULL if it is not valid UTF-8, or holds NUL: see {bytes}.");
        return vec![
            (Column::or_null(&name, Type::Text, &text).wide(), Source::Param(at)),
            (Column::or_null(&bytes, Type::Bytes, &why).wide(), Source::Invalid(at)),
        ];
    }
    if of == Type::Json {
        about.push_str(" Integers of more than 48 bits are texts; bytes and addresses are 0x texts.");
    }
    let column = Column::new(&name, of, &about);
    let is_wide = of == Type::Json || (param.ty == Ty::Bytes && !hashed);
    vec![(if is_wide { column.wide() } else { column }, Source::Param(at))]
}

fn dataset(kind: &str, name: &str, columns: Vec<Described>, forms: &[Event]) -> Dataset {
    let first = &forms[0];
    let (columns, sources): (Vec<Column>, Vec<Source>) = columns.into_iter().unzip();
    let logs = Logs {
        topic0: first.topic0.unwrap_or_default(),
        forms: plans(forms, &sources),
        emitter: EMITTER.into(),
        of: Some(kind.into()),
    };
    let mut about = format!("{first}, emitted by contracts of the kind {kind}.");
    if !first.about.is_empty() {
        about = format!("{about} {}", first.about);
    }
    // As many indexes as the contract's author thought of: by which values its logs are searched.
    let mut indexes = vec![format!("{EMITTER}+block_time")];
    for (column, source) in columns.iter().zip(&sources) {
        if matches!(source, Source::Param(at) if first.params[*at].indexed && first.params[*at].ty == Ty::Address) {
            indexes.push(format!("{}+block_time", column.name));
        }
    }
    let indexes: Vec<&str> = indexes.iter().map(String::as_str).collect();
    Dataset::new(name, (SCHEMA, name), &about, columns, Takes::Event(logs))
        .with_indexes(&indexes, "A contract's events by time; those of an indexed address by time.")
}

#[cfg(test)]
#[path = "kind_tests.rs"]
mod tests;
