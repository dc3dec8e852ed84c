//! Random events of random types: their rows hold what alloy's encoder was given.

use std::collections::HashMap;

use alloy::dyn_abi::{DynSolType, DynSolValue};
use alloy::primitives::{Address, B256, I256, U256};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::chain::block::Header;
use crate::dataset::copy::{CopyBuffer, fields};
use crate::dataset::tables;
use crate::events::abi::Abi;

fn random_type(rng: &mut StdRng, depth: usize) -> String {
    let nested = if depth > 0 { 9 } else { 6 };
    match rng.random_range(0..nested) {
        0 => format!("uint{}", 8 * rng.random_range(1..=32)),
        1 => format!("int{}", 8 * rng.random_range(1..=32)),
        2 => ["address", "bool"][rng.random_range(0..2)].into(),
        3 => format!("bytes{}", rng.random_range(1..=32)),
        4 => "bytes".into(),
        5 => "string".into(),
        6 => format!("{}[]", random_type(rng, depth - 1)),
        7 => format!("{}[{}]", random_type(rng, depth - 1), rng.random_range(1..=3)),
        _ => {
            let members: Vec<String> = (0..rng.random_range(1..=3)).map(|_| random_type(rng, depth - 1)).collect();
            format!("({})", members.join(","))
        }
    }
}

/// The edges of a type as often as a value between them.
fn random_value(rng: &mut StdRng, ty: &DynSolType) -> DynSolValue {
    let word: [u8; 32] = match rng.random_range(0..4) {
        0 => [0; 32],
        1 => [0xff; 32],
        _ => rng.random(),
    };
    let many = |rng: &mut StdRng, of: &DynSolType, size: usize| (0..size).map(|_| random_value(rng, of)).collect();
    match ty {
        DynSolType::Uint(bits) => DynSolValue::Uint(U256::from_be_bytes(word) >> (256 - bits), *bits),
        DynSolType::Int(bits) => DynSolValue::Int(I256::from_be_bytes(word).asr(256 - bits), *bits),
        DynSolType::Address => DynSolValue::Address(Address::from_slice(&word[..20])),
        DynSolType::Bool => DynSolValue::Bool(word[0] & 1 == 1),
        DynSolType::FixedBytes(size) => {
            let mut fixed = [0; 32];
            fixed[..*size].copy_from_slice(&word[..*size]);
            DynSolValue::FixedBytes(fixed.into(), *size)
        }
        DynSolType::Bytes => {
            let mut bytes = vec![0; rng.random_range(0..70)];
            rng.fill_bytes(&mut bytes);
            DynSolValue::Bytes(bytes)
        }
        DynSolType::String => {
            let letters = ['a', '"', '\\', 'ä', '\u{1}', '😀', '\n'];
            DynSolValue::String(
                (0..rng.random_range(0..40)).map(|_| letters[rng.random_range(0..letters.len())]).collect(),
            )
        }
        DynSolType::Array(of) => {
            let size = rng.random_range(0..4);
            DynSolValue::Array(many(rng, of, size))
        }
        DynSolType::FixedArray(of, size) => DynSolValue::FixedArray(many(rng, of, *size)),
        DynSolType::Tuple(of) => DynSolValue::Tuple(of.iter().map(|of| random_value(rng, of)).collect()),
        other => unreachable!("{other:?}"),
    }
}

/// The JSON of a value, by another way than the code's.
fn as_json(value: &DynSolValue) -> Value {
    let hex = |bytes: &[u8]| Value::from(alloy::hex::encode_prefixed(bytes));
    match value {
        DynSolValue::Uint(number, bits) if *bits <= 48 => json!(number.to::<u64>()),
        DynSolValue::Int(number, bits) if *bits <= 48 => json!(i64::try_from(*number).unwrap()),
        DynSolValue::Uint(number, _) => json!(number.to_string()),
        DynSolValue::Int(number, _) => json!(number.to_string()),
        DynSolValue::Address(address) => hex(address.as_slice()),
        DynSolValue::Bool(flag) => json!(flag),
        DynSolValue::FixedBytes(word, size) => hex(&word[..*size]),
        DynSolValue::Bytes(bytes) => hex(bytes),
        DynSolValue::String(text) => json!(text),
        DynSolValue::Array(of) | DynSolValue::FixedArray(of) | DynSolValue::Tuple(of) => {
            of.iter().map(as_json).collect()
        }
        other => unreachable!("{other:?}"),
    }
}

