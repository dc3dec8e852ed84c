//! Decides the next move of each leaf past its time. Pure: the present and the intended state come in, moves go out.
//!
//! A move is one step from one state to the next. The same table is the reconciler: it follows the catalog, so it continues after
//! a crash anywhere. Each run makes moves until none is left.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};

use super::advice::Advice;
use crate::{Action, Entry, Hindrance, Hold, Inventory, Presence, Reference, Retention, State};

/// The allowed operations: each can be stopped alone during an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// Making leaves.
    pub create: bool,
    /// Sealing and writing archives.
    pub archive: bool,
    /// Raising the floor, and detaching.
    pub detach: bool,
    /// Dropping.
    pub drop: bool,
}

impl Switches {
    /// Everything.
    pub const ALL: Self = Self { create: true, archive: true, detach: true, drop: true };
}

/// One kind of move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// The registry records the catalog's state.
    Note(State),
    /// The leaf refuses all writes.
    Seal,
    /// It is exported, read back and compared.
    Archive,
    /// The floor passes it.
    Retire,
    /// It is detached, without blocking other sessions.
    Detach,
    /// An interrupted detach is finished.
    Finalize,
    /// A detach during which a hold came is reverted: finished, and attached again.
    Attach,
    /// Its rows are compared with the archive again, as its seal was broken.
    Recount,
    /// It is dropped.
    Drop,
    /// The table of an interrupted restore is dropped.
    Discard,
}

impl Act {
    /// Its word in the record, in metrics and on the screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note(_) => "note",
            Self::Seal => "seal",
            Self::Archive => "archive",
            Self::Retire => "retire",
            Self::Detach => "detach",
            Self::Finalize => "finalize",
            Self::Attach => "attach",
            Self::Recount => "recount",
            Self::Drop => "drop",
            Self::Discard => "discard",
        }
    }

    /// Its strongest lock, and the locked object.
    pub fn lock(self) -> &'static str {
        match self {
            Self::Note(_) => "none",
            Self::Seal => "SHARE ROW EXCLUSIVE on the leaf, 200 ms at most",
            Self::Archive | Self::Recount => "ACCESS SHARE on the leaf",
            Self::Retire => "rows of the registry",
            Self::Detach => {
                "SHARE UPDATE EXCLUSIVE on parent and leaf; then, after older readers have ended (30 s), ACCESS EXCLUSIVE \
                 on the leaf"
            }
            Self::Finalize | Self::Attach => "SHARE UPDATE EXCLUSIVE on the parent, ACCESS EXCLUSIVE on the leaf",
            Self::Drop | Self::Discard => "ACCESS EXCLUSIVE on the detached table, 200 ms at most",
        }
    }
}

/// One move of one leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The leaf at the time of the decision.
    pub entry: Entry,
    /// The kind of move.
    pub act: Act,
}

/// Why a leaf that is due, or on its way, does not move.
#[derive(Debug, Clone, PartialEq)]
pub enum Obstacle {
    /// A hold touches it.
    Held {
        /// The hold.
        hold: Box<Hold>,
    },
    /// Too many leaves would go at once: no leaf of the key begins.
    Breaker {
        /// How many leaves are due.
        leaves: usize,
        /// Their share of the key's bytes, 0 to 1.
        share: f64,
    },
    /// The newest leaf of a key never goes.
    Newest,
    /// Its grace period is not over.
    Grace {
        /// The end of the period.
        until: DateTime<Utc>,
    },
    /// The detach of another leaf has not ended: the server begins no second one of a parent.
    Pending {
        /// The other leaf.
        leaf: String,
    },
    /// Its operation is switched off.
    Off {
        /// The switch.
        switch: &'static str,
    },
    /// Another user detached it from its table.
    Taken,
    /// It must be archived, and no archive is configured.
    NoArchive,
    /// Its rows are not those in the archive.
    Differs,
    /// Row security would hide rows of it from our role: they would be neither counted nor archived.
    RowSecurity,
    /// The server would refuse to seal, detach or drop it.
    Hindered {
        /// The reason.
        by: Hindrance,
    },
}

