//! An invented table with every element of a description that the indexer's own tables lack. No other file describes it.

use std::sync::Arc;

use alloy::primitives::{B256, b256};
use dalp_indexer::chain::logs::Log;
use dalp_indexer::dataset::copy::CopyBuffer;
use dalp_indexer::dataset::{Column, Dataset, Datasets, Decode, Event, Form, Place, Refusal, Takes, Type};
use serde_json::json;

/// The first topic of its event, which has one topic; its data is an amount, then a text.
pub const NOTE: B256 = b256!("0x00000000000000000000000000000000000000000000000000000000000e07e5");

/// Its schema and name: 63 bytes with every kind of character.
pub const TABLE: (&str, &str) = ("Made.up", "Notes \"Ä, é\" of $1, 'x', with 63 bytes; DROP TABLE x; --.....");

/// The indexer's own tables, and the invented one.
pub fn datasets() -> Datasets {
    Datasets::own().with(notes()).unwrap_or_else(|why| panic!("{why}"))
}

fn notes() -> Dataset {
    let columns = vec![
        Column::new("Who \"it\" is", Type::Bytes, "The contract."),
        Column::new("log_index", Type::Int4, "Position of the log in its block."),
        Column::or_null("amount", Type::Numeric, "None if it is zero."),
        Column::or_null("note", Type::Text, "None if there is none."),
        Column::new("detail", Type::Json, "What else is known; it's \\ quoted.").wide(),
        Column::new("block_number", Type::Int8, "Block."),
        Column::new("chain_id", Type::Int8, "Chain."),
        Column::new("block_time", Type::Time, "Time of the block (UTC)."),
    ];
    let forms = vec![Form { topics: 1, decoder: Arc::new(Notes) }];
    let event = Event { topic0: NOTE, forms, emitter: "Who \"it\" is".into(), of: None };
    Dataset::new("made_up", TABLE, "Notes that nobody takes.", columns, Takes::Event(event))
}

#[derive(Debug)]
struct Notes;

impl Decode for Notes {
    fn decode(&self, place: &Place<'_>, log: &Log<'_>, row: &mut CopyBuffer) -> Result<(), Refusal> {
        row.row(8).bytes(log.address.as_slice()).int4(log.log_index);
        // Half a row is written by now, and is removed again.
        let (amount, note) = log.data.split_first_chunk::<32>().ok_or("there is no amount")?;
        let note = std::str::from_utf8(note).map_err(|_error| "the note is no text")?;
        if *amount == [0; 32] {
            row.optional(None)
        } else {
            row.uint256(amount)
        };
        row.optional(Some(note.as_bytes()).filter(|note| !note.is_empty()));
        let detail = json!({ "words": note.split_whitespace().collect::<Vec<_>>(), "bytes": note.len() });
        row.json(&detail.to_string()).int8(place.number).int8(place.chain_id).int8(place.time);
        Ok(())
    }
}
