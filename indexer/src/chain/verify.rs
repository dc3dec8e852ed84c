//! What is stored against what the chain says, row by row: the same, or a difference with a name and a block.

use std::collections::BTreeMap;

use super::block::BlockRange;
use super::coverage::Coverage;

/// A table that is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `dalp_indexed.blocks`.
    Blocks,
    /// `dalp_indexed.logs`.
    Logs,
    /// `dalp_indexed.erc20_transfer`.
    Transfers,
    /// `dalp_indexed.quarantine`.
    Quarantine,
}

impl Table {
    /// Its name in the schema `dalp_indexed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Blocks => "blocks",
            Table::Logs => "logs",
            Table::Transfers => "erc20_transfer",
            Table::Quarantine => "quarantine",
        }
    }

    /// The columns of [`Entry::cells`], in their order; key and time aside.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Table::Blocks => &["hash", "parent_hash"],
            Table::Logs => {
                &["tx_index", "block_hash", "tx_hash", "address", "topic0", "topic1", "topic2", "topic3", "data"]
            }
            Table::Transfers => &["token", "from_address", "to_address", "value", "tx_hash"],
            Table::Quarantine => &[
                "decoder",
                "reason",
                "tx_index",
                "block_hash",
                "tx_hash",
                "address",
                "topic0",
                "topic1",
                "topic2",
                "topic3",
                "data",
            ],
        }
    }
}

/// One row, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its block.
    pub number: u64,
    /// Its log index; 0 for a block.
    pub index: i64,
    /// Its time, in microseconds since 1970.
    pub time: i64,
    /// Its other columns, in the order of [`Table::columns`]; numbers in decimal digits.
    pub cells: Vec<Option<Vec<u8>>>,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The chain has it, the table does not.
    Missing,
    /// The table has it, the chain does not, or not twice.
    Extra,
    /// Right but for its time: it lies where nobody who bounds the time finds it.
    Moved,
    /// This column holds something else.
    Altered(&'static str),
}

impl Kind {
    /// One word or two, for people and programs.
    pub fn describe(self) -> String {
        match self {
            Kind::Missing => "missing".into(),
            Kind::Extra => "extra".into(),
            Kind::Moved => "moved".into(),
            Kind::Altered(column) => format!("altered {column}"),
        }
    }
}

/// One row that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The table.
    pub table: Table,
    /// How.
    pub kind: Kind,
    /// The block that the row is of, or claims to be of.
    pub number: u64,
    /// Its log index; 0 for a block.
    pub index: i64,
}

/// Compares two sets of rows, in any order. A row whose key is stored twice is compared with the copy that fits best; the
/// other is extra.
pub fn compare(table: Table, expected: Vec<Entry>, stored: Vec<Entry>) -> Vec<Difference> {
    let mut by_key: BTreeMap<(u64, i64), (Vec<Entry>, Vec<Entry>)> = BTreeMap::new();
    for entry in expected {
        by_key.entry((entry.number, entry.index)).or_default().0.push(entry);
    }
    for entry in stored {
        by_key.entry((entry.number, entry.index)).or_default().1.push(entry);
    }
    let mut differences = Vec::new();
    for ((number, index), (expected, mut stored)) in by_key {
        let mut say = |kind| differences.push(Difference { table, kind, number, index });
        for entry in &expected {
            let best = (0..stored.len()).max_by_key(|&at| likeness(entry, &stored[at]));
            match best.map(|at| stored.swap_remove(at)) {
                Some(found) => unlike(table, entry, &found).into_iter().for_each(&mut say),
                None => say(Kind::Missing),
            }
        }
        stored.iter().for_each(|_| say(Kind::Extra));
    }
    differences
}

/// How much of a row is as expected: the time counts less than any column.
fn likeness(expected: &Entry, stored: &Entry) -> usize {
    let same = expected.cells.iter().zip(&stored.cells).filter(|(a, b)| a == b).count();
    2 * same + usize::from(expected.time == stored.time)
}

fn unlike(table: Table, expected: &Entry, stored: &Entry) -> Vec<Kind> {
    let cells = table.columns().iter().zip(expected.cells.iter().zip(&stored.cells));
    let altered = cells.filter(|(_, (a, b))| a != b).map(|(column, _)| Kind::Altered(column));
    let moved = (expected.time != stored.time).then_some(Kind::Moved);
    moved.into_iter().chain(altered).collect()
}

/// Differences grouped by table and kind: how many rows, in which blocks. Grows with the ranges, not with the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(BTreeMap<(Table, Kind), (u64, Coverage)>);

impl Findings {
    /// Adds differences that were not added before.
    pub fn add(&mut self, differences: &[Difference]) {
        for difference in differences {
            let (rows, blocks) = self.0.entry((difference.table, difference.kind)).or_default();
            *rows += 1;
            let block = BlockRange { first: difference.number, last: difference.number };
            if blocks.ranges().last().is_none_or(|last| !last.contains(difference.number)) {
                *blocks = Coverage::new(blocks.ranges().iter().copied().chain([block]));
            }
        }
    }

