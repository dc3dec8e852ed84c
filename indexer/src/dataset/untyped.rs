//! Logs without a typed table, by contract and first topic: a user who indexes an own contract should hear of them. Pure.

use std::collections::BTreeMap;
use std::fmt;

use alloy::primitives::{Address, B256};

/// The number of distinguished kinds; a chain that is indexed as a whole has any number of them.
const MOST: usize = 1_000;
/// The number of named kinds.
const NAMED: usize = 3;

/// The count of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untyped {
    kinds: BTreeMap<(Address, Option<B256>), u64>,
    logs: u64,
}

impl Untyped {
    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        for (kind, logs) in &others.kinds {
            self.count(*kind, *logs);
        }
    }

    /// Counts more logs of a kind.
    pub fn count(&mut self, kind: (Address, Option<B256>), logs: u64) {
        self.logs += logs;
        if self.kinds.len() < MOST || self.kinds.contains_key(&kind) {
            *self.kinds.entry(kind).or_default() += logs;
        }
    }

    /// The number of logs.
    pub fn logs(&self) -> u64 {
        self.logs
    }

    /// The number of distinguished kinds.
    pub fn kinds(&self) -> u64 {
        self.kinds.len() as u64
    }
}

/// `15 logs of 3 kinds stay raw: 10 of contract 0x…, topic 0x…; …`.
impl fmt::Display for Untyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |number: u64| if number == 1 { "" } else { "s" };
        let (logs, kinds) = (self.logs, self.kinds());
        let stay = if logs == 1 { "stays" } else { "stay" };
        write!(
            f,
            "{logs} log{} of {kinds} kind{} {stay} raw, because no typed table takes them:",
            plural(logs),
            plural(kinds)
        )?;
        let mut by_count: Vec<_> = self.kinds.iter().collect();
        by_count.sort_by_key(|(_, logs)| std::cmp::Reverse(**logs));
        for (at, ((address, topic), logs)) in by_count.iter().take(NAMED).enumerate() {
            let topic = topic.map_or_else(|| "no topic".to_owned(), |topic| format!("topic {topic}"));
            write!(f, "{} {logs} of contract {address}, {topic}", if at == 0 { "" } else { ";" })?;
        }
        match kinds.saturating_sub(NAMED as u64) {
            0 => Ok(()),
            more => write!(f, "; and {more} more kind{}", plural(more)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_and_the_most_frequent_named() {
        let mut all = Untyped::default();
        for kind in 1..=4_u8 {
            let mut some = Untyped::default();
            some.count((Address::repeat_byte(kind), (kind > 1).then(|| B256::repeat_byte(kind))), kind.into());
            all.add(&some);
            all.add(&some);
        }
        let text = all.to_string();
        assert!(text.starts_with("20 logs of 4 kinds stay raw"), "{text}");
        assert!(
            text.contains(&format!("8 of contract {}, topic {};", Address::repeat_byte(4), B256::repeat_byte(4))),
            "{text}"
        );
        assert!(text.ends_with("and 1 more kind"), "{text}");
        for number in 0..2 * MOST {
            all.count((Address::left_padding_from(&number.to_be_bytes()), None), 1);
        }
        assert_eq!((all.kinds(), all.logs()), (MOST as u64, 20 + 2 * MOST as u64));
    }
}