impl Obstacle {
    /// Whether an operator must act before the leaf can move: reported as a failure.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::RowSecurity | Self::Hindered { .. })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { hold } => write!(f, "held by {} ({}, hold {})", hold.author, hold.reason, hold.id),
            Self::Breaker { leaves, share } => write!(
                f,
                "{leaves} leaves with {:.0} % of the bytes would go at once, more than {} allow: if this is intended, run \
                 {}",
                share * 100.0,
                Advice::Breaker,
                Advice::AllowMany
            ),
            Self::Newest => f.write_str("the newest leaf of its key"),
            Self::Grace { until } => write!(f, "kept until {} (grace)", until.format("%Y-%m-%d %H:%M")),
            Self::Pending { leaf } => write!(f, "after {leaf}, whose detach has not ended"),
            Self::Off { switch } => write!(f, "{} is false", Advice::Switch(switch)),
            Self::Taken => write!(
                f,
                "another user detached it from its table: it is left alone. Attach it again, by hand or with {}, and it \
                 follows the policy",
                Advice::Undo(None)
            ),
            Self::NoArchive => write!(
                f,
                "due for archiving, and no archive can be used: see {}, and {}",
                Advice::ArchivePlace,
                Advice::Doctor
            ),
            Self::Hindered { by } => by.fmt(f),
            Self::RowSecurity => f.write_str(
                "row security would hide rows of it from this role, and hidden rows would not be archived: as its owner, \
                 run ALTER TABLE … NO FORCE ROW LEVEL SECURITY; queries of the table use the table's policies",
            ),
            Self::Differs => {
                f.write_str("its seal was broken, and its rows are not the rows in the archive: see `archive verify`")
            }
        }
    }
}

/// The next moves, and the obstacles of the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moves {
    /// At most one for each leaf, by key, oldest first.
    pub moves: Vec<Move>,
    /// The leaves that would move without an obstacle.
    pub obstacles: Vec<(Entry, Obstacle)>,
}

/// The input of the plan, beside the inventory.
#[derive(Debug, Clone)]
pub struct Terms<'t> {
    /// The policy.
    pub retention: &'t Retention,
    /// The allowed operations.
    pub switches: Switches,
    /// The time from which retention counts back.
    pub reference: &'t Reference,
    /// Whether an archive is available.
    pub can_archive: bool,
    /// Whether an operator allowed many leaves at once.
    pub allow_many: bool,
}

impl Moves {
    /// The keys of which no leaf begins to go, because too many would at once.
    pub fn stopped(&self) -> BTreeMap<i64, &Obstacle> {
        stopped(&self.obstacles)
    }
}

/// The breakers among obstacles, by key.
pub(crate) fn stopped(obstacles: &[(Entry, Obstacle)]) -> BTreeMap<i64, &Obstacle> {
    let is_breaker = |why: &Obstacle| matches!(why, Obstacle::Breaker { .. });
    obstacles.iter().filter(|(_, why)| is_breaker(why)).map(|(entry, why)| (entry.key, why)).collect()
}

/// Decides the next move of each leaf.
pub fn plan_moves(inventory: &Inventory, terms: &Terms<'_>) -> Moves {
    let breakers = breakers(inventory, terms);
    let mut moves = Moves::default();
    for entry in &inventory.entries {
        let hold = inventory.holds_on(entry).next();
        let next = match (reconciled(entry), hold) {
            // No held leaf moves on; a move that we began is reverted.
            (None, Some(_)) if entry.state == State::Detaching => Next::Move(Act::Attach),
            (Some(Act::Finalize), Some(_)) if entry.state == State::Detaching => Next::Move(Act::Attach),
            (Some(Act::Finalize), Some(hold)) => Next::Blocked(Obstacle::Held { hold: Box::new(hold.clone()) }),
            (Some(act), _) => Next::Move(act),
            (None, _) => onward(inventory, terms, entry, &breakers),
        };
        match next {
            Next::Move(act) => moves.moves.push(Move { entry: entry.clone(), act }),
            Next::Blocked(obstacle) => moves.obstacles.push((entry.clone(), obstacle)),
            Next::Rest => {}
        }
    }
    moves
}

/// Whether the time of an attached leaf is over.
pub fn is_due(inventory: &Inventory, terms: &Terms<'_>, entry: &Entry) -> bool {
    terms.retention.action != Action::Keep
        && terms
            .reference
            .cutoff(entry.key, inventory.now, terms.retention.time)
            .is_some_and(|cutoff| entry.bounds.to() <= cutoff)
}

