use std::collections::BTreeSet;
use std::iter::successors;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};

use crate::{Bounds, Policy};

/// PostgreSQL cuts longer names off.
const LONGEST_NAME: usize = 63;
/// Widening three times turns hours into years; a fourth changes nothing.
const WIDEST: u32 = 3;
/// Most leaves made at once on one side of a needed one: the load waits for them.
const MOST_ONWARD: usize = 7;

/// A partition that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its name, without schema; a label.
    pub name: String,
    /// The times it holds, as the catalog has them.
    pub bounds: Bounds,
    /// Whether a `DETACH CONCURRENTLY` has begun and not ended: the leaf takes no rows, yet its place is not free.
    pub detaching: bool,
    /// Its B-tree indexes, the table's own among them.
    pub indexes: Vec<Index>,
}

/// A B-tree index over columns, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    columns: Vec<String>,
}

impl Index {
    /// Over these columns, unquoted, in this order.
    pub fn on<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect() }
    }

    /// Its columns, unquoted, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }
}

impl Leaf {
    /// Which of `indexes` it does not have.
    pub fn lacks<'i>(&self, indexes: &'i [Index]) -> Vec<&'i Index> {
        indexes.iter().filter(|index| !self.indexes.contains(index)).collect()
    }
}

/// What exists for one table and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The table's name, without schema.
    pub table: String,
    /// The key whose sub-parent this is.
    pub key: i64,
    /// Name of the sub-parent, without schema, if there is one.
    pub sub_parent: Option<String>,
    /// Its leaves, ascending; PostgreSQL keeps them disjoint.
    pub leaves: Vec<Leaf>,
    /// Names in the schema that begin like the table's: new ones must differ.
    pub names: BTreeSet<String>,
    /// Differs when leaves were attached or detached since; empty without a sub-parent.
    pub stamp: String,
}

impl Catalog {
    /// Puts a leaf in the place of the one of its name, or adds it.
    pub fn put(&mut self, leaf: Leaf) {
        self.leaves.retain(|old| old.name != leaf.name);
        let place = self.leaves.partition_point(|other| other.bounds.to() < leaf.bounds.to());
        self.names.insert(leaf.name.clone());
        self.leaves.insert(place, leaf);
    }

    /// The leaf that takes rows of this time, if there is one.
    pub fn leaf_at(&self, time: DateTime<Utc>) -> Option<&Leaf> {
        let index = self.leaves.partition_point(|leaf| leaf.bounds.to() <= time);
        self.leaves.get(index).filter(|leaf| leaf.bounds.contains(time) && !leaf.detaching)
    }

    /// The times of rows that no leaf would take, ascending, each once. Empty means that COPY will find its leaves.
    pub fn uncovered(&self, times: impl IntoIterator<Item = DateTime<Utc>>) -> Vec<DateTime<Utc>> {
        let missing: BTreeSet<_> = times.into_iter().filter(|&time| self.leaf_at(time).is_none()).collect();
        missing.into_iter().collect()
    }
}

/// What must have a leaf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Times of rows that are about to be written; any order, repeats are fine.
    pub times: Vec<DateTime<Utc>>,
    /// Newest time known, to make [`Policy::premake`] leaves after; `None` makes none ahead.
    pub head: Option<DateTime<Utc>>,
    /// Leaves that end at or before this are made bare, without indexes of their own, as they are about to be loaded;
    /// with `None` none is.
    pub bare_until: Option<DateTime<Utc>>,
    /// Times that a load goes through in order, one way or the other: as many leaves as stand in a row on one side of the
    /// needed ones are made on their other side, within these bounds.
    pub load: Option<Bounds>,
}

impl Need {
    /// Leaves for these rows and none ahead.
    pub fn rows(times: impl IntoIterator<Item = DateTime<Utc>>) -> Self {
        Self { times: times.into_iter().collect(), ..Self::default() }
    }

    /// Leaves at this time and ahead of it.
    pub fn ahead_of(head: DateTime<Utc>) -> Self {
        Self { head: Some(head), ..Self::default() }
    }

    /// The same, whose leaves that end at or before `time` are made bare.
    #[must_use]
    pub fn bare_until(self, time: Option<DateTime<Utc>>) -> Self {
        Self { bare_until: time, ..self }
    }

    /// The same, as a step of a load of these times.
    #[must_use]
    pub fn of_load(self, load: Option<Bounds>) -> Self {
        Self { load, ..self }
    }
}

