//! Decides which leaves must exist, from the existing ones, the needs and the time of day.

use std::collections::BTreeSet;
use std::iter::successors;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};

use super::policy::WIDEST;
use crate::{Bounds, Edge, Policy};

/// PostgreSQL cuts off longer names.
const LONGEST_NAME: usize = 63;
/// Most leaves made at once on one side of a needed one: the load waits for them.
const MOST_ONWARD: usize = 7;

/// A partition that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its name, without schema; a label.
    pub name: String,
    /// Its times, from the catalog.
    pub bounds: Bounds,
    /// Whether a `DETACH CONCURRENTLY` has begun and not ended: the leaf accepts no rows, but still blocks its times.
    pub detaching: bool,
    /// Its B-tree indexes, with the table's own.
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
    /// The indexes of `indexes` that it lacks.
    pub fn lacks<'i>(&self, indexes: &'i [Index]) -> Vec<&'i Index> {
        indexes.iter().filter(|index| !self.indexes.contains(index)).collect()
    }
}

/// The existing leaves of one table and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The table's name, without schema.
    pub table: String,
    /// The key whose sub-parent this is.
    pub key: i64,
    /// Name of the sub-parent, without schema, if there is one.
    pub sub_parent: Option<String>,
    /// The sub-parent as SQL: it may be in another schema than the table.
    pub parent: Option<String>,
    /// Whether its times are dates: then no leaf is narrower than one day.
    pub is_of_days: bool,
    /// Its leaves, ascending; PostgreSQL keeps them disjoint.
    pub leaves: Vec<Leaf>,
    /// Names in the schema that begin like the table's: new ones must differ.
    pub names: BTreeSet<String>,
    /// Changes when leaves are attached or detached; empty without a sub-parent.
    pub stamp: String,
}

impl Catalog {
    /// Replaces the leaf of the same name, or adds the leaf.
    pub fn put(&mut self, leaf: Leaf) {
        self.leaves.retain(|old| old.name != leaf.name);
        let place = self.leaves.partition_point(|other| other.bounds.upper() < leaf.bounds.upper());
        self.names.insert(leaf.name.clone());
        self.leaves.insert(place, leaf);
    }

    /// The leaf that accepts rows of this time, if any.
    pub fn leaf_at(&self, time: DateTime<Utc>) -> Option<&Leaf> {
        let index = self.leaves.partition_point(|leaf| leaf.bounds.upper() <= Edge::from(time));
        self.leaves.get(index).filter(|leaf| leaf.bounds.contains(time) && !leaf.detaching)
    }

    /// The times of rows without a leaf, ascending, each once. Empty means that COPY will find its leaves.
    pub fn uncovered(&self, times: impl IntoIterator<Item = DateTime<Utc>>) -> Vec<DateTime<Utc>> {
        let missing: BTreeSet<_> = times.into_iter().filter(|&time| self.leaf_at(time).is_none()).collect();
        missing.into_iter().collect()
    }
}

/// The times that need a leaf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Times of the next rows; any order, repeats are allowed.
    pub times: Vec<DateTime<Utc>>,
    /// Newest known time, for [`Policy::premake`] leaves after it; `None` makes none ahead.
    pub head: Option<DateTime<Utc>>,
    /// Leaves with any time before this one are made bare, without their own indexes, because they will be loaded; with `None`, no
    /// leaf is bare.
    pub bare_before: Option<DateTime<Utc>>,
    /// Times that a load passes in order, in either direction: as many leaves as stand in a row on one side of the needed ones
    /// are made on the other side, within these bounds.
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

    /// The need, with bare leaves of times before `time`.
    #[must_use]
    pub fn bare_before(self, time: Option<DateTime<Utc>>) -> Self {
        Self { bare_before: time, ..self }
    }

    /// The need, as a step of a load of these times.
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
        /// Its times.
        bounds: Bounds,
        /// Whether it is made without its own indexes, to be loaded first.
        bare: bool,
    },
}

/// The leaves to create, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The sub-parent first, if it is missing; then leaves, ascending in time.
    pub steps: Vec<Step>,
    /// Needed times that are absurd ([`Policy::is_absurd`]) and in no leaf, ascending, each once: their rows belong into
    /// quarantine. After all steps, [`Catalog::uncovered`] of the needed times returns exactly these times.
    pub quarantined: Vec<DateTime<Utc>>,
}

