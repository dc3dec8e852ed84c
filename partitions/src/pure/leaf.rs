//! A leaf with its present and intended state, and all leaves of a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::hindrance::Hindrance;
use super::names::qualified;
use crate::{Bounds, Hold, Table, Time};

/// The state of a leaf on its way from attached to dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Being restored into a separate table; not attached yet.
    Planned,
    /// Accepts rows.
    Attached,
    /// Accepts no rows any more.
    Sealed,
    /// Its archive is being written.
    Archiving,
    /// Its archive was read back and equals the leaf.
    Archived,
    /// Below the floor: readers that respect the floor no longer see its rows.
    Retired,
    /// Being detached.
    Detaching,
    /// A separate table, kept for the grace period.
    Detached,
    /// Another user detached, moved or renamed it: the manager does not touch it.
    Taken,
    /// Dropped.
    Dropped,
}

impl State {
    /// All states, in order, with their words.
    const WORDS: [(Self, &'static str); 10] = [
        (Self::Planned, "PLANNED"),
        (Self::Attached, "ATTACHED"),
        (Self::Sealed, "SEALED"),
        (Self::Archiving, "ARCHIVING"),
        (Self::Archived, "ARCHIVED"),
        (Self::Retired, "RETIRED"),
        (Self::Detaching, "DETACHING"),
        (Self::Detached, "DETACHED"),
        (Self::Taken, "TAKEN"),
        (Self::Dropped, "DROPPED"),
    ];

    /// Its word in the registry.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Parses one of the registry's words. The error has no text.
impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(())
    }
}

/// The state of a leaf in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// A partition that accepts rows and queries.
    Attached,
    /// `DETACH CONCURRENTLY` has begun and not ended.
    Pending,
    /// A separate table with the leaf's name and schema.
    Standalone,
    /// A partition of another parent, or a separate table that another user renamed or moved.
    Elsewhere,
    /// The table does not exist.
    Absent,
}

/// A leaf: the registry's intended state, and the catalog's present state.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its id: one life of the leaf.
    pub id: i64,
    /// Value of the list level; 0 without one.
    pub key: i64,
    /// Its schema.
    pub schema: String,
    /// Its name, without schema.
    pub leaf: String,
    /// Its times.
    pub bounds: Bounds,
    /// Its state.
    pub state: State,
    /// Its state in the catalog.
    pub presence: Presence,
    /// Its sub-parent, as SQL: the table itself if flat. `None` if the sub-parent is gone.
    pub parent: Option<String>,
    /// Version of its archive; 0 before the first.
    pub version: i32,
    /// Bytes, with indexes: from the last ANALYZE, or measured now without one or before a move; for a missing leaf, from the
    /// time of its seal.
    pub bytes: i64,
    /// Rows: an estimate unless archived.
    pub rows: Option<i64>,
    /// The content of its archive.
    pub manifest: Option<serde_json::Value>,
    /// The mark of the seal when its rows were counted.
    pub seal: Option<String>,
    /// The present mark of the seal; `None` without a seal.
    pub seal_now: Option<String>,
    /// The name of this life of the leaf in archives; empty if it is not registered.
    pub incarnation: String,
    /// The place of its archive, if known.
    pub place: Option<String>,
    /// Whether row security would hide rows of it from the current role.
    pub filtered: bool,
    /// The obstacles of its later moves.
    pub hindrance: Option<Hindrance>,
    /// The time of its detach.
    pub detached_at: Option<DateTime<Utc>>,
}

impl Entry {
    /// Its name as SQL.
    pub fn relation(&self) -> String {
        qualified(&self.schema, &self.leaf)
    }

    /// Its parent as SQL: the table if its own parent is gone.
    pub(crate) fn parent_in(&self, table: &Table) -> String {
        self.parent.clone().unwrap_or_else(|| table.to_string())
    }

    /// Whether it is archived, and no row can have changed since.
    pub fn is_proved(&self) -> bool {
        self.manifest.is_some() && self.seal.is_some() && self.seal == self.seal_now
    }

    /// Whether a user means it by this name, with or without its schema.
    pub fn is_called(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.schema).and_then(|rest| rest.strip_prefix('.'));
        name == self.leaf || rest == Some(&self.leaf)
    }
}

/// Its schema and name, in readable form.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.leaf)
    }
}

/// All facts that decide about the leaves of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The leaves that are not dropped, by key and time.
    pub entries: Vec<Entry>,
    /// The keys that have a sub-parent: 0 alone for a table without a list level.
    pub keys: BTreeSet<i64>,
    /// Obstacles for every detach of a key's leaves.
    pub hindrances: BTreeMap<i64, Hindrance>,
    /// Partitions of the list level that do not have exactly one key, by name as SQL, with their bounds: the manager does not
    /// touch them.
    pub strangers: Vec<(String, String)>,
    /// The valid holds.
    pub holds: Vec<Hold>,
    /// The earliest served time, by key; without an entry, all times are served.
    pub floors: BTreeMap<i64, Time>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

impl Inventory {
    /// The holds that touch a leaf.
    pub fn holds_on<'i>(&'i self, entry: &'i Entry) -> impl Iterator<Item = &'i Hold> {
        self.holds.iter().filter(|hold| hold.touches(entry.key, &entry.bounds))
    }

    /// Whether another user detached the key's sub-parent: no leaf is made for it until it is attached again.
    pub fn is_off_boarded(&self, key: i64) -> bool {
        let is_there = |entry: &Entry| entry.key == key && entry.presence != Presence::Absent;
        !self.keys.contains(&key) && self.entries.iter().any(is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_words() {
        for (state, word) in State::WORDS {
            assert_eq!((state.word(), word.parse()), (word, Ok(state)));
        }
        assert_eq!("GONE".parse::<State>(), Err(()));
    }
}
