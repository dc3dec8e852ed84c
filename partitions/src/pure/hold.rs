//! Legal holds: they keep rows against any policy.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::{Bounds, Edge};

/// The scope of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Value of the list level; `None` for all.
    pub key: Option<i64>,
    /// First held time; `None` for no lower bound.
    pub from: Option<DateTime<Utc>>,
    /// First time after the hold; `None` for no upper bound.
    pub to: Option<DateTime<Utc>>,
}

/// A valid hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its number.
    pub id: i64,
    /// Its scope.
    pub scope: Scope,
    /// Its reason.
    pub reason: String,
    /// Its author.
    pub author: String,
    /// Its start.
    pub created_at: DateTime<Utc>,
    /// The time and author of its release; `None` while it is valid.
    pub released: Option<(DateTime<Utc>, String)>,
}

impl Hold {
    /// Whether the hold touches a row of the leaf.
    pub fn touches(&self, key: i64, bounds: &Bounds) -> bool {
        self.scope.key.is_none_or(|held| held == key)
            && self.scope.from.is_none_or(|from| from < bounds.to())
            && self.scope.to.is_none_or(|to| bounds.from().is_none_or(|from| from < to))
    }
}

impl Scope {
    /// The part between two edges, of one key.
    pub(crate) fn of(key: i64, lower: Edge, upper: Edge) -> Self {
        Self { key: Some(key), from: lower.time().finite(), to: upper.time().finite() }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<DateTime<Utc>>| time.map_or_else(|| "…".to_owned(), |time| time.to_rfc3339());
        match self.key {
            Some(key) => write!(f, "key {key}, {} to {}", time(self.from), time(self.to)),
            None => write!(f, "all keys, {} to {}", time(self.from), time(self.to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_touches_what_it_overlaps() {
        let at = |day: u32| format!("2024-01-{day:02}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
        let leaf = Bounds::new(Some(at(10)), at(11)).unwrap();
        let first = Bounds::new(None, at(11)).unwrap();
        for (key, from, to, touches, touches_first) in [
            (None, None, None, true, true),
            (Some(1), Some(10), Some(11), true, true),
            (Some(2), None, None, false, false),
            (None, Some(11), None, false, false),
            (None, None, Some(10), false, true),
            (None, Some(5), Some(12), true, true),
        ] {
            let scope = Scope { key, from: from.map(at), to: to.map(at) };
            let hold = Hold { id: 1, scope, reason: "r".into(), author: "a".into(), created_at: at(1), released: None };
            assert_eq!((hold.touches(1, &leaf), hold.touches(1, &first)), (touches, touches_first), "{}", hold.scope);
        }
    }
}