/// Why no plan is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Even leaves of one year would be too many, and some of the times are old.
    #[error(
        "table \"{table}\", key {key}, would have {would_be} leaves, more than max_leaves = {max_leaves}, even with \
         leaves of one year: raise max_leaves, or retire old leaves"
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
    /// A detaching leaf blocks the times of a row.
    #[error(
        "rows of {time} belong to leaf \"{leaf}\", whose detach has begun and not ended: end it with ALTER TABLE .. \
         DETACH PARTITION \"{leaf}\" FINALIZE, then attach the leaf again, or wait for a new one"
    )]
    Detaching {
        /// The needed time.
        time: DateTime<Utc>,
        /// The leaf.
        leaf: String,
    },
}

/// Decides which leaves to create so that every needed time has a leaf.
///
/// Only leaves with a needed time are made, so the needs bound their number, and not the distance between the times: at most one
/// per needed time, [`Policy::premake`] and one for the head. A load ([`Need::load`]) also gets as many leaves as it has needed
/// in a row, at most seven on either side, because reading the catalog costs as much as making several leaves. Gaps between
/// leaves are normal, except from the head to the last leaf ahead of it. New leaves are aligned to the policy's interval and cut
/// at a neighbour; times before [`Policy::first`] share the leaf FROM (MINVALUE). Absurd times get no leaf, and do not affect the
/// leaves of other times. If [`Policy::max_leaves`] would be exceeded, all missing leaves are planned again with wider leaves. If
/// even leaves of one year would be too many, old times get none; rows of now and of the head get leaves one step wider than the
/// policy's.
pub fn plan(catalog: &Catalog, policy: &Policy, now: DateTime<Utc>, need: &Need) -> Result<Plan, PlanError> {
    let of_days = catalog.is_of_days.then(|| policy.clone().of_days());
    let policy = of_days.as_ref().unwrap_or(policy);
    let (absurd, rows): (BTreeSet<_>, BTreeSet<_>) =
        need.times.iter().copied().partition(|&time| policy.is_absurd(time, now));
    for &time in &rows {
        if let Some(leaf) = catalog.leaves.iter().find(|leaf| leaf.detaching && leaf.bounds.contains(time)) {
            return Err(PlanError::Detaching { time, leaf: leaf.name.clone() });
        }
    }
    let mut would_be = 0;
    for widened in 0..=WIDEST {
        let mut draft = Draft::new(catalog, policy, now, widened);
        rows.iter().for_each(|&time| draft.cover(time));
        need.head.into_iter().for_each(|head| draft.cover_ahead(head));
        would_be = draft.standing.len();
        if draft.new.is_empty() || would_be <= policy.max_leaves {
            let needed = draft.new.clone();
            need.load.into_iter().for_each(|load| draft.cover_onward(load));
            if draft.standing.len() > policy.max_leaves {
                draft.new = needed;
            }
            return Ok(draft.done(catalog, absurd, need.bare_before));
        }
    }
    // Rows of now always get a leaf: a few leaves too many cost less than refused rows. Other rows wait for room.
    let mut draft = Draft::new(catalog, policy, now, 1);
    rows.iter().filter(|time| policy.is_of_now(**time, now)).for_each(|&time| draft.cover(time));
    need.head.into_iter().for_each(|head| draft.cover_ahead(head));
    if !draft.new.is_empty() && rows.iter().all(|&time| draft.bounds_at(time).is_some()) {
        return Ok(draft.done(catalog, absurd, need.bare_before));
    }
    Err(PlanError::TooMany { table: catalog.table.clone(), key: catalog.key, would_be, max_leaves: policy.max_leaves })
}

/// The existing bounds and the bounds to make, at one width.
struct Draft<'p> {
    policy: &'p Policy,
    now: DateTime<Utc>,
    widened: u32,
    /// All bounds, with the new ones; ascending and disjoint.
    standing: Vec<Bounds>,
    /// The new bounds, ascending.
    new: Vec<Bounds>,
}

impl<'p> Draft<'p> {
    fn new(catalog: &Catalog, policy: &'p Policy, now: DateTime<Utc>, widened: u32) -> Self {
        let standing = catalog.leaves.iter().map(|leaf| leaf.bounds).collect();
        Self { policy, now, widened, standing, new: Vec::new() }
    }

    fn done(self, catalog: &Catalog, absurd: BTreeSet<DateTime<Utc>>, bare_before: Option<DateTime<Utc>>) -> Plan {
        let steps = named(catalog, &self.new, bare_before);
        let mut quarantined = catalog.uncovered(absurd);
        quarantined.retain(|&time| !self.new.iter().any(|bounds| bounds.contains(time)));
        Plan { steps, quarantined }
    }

    /// The index of the bounds that hold `time`, or their place.
    fn place(&self, time: DateTime<Utc>) -> usize {
        self.standing.partition_point(|bounds| bounds.upper() <= Edge::from(time))
    }