/// One thing to create. Names are final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The key's own partition of the table, itself partitioned by time.
    CreateSubParent {
        /// Its name, without schema.
        name: String,
    },
    /// A leaf below the sub-parent.
    CreateLeaf {
        /// Its name, without schema.
        name: String,
        /// The times it will hold.
        bounds: Bounds,
        /// Whether it is made without indexes of its own, to be loaded first.
        bare: bool,
    },
}

/// What to create, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The sub-parent first, if it is missing; then leaves, ascending in time.
    pub steps: Vec<Step>,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Even leaves of a year would be too many.
    #[error(
        "table \"{table}\", key {key}, would have {would_be} leaves, more than max_leaves = {max_leaves}, even with leaves of a year: raise max_leaves, or retire old leaves"
    )]
    TooMany {
        /// The table.
        table: String,
        /// The key.
        key: i64,
        /// How many leaves there would be, at least.
        would_be: usize,
        /// How many there may be.
        max_leaves: usize,
    },
    /// A row's place is held by a leaf that is being detached.
    #[error(
        "rows of {time} belong into leaf \"{leaf}\", whose detaching has begun and not ended: end it with ALTER TABLE .. DETACH PARTITION \"{leaf}\" FINALIZE, then attach it again or let a new one be made"
    )]
    Detaching {
        /// The time that was needed.
        time: DateTime<Utc>,
        /// The leaf.
        leaf: String,
    },
    /// The interval around a time leaves the calendar.
    #[error(
        "no leaf can be made for {time}: its interval ends after the last year that can be computed with; such a row belongs into quarantine"
    )]
    OutOfCalendar {
        /// The time that was needed.
        time: DateTime<Utc>,
    },
}

/// Decides what to create so that every needed time has a leaf.
///
/// Only leaves that hold a needed time are made, so their number is bounded by the needs and not by the distance
/// between them: one row of the year 52217 makes one leaf. Gaps between leaves are normal. Of a load ([`Need::load`]) the
/// next leaves are made along with the needed ones, at most as many as it has needed in a row: to look at the catalog
/// costs as much as to make several. New leaves are aligned to the policy's interval and cut where a neighbour stands;
/// times before [`Policy::first`] share the leaf FROM (MINVALUE).
/// When [`Policy::max_leaves`] would be passed, all that is missing is planned again with wider leaves.
pub fn plan(catalog: &Catalog, policy: &Policy, now: DateTime<Utc>, need: &Need) -> Result<Plan, PlanError> {
    for &time in &need.times {
        if let Some(leaf) = catalog.leaves.iter().find(|leaf| leaf.detaching && leaf.bounds.contains(time)) {
            return Err(PlanError::Detaching { time, leaf: leaf.name.clone() });
        }
    }
    let mut would_be = 0;
    for widened in 0..=WIDEST {
        let mut wanted = wanted_times(policy, now, need, widened);
        let new = missing_bounds(catalog, policy, now, &wanted, widened)?;
        would_be = catalog.leaves.len() + new.len();
        if new.is_empty() || would_be <= policy.max_leaves {
            wanted.extend(onward(catalog, policy, now, need, &new, widened));
            let more = missing_bounds(catalog, policy, now, &wanted, widened)?;
            let fits = catalog.leaves.len() + more.len() <= policy.max_leaves;
            return Ok(named(catalog, if fits { &more } else { &new }, need.bare_until));
        }
    }
    Err(PlanError::TooMany { table: catalog.table.clone(), key: catalog.key, would_be, max_leaves: policy.max_leaves })
}

/// Needed times and the start of each interval to make ahead, ascending, each once.
fn wanted_times(policy: &Policy, now: DateTime<Utc>, need: &Need, widened: u32) -> BTreeSet<DateTime<Utc>> {
    let mut wanted: BTreeSet<_> = need.times.iter().copied().collect();
    let mut ahead = need.head;
    for _ in 0..=policy.premake {
        wanted.extend(ahead);
        ahead = ahead.and_then(|time| policy.bounds_at(time, now, widened)).map(|bounds| bounds.to());
    }
    wanted
}

