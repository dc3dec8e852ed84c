//! The tables of every database: raw logs, ERC-20 transfers, and the quarantine. `migrations` makes them; a test compares these
//! descriptions with its result.

use super::column::{Column, Type, key};
use super::list::Datasets;
use super::plan::{Source, plans};
use super::table::{Dataset, Event, Takes};
use crate::events::abi::Abi;

impl Datasets {
    /// The indexer's own.
    pub fn own() -> Self {
        // A test makes these datasets too, so an error is impossible.
        Self::new([logs(), erc20_transfer(), quarantine()]).unwrap_or_else(|why| unreachable!("{why}"))
    }
}

fn logs() -> Dataset {
    let own = [
        Column::new("tx_index", Type::Int4, "Position of the transaction in its block."),
        Column::new("block_hash", Type::Bytes, "Block hash (32 bytes)."),
        Column::new("tx_hash", Type::Bytes, "Transaction hash (32 bytes)."),
        Column::new("address", Type::Bytes, "Contract that emitted the log (20 bytes)."),
        Column::or_null(
            "topic0",
            Type::Bytes,
            "First topic (32 bytes): the event's signature hash, unless the event is anonymous. Null if there is none.",
        ),
        Column::or_null(
            "topic1",
            Type::Bytes,
            "Second topic (32 bytes): the first indexed argument. Null if there is none.",
        ),
        Column::or_null(
            "topic2",
            Type::Bytes,
            "Third topic (32 bytes): the second indexed argument. Null if there is none.",
        ),
        Column::or_null(
            "topic3",
            Type::Bytes,
            "Fourth topic (32 bytes): the third indexed argument. Null if there is none.",
        ),
        Column::new("data", Type::Bytes, "Arguments that are not indexed, ABI-encoded; may be empty.").wide(),
    ];
    let about = "Every log of the watched sources, as the node gave it.";
    Dataset::new("logs", ("dalp_indexed", "logs"), about, key().into_iter().chain(own).collect(), Takes::Every).with_indexes(
        &["address+topic0+block_time", "tx_hash"],
        "One contract's events by kind and time; everything that happened in one transaction. Near the head, each costs 1 to 3 µs a row.",
    )
}

/// ERC-721 has the same first topic with a fourth one, some old tokens with fewer.
const TRANSFER: &str = "Transfer(address indexed from, address indexed to, uint256 value)";

fn erc20_transfer() -> Dataset {
    let own = [
        (Column::new("token", Type::Bytes, "Token contract (20 bytes)."), Source::Emitter),
        (
            Column::new("from_address", Type::Bytes, "Sender (20 bytes); twenty zero bytes for a mint."),
            Source::Param(0),
        ),
        (
            Column::new("to_address", Type::Bytes, "Recipient (20 bytes); twenty zero bytes for a burn."),
            Source::Param(1),
        ),
        (
            Column::new("value", Type::Numeric, "Amount in the token's smallest unit; exact, up to 2^256 - 1."),
            Source::Param(2),
        ),
        (Column::new("tx_hash", Type::Bytes, "Transaction hash (32 bytes)."), Source::Transaction),
    ];
    let places = [Source::Chain, Source::Time, Source::Block, Source::LogIndex];
    let (columns, sources): (Vec<_>, Vec<_>) = key().into_iter().zip(places).chain(own).unzip();
    // A test reads it too, so an error is impossible.
    let abi = Abi::read(TRANSFER).unwrap_or_else(|why| unreachable!("{why}"));
    let event = Event {
        topic0: abi.events[0].topic0.unwrap_or_default(),
        forms: plans(&abi.events, &sources),
        emitter: "token".into(),
        of: None,
    };
    Dataset::new(
        "erc20_transfer",
        ("dalp_indexed", "erc20_transfer"),
        &format!("{TRANSFER} of ERC-20 tokens, decoded."),
        columns,
        Takes::Event(event),
    )
    .with_indexes(
        &["token+block_time", "from_address+block_time", "to_address+block_time"],
        "A token's transfers by time; what an account sent and received.",
    )
}

fn quarantine() -> Dataset {
    let columns = vec![
        Column::new("chain_id", Type::Int8, "EIP-155 chain id."),
        Column::new("block_number", Type::Int8, "Block of the log."),
        Column::new("log_index", Type::Int4, "Position of the log in its block."),
        Column::new("block_time", Type::Time, "Time of the block (UTC)."),
        Column::new(
            "decoder",
            Type::Text,
            "Which decoder refused it; block_time: its block lies more than a hundred years ahead, so no other table has a partition for it.",
        ),
        Column::new("reason", Type::Text, "Why, in words."),
        Column::or_null("tx_index", Type::Int4, "Position of the transaction in its block."),
        Column::or_null("block_hash", Type::Bytes, "Hash of the block (32 bytes)."),
        Column::or_null("tx_hash", Type::Bytes, "Hash of the transaction (32 bytes)."),
        Column::or_null("address", Type::Bytes, "Contract that emitted it (20 bytes)."),
        Column::or_null(
            "topic0",
            Type::Bytes,
            "First topic (32 bytes), usually the hash of the event's signature; NULL if it has none.",
        ),
        Column::or_null("topic1", Type::Bytes, "Second topic (32 bytes)."),
        Column::or_null("topic2", Type::Bytes, "Third topic (32 bytes)."),
        Column::or_null("topic3", Type::Bytes, "Fourth topic (32 bytes)."),
        Column::or_null("data", Type::Bytes, "Data that follows the topics; empty if there is none."),
    ];
    let about = "Logs that a decoder, or the tables by their time, refused: each as it came.";
    Dataset::new("quarantine", ("dalp_indexed", "quarantine"), about, columns, Takes::Refused)
}
