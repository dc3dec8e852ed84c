//! `eth_getBlockReceipts` answers, and single receipts, into one block's [`Receipts`].

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

use super::logs::{RpcLog, quantity, word};
use super::rpc::Answer;
use crate::chain::receipts::{Outcome, Receipt, Receipts};

/// Parses the array of a block's receipts.
///
/// # Errors
/// The malformed part and its position.
pub fn parse(json: &str) -> Result<Receipts, serde_json::Error> {
    struct All(Receipts);
    impl<'de> Visitor<'de> for All {
        type Value = Receipts;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array of receipts")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Receipts, A::Error> {
            let mut data = Vec::new();
            while let Some(receipt) = seq.next_element::<RpcReceipt<'_>>()? {
                receipt.push(&mut self.0, &mut data)?;
            }
            Ok(self.0)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let receipts = deserializer.deserialize_seq(All(Receipts::default()))?;
    deserializer.end()?;
    Ok(receipts)
}

/// Parses receipts requested one by one, in the order of their transactions.
///
/// # Errors
/// The malformed part and its position; `null` is malformed too.
pub fn parse_each(answers: &[Answer]) -> Result<Receipts, serde_json::Error> {
    let (mut receipts, mut data) = (Receipts::default(), Vec::new());
    for answer in answers {
        serde_json::from_str::<RpcReceipt<'_>>(answer.get())?.push::<serde_json::Error>(&mut receipts, &mut data)?;
    }
    Ok(receipts)
}

/// The fields that the receipts root commits to, and the transaction's name. The bloom is recomputed, not read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RpcReceipt<'a> {
    #[serde(rename = "type")]
    tx_type: Option<&'a str>,
    status: Option<&'a str>,
    root: Option<&'a str>,
    cumulative_gas_used: &'a str,
    transaction_hash: &'a str,
    #[serde(borrow)]
    logs: Vec<RpcLog<'a>>,
    /// The contract's address and similar fields; named so that another kind of answer does not pass for a receipt.
    #[serde(rename = "blockHash")]
    _block_hash: IgnoredAny,
}

impl RpcReceipt<'_> {
    fn push<E: Error>(&self, receipts: &mut Receipts, data: &mut Vec<u8>) -> Result<(), E> {
        for log in &self.logs {
            log.push(&mut receipts.logs, data)?;
        }
        let tx_type = self.tx_type.map_or(Ok(0), |text| quantity::<E>("type", text))?;
        let outcome = match (self.status, self.root) {
            (Some(status), _) => match quantity::<E>("status", status)? {
                status @ 0..=1 => Outcome::Status(status == 1),
                other => return Err(E::custom(format_args!("status: {other} is neither 0 nor 1"))),
            },
            (None, Some(root)) => Outcome::Root(word("root", root)?),
            (None, None) => return Err(E::custom("a receipt has neither status nor root")),
        };
        receipts.all.push(Receipt {
            tx_type: u8::try_from(tx_type).map_err(|_large| E::custom(format_args!("type: {tx_type} is past 255")))?,
            outcome,
            cumulative_gas: quantity("cumulativeGasUsed", self.cumulative_gas_used)?,
            tx_hash: word("transactionHash", self.transaction_hash)?,
            logs_end: receipts.logs.len(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use serde_json::{Value, json};

    use super::*;

    fn receipt(change: impl FnOnce(&mut Value)) -> Value {
        let mut receipt = json!({
            "type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "transactionHash": B256::repeat_byte(4),
            "blockHash": B256::repeat_byte(3), "logsBloom": "0x", "contractAddress": null,
            "logs": [{
                "address": "0xabababababababababababababababababababab", "topics": [B256::repeat_byte(1)], "data": "0xff",
                "blockHash": B256::repeat_byte(3), "blockNumber": "0x10", "transactionHash": B256::repeat_byte(4),
                "transactionIndex": "0x0", "logIndex": "0x0", "removed": false,
            }],
        });
        change(&mut receipt);
        receipt
    }

    fn one(change: impl FnOnce(&mut Value)) -> Result<Receipts, serde_json::Error> {
        parse(&json!([receipt(change)]).to_string())
    }

    #[test]
    fn old_and_new_receipts_are_read() {
        let new = one(|_| {}).unwrap();
        let expected = Receipt {
            tx_type: 2,
            outcome: Outcome::Status(true),
            cumulative_gas: 21_000,
            tx_hash: B256::repeat_byte(4),
            logs_end: 1,
        };
        assert_eq!((new.all.as_slice(), new.logs.len()), (&[expected][..], 1));
        let failed = one(|r| r["status"] = "0x0".into()).unwrap();
        assert_eq!(failed.all[0].outcome, Outcome::Status(false));
        let root = B256::repeat_byte(8);
        let old = one(|r| {
            r.as_object_mut().unwrap().remove("type");
            r["status"] = Value::Null;
            r["root"] = json!(root);
        });
        let old = old.unwrap();
        assert_eq!((old.all[0].tx_type, old.all[0].outcome), (0, Outcome::Root(root)));
        let raw = |value: Value| Answer::Text(value.to_string());
        assert_eq!(parse_each(&[raw(receipt(|_| {}))]).unwrap(), new, "one by one");
        assert!(parse_each(&[raw(Value::Null)]).is_err());
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for (field, value) in [
            ("status", json!("1")),
            ("status", json!("0x2")),
            ("type", json!("0x100")),
            ("cumulativeGasUsed", json!(1)),
            ("logs", Value::Null),
        ] {
            assert!(one(|r| r[field] = value.clone()).is_err(), "{field} = {value}");
        }
        assert!(one(|r| _ = r.as_object_mut().unwrap().remove("status")).is_err());
        assert!(parse("null").is_err(), "null is not a block without transactions");
    }
}
