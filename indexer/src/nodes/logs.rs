//! Reads `eth_getLogs` answers directly into columns: text is borrowed from the body, with no allocation per log.
//!
//! There are two ways: [`read`] for the common layout of nodes, in one pass over the body, and [`parse`] for all JSON, with error
//! messages. [`parse`] gives the same result for every input that [`read`] accepts.

use std::borrow::Cow;
use std::fmt;

use alloy::hex;
use alloy::primitives::{Address, B256};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::plain::Cursor;
use crate::chain::block::BlockRef;
use crate::chain::logs::{Log, Logs};

/// Parses the array `json` and appends to `logs`.
///
/// # Errors
/// The malformed part and its position. A log marked `removed` is an error too: a reorg removed its block.
pub fn parse(json: &str, logs: &mut Logs) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    LogsSeed { logs, data: Vec::new() }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// An array of logs that begins at `cursor`. `None`: no array, an empty one, or one that only [`parse`] reads or refuses.
pub fn read(cursor: &mut Cursor<'_>) -> Option<Logs> {
    let (mut logs, mut log) = (Logs::default(), PlainLog::default());
    cursor.items(|cursor| {
        let begin = cursor.position();
        log.read(cursor)?;
        if logs.is_empty() {
            // Logs of one answer are much alike, and a wrong guess only costs a copy.
            let count = 1 + cursor.left() / (cursor.position() - begin);
            logs.reserve(count, count * log.topic_count, count * log.data.len());
        }
        logs.push(BlockRef { number: log.number, hash: log.block_hash }, log.row());
        Some(())
    })?;
    (!logs.is_empty()).then_some(logs)
}

/// The last read log; the next one overwrites it.
#[derive(Default)]
struct PlainLog {
    number: u64,
    block_hash: B256,
    log_index: u32,
    tx_index: u32,
    tx_hash: B256,
    address: Address,
    topics: [B256; 4],
    topic_count: usize,
    data: Vec<u8>,
}

/// A bit for each required field of a log.
const REQUIRED: u32 = 0xff;

impl PlainLog {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let mut seen = 0;
        cursor.fields(|cursor, name| {
            let bit = match name {
                b"address" => {
                    self.address = Address(cursor.fixed()?.into());
                    0
                }
                b"topics" => {
                    self.read_topics(cursor)?;
                    1
                }
                b"data" => {
                    cursor.bytes(&mut self.data)?;
                    2
                }
                b"blockHash" => {
                    self.block_hash = cursor.fixed()?.into();
                    3
                }
                b"blockNumber" => {
                    self.number = cursor.quantity()?;
                    4
                }
                b"transactionHash" => {
                    self.tx_hash = cursor.fixed()?.into();
                    5
                }
                b"transactionIndex" => {
                    self.tx_index = small(cursor.quantity()?)?;
                    6
                }
                b"logIndex" => {
                    self.log_index = small(cursor.quantity()?)?;
                    7
                }
                b"removed" => {
                    cursor.word("false").then_some(())?;
                    8
                }
                other => return unknown(other).then(|| cursor.scalar())?,
            };
            let twice = seen & 1 << bit != 0;
            seen |= 1 << bit;
            (!twice).then_some(())
        })?;
        (seen & REQUIRED == REQUIRED).then_some(())
    }

    fn read_topics(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        self.topic_count = 0;
        cursor.items(|cursor| {
            *self.topics.get_mut(self.topic_count)? = cursor.fixed()?.into();
            self.topic_count += 1;
            Some(())
        })
    }

    fn row(&self) -> Log<'_> {
        Log {
            log_index: self.log_index,
            tx_index: self.tx_index,
            tx_hash: self.tx_hash,
            address: self.address,
            topics: &self.topics[..self.topic_count],
            data: &self.data,
        }
    }
}

/// Whether a raw name is certainly the name of an unknown field: an escape may hide any name.
fn unknown(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// An index inside a block. The database keeps it as int4.
fn small(value: u64) -> Option<u32> {
    i32::try_from(value).ok().map(i32::cast_unsigned)
}

struct LogsSeed<'l> {
    logs: &'l mut Logs,
    /// Scratch for the decoded data of one log.
    data: Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for LogsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for LogsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of logs")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(log) = seq.next_element::<RpcLog<'_>>()? {
            log.push(self.logs, &mut self.data)?;
        }
        Ok(())
    }
}

/// A string, borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcLog<'a> {
    #[serde(borrow)]
    address: Text<'a>,
    topics: Topics,
    data: Text<'a>,
    block_hash: Text<'a>,
    block_number: Text<'a>,
    transaction_hash: Text<'a>,
    transaction_index: Text<'a>,
    log_index: Text<'a>,
    #[serde(default)]
    removed: bool,
}

