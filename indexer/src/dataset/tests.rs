use std::sync::Arc;

use alloy::primitives::{Address, B256};

use super::copy::CopyBuffer;
use super::*;
use crate::chain::logs::Log;

#[derive(Debug)]
struct Nothing;

impl Decode for Nothing {
    fn decode(&self, _: &Place<'_>, _: &Log<'_>, _: &mut CopyBuffer) -> Result<(), Refusal> {
        Err("nothing is decoded".into())
    }
}

fn described(name: &str, topic: u8, topics: usize) -> Dataset {
    let of = [Type::Int8, Type::Time, Type::Int8, Type::Int4];
    let columns = KEY.into_iter().zip(of).map(|(name, of)| Column::new(name, of, ""));
    let forms = vec![Form { topics, decoder: Arc::new(Nothing) }];
    let event = Event { topic0: B256::repeat_byte(topic), forms, emitter: "by".into(), of: None };
    let columns = columns.chain([Column::new("by", Type::Bytes, "")]).collect();
    Dataset::new(name, ("s", name), "", columns, Takes::Event(event))
}

#[test]
fn a_log_goes_to_the_tables_of_its_event() {
    let mut datasets = Datasets::own();
    for (name, topic, topics) in [("a", 1, 1), ("b", 1, 2), ("c", 1, 2), ("d", 9, 1)] {
        datasets = datasets.with(described(name, topic, topics)).unwrap();
    }
    let none = Emitters::default();
    let of = |topics: &[B256]| {
        let log = Log { log_index: 0, tx_index: 0, tx_hash: B256::ZERO, address: Address::ZERO, topics, data: &[] };
        datasets
            .typed(Known::new(&none, &none), 1, &log)
            .map(|of| datasets[of.at].name().to_owned())
            .collect::<Vec<_>>()
    };
    let word = B256::repeat_byte;
    assert_eq!(of(&[word(1)]), ["a"]);
    assert_eq!(of(&[word(1), word(5)]), ["b", "c"]);
    assert_eq!(of(&[word(9)]), ["d"]);
    for none in [&[][..], &[word(0)], &[word(2)], &[word(10)], &[word(1); 3]] {
        assert!(of(none).is_empty(), "{none:?}");
    }
    assert_eq!(datasets.topics().len(), 3, "each first topic once");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let own = Datasets::own();
    let named = |name: &str| described(name, 1, 1);
    for (more, why) in [
        (named("logs"), "logs and logs are one table, or have the same name"),
        (
            Dataset::new(
                "other",
                ("dalp_indexed", "logs"),
                "",
                named("x").columns().to_vec(),
                named("x").takes().clone(),
            ),
            "logs and other are one table, or have the same name",
        ),
        (named("a").with_indexes(&["by+nowhere"], ""), "a: its description names columns that it lacks: nowhere"),
        (
            Dataset::new("a", ("s", "a"), "", KEY.map(|name| Column::new(name, Type::Int8, "")).into(), Takes::Every),
            "a: it has no column block_time timestamptz NOT NULL",
        ),
        (named("a").in_schema(""), "a: \"\" is not a valid name in the database: a name has 1 to 63 bytes"),
        (named("a").in_schema("s\0"), "a: \"s\\0\" is not a valid name in the database: a name has 1 to 63 bytes"),
        (Dataset::new("a", ("s", "a"), "", Vec::new(), Takes::Every), "a: it has no column chain_id int8 NOT NULL"),
        (
            Dataset::new("a", ("s", "a"), "", named("x").columns().to_vec(), Takes::Every),
            "no table, or more than one table, takes every log",
        ),
    ] {
        assert_eq!(own.with(more).unwrap_err(), why);
    }
}

#[test]
fn names_are_quoted_whatever_they_are_made_of() {
    let name = "A \"b\" 'c' \\";
    let of = Dataset::new("a", (name, name), name, vec![Column::new(name, Type::Text, name)], Takes::Every);
    let quoted = "\"A \"\"b\"\" 'c' \\\".\"A \"\"b\"\" 'c' \\\"";
    assert_eq!(of.statements().copy, format!("COPY {quoted} (\"A \"\"b\"\" 'c' \\\") FROM STDIN (FORMAT binary)"));
    for statement in of.statements().read.iter().chain([&of.statements().unwind, &of.statements().clear]) {
        assert!(statement.contains(quoted), "{statement}");
    }
}

#[test]
fn json_is_compared_by_what_it_says() {
    let same = Type::Json.same();
    assert!(same(b"\x01{\"a\": 1, \"b\": 2}", b"\x01{\"b\":2,\"a\":1}"));
    assert!(!same(b"\x01{\"a\": 1}", b"\x01{\"a\": 2}") && !same(b"\x01{", b"\x01[") && same(b"\x01{", b"\x01{"));
    assert!(!Type::Text.same()(b"{\"a\": 1}", b"{\"a\":1}"));
}

#[test]
fn the_view_of_what_is_left_has_a_name_that_fits() {
    assert_eq!(retained("logs"), "retained_logs");
    let long = retained(&"é".repeat(31));
    assert_eq!((long.len(), long.chars().count()), (63, 9 + 27));
}