/// A time in each leaf that a load needs next, if it goes on as it came to the `new` ones.
fn onward(
    catalog: &Catalog,
    policy: &Policy,
    now: DateTime<Utc>,
    need: &Need,
    new: &[Bounds],
    widened: u32,
) -> Vec<DateTime<Utc>> {
    let (Some(load), Some(first), Some(last)) = (need.load, new.first(), new.last()) else { return Vec::new() };
    let leaves = || catalog.leaves.iter().map(|leaf| leaf.bounds);
    let mut edge = first.from();
    let below =
        leaves().rev().filter(|bounds| first.from().is_some_and(|from| bounds.to() <= from)).take_while(|bounds| {
            let joins = Some(bounds.to()) == edge;
            edge = bounds.from();
            joins
        });
    let below = below.count();
    let mut edge = last.to();
    let above = leaves().filter(|bounds| bounds.to() > last.to()).take_while(|bounds| {
        let joins = bounds.from() == Some(edge);
        edge = bounds.to();
        joins
    });
    let above = above.count();
    let at = |time: &DateTime<Utc>| policy.bounds_at(*time, now, widened);
    let before = |time: DateTime<Utc>| time.checked_sub_signed(TimeDelta::microseconds(1));
    let down = successors(first.from().and_then(before), |time| at(time)?.from().and_then(before));
    let up = successors(Some(last.to()), |time| Some(at(time)?.to()));
    let next = down.take(above.min(MOST_ONWARD)).chain(up.take(below.min(MOST_ONWARD)));
    next.filter(|time| load.contains(*time)).collect()
}

/// Bounds of new leaves, ascending, so that together with the existing ones they hold every wanted time.
fn missing_bounds(
    catalog: &Catalog,
    policy: &Policy,
    now: DateTime<Utc>,
    wanted: &BTreeSet<DateTime<Utc>>,
    widened: u32,
) -> Result<Vec<Bounds>, PlanError> {
    let mut new: Vec<Bounds> = Vec::new();
    for &time in wanted {
        let above = catalog.leaves.partition_point(|leaf| leaf.bounds.to() <= time);
        let next = catalog.leaves.get(above).map(|leaf| leaf.bounds);
        let last = new.last().copied();
        if next.into_iter().chain(last).any(|bounds| bounds.contains(time)) {
            continue;
        }
        let ideal = policy.bounds_at(time, now, widened).ok_or(PlanError::OutOfCalendar { time })?;
        // The time is in no leaf: each one ends at or before it, or begins after it. Cut at the nearest of both.
        let previous = above.checked_sub(1).map(|index| catalog.leaves[index].bounds);
        let from = previous.into_iter().chain(last).map(|bounds| bounds.to()).chain(ideal.from()).max();
        let to = next.and_then(|bounds| bounds.from()).map_or(ideal.to(), |from| from.min(ideal.to()));
        new.extend(Bounds::new(from, to));
    }
    Ok(new)
}

fn named(catalog: &Catalog, new: &[Bounds], bare_until: Option<DateTime<Utc>>) -> Plan {
    let mut taken = catalog.names.clone();
    let mut steps = Vec::new();
    if catalog.sub_parent.is_none() && !new.is_empty() {
        steps.push(Step::CreateSubParent { name: free_name(&mut taken, catalog, "") });
    }
    steps.extend(new.iter().map(|&bounds| {
        let label = bounds.from().map_or_else(|| "_first".to_owned(), |from| format!("_{}", label(from)));
        let bare = bare_until.is_some_and(|until| bounds.to() <= until);
        Step::CreateLeaf { name: free_name(&mut taken, catalog, &label), bounds, bare }
    }));
    Plan { steps }
}

/// `20240131`, with the time of day where it is not midnight.
fn label(from: DateTime<Utc>) -> String {
    let date = format!("{:04}{:02}{:02}", from.year(), from.month(), from.day());
    match from.num_seconds_from_midnight() {
        0 => date,
        seconds if seconds % 3_600 == 0 => format!("{date}{:02}", from.hour()),
        _ => format!("{date}{}", from.format("%H%M%S")),
    }
}

/// `<table>_<key><label>` (without the key where there is no list level), the table's part cut to fit, a number at the end
/// where that name is taken.
fn free_name(taken: &mut BTreeSet<String>, catalog: &Catalog, label: &str) -> String {
    let is_flat = catalog.sub_parent.as_ref() == Some(&catalog.table);
    let label = if is_flat { label.to_owned() } else { format!("_{}{label}", catalog.key) };
    let mut suffix = label.clone();
    for again in 2.. {
        let mut table = catalog.table.as_str();
        while table.len() + suffix.len() > LONGEST_NAME {
            table = &table[..table.floor_char_boundary(table.len() - 1)];
        }
        let name = format!("{table}{suffix}");
        if taken.insert(name.clone()) {
            return name;
        }
        suffix = format!("{label}_{again}");
    }
    unreachable!("finitely many names are taken")
}

#[cfg(test)]
mod tests;
