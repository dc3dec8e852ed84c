//! How a table is cut into leaves: narrow near the head, wide in history, with a number of leaves ahead.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Bounds, Interval};

/// Widening three times turns hours into years; a fourth changes nothing.
pub(crate) const WIDEST: u32 = 3;

/// How a table is cut into leaves. Each table and key may have its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Width of new leaves for recent times. Aim at 5 to 20 GB a leaf. Default: a day.
    pub interval: Interval,
    /// Width of new leaves for old times, so that a backfill of years makes tens of leaves, not thousands. Default: a month.
    pub history: Interval,
    /// The age at which a time becomes old. Default: 60 days.
    pub history_after: TimeDelta,
    /// The number of intervals after the head's own that have a leaf before any row needs it. Default: 3.
    pub premake: u32,
    /// Most leaves below one sub-parent; above this number, missing leaves are wider. Rows of now still get their leaves.
    /// Default: 1,000, where planning a query without pruning takes 36 ms and attaching a leaf 23 ms.
    pub max_leaves: usize,
    /// Upper bound of the leaf FROM (MINVALUE), for times that no row should have, such as 1970-01-01. Default: 2015-01-01.
    pub first: DateTime<Utc>,
    /// How far after now a time still gets a leaf; a later time is absurd ([`Policy::is_absurd`]). Default: 100 years.
    pub ahead_at_most: TimeDelta,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            interval: Interval::Day,
            history: Interval::Month,
            history_after: TimeDelta::days(60),
            premake: 3,
            max_leaves: 1_000,
            // 2015-01-01T00:00:00Z.
            first: DateTime::UNIX_EPOCH + TimeDelta::days(16_436),
            ahead_at_most: TimeDelta::days(36_525),
        }
    }
}

impl Policy {
    /// The policy with no leaf narrower than one day.
    pub(crate) fn of_days(self) -> Self {
        Self { interval: self.interval.max(Interval::Day), history: self.history.max(Interval::Day), ..self }
    }

    /// Whether a row of this time gets no leaf: it is too far ahead, or outside the calendar. A clock before [`Policy::first`]
    /// counts as [`Policy::first`], so it makes no real time absurd.
    ///
    /// An absurd time may become normal, as now advances; never the other way, unless the clock goes back.
    pub fn is_absurd(&self, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let latest = now.max(self.first).checked_add_signed(self.ahead_at_most);
        latest.is_some_and(|latest| time > latest)
            || (0..=WIDEST).any(|widened| self.bounds_at(time, now, widened).is_none())
    }

    /// Whether a time is older than recent times.
    pub(crate) fn is_old(&self, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        now.checked_sub_signed(self.history_after).is_some_and(|old| time < old)
    }

    /// Whether a time is of now: neither old nor as far ahead.
    pub(crate) fn is_of_now(&self, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let ahead = now.checked_add_signed(self.history_after).is_some_and(|ahead| time > ahead);
        !ahead && !self.is_old(time, now)
    }

    /// Width of a new leaf for `time`, `widened` this number of times.
    pub(crate) fn interval_at(&self, time: DateTime<Utc>, now: DateTime<Utc>, widened: u32) -> Interval {
        let interval = if self.is_old(time, now) { self.history } else { self.interval };
        (0..widened).fold(interval, |interval, _| interval.wider())
    }

    /// Bounds of a new leaf for `time`, without neighbours; `None` outside the calendar.
    pub(crate) fn bounds_at(&self, time: DateTime<Utc>, now: DateTime<Utc>, widened: u32) -> Option<Bounds> {
        if time < self.first {
            return Bounds::new(None, self.first);
        }
        let interval = self.interval_at(time, now, widened);
        let start = interval.start_of(time)?;
        Bounds::new(Some(start.max(self.first)), interval.after(start)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_leaf_ends_where_it_says() {
        assert_eq!(Policy::default().first, at("2015-01-01T00:00:00Z"));
    }

    #[test]
    fn times_beyond_the_policy_are_absurd_and_a_clock_that_fell_back_makes_none() {
        let policy = Policy::default();
        for (time, now, expected) in [
            ("2024-03-20T00:00:00Z", "2024-03-20T00:00:00Z", false),
            ("2124-03-21T00:00:00Z", "2024-03-20T00:00:00Z", false),
            ("2124-03-21T00:00:01Z", "2024-03-20T00:00:00Z", true),
            ("+52217-05-06T07:08:09Z", "2024-03-20T00:00:00Z", true),
            ("1970-01-01T00:00:00Z", "2024-03-20T00:00:00Z", false),
            ("2024-03-20T00:00:00Z", "1901-12-13T20:45:52Z", false),
            ("2024-03-20T00:00:00Z", "+262000-01-01T00:00:00Z", false),
        ] {
            assert_eq!(policy.is_absurd(at(time), at(now)), expected, "{time} at {now}");
        }
        assert!(!policy.is_absurd(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MIN_UTC));
        let endless = Policy { ahead_at_most: TimeDelta::MAX, ..policy };
        assert!(!endless.is_absurd(at("+262000-01-01T00:00:00Z"), DateTime::<Utc>::MAX_UTC));
        assert!(endless.is_absurd(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC), "its year does not end");
    }

    #[test]
    fn a_time_is_old_once_it_is_further_back_than_the_policy_says() {
        let (policy, now) = (Policy::default(), at("2024-03-20T00:00:00Z"));
        let edge = now - policy.history_after;
        let width = |time: DateTime<Utc>, widened| policy.interval_at(time, now, widened);
        let just_before = edge - TimeDelta::microseconds(1);
        assert_eq!(
            (width(just_before, 0), width(edge, 0), width(now, 0)),
            (Interval::Month, Interval::Day, Interval::Day)
        );
        assert_eq!(
            (width(just_before, 1), width(edge, 1), width(edge, 9)),
            (Interval::Year, Interval::Month, Interval::Year)
        );
        // The first leaf takes all times before its bound, and not the bound itself.
        let first = policy.first;
        let bounds = |time| policy.bounds_at(time, now, 0).unwrap();
        assert_eq!(bounds(first - TimeDelta::microseconds(1)), Bounds::new(None, first).unwrap());
        assert_eq!(bounds(first), Bounds::new(Some(first), at("2015-02-01T00:00:00Z")).unwrap());
    }
}
