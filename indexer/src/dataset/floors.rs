//! The retention floors of a chain's tables: the times from which rows are served. Pure.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::table::Dataset;

/// The earliest served time of each table of a chain. Rows before it are no longer written: their leaves are dropped or about to
/// be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// By the index of the datasets.
    floors: Arc<[Option<DateTime<Utc>>]>,
    /// Later times are absurd and get no leaf: their rows are quarantined.
    latest: Option<DateTime<Utc>>,
}

/// How far ahead of now a block's time may be, as in the partition manager: contracts and devnets look decades ahead.
const AHEAD: TimeDelta = TimeDelta::days(36_525);

impl Floors {
    /// These floors, by the index of the datasets, at this time.
    pub fn new(floors: Vec<Option<DateTime<Utc>>>, now: DateTime<Utc>) -> Self {
        Self { floors: floors.into(), ..Self::default() }.at(now)
    }

    /// The same floors at another time.
    #[must_use]
    pub fn at(self, now: DateTime<Utc>) -> Self {
        Self { latest: now.checked_add_signed(AHEAD), ..self }
    }

    /// The floor of a table; none if all of it is served.
    pub fn of(&self, dataset: &Dataset) -> Option<DateTime<Utc>> {
        self.floors.get(dataset.at()).copied().flatten()
    }

    /// The last time that is not absurd, in Unix seconds.
    pub fn latest(&self) -> i64 {
        self.latest.map_or(i64::MAX, |latest| latest.timestamp())
    }

    /// The first served time of a table, in Unix seconds.
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
