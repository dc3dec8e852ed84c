use chrono::{DateTime, TimeDelta, Utc};

use crate::{Bounds, Interval};

/// How a table is cut into leaves. Each table and key may have its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Width of new leaves for recent times. Aim at 5 to 20 GB a leaf. Default: a day.
    pub interval: Interval,
    /// Width of new leaves for old times, so that backfill of years makes tens of leaves, not thousands.
    /// Default: a month.
    pub history: Interval,
    /// How long before now a time becomes old. Default: 60 days.
    pub history_after: TimeDelta,
    /// How many intervals after the head's own have a leaf before any row needs it. Default: 3.
    pub premake: u32,
    /// Most leaves below one sub-parent; when it would be passed, what is missing gets wider leaves. Default: 1,000,
    /// where planning an unpruned query takes 36 ms and attaching a leaf 23 ms.
    pub max_leaves: usize,
    /// Upper bound of the leaf FROM (MINVALUE), for times that no row ought to have: Ethereum's block 0 has time 0.
    /// Default: 2015-01-01, before the first block that carries a real time.
    pub first: DateTime<Utc>,
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
        }
    }
}

impl Policy {
    /// Width of a new leaf for `time`, `widened` so many times.
    pub(crate) fn interval_at(&self, time: DateTime<Utc>, now: DateTime<Utc>, widened: u32) -> Interval {
        let is_old = now.checked_sub_signed(self.history_after).is_some_and(|old| time < old);
        let interval = if is_old { self.history } else { self.interval };
        (0..widened).fold(interval, |interval, _| interval.wider())
    }

    /// Bounds of a new leaf for `time`, were it the only one; `None` outside the years that can be computed with.
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

    #[test]
    fn the_first_leaf_ends_where_it_says() {
        assert_eq!(Policy::default().first, "2015-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap());
    }
}
