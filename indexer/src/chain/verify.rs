//! Compares stored rows with the chain's logs, row by row: equal, or a difference with a name and a block.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::BlockRange;
use super::coverage::Coverage;

/// A compared table. Differences are listed in the order of tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Its index among the compared tables.
    pub order: usize,
    /// Its name.
    pub name: Arc<str>,
}

/// A table with the columns of [`Entry::cells`], in their order; key and time aside.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The table.
    pub table: Table,
    /// Each column's name, and whether two of its values are equal.
    pub columns: Vec<(Arc<str>, Same)>,
}

/// Whether two values of a column, in the server's form, are equal.
pub type Same = fn(&[u8], &[u8]) -> bool;

/// The compared part of one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its block.
    pub number: u64,
    /// Its log index; 0 for a block.
    pub index: i64,
    /// Its time, in microseconds since 1970.
    pub time: i64,
    /// Its other columns, in the order of [`Shape::columns`], in the server's binary form.
    pub cells: Vec<Option<Vec<u8>>>,
}

/// The kind of a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The chain has it, the table does not.
    Missing,
    /// The table has it, the chain does not, or not twice.
    Extra,
    /// Correct except for its time: a query with time bounds does not find it.
    Moved,
    /// This column differs.
    Altered(Arc<str>),
}

impl Kind {
    /// One or two words, for people and programs.
    pub fn describe(&self) -> String {
        match self {
            Kind::Missing => "missing".into(),
            Kind::Extra => "extra".into(),
            Kind::Moved => "moved".into(),
            Kind::Altered(column) => format!("altered {column}"),
        }
    }
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The table.
    pub table: Table,
    /// The kind.
    pub kind: Kind,
    /// The real or claimed block of the row.
    pub number: u64,
    /// Its log index; 0 for a block.
    pub index: i64,
}

/// Compares two sets of rows, in any order. A row whose key is stored twice is compared with the copy that fits best; the other
/// copy is extra.
pub fn compare(shape: &Shape, expected: Vec<Entry>, stored: Vec<Entry>) -> Vec<Difference> {
    let mut by_key: BTreeMap<(u64, i64), (Vec<Entry>, Vec<Entry>)> = BTreeMap::new();
    for entry in expected {
        by_key.entry((entry.number, entry.index)).or_default().0.push(entry);
    }
    for entry in stored {
        by_key.entry((entry.number, entry.index)).or_default().1.push(entry);
    }
    let mut differences = Vec::new();
    for ((number, index), (expected, mut stored)) in by_key {
        let mut say = |kind| differences.push(Difference { table: shape.table.clone(), kind, number, index });
        for entry in &expected {
            let best = (0..stored.len()).max_by_key(|&at| likeness(shape, entry, &stored[at]));
            match best.map(|at| stored.swap_remove(at)) {
                Some(found) => unlike(shape, entry, &found).into_iter().for_each(&mut say),
                None => say(Kind::Missing),
            }
        }
        stored.iter().for_each(|_| say(Kind::Extra));
    }
    differences
}

/// The number of equal values of a row: the time counts less than any column.
fn likeness(shape: &Shape, expected: &Entry, stored: &Entry) -> usize {
    2 * (shape.columns.len() - altered(shape, expected, stored).count()) + usize::from(expected.time == stored.time)
}

fn unlike(shape: &Shape, expected: &Entry, stored: &Entry) -> Vec<Kind> {
    let moved = (expected.time != stored.time).then_some(Kind::Moved);
    moved.into_iter().chain(altered(shape, expected, stored).map(Kind::Altered)).collect()
}

/// The columns that differ.
fn altered<'e>(shape: &'e Shape, expected: &'e Entry, stored: &'e Entry) -> impl Iterator<Item = Arc<str>> {
    let cells = shape.columns.iter().zip(expected.cells.iter().zip(&stored.cells));
    let differ = |same: &Same, a: &Option<Vec<u8>>, b: &Option<Vec<u8>>| match (a, b) {
        (Some(a), Some(b)) => !same(a, b),
        (a, b) => a != b,
    };
    cells.filter(move |((_, same), (a, b))| differ(same, a, b)).map(|((name, _), _)| name.clone())
}

/// Differences grouped by table and kind: the number of rows, and their blocks. Grows with the ranges, not with the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(BTreeMap<(Table, Kind), (u64, Coverage)>);

impl Findings {
    /// Adds new differences.
    pub fn add(&mut self, differences: &[Difference]) {
        for difference in differences {
            let kind = (difference.table.clone(), difference.kind.clone());
            let (rows, blocks) = self.0.entry(kind).or_default();
            *rows += 1;
            let block = BlockRange { first: difference.number, last: difference.number };
            if blocks.ranges().last().is_none_or(|last| !last.contains(difference.number)) {
                *blocks = Coverage::new(blocks.ranges().iter().copied().chain([block]));
            }
        }
    }

