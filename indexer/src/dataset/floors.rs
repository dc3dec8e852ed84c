//! What retention has done to a chain's tables: from which time on rows are served. Pure.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::table::Dataset;

/// The earliest time served of each table of a chain. Rows before it are not written any more: their leaves are gone or about to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// By the places of the datasets.
    floors: Arc<[Option<DateTime<Utc>>]>,
    /// Times after this are absurd and get no leaf: rows of theirs are quarantined.
    latest: Option<DateTime<Utc>>,
}

/// How far ahead of now a block's time may lie, as the partition manager has it: contracts and devnets look decades ahead.
const AHEAD: TimeDelta = TimeDelta::days(36_525);

impl Floors {
    /// These floors, by the places of the datasets, at this time.
    pub fn new(floors: Vec<Option<DateTime<Utc>>>, now: DateTime<Utc>) -> Self {
        Self { floors: floors.into(), ..Self::default() }.at(now)
    }

    /// The same floors at another time.
    #[must_use]
    pub fn at(self, now: DateTime<Utc>) -> Self {
        Self { latest: now.checked_add_signed(AHEAD), ..self }
    }

    /// That of a table; none if all of it is served.
    pub fn of(&self, dataset: &Dataset) -> Option<DateTime<Utc>> {
        self.floors.get(dataset.at()).copied().flatten()
    }

    /// The last time that is not absurd, in Unix seconds.
    pub fn latest(&self) -> i64 {
        self.latest.map_or(i64::MAX, |latest| latest.timestamp())
    }

    /// The first time of a table that is served, in Unix seconds.
    pub fn first(&self, dataset: &Dataset) -> i64 {
        self.of(dataset).map_or(i64::MIN, |floor| floor.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Datasets;
    use super::*;

    #[test]
    fn both_sides_call_the_same_times_absurd() {
        assert_eq!(dalp_partitions::Policy::default().ahead_at_most, AHEAD);
    }

    #[test]
    fn each_table_has_a_floor_of_its_own() {
        let datasets = Datasets::own();
        let (logs, typed) = (datasets.every(), datasets.get("erc20_transfer").unwrap());
        let mut of = vec![None; datasets.count()];
        of[typed.at()] = DateTime::from_timestamp(100, 0);
        let floors = Floors::new(of, DateTime::from_timestamp(1_000, 0).unwrap());
        assert_eq!([floors.first(typed), floors.first(logs)], [100, i64::MIN]);
        assert_eq!(floors.latest(), 1_000 + AHEAD.num_seconds());
        let none = Floors::default();
        assert_eq!([none.first(typed), none.latest()], [i64::MIN, i64::MAX]);
    }
}
