//! How long rows of a table are kept, from when that counts, and what becomes of their leaves then.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

/// What becomes of a leaf whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it stays.
    Keep,
    /// It is detached, and stays as a table of its own.
    Detach,
    /// It is detached, and dropped after the grace period. Its rows are gone then.
    Drop,
    /// It is archived, detached, and dropped after the grace period.
    Archive,
}

impl Action {
    /// The words that [`str::parse`] takes.
    pub const NAMES: &[&str] = &["keep", "detach", "drop", "archive"];
}

/// One of [`Action::NAMES`]; anything else is an error without words.
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

/// How long rows of a table are kept, and what then. People set `action`, `retention` (the time) and `grace`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// What becomes of them. Default: they stay.
    pub action: Action,
    /// How long they are kept, counted back from the earlier of now and the last final time.
    pub time: TimeDelta,
    /// How long a detached leaf is kept before it is dropped, for second thoughts. Default: 7 days.
    pub grace: TimeDelta,
    /// Most leaves of one key that may begin to go in one run. More is a clock that jumped or a policy that changed: nothing is
    /// done then until somebody allows it. Default: 10.
    pub max_leaves: usize,
    /// Greatest share of a key's bytes that may begin to go in one run, be it one leaf. Default: 0.3.
    pub max_share: f64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { action: Action::Keep, time: TimeDelta::MAX, grace: TimeDelta::days(7), max_leaves: 10, max_share: 0.3 }
    }
}

/// From when retention counts back. Never from the clock alone: it may jump, and a writer that stands ages nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// From a time of each key, or from now if that is earlier: the last one that is final, where somebody knows; else that of the newest
    /// row ([`crate::newest_rows`]). Of a key without one, nothing is due.
    Final(BTreeMap<i64, DateTime<Utc>>),
}

impl Reference {
    /// The time that counts as now for `key`; `None` where nothing is final yet.
    pub fn end(&self, key: i64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let Self::Final(times) = self;
        times.get(&key).map(|time| now.min(*time))
    }

    /// Rows of `key` before this are due; `None` if none is.
    pub fn cutoff(&self, key: i64, now: DateTime<Utc>, time: TimeDelta) -> Option<DateTime<Utc>> {
        self.end(key, now)?.checked_sub_signed(time)
    }
}
