//! The retention of a table: the time that rows are kept, its starting point, and the action after it.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

/// The action for a leaf past its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// None: the leaf stays.
    Keep,
    /// The leaf is detached, and stays as a separate table.
    Detach,
    /// The leaf is detached, and dropped after the grace period, with its rows.
    Drop,
    /// The leaf is archived, detached, and dropped after the grace period.
    Archive,
}

impl Action {
    /// The words that [`str::parse`] accepts.
    pub const NAMES: &[&str] = &["keep", "detach", "drop", "archive"];
}

/// Parses one of [`Action::NAMES`]. The error has no text.
impl FromStr for Action {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "keep" => Ok(Self::Keep),
            "detach" => Ok(Self::Detach),
            "drop" => Ok(Self::Drop),
            "archive" => Ok(Self::Archive),
            _ => Err(()),
        }
    }
}

/// The retention of a table's rows. Users set `action`, `retention` (the time) and `grace`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// The action. Default: keep.
    pub action: Action,
    /// The time that rows are kept, counted back from the earlier of now and the last final time.
    pub time: TimeDelta,
    /// The time that a detached leaf is kept before its drop, for second thoughts. Default: 7 days.
    pub grace: TimeDelta,
    /// Most leaves of one key that may begin to go in one run. More leaves mean a clock that jumped or a changed policy: then no
    /// leaf goes until an operator allows it. Default: 10.
    pub max_leaves: usize,
    /// Greatest share of a key's bytes that may begin to go in one run, also for one leaf. Default: 0.3.
    pub max_share: f64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { action: Action::Keep, time: TimeDelta::MAX, grace: TimeDelta::days(7), max_leaves: 10, max_share: 0.3 }
    }
}

/// The time from which retention counts back. Never the clock alone: a clock may jump, and a stopped writer ages no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Counts from a time per key, or from now if now is earlier: the last final time, if the caller knows one; otherwise the
    /// time of the newest row ([`crate::newest_rows`]). In a key without such a time, no leaf is due.
    Final(BTreeMap<i64, DateTime<Utc>>),
}

impl Reference {
    /// The time that counts as now for `key`; `None` if no time is final yet.
    pub fn end(&self, key: i64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let Self::Final(times) = self;
        times.get(&key).map(|time| now.min(*time))
    }

    /// Rows of `key` before this time are due; `None` if none is.
    pub fn cutoff(&self, key: i64, now: DateTime<Utc>, time: TimeDelta) -> Option<DateTime<Utc>> {
        self.end(key, now)?.checked_sub_signed(time)
    }
}
