//! A leaf as it stands and as it is intended, and all leaves of a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::hindrance::Hindrance;
use super::names::qualified;
use crate::{Bounds, Hold, Table, Time};

/// How far a leaf is on its way from attached to dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Being restored into a table of its own; not attached yet.
    Planned,
    /// Takes rows.
    Attached,
    /// Takes none any more.
    Sealed,
    /// Its archive is being written.
    Archiving,
    /// Its archive was read back and is equal.
    Archived,
    /// Below the floor: readers that go by it do not see its rows any more.
    Retired,
    /// Being detached.
    Detaching,
    /// A table of its own, kept for the grace period.
    Detached,
    /// Somebody else took it out of its table, moved or renamed it: it is left alone.
    Taken,
    /// Gone.
    Dropped,
}

impl State {
    /// All, in order, with their words.
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

    /// As the registry has it.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One of the registry's words; anything else is an error without words.
impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(())
    }
}

/// What the catalog says of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// A partition that takes rows and queries.
    Attached,
    /// `DETACH CONCURRENTLY` has begun and not ended.
    Pending,
    /// A table of its own, with the name and in the schema that it had as a leaf.
    Standalone,
    /// It is a partition of another parent, or a table of its own that somebody renamed or moved.
    Elsewhere,
    /// There is no such table.
    Absent,
}

/// A leaf: what the registry intends and what the catalog has.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Names this life of the leaf.
    pub id: i64,
    /// Value of the list level; 0 without one.
    pub key: i64,
    /// Its schema.
    pub schema: String,
    /// Its name, without schema.
    pub leaf: String,
    /// The times that it holds.
    pub bounds: Bounds,
    /// How far it is.
    pub state: State,
    /// What the catalog says.
    pub presence: Presence,
    /// The sub-parent that it belongs to, as SQL takes it: the table itself where that is flat. `None` if that is gone.
    pub parent: Option<String>,
    /// Version of its archive; 0 before the first.
    pub version: i32,
    /// Bytes, with indexes: as of the last ANALYZE, or now if there was none or it is about to be moved; as they were when it was
    /// sealed, if it is gone.
    pub bytes: i64,
    /// Rows: an estimate unless archived.
    pub rows: Option<i64>,
    /// What is in the archive.
    pub manifest: Option<serde_json::Value>,
    /// Mark of the seal when its rows were counted.
    pub seal: Option<String>,
    /// Mark of the seal now; `None` without one.
    pub seal_now: Option<String>,
    /// Names this life of the leaf in archives; empty if it is not registered.
    pub incarnation: String,
    /// The archive that its manifest is of, if that is known.
    pub place: Option<String>,
    /// Whether row security would hide rows of it from the current role.
    pub filtered: bool,
    /// What would keep it from going its whole way.
    pub hindrance: Option<Hindrance>,
    /// When it was detached.
    pub detached_at: Option<DateTime<Utc>>,
}

impl Entry {
    /// As SQL takes it.
    pub fn relation(&self) -> String {
        qualified(&self.schema, &self.leaf)
    }

    /// Its parent as SQL takes it: the table where its own is gone.
    pub(crate) fn parent_in(&self, table: &Table) -> String {
        self.parent.clone().unwrap_or_else(|| table.to_string())
    }

    /// Whether it is archived, and nobody can have changed a row since.
    pub fn is_proved(&self) -> bool {
        self.manifest.is_some() && self.seal.is_some() && self.seal == self.seal_now
    }

    /// Whether somebody means it by this name, with or without its schema.
    pub fn is_called(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.schema).and_then(|rest| rest.strip_prefix('.'));
        name == self.leaf || rest == Some(&self.leaf)
    }
}

/// Its schema and name, as people write them.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.leaf)
    }
}

/// Everything that decides about the leaves of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The leaves that are not dropped, by key and time.
    pub entries: Vec<Entry>,
    /// The keys that have a sub-parent: 0 alone for a table without a list level.
    pub keys: BTreeSet<i64>,
    /// What refuses every detaching of a key's leaves.
    pub hindrances: BTreeMap<i64, Hindrance>,
    /// Partitions of the list level that are of no single key, by name as SQL takes it, with their bounds: they are left alone.
    pub strangers: Vec<(String, String)>,
    /// The holds that stand.
    pub holds: Vec<Hold>,
    /// The earliest time served, by key; without an entry all is.
    pub floors: BTreeMap<i64, Time>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

impl Inventory {
    /// The holds that touch a leaf.
    pub fn holds_on<'i>(&'i self, entry: &'i Entry) -> impl Iterator<Item = &'i Hold> {
        self.holds.iter().filter(|hold| hold.touches(entry.key, &entry.bounds))
    }

    /// Whether somebody took the key's sub-parent out of the table: nothing is made for it until it is added again.
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
