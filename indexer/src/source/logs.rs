//! `eth_getLogs` answers straight into columns: text is borrowed from the body, nothing is allocated per log.

use std::fmt;

use alloy::hex;
use alloy::primitives::{Address, B256};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::chain::batch::{Log, Logs};
use crate::chain::block::BlockRef;

/// Parses the array `json` onto the end of `logs`.
///
/// # Errors
/// What is malformed and where. A log marked `removed` is an error too: it belongs to a block that is gone.
pub fn parse(json: &str, logs: &mut Logs) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    LogsSeed { logs, data: Vec::new() }.deserialize(&mut deserializer)?;
    deserializer.end()
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcLog<'a> {
    address: &'a str,
    topics: Topics,
    data: &'a str,
    block_hash: &'a str,
    block_number: &'a str,
    block_timestamp: Option<&'a str>,
    transaction_hash: &'a str,
    transaction_index: &'a str,
    log_index: &'a str,
    #[serde(default)]
    removed: bool,
}

impl RpcLog<'_> {
    /// Puts it into its columns; `data` is scratch.
    pub(super) fn push<E: Error>(&self, logs: &mut Logs, data: &mut Vec<u8>) -> Result<(), E> {
        if self.removed {
            return Err(E::custom("a log is marked `removed`: its block was reorganised away"));
        }
        let digits = self.data.strip_prefix("0x").unwrap_or(self.data);
        data.resize(digits.len() / 2, 0);
        hex::decode_to_slice(digits, data).map_err(|e| E::custom(format_args!("data: {e}")))?;
        let block =
            BlockRef { number: quantity("blockNumber", self.block_number)?, hash: word("blockHash", self.block_hash)? };
        let time = self.block_timestamp.map(|text| quantity("blockTimestamp", text)).transpose()?;
        let log = Log {
            log_index: index("logIndex", self.log_index)?,
            tx_index: index("transactionIndex", self.transaction_index)?,
            tx_hash: word("transactionHash", self.transaction_hash)?,
            address: Address(fixed("address", self.address)?.into()),
            topics: &self.topics.words[..self.topics.count],
            data,
        };
        logs.push(block, time.and_then(|time| i64::try_from(time).ok()), log);
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
                while let Some(text) = seq.next_element::<&str>()? {
                    let slot =
                        topics.words.get_mut(topics.count).ok_or_else(|| A::Error::custom("more than 4 topics"))?;
                    *slot = word("topics", text)?;
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
    u64::from_str_radix(digits, 16).map_err(|e| E::custom(format_args!("{field}: {e} in {text:?}")))
}

/// An index inside a block. The database keeps it as int4.
fn index<E: Error>(field: &str, text: &str) -> Result<u32, E> {
    let value = quantity::<E>(field, text)?;
    i32::try_from(value).map(|v| v as u32).map_err(|_large| E::custom(format_args!("{field}: {value} is past 2^31")))
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
        assert_eq!(logs.blocks().collect::<Vec<_>>(), [(block, Some(0x65))]);
    }

    #[test]
    fn what_is_malformed_is_an_error_and_never_a_guess() {
        for (field, value) in [
            ("address", "0x12"),
            ("data", "0x0"),
            ("data", "0xzz"),
            ("blockNumber", "16"),
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