    /// Table, kind, number of rows, and their blocks.
    pub fn iter(&self) -> impl Iterator<Item = (Table, Kind, u64, &Coverage)> {
        self.0.iter().map(|((table, kind), (rows, blocks))| (*table, *kind, *rows, blocks))
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many rows differ.
    pub fn rows(&self) -> u64 {
        self.0.values().map(|(rows, _)| rows).sum()
    }

    /// The blocks in which something differs.
    pub fn blocks(&self) -> Coverage {
        Coverage::new(self.0.values().flat_map(|(_, blocks)| blocks.ranges().iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, index: i64, time: i64, value: &str) -> Entry {
        let cells = ["token", "from", "to", value, "tx"].map(|text| Some(text.as_bytes().to_vec())).to_vec();
        Entry { number, index, time, cells }
    }

    fn check(stored: Vec<Entry>, expected: &[(Kind, u64, i64)]) {
        let chain = vec![entry(1, 0, 10, "a"), entry(1, 1, 10, "b"), entry(3, 0, 30, "c")];
        let found = compare(Table::Transfers, chain, stored);
        let found: Vec<_> = found.iter().map(|d| (d.kind, d.number, d.index)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_difference_has_its_name() {
        let right = || vec![entry(1, 0, 10, "a"), entry(1, 1, 10, "b"), entry(3, 0, 30, "c")];
        let with = |more: Entry| right().into_iter().chain([more]).collect::<Vec<_>>();
        let instead = |at: usize, other: Entry| {
            let mut rows = right();
            rows[at] = other;
            rows
        };
        check(right(), &[]);
        check(right().into_iter().rev().collect(), &[]);
        check(right()[1..].to_vec(), &[(Kind::Missing, 1, 0)]);
        check(with(entry(2, 0, 20, "z")), &[(Kind::Extra, 2, 0)]);
        check(with(entry(3, 0, 99, "c")), &[(Kind::Extra, 3, 0)]);
        check(with(entry(3, 1, 30, "c")), &[(Kind::Extra, 3, 1)]);
        check(instead(2, entry(3, 0, 31, "c")), &[(Kind::Moved, 3, 0)]);
        check(instead(2, entry(3, 0, 30, "x")), &[(Kind::Altered("value"), 3, 0)]);
        check(instead(2, entry(4, 0, 30, "c")), &[(Kind::Missing, 3, 0), (Kind::Extra, 4, 0)]);
        check(vec![], &[(Kind::Missing, 1, 0), (Kind::Missing, 1, 1), (Kind::Missing, 3, 0)]);
        let twice = vec![entry(1, 0, 10, "a"), entry(1, 1, 10, "b"), entry(3, 0, 99, "c"), entry(3, 0, 30, "x")];
        check(twice, &[(Kind::Moved, 3, 0), (Kind::Extra, 3, 0)]);
    }

    #[test]
    fn findings_name_ranges_of_blocks() {
        let difference = |number| Difference { table: Table::Logs, kind: Kind::Missing, number, index: 0 };
        let mut findings = Findings::default();
        findings.add(&[difference(7), difference(5), difference(6), difference(6)]);
        findings.add(&[difference(9)]);
        let found: Vec<_> = findings.iter().map(|(_, _, rows, blocks)| (rows, blocks.ranges().to_vec())).collect();
        let ranges = [BlockRange { first: 5, last: 7 }, BlockRange { first: 9, last: 9 }];
        assert_eq!(found, [(5, ranges.to_vec())]);
        assert_eq!((findings.rows(), findings.blocks().blocks()), (5, 4));
    }

    #[test]
    fn tables_and_differences_have_their_words() {
        for (table, name, first, columns) in [
            (Table::Blocks, "blocks", "hash", 2),
            (Table::Logs, "logs", "tx_index", 9),
            (Table::Transfers, "erc20_transfer", "token", 5),
            (Table::Quarantine, "quarantine", "decoder", 11),
        ] {
            assert_eq!((table.as_str(), table.columns()[0], table.columns().len()), (name, first, columns));
        }
        let words = [Kind::Missing, Kind::Extra, Kind::Moved, Kind::Altered("data")].map(Kind::describe);
        assert_eq!(words, ["missing", "extra", "moved", "altered data"]);
    }

    #[test]
    fn a_time_counts_less_than_any_column() {
        let stored = vec![entry(1, 0, 10, "x"), entry(1, 0, 11, "a")];
        for stored in [stored.clone(), stored.into_iter().rev().collect()] {
            let found: Vec<_> = compare(Table::Transfers, vec![entry(1, 0, 10, "a")], stored);
            assert_eq!(found.iter().map(|d| d.kind).collect::<Vec<_>>(), [Kind::Moved, Kind::Extra]);
        }
        let nothing = Findings::default();
        assert!(nothing.is_empty() && nothing.rows() == 0 && nothing.blocks() == Coverage::default());
        let mut one = nothing;
        one.add(&[Difference { table: Table::Logs, kind: Kind::Extra, number: 1, index: 0 }]);
        assert!(!one.is_empty());
    }
}