impl RpcLog<'_> {
    /// Moves it into its columns; `data` is scratch.
    pub(super) fn push<E: Error>(&self, logs: &mut Logs, data: &mut Vec<u8>) -> Result<(), E> {
        if self.removed {
            return Err(E::custom("a log is marked `removed`: a reorg removed its block"));
        }
        let digits = self.data.strip_prefix("0x").unwrap_or(&self.data);
        data.resize(digits.len() / 2, 0);
        hex::decode_to_slice(digits, data).map_err(|e| E::custom(format_args!("data: {e}")))?;
        let block = BlockRef {
            number: quantity("blockNumber", &self.block_number)?,
            hash: word("blockHash", &self.block_hash)?,
        };
        let log = Log {
            log_index: index("logIndex", &self.log_index)?,
            tx_index: index("transactionIndex", &self.transaction_index)?,
            tx_hash: word("transactionHash", &self.transaction_hash)?,
            address: Address(fixed("address", &self.address)?.into()),
            topics: &self.topics.words[..self.topics.count],
            data,
        };
        logs.push(block, log);
        Ok(())
    }
}

/// At most four words, without a heap allocation.
struct Topics {
    words: [B256; 4],
    count: usize,
}

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopicsVisitor;
        impl<'de> Visitor<'de> for TopicsVisitor {
            type Value = Topics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of at most 4 topics")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Topics, A::Error> {
                let mut topics = Topics { words: [B256::ZERO; 4], count: 0 };
                while let Some(text) = seq.next_element::<Text<'_>>()? {
                    let slot =
                        topics.words.get_mut(topics.count).ok_or_else(|| A::Error::custom("more than 4 topics"))?;
                    *slot = word("topics", &text)?;
                    topics.count += 1;
                }
                Ok(topics)
            }
        }
        deserializer.deserialize_seq(TopicsVisitor)
    }
}

fn fixed<const N: usize, E: Error>(field: &str, text: &str) -> Result<[u8; N], E> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|e| E::custom(format_args!("{field}: {e}")))?;
    Ok(bytes)
}

pub(super) fn word<E: Error>(field: &str, text: &str) -> Result<B256, E> {
    fixed::<32, E>(field, text).map(B256::from)
}

pub(super) fn quantity<E: Error>(field: &str, text: &str) -> Result<u64, E> {
    let digits = text.strip_prefix("0x").ok_or_else(|| E::custom(format_args!("{field}: no 0x in {text:?}")))?;
    // Rust accepts a sign in a number; JSON-RPC allows none.
    if digits.starts_with('+') {
        return Err(E::custom(format_args!("{field}: a sign in {text:?}")));
    }
    u64::from_str_radix(digits, 16).map_err(|e| E::custom(format_args!("{field}: {e} in {text:?}")))
}

fn index<E: Error>(field: &str, text: &str) -> Result<u32, E> {
    let value = quantity::<E>(field, text)?;
    small(value).ok_or_else(|| E::custom(format_args!("{field}: {value} is past 2^31")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(change: impl FnOnce(&mut serde_json::Value)) -> Result<Logs, serde_json::Error> {
        let mut log = serde_json::json!({
            "address": "0xAbababababababababababababababababababAB",
            "topics": [B256::repeat_byte(1), B256::repeat_byte(2)],
            "data": "0x00ff",
            "blockHash": B256::repeat_byte(3),
            "blockNumber": "0x10",
            "blockTimestamp": "0x65",
            "transactionHash": B256::repeat_byte(4),
            "transactionIndex": "0x2",
            "logIndex": "0x7",
            "removed": false,
        });
        change(&mut log);
        let mut logs = Logs::default();
        parse(&serde_json::Value::Array(vec![log]).to_string(), &mut logs).map(|()| logs)
    }

    #[test]
    fn a_log_lands_in_its_columns() {
        let logs = log(|_| {}).unwrap();
        let row = logs.get(0);
        assert_eq!(row.address, Address::repeat_byte(0xab), "mixed case is the same address");
        assert_eq!(row.topics, [B256::repeat_byte(1), B256::repeat_byte(2)]);
        assert_eq!((row.data, row.log_index, row.tx_index), (&[0, 255][..], 7, 2));
        let block = BlockRef { number: 16, hash: B256::repeat_byte(3) };
        assert_eq!(logs.blocks().collect::<Vec<_>>(), [block]);
    }

    #[test]
    fn what_is_malformed_is_an_error_and_never_a_guess() {
        for (field, value) in [
            ("address", "0x12"),
            ("data", "0x0"),
            ("data", "0xzz"),
            ("blockNumber", "16"),
            ("blockNumber", "0x+10"),
            ("blockNumber", "0x-10"),
            ("blockHash", "0x"),
            ("logIndex", "0xffffffff"),
        ] {
            assert!(log(|log| log[field] = value.into()).is_err(), "{field} = {value}");
        }
        assert!(log(|log| log["removed"] = true.into()).is_err());
        assert!(log(|log| log["topics"] = serde_json::json!(vec![B256::ZERO; 5])).is_err());
        assert!(log(|log| _ = log.as_object_mut().unwrap().remove("logIndex")).is_err());
        assert!(log(|log| _ = log.as_object_mut().unwrap().remove("blockTimestamp")).is_ok());
        assert!(parse("null", &mut Logs::default()).is_err(), "null is not an empty answer");
    }
}