/// The moves of a leaf from `first` on, up to the first obstacle: shown by `plan`. If the leaf waits for its grace period, later
/// moves are left out.
pub fn way(inventory: &Inventory, terms: &Terms<'_>, first: &Move) -> Vec<Move> {
    let mut alone = Inventory { floors: inventory.floors.clone(), now: inventory.now, ..Inventory::default() };
    let mut way = vec![first.clone()];
    while let Some(Move { entry, act }) = way.last()
        && way.len() < LONGEST_WAY
    {
        let mut entry = entry.clone();
        let mark = || Some(String::new());
        match act {
            Act::Note(state) => entry.state = *state,
            Act::Seal => (entry.seal_now, entry.state) = (mark(), entry.state.max(State::Sealed)),
            Act::Archive => {
                (entry.manifest, entry.seal) = (Some(serde_json::Value::Null), entry.seal_now.clone());
                entry.state = entry.state.max(State::Archived);
            }
            Act::Recount => entry.seal.clone_from(&entry.seal_now),
            Act::Retire => {
                alone.floors.insert(entry.key, entry.bounds.upper().time());
                entry.state = entry.state.max(State::Retired);
            }
            Act::Detach | Act::Finalize => {
                (entry.state, entry.presence) = (State::Detached, Presence::Standalone);
                entry.detached_at = Some(inventory.now);
            }
            Act::Attach | Act::Drop | Act::Discard => break,
        }
        match step(&alone, terms, &entry) {
            Next::Move(act) => way.push(Move { entry, act }),
            Next::Blocked(_) | Next::Rest => break,
        }
    }
    way
}

/// More than the number of kinds of moves: each comes once, except sealing.
const LONGEST_WAY: usize = 9;

enum Next {
    Move(Act),
    Blocked(Obstacle),
    Rest,
}

/// If the registry is behind the catalog, or a move was interrupted, this is repaired first, under any policy: the repair loses
/// nothing.
fn reconciled(entry: &Entry) -> Option<Act> {
    use {Presence as P, State as S};
    match (entry.state, entry.presence) {
        (S::Planned, P::Attached) => Some(Act::Note(S::Attached)),
        (S::Planned, P::Standalone | P::Absent) => Some(Act::Discard),
        (S::Taken, P::Standalone | P::Elsewhere) => None,
        (_, P::Elsewhere) => Some(Act::Note(S::Taken)),
        // A detach was begun, by us or by hand, and did not end. Its end is the only way on, or back.
        (_, P::Pending) => Some(Act::Finalize),
        (S::Detaching, P::Standalone) => Some(Act::Note(S::Detached)),
        // Detached by hand, to keep it or for another purpose: it no longer belongs to the manager.
        (S::Attached | S::Sealed | S::Archiving | S::Archived | S::Retired, P::Standalone) => Some(Act::Note(S::Taken)),
        // Attached again by hand.
        (S::Detached | S::Taken, P::Attached) => Some(Act::Note(S::Attached)),
        (S::Dropped, _) => None,
        (_, P::Absent) => Some(Act::Note(S::Dropped)),
        _ => None,
    }
}

/// The next move of a leaf whose registry and catalog agree.
fn onward(inventory: &Inventory, terms: &Terms<'_>, entry: &Entry, breakers: &BTreeMap<i64, Obstacle>) -> Next {
    let begun = entry.state > State::Attached;
    if terms.retention.action == Action::Keep || (!begun && !is_due(inventory, terms, entry)) {
        return Next::Rest;
    }
    if entry.state == State::Taken {
        return if is_due(inventory, terms, entry) { Next::Blocked(Obstacle::Taken) } else { Next::Rest };
    }
    // With this action, the way ends with the detach: there is no obstacle.
    if entry.state == State::Detached && terms.retention.action == Action::Detach {
        return Next::Rest;
    }
    if let Some(hold) = inventory.holds_on(entry).next() {
        return Next::Blocked(Obstacle::Held { hold: Box::new(hold.clone()) });
    }
    if is_newest(inventory, entry) {
        return Next::Blocked(Obstacle::Newest);
    }
    if entry.filtered {
        return Next::Blocked(Obstacle::RowSecurity);
    }
    let of_key = inventory.hindrances.get(&entry.key).filter(|_| entry.presence == Presence::Attached);
    let hindered = of_key.into_iter().chain(&entry.hindrance).find(|by| by.hinders(terms.retention.action));
    if let Some(by) = hindered {
        return Next::Blocked(Obstacle::Hindered { by: by.clone() });
    }
    if entry.state < State::Retired
        && let Some(breaker) = breakers.get(&entry.key)
    {
        return Next::Blocked(breaker.clone());
    }
    step(inventory, terms, entry)
}

