//! Logs in every spelling that JSON allows, against alloy's own types; and texts with one corrupted byte.

use alloy::primitives::{Address, B256, LogData};
use alloy::rpc::types::Log as AlloyLog;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;

use super::*;
use crate::chain::block::BlockRef;
use crate::chain::logs::{Log, Logs};
use crate::nodes::logs;

fn log(rng: &mut StdRng) -> AlloyLog {
    let mut data = vec![0; [0, 1, 32, 33, 100][rng.random_range(0..5)]];
    rng.fill_bytes(&mut data);
    let topics = (0..rng.random_range(0..=4)).map(|_| B256::from(rng.random::<[u8; 32]>())).collect();
    let block = rng.random_range(0..3);
    AlloyLog {
        inner: alloy::primitives::Log {
            address: Address::from(rng.random::<[u8; 20]>()),
            data: LogData::new_unchecked(topics, data.into()),
        },
        block_hash: Some(B256::repeat_byte(block)),
        block_number: Some([0, 9, u64::MAX][usize::from(block)]),
        block_timestamp: [None, Some(0), Some(u64::from(rng.random::<u32>())), Some(u64::MAX)][rng.random_range(0..4)],
        transaction_hash: Some(B256::from(rng.random::<[u8; 32]>())),
        transaction_index: Some(rng.random_range(0..1000)),
        log_index: Some(u64::from(rng.random::<u32>() >> 1)),
        removed: false,
    }
}

/// Logs as alloy writes them, spelt in one of many ways; escapes only if `escapes`, since nodes write none.
pub fn spelled(rng: &mut StdRng, escapes: bool) -> String {
    let logs: Vec<Value> =
        (0..rng.random_range(0..4)).map(|_| serde_json::to_value(log(rng)).expect("a log is JSON")).collect();
    let mut text = String::new();
    spell(rng, escapes, &Value::Array(logs), &mut text);
    text
}

fn spell(rng: &mut StdRng, escapes: bool, value: &Value, text: &mut String) {
    space(rng, text);
    match value {
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                spell(rng, escapes, item, text);
            }
            space(rng, text);
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let others = [Value::from("of L2s, \t or 0x12"), true.into(), Value::Null, 17.into()];
            let count = rng.random_range(0..3);
            fields.extend((0..count).map(|at| (format!("other_{at}"), others[rng.random_range(0..4)].clone())));
            for at in 1..fields.len() {
                fields.swap(at, rng.random_range(0..=at));
            }
            text.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                space(rng, text);
                string(rng, escapes, name, text);
                space(rng, text);
                text.push(':');
                spell(rng, escapes, value, text);
            }
            text.push('}');
        }
        Value::String(word) => match word.strip_prefix("0x") {
            Some(digits) => {
                let case = |c: char| if rng.random_ratio(1, 3) { c.to_ascii_uppercase() } else { c };
                let digits: String = digits.chars().map(case).collect();
                string(rng, escapes, &format!("0x{digits}"), text);
            }
            None if escapes => string(rng, escapes, word, text),
            None => string(rng, escapes, &word.replace('\t', " "), text),
        },
        other => text.push_str(&other.to_string()),
    }
    space(rng, text);
}

fn string(rng: &mut StdRng, escapes: bool, word: &str, text: &mut String) {
    text.push('"');
    for letter in word.chars() {
        match escapes && (letter == '\t' || rng.random_ratio(1, 200)) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => text.push(letter),
        }
    }
    text.push('"');
}

fn space(rng: &mut StdRng, text: &mut String) {
    if rng.random_ratio(1, 20) {
        text.push_str([" ", "\n", "\r\n\t"][rng.random_range(0..3)]);
    }
}