/// The decimal digits of a numeric in binary form.
fn numeric(bytes: &[u8]) -> String {
    let int2 = |at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (digits, weight) = (int2(0) as usize, int2(2));
    assert_eq!(int2(6), 0, "no decimals");
    let digit = |at: usize| if at < digits { int2(8 + 2 * at) } else { 0 };
    let text: String = (0..=weight.max(0) as usize).map(|at| format!("{:04}", digit(at))).collect();
    let text = text.trim_start_matches('0');
    let sign = if int2(4) == 0x4000 { "-" } else { "" };
    format!("{sign}{}", if text.is_empty() { "0" } else { text })
}

/// The value of a cell as text, read by the type of its column.
fn shown(of: Type, cell: &[u8]) -> String {
    match of {
        Type::Bool => (cell == [1]).to_string(),
        Type::Int2 => i16::from_be_bytes(cell.try_into().unwrap()).to_string(),
        Type::Int4 => i32::from_be_bytes(cell.try_into().unwrap()).to_string(),
        Type::Int8 | Type::Time => i64::from_be_bytes(cell.try_into().unwrap()).to_string(),
        Type::Uint64 | Type::Numeric => numeric(cell),
        Type::Bytes => alloy::hex::encode_prefixed(cell),
        Type::Text => std::str::from_utf8(cell).unwrap().into(),
        Type::Json => serde_json::from_slice::<Value>(&cell[1..]).unwrap().to_string(),
    }
}

fn expected(value: &DynSolValue) -> String {
    match as_json(value) {
        Value::String(text) => text,
        json => json.to_string(),
    }
}

/// The row of a log by the names of its columns, each cell as text.
fn row(event: &str, topics: &[B256], data: &[u8]) -> Result<HashMap<String, Option<String>>, String> {
    let abi = Abi::read(event).unwrap();
    let (dataset, forms) = tables("k", &abi.events).remove(0);
    let header = Header { number: 7, hash: B256::ZERO, parent: None, time: 1_000_000_000, bloom: None };
    let topics: Vec<B256> = forms[0].topic0.into_iter().chain(topics.iter().copied()).collect();
    let address = Address::repeat_byte(3);
    let log = Log { log_index: 5, tx_index: 1, tx_hash: B256::repeat_byte(4), address, topics: &topics, data };
    let mut copy = CopyBuffer::new(0);
    let decoder = &dataset.event().unwrap().forms[0].decoder;
    decoder.decode(&Place::new(9, &header), &log, &mut copy).map_err(|why| why.to_string())?;
    let mut rows = fields(&[copy.take(0)]);
    assert_eq!(rows.len(), 1);
    let cells: Vec<Option<Bytes>> = rows.remove(0);
    assert_eq!(cells.len(), dataset.columns().len());
    let cell =
        |(of, cell): (&crate::dataset::Column, Option<Bytes>)| (of.name.clone(), cell.map(|cell| shown(of.of, &cell)));
    Ok(dataset.columns().iter().zip(cells).map(cell).collect())
}