fn step(inventory: &Inventory, terms: &Terms<'_>, entry: &Entry) -> Next {
    let (archives, switches) = (terms.retention.action == Action::Archive, terms.switches);
    // A leaf sealed without a policy to archive is next retired: both depend on the same switch.
    let sealing = if archives { (switches.archive, "archive") } else { (switches.detach, "detach") };
    let (act, (on, switch)) = match entry.state {
        State::Attached => (Act::Seal, sealing),
        // In a catalog restored from a dump, every seal is another one.
        State::Archived | State::Retired | State::Detaching if archives && !entry.is_proved() => {
            let act = match (&entry.seal_now, &entry.manifest) {
                (None, _) => Act::Seal,
                (Some(_), None) => Act::Archive,
                (Some(_), Some(_)) => Act::Recount,
            };
            (act, sealing)
        }
        State::Sealed | State::Archiving if archives => (Act::Archive, sealing),
        State::Sealed | State::Archiving | State::Archived => (Act::Retire, (switches.detach, "detach")),
        State::Retired | State::Detaching => (Act::Detach, (switches.detach, "detach")),
        State::Detached => return last_step(inventory, terms, entry),
        State::Planned | State::Taken | State::Dropped => return Next::Rest,
    };
    let must_archive = act == Act::Archive || (act == Act::Seal && archives);
    let pending = |other: &&Entry| other.key == entry.key && other.presence == Presence::Pending;
    match act {
        _ if !on => Next::Blocked(Obstacle::Off { switch }),
        Act::Detach if let Some(other) = inventory.entries.iter().find(pending) => {
            Next::Blocked(Obstacle::Pending { leaf: other.leaf.clone() })
        }
        _ if must_archive && !terms.can_archive => Next::Blocked(Obstacle::NoArchive),
        act => Next::Move(act),
    }
}

/// A detached leaf: archived if it was not, recounted if its seal was broken, dropped when its grace period is over.
fn last_step(inventory: &Inventory, terms: &Terms<'_>, entry: &Entry) -> Next {
    let archives = terms.retention.action == Action::Archive;
    let until = entry.detached_at.and_then(|at| at.checked_add_signed(terms.retention.grace));
    if archives && entry.manifest.is_none() {
        return match (entry.seal_now.is_some(), terms.switches.archive, terms.can_archive) {
            (_, false, _) => Next::Blocked(Obstacle::Off { switch: "archive" }),
            (_, _, false) => Next::Blocked(Obstacle::NoArchive),
            (true, ..) => Next::Move(Act::Archive),
            (false, ..) => Next::Move(Act::Seal),
        };
    }
    let below_floor = inventory.floors.get(&entry.key).is_some_and(|floor| entry.bounds.upper().time() <= *floor);
    match until {
        _ if !below_floor && !is_due(inventory, terms, entry) => Next::Rest,
        _ if !below_floor && !terms.switches.detach => Next::Blocked(Obstacle::Off { switch: "detach" }),
        _ if !below_floor && entry.seal_now.is_none() => Next::Move(Act::Seal),
        _ if !below_floor => Next::Move(Act::Retire),
        Some(until) if until > inventory.now => Next::Blocked(Obstacle::Grace { until }),
        _ if !terms.switches.drop => Next::Blocked(Obstacle::Off { switch: "drop" }),
        _ if entry.seal_now.is_none() => Next::Move(Act::Seal),
        _ if archives && entry.seal != entry.seal_now => Next::Move(Act::Recount),
        _ => Next::Move(Act::Drop),
    }
}

/// Whether no attached leaf of the key holds later times.
fn is_newest(inventory: &Inventory, entry: &Entry) -> bool {
    !inventory.entries.iter().any(|other| {
        other.key == entry.key && other.presence == Presence::Attached && other.bounds.upper() > entry.bounds.upper()
    })
}

/// The keys of which too many leaves would begin to go at once.
fn breakers(inventory: &Inventory, terms: &Terms<'_>) -> BTreeMap<i64, Obstacle> {
    let mut keys: BTreeMap<i64, (usize, i64, i64)> = BTreeMap::new();
    for entry in &inventory.entries {
        let (due, due_bytes, bytes) = keys.entry(entry.key).or_default();
        if entry.state < State::Retired && entry.presence == Presence::Attached {
            *bytes += entry.bytes;
            let goes = is_due(inventory, terms, entry) && inventory.holds_on(entry).next().is_none();
            if goes && !is_newest(inventory, entry) {
                *due += 1;
                *due_bytes += entry.bytes;
            }
        }
    }
    let trips = keys.into_iter().filter_map(|(key, (leaves, due, all))| {
        #[expect(clippy::cast_precision_loss, reason = "a share of bytes")]
        let share = if all > 0 { due as f64 / all as f64 } else { 0.0 };
        let too_many = leaves > terms.retention.max_leaves || share > terms.retention.max_share;
        (too_many && !terms.allow_many).then_some((key, Obstacle::Breaker { leaves, share }))
    });
    trips.collect()
}

#[cfg(test)]
mod tests;