/// Changes, removes or inserts one byte, if the result is a text.
pub fn spoil(rng: &mut StdRng, text: &mut String) {
    const BYTES: &[u8] = b"\"\\{}[]:,0x1aF -.e+\nnutrlz\x01";
    let mut bytes = text.clone().into_bytes();
    let (at, byte) = (rng.random_range(0..bytes.len()), BYTES[rng.random_range(0..BYTES.len())]);
    match rng.random_range(0..4) {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => _ = bytes.remove(at),
        _ => {}
    }
    if let Ok(spoilt) = String::from_utf8(bytes) {
        *text = spoilt;
    }
}

/// The result of alloy for `text`, in columns.
fn by_alloy(text: &str) -> Logs {
    let mut logs = Logs::default();
    for log in serde_json::from_str::<Vec<AlloyLog>>(text).unwrap_or_else(|e| panic!("{e}: {text}")) {
        let block = BlockRef { number: log.block_number.unwrap(), hash: log.block_hash.unwrap() };
        let row = Log {
            log_index: u32::try_from(log.log_index.unwrap()).unwrap(),
            tx_index: u32::try_from(log.transaction_index.unwrap()).unwrap(),
            tx_hash: log.transaction_hash.unwrap(),
            address: log.address(),
            topics: log.topics(),
            data: &log.inner.data.data,
        };
        logs.push(block, row);
    }
    logs
}

fn by_serde(text: &str) -> Result<Logs, serde_json::Error> {
    let mut logs = Logs::default();
    logs::parse(text, &mut logs).map(|()| logs)
}

fn plainly(text: &str) -> Option<Logs> {
    let mut cursor = Cursor::new(text.as_bytes());
    let logs = logs::read(&mut cursor)?;
    cursor.end()?;
    Some(logs)
}

#[test]
fn both_ways_read_what_alloy_reads_however_it_is_spelt() {
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..600 {
        let escapes = round % 2 == 0;
        let text = spelled(&mut rng, escapes);
        let expected = by_alloy(&text);
        assert_eq!(by_serde(&text).unwrap_or_else(|e| panic!("{e}: {text}")), expected, "{text}");
        match plainly(&text) {
            Some(logs) => assert_eq!(logs, expected, "{text}"),
            None => assert!(escapes || expected.is_empty(), "left to serde: {text}"),
        }
    }
}

#[test]
fn nothing_is_read_that_serde_refuses_or_reads_otherwise() {
    let mut rng = StdRng::seed_from_u64(8);
    let mut read = 0;
    for _ in 0..6_000 {
        let mut text = spelled(&mut rng, false);
        for _ in 0..rng.random_range(1..3) {
            spoil(&mut rng, &mut text);
        }
        if let Some(logs) = plainly(&text) {
            read += 1;
            assert_eq!(by_serde(&text).unwrap_or_else(|e| panic!("{e}: {text}")), logs, "{text}");
        }
    }
    assert!(read > 600, "{read} of them are still logs");
}

#[test]
fn a_field_given_twice_is_left_to_serde_which_refuses_it() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut log = serde_json::to_value(log(&mut rng)).unwrap();
    // Not read by either.
    log.as_object_mut().unwrap().remove("blockTimestamp");
    let text = format!("[{log}]");
    assert!(plainly(&text).is_some());
    for (name, value) in log.as_object().unwrap() {
        let twice = text.replacen('{', &format!("{{\"{name}\":{value},"), 1);
        assert!(plainly(&twice).is_none() && by_serde(&twice).is_err(), "{twice}");
        let mut without = log.clone();
        without.as_object_mut().unwrap().remove(name);
        let without = format!("[{without}]");
        assert_eq!(plainly(&without).is_some(), by_serde(&without).is_ok(), "{without}");
    }
}

#[test]
fn the_first_quote_is_found_wherever_it_stands() {
    for before in 0..70_usize {
        for filler in [b'!', b'#', b'\0', 0xff, b'a'] {
            let mut text = vec![filler; before];
            assert_eq!(quote(&text), None);
            text.extend_from_slice(b"\"\"!\" and more");
            assert_eq!(quote(&text), Some(before), "{filler} {before} times");
        }
    }
}