    /// The bounds that hold `time`.
    fn bounds_at(&self, time: DateTime<Utc>) -> Option<Bounds> {
        self.standing.get(self.place(time)).filter(|bounds| bounds.contains(time)).copied()
    }

    /// Makes a leaf for `time` unless it has one or is absurd: as wide as the policy says, cut at the nearest neighbours.
    fn cover(&mut self, time: DateTime<Utc>) {
        if self.bounds_at(time).is_some() || self.policy.is_absurd(time, self.now) {
            return;
        }
        let Some(ideal) = self.policy.bounds_at(time, self.now, self.widened) else { return };
        let place = self.place(time);
        // The time is in no leaf: the leaf before ends at or before it, the leaf after begins after it.
        let before = place.checked_sub(1).map_or(Edge::MinValue, |before| self.standing[before].upper());
        let after = self.standing.get(place).map_or(Edge::MaxValue, Bounds::lower);
        let Some(bounds) = Bounds::between(before.max(ideal.lower()), after.min(ideal.upper())) else { return };
        self.standing.insert(place, bounds);
        self.new.insert(self.new.partition_point(|other| other.to() <= time), bounds);
    }

    /// Makes the leaf of the head and, without a gap, the leaves after it: up to [`Policy::premake`] intervals after the head's
    /// own, or that number of leaves, if they are narrower. An absurd head makes none.
    fn cover_ahead(&mut self, head: DateTime<Utc>) {
        let end = |time: DateTime<Utc>| Some(self.policy.bounds_at(time, self.now, self.widened)?.to());
        let ends = successors(end(head), |&to| end(to));
        let Some(reach) = ends.take(self.policy.premake as usize + 1).last() else { return };
        let mut time = head;
        for _ in 0..=self.policy.premake {
            self.cover(time);
            let Some(bounds) = self.bounds_at(time).filter(|bounds| bounds.to() < reach) else { return };
            time = bounds.to();
        }
    }

    /// Makes the next leaves of a load, in the direction of its last ones.
    fn cover_onward(&mut self, load: Bounds) {
        let (Some(&first), Some(&last)) = (self.new.first(), self.new.last()) else { return };
        let mut edge = first.from();
        let old_below = self.standing.iter().rev().skip_while(|bounds| **bounds != first).skip(1);
        let below = old_below.take_while(|bounds| {
            let joins = Some(bounds.to()) == edge;
            edge = bounds.from();
            joins
        });
        let below = below.count().min(MOST_ONWARD);
        let mut edge = last.to();
        let old_above = self.standing.iter().skip_while(|bounds| **bounds != last).skip(1);
        let above = old_above.take_while(|bounds| {
            let joins = bounds.from() == Some(edge);
            edge = bounds.to();
            joins
        });
        let above = above.count().min(MOST_ONWARD);
        let at = |time: DateTime<Utc>| self.policy.bounds_at(time, self.now, self.widened);
        let before = |time: DateTime<Utc>| time.checked_sub_signed(TimeDelta::microseconds(1));
        let down = successors(first.from().and_then(before), |&time| at(time)?.from().and_then(before));
        let up = successors(Some(last.to()), |&time| Some(at(time)?.to()));
        let next: Vec<_> = down.take(above).chain(up.take(below)).filter(|&time| load.contains(time)).collect();
        next.into_iter().for_each(|time| self.cover(time));
    }
}

fn named(catalog: &Catalog, new: &[Bounds], bare_before: Option<DateTime<Utc>>) -> Vec<Step> {
    let mut taken = catalog.names.clone();
    let mut steps = Vec::new();
    if catalog.sub_parent.is_none() && !new.is_empty() {
        steps.push(Step::CreateSubParent { name: free_name(&mut taken, catalog, "") });
    }
    steps.extend(new.iter().map(|&bounds| {
        let label = bounds.from().map_or_else(|| "_first".to_owned(), |from| format!("_{}", label(from)));
        let bare = bare_before.is_some_and(|time| bounds.from().is_none_or(|from| from < time));
        Step::CreateLeaf { name: free_name(&mut taken, catalog, &label), bounds, bare }
    }));
    steps
}

/// `20240131`, with the time of day unless it is midnight.
fn label(from: DateTime<Utc>) -> String {
    let date = format!("{:04}{:02}{:02}", from.year(), from.month(), from.day());
    match from.num_seconds_from_midnight() {
        0 => date,
        seconds if seconds % 3_600 == 0 => format!("{date}{:02}", from.hour()),
        _ => format!("{date}{}", from.format("%H%M%S")),
    }
}

/// `<table>_<key><label>` (without the key if there is no list level), with the table's part cut to fit, and a number at the end
/// if the name is used.
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
mod model_tests;
#[cfg(test)]
mod tests;
