//! The built-in kinds make the tables that their files promise.

use std::collections::HashSet;

use super::*;
use crate::dataset::Datasets;
use crate::events::catalogue::kinds;

#[test]
fn built_in_kinds_make_tables_of_their_own() {
    let all = |events: &[Event]| events.iter().filter(|event| event.topic0.is_some()).count();
    let mut datasets: Vec<Dataset> = Datasets::own().iter().cloned().collect();
    for kind in kinds() {
        let events = kind.abi().events;
        let tables = tables(kind.name, &events);
        assert_eq!(tables.iter().map(|(_, events)| events.len()).sum::<usize>(), all(&events), "{}", kind.name);
        datasets.extend(tables.into_iter().map(|(dataset, _)| dataset));
    }
    Datasets::new(datasets).expect("no two tables have one name");
}

#[test]
fn the_current_events_of_a_built_in_kind_have_the_plain_names() {
    for kind in kinds() {
        let mut names = HashSet::new();
        for (dataset, events) in tables(kind.name, &kind.abi().events) {
            let plain = fitting(format!("{}_{}", kind.name, snake(&events[0].name)), TABLE);
            assert_eq!(dataset.table() == plain, names.insert(plain.clone()), "{}: {}", plain, events[0]);
        }
    }
    let table = |kind: &str, name: &str| {
        let tables = tables(kind, &crate::events::catalogue::of(kind).unwrap().abi().events);
        let table = tables.into_iter().find(|(dataset, _)| dataset.table() == name).unwrap();
        table.1.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        table("smart_token", "smart_token_tokens_frozen"),
        [
            "TokensFrozen(address indexed sender, address indexed user, uint256 indexed amount)",
            "TokensFrozen(address indexed sender, address indexed user, uint256 amount)",
        ]
    );
    let redeemed = ["Redeemed(address indexed sender, address indexed owner, uint256 indexed amount)"];
    assert_eq!(table("smart_token", "smart_token_redeemed"), redeemed);
}
