//! Future obstacles for a table's leaves.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied as Known, Vacant as New};

use crate::{Action, Finding, Hindrance, Inventory, Presence, Severity, Table};

/// Obstacles for leaves when their time is over, at any time. One finding per obstacle, for all of its leaves.
pub fn hindrances(inventory: &Inventory, table: &Table, action: Action) -> Vec<Finding> {
    let of_keys = inventory.hindrances.values().map(|by| (format!("{}.{}", table.schema, table.name), by));
    let standing = inventory.entries.iter().filter(|entry| entry.presence == Presence::Attached);
    let of_leaves = standing.filter_map(|entry| Some((entry.to_string(), entry.hindrance.as_ref()?)));
    let mut found: Vec<(String, &Hindrance, usize)> = Vec::new();
    let mut told: HashMap<String, usize> = HashMap::new();
    for (object, by) in of_keys.chain(of_leaves).filter(|(_, by)| by.hinders(action)) {
        match told.entry(by.what()) {
            Known(at) => found[*at.get()].2 += 1,
            New(new) => {
                new.insert(found.len());
                found.push((object, by, 0));
            }
        }
    }
    let finding = |(object, by, more): (String, &Hindrance, usize)| Finding {
        severity: Severity::Error,
        object: if more == 0 { object } else { format!("{object} and {more} more") },
        what: by.what(),
        next: by.next(),
    };
    let strangers = inventory.strangers.iter().map(|stranger| stranger_of(table, stranger));
    found.into_iter().map(finding).chain(strangers).collect()
}

/// A partition of the list level that does not have exactly one key.
fn stranger_of(table: &Table, (name, bounds): &(String, String)) -> Finding {
    let (what, next) = match bounds.as_str() {
        "DEFAULT" => (
            "it is the DEFAULT partition of the keys: it takes the rows of a new key, and these rows prevent leaves for \
             this key".to_owned(),
            format!("move its rows, then ALTER TABLE {table} DETACH PARTITION {name}"),
        ),
        bounds => (
            format!("its bound is {bounds}, and a key is one number: its leaves are not touched, and no leaf is made"),
            format!("give each number its own partition, or register {name} as a separate table, without list"),
        ),
    };
    Finding { severity: Severity::Error, object: name.clone(), what, next }
}