    /// Table, kind, number of rows, and their blocks.
    pub fn iter(&self) -> impl Iterator<Item = (&Table, &Kind, u64, &Coverage)> {
        self.0.iter().map(|((table, kind), (rows, blocks))| (table, kind, *rows, blocks))
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of differing rows.
    pub fn rows(&self) -> u64 {
        self.0.values().map(|(rows, _)| rows).sum()
    }

    /// The blocks with a difference.
    pub fn blocks(&self) -> Coverage {
        Coverage::new(self.0.values().flat_map(|(_, blocks)| blocks.ranges().iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table { order: 1, name: "erc20_transfer".into() }
    }

    fn shape() -> Shape {
        let columns =
            ["token", "from_address", "to_address", "value", "tx_hash"].map(|name| (name.into(), same as Same));
        Shape { table: table(), columns: columns.into() }
    }

    fn same(a: &[u8], b: &[u8]) -> bool {
        a.eq_ignore_ascii_case(b)
    }

    fn entry(number: u64, index: i64, time: i64, value: &str) -> Entry {
        let cells = ["token", "from", "to", value, "tx"].map(|text| Some(text.as_bytes().to_vec())).to_vec();
        Entry { number, index, time, cells }
    }

    fn check(stored: Vec<Entry>, expected: &[(Kind, u64, i64)]) {
        let chain = vec![entry(1, 0, 10, "a"), entry(1, 1, 10, "b"), entry(3, 0, 30, "c")];
        let found = compare(&shape(), chain, stored);
        let found: Vec<_> = found.iter().map(|d| (d.kind.clone(), d.number, d.index)).collect();
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
        check(instead(2, entry(3, 0, 30, "x")), &[(Kind::Altered("value".into()), 3, 0)]);
        check(instead(2, entry(4, 0, 30, "c")), &[(Kind::Missing, 3, 0), (Kind::Extra, 4, 0)]);
        check(vec![], &[(Kind::Missing, 1, 0), (Kind::Missing, 1, 1), (Kind::Missing, 3, 0)]);
        let twice = vec![entry(1, 0, 10, "a"), entry(1, 1, 10, "b"), entry(3, 0, 99, "c"), entry(3, 0, 30, "x")];
        check(twice, &[(Kind::Moved, 3, 0), (Kind::Extra, 3, 0)]);
    }

    #[test]
    fn findings_name_ranges_of_blocks() {
        let difference = |number| Difference { table: table(), kind: Kind::Missing, number, index: 0 };
        let mut findings = Findings::default();
        findings.add(&[difference(7), difference(5), difference(6), difference(6)]);
        findings.add(&[difference(9)]);
        let found: Vec<_> = findings.iter().map(|(_, _, rows, blocks)| (rows, blocks.ranges().to_vec())).collect();
        let ranges = [BlockRange { first: 5, last: 7 }, BlockRange { first: 9, last: 9 }];
        assert_eq!(found, [(5, ranges.to_vec())]);
        assert_eq!((findings.rows(), findings.blocks().blocks()), (5, 4));
    }

    #[test]
    fn differences_have_their_words() {
        let words = [Kind::Missing, Kind::Extra, Kind::Moved, Kind::Altered("data".into())].map(|kind| kind.describe());
        assert_eq!(words, ["missing", "extra", "moved", "altered data"]);
    }

    #[test]
    fn what_is_one_value_is_for_the_column_to_say() {
        check(vec![entry(1, 0, 10, "A"), entry(1, 1, 10, "b"), entry(3, 0, 30, "c")], &[]);
        let nothing = Entry { cells: vec![None; 5], ..entry(1, 0, 10, "a") };
        assert!(altered(&shape(), &nothing, &nothing).next().is_none());
        assert_eq!(altered(&shape(), &nothing, &entry(1, 0, 10, "a")).count(), 5);
    }

    #[test]
    fn a_time_counts_less_than_any_column() {
        let stored = vec![entry(1, 0, 10, "x"), entry(1, 0, 11, "a")];
        for stored in [stored.clone(), stored.into_iter().rev().collect()] {
            let found: Vec<_> = compare(&shape(), vec![entry(1, 0, 10, "a")], stored);
            assert_eq!(found.iter().map(|d| d.kind.clone()).collect::<Vec<_>>(), [Kind::Moved, Kind::Extra]);
        }
        let nothing = Findings::default();
        assert!(nothing.is_empty() && nothing.rows() == 0 && nothing.blocks() == Coverage::default());
        let mut one = nothing;
        one.add(&[Difference { table: table(), kind: Kind::Extra, number: 1, index: 0 }]);
        assert!(!one.is_empty());
    }
}