#[test]
fn rows_hold_what_was_encoded() {
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..3_000 {
        let count = rng.random_range(0..6);
        let types: Vec<String> = (0..count).map(|_| random_type(&mut rng, 3)).collect();
        let indexed: Vec<bool> = {
            let mut left = 3;
            (0..count)
                .map(|_| {
                    let is = left > 0 && rng.random();
                    left -= u8::from(is);
                    is
                })
                .collect()
        };
        let params: Vec<String> = types
            .iter()
            .zip(&indexed)
            .enumerate()
            .map(|(at, (ty, is))| format!("{ty}{} p{at}", if *is { " indexed" } else { "" }))
            .collect();
        let event = format!("event E({})", params.join(", "));
        let values: Vec<DynSolValue> =
            types.iter().map(|ty| random_value(&mut rng, &DynSolType::parse(ty).unwrap())).collect();
        let (mut topics, mut data, mut expect) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (value, is)) in values.iter().zip(&indexed).enumerate() {
            match value.as_word_or_none().filter(|_| *is) {
                Some(word) => topics.push(word),
                None if *is => {
                    topics.push(B256::from(rng.random::<[u8; 32]>()));
                    expect.push((format!("p{at}_hash"), alloy::hex::encode_prefixed(topics[topics.len() - 1])));
                    continue;
                }
                None => data.push(value.clone()),
            }
            expect.push((format!("p{at}"), expected(value)));
        }
        let data = DynSolValue::Tuple(data).abi_encode_params();
        let row = row(&event, &topics, &data).unwrap_or_else(|why| panic!("seed {seed}: {event}: {why}"));
        for (name, text) in expect {
            assert_eq!(row[&name].as_deref(), Some(&*text), "seed {seed}: {event}: {name}");
        }
        assert_eq!(row["address"].as_deref(), Some("0x0303030303030303030303030303030303030303"));
        // Whatever is cut off or added is noticed.
        if !data.is_empty() {
            let cut = rng.random_range(0..data.len() / 32) * 32;
            assert!(super::tests::row(&event, &topics, &data[..cut]).is_err(), "seed {seed}: {event} cut to {cut}");
        }
        let longer = [data, vec![0; 32]].concat();
        assert!(super::tests::row(&event, &topics, &longer).is_err(), "seed {seed}: {event} with a word more");
    }
}

/// The word of a value that a topic or a head holds as it is.
trait Word {
    fn as_word_or_none(&self) -> Option<B256>;
}

impl Word for DynSolValue {
    fn as_word_or_none(&self) -> Option<B256> {
        let single =
            !matches!(self, Self::Array(_) | Self::FixedArray(_) | Self::Tuple(_) | Self::Bytes(_) | Self::String(_));
        single.then(|| B256::from_slice(&self.abi_encode()))
    }
}

#[test]
fn the_edges_of_each_width_are_exact() {
    for bits in (8..=256).step_by(8) {
        let shift = 256 - bits;
        let unsigned = [U256::ZERO, U256::MAX >> shift];
        for value in unsigned {
            let row = row(&format!("event E(uint{bits} p)"), &[], &value.to_be_bytes::<32>()).unwrap();
            assert_eq!(row["p"].as_deref(), Some(&*value.to_string()), "uint{bits}");
        }
        for value in [I256::MIN.asr(shift), I256::MAX.asr(shift), I256::MINUS_ONE] {
            let row = row(&format!("event E(int{bits} p)"), &[], &value.to_be_bytes::<32>()).unwrap();
            assert_eq!(row["p"].as_deref(), Some(&*value.to_string()), "int{bits}");
        }
        if bits < 256 {
            let too_large = (U256::from(1) << bits).to_be_bytes::<32>();
            let why = row(&format!("event E(uint{bits} p)"), &[], &too_large).unwrap_err();
            assert_eq!(why, "parameter p: its word is not a value of its type");
            assert!(
                row(&format!("event E(int{bits} p)"), &[], &(U256::from(1) << (bits - 1)).to_be_bytes::<32>()).is_err()
            );
        }
    }
}

#[test]
fn a_text_that_no_database_holds_is_kept_as_bytes() {
    let data = |bytes: &[u8]| DynSolValue::Tuple(vec![DynSolValue::Bytes(bytes.into())]).abi_encode_params();
    for (bytes, text) in
        [(&b"fine"[..], true), (b"", true), (b"\xff", false), (b"a\0b", false), (b"\xed\xa0\x80", false)]
    {
        let row = row("event E(string p)", &[], &data(bytes)).unwrap();
        let invalid = (!text).then(|| alloy::hex::encode_prefixed(bytes));
        assert_eq!((row["p"].is_some(), &row["p_bytes"]), (text, &invalid));
    }
    let long = vec![b'x'; 100_000];
    assert_eq!(row("event E(string p)", &[], &data(&long)).unwrap()["p"].as_ref().map(String::len), Some(100_000));
}
