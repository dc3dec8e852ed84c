//! The next move of a leaf: case by case, and in a model with crashes, judged by the never-drop rule.

use chrono::TimeDelta;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::{Bounds, Scope};

const KEY: i64 = 7;

fn day(day: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000 + day)
}

fn leaf(from: i64, state: State, presence: Presence) -> Entry {
    Entry {
        id: from + 1_000,
        key: KEY,
        schema: "dalp_indexed".to_owned(),
        leaf: format!("logs_{from}"),
        bounds: Bounds::new(Some(day(from)), day(from + 1)).unwrap(),
        state,
        presence,
        parent: Some("logs_7".to_owned()),
        version: 0,
        bytes: 100,
        rows: None,
        manifest: None,
        seal: None,
        seal_now: None,
        filtered: false,
        hindrance: None,
        incarnation: String::new(),
        place: None,
        detached_at: None,
    }
}

fn hold(from: i64, to: i64) -> Hold {
    let scope = Scope { key: None, from: Some(day(from)), to: Some(day(to)) };
    Hold { id: 1, scope, reason: "r".into(), author: "a".into(), created_at: day(0), released: None }
}

fn retention(action: Action) -> Retention {
    Retention { action, time: TimeDelta::days(10), grace: TimeDelta::days(7), max_leaves: 3, max_share: 0.5 }
}

/// The day of now and of the last final block, unless a case gives another one.
const NOW: i64 = 100;

fn terms<'t>(retention: &'t Retention, reference: &'t Reference) -> Terms<'t> {
    Terms { retention, switches: Switches::ALL, reference, can_archive: true, allow_many: false }
}

/// The next move of `entry` beside an attached leaf of now, or its obstacle.
fn next(
    action: Action,
    entry: Entry,
    change: impl FnOnce(&mut Inventory, &mut Terms<'_>),
) -> Result<Option<Act>, Obstacle> {
    let (retention, reference) = (retention(action), Reference::Final(BTreeMap::from([(KEY, day(NOW))])));
    let mut inventory = Inventory {
        entries: vec![entry, leaf(NOW, State::Attached, Presence::Attached)],
        now: day(NOW),
        ..Inventory::default()
    };
    let mut terms = terms(&retention, &reference);
    change(&mut inventory, &mut terms);
    let id = inventory.entries[0].id;
    let moves = plan_moves(&inventory, &terms);
    if let Some((_, obstacle)) = moves.obstacles.into_iter().find(|(entry, _)| entry.id == id) {
        return Err(obstacle);
    }
    Ok(moves.moves.iter().find(|next| next.entry.id == id).map(|next| next.act))
}

#[test]
fn the_catalog_decides_before_any_policy() {
    use {Presence as P, State as S};
    let presences = [P::Attached, P::Pending, P::Standalone, P::Elsewhere, P::Absent];
    let (again, end, gone) = (Some(Act::Note(S::Attached)), Some(Act::Finalize), Some(Act::Note(S::Dropped)));
    let taken = Some(Act::Note(S::Taken));
    let table = [
        (S::Planned, [again, end, Some(Act::Discard), taken, Some(Act::Discard)]),
        (S::Attached, [None, end, taken, taken, gone]),
        (S::Sealed, [None, end, taken, taken, gone]),
        (S::Archiving, [None, end, taken, taken, gone]),
        (S::Archived, [None, end, taken, taken, gone]),
        (S::Retired, [None, end, taken, taken, gone]),
        (S::Detaching, [None, end, Some(Act::Note(S::Detached)), taken, gone]),
        (S::Detached, [again, end, None, taken, gone]),
        (S::Taken, [again, end, None, None, gone]),
    ];
    for (state, presence, act) in
        table.into_iter().flat_map(|(state, acts)| presences.into_iter().zip(acts).map(move |(p, act)| (state, p, act)))
    {
        // Under any policy, also with none, and also if held; but no held leaf is detached.
        assert_eq!(next(Action::Keep, leaf(0, state, presence), |_, _| ()), Ok(act), "{state} {presence:?}");
        let got = next(Action::Keep, leaf(0, state, presence), |inventory, _| inventory.holds.push(hold(0, 1)));
        match (state, presence) {
            (S::Detaching, P::Attached | P::Pending) => assert_eq!(got, Ok(Some(Act::Attach)), "{state} {presence:?}"),
            (_, P::Pending) => assert!(matches!(got, Err(Obstacle::Held { .. })), "{state} {got:?}"),
            _ => assert_eq!(got, Ok(act), "{state} {presence:?}"),
        }
    }
}

#[test]
fn a_leaf_goes_step_by_step() {
    use {Presence as P, State as S};
    for (action, state, act) in [
        (Action::Drop, S::Attached, Act::Seal),
        (Action::Drop, S::Sealed, Act::Retire),
        (Action::Drop, S::Archived, Act::Retire),
        (Action::Drop, S::Retired, Act::Detach),
        (Action::Archive, S::Attached, Act::Seal),
        (Action::Archive, S::Sealed, Act::Archive),
        (Action::Archive, S::Archiving, Act::Archive),
        (Action::Archive, S::Archived, Act::Retire),
        (Action::Detach, S::Sealed, Act::Retire),
    ] {
        let leaf = || Entry {
            manifest: (state >= S::Archived).then(|| serde_json::json!({})),
            seal: (state >= S::Sealed).then(|| "s".into()),
            seal_now: (state >= S::Sealed).then(|| "s".into()),
            ..leaf(0, state, P::Attached)
        };
        assert_eq!(next(action, leaf(), |_, _| ()), Ok(Some(act)), "{action:?} {state}");
        let held = next(action, leaf(), |inventory, _| inventory.holds.push(hold(0, 1)));
        assert!(matches!(held, Err(Obstacle::Held { .. })), "{held:?}");
        let newest = next(action, leaf(), |inventory, _| _ = inventory.entries.pop());
        assert_eq!(newest, Err(Obstacle::Newest));
        let off = Switches { create: true, archive: false, detach: false, drop: false };
        let off = next(action, leaf(), |_, terms| terms.switches = off);
        assert!(matches!(off, Err(Obstacle::Off { .. })), "{off:?}");
    }
    let detaching = next(Action::Drop, leaf(0, S::Detaching, P::Attached), |_, _| ());
    assert_eq!(detaching, Ok(Some(Act::Detach)));
    let second = next(Action::Drop, leaf(0, S::Retired, P::Attached), |inventory, _| {
        inventory.entries.push(leaf(-1, S::Detaching, P::Pending));
    });
    assert_eq!(second, Err(Obstacle::Pending { leaf: "logs_-1".to_owned() }), "one detaching of a parent at a time");
    // Its seal differs from the seal of the count: a restored dump has other seals.
    for (state, act) in [(S::Archived, Act::Recount), (S::Retired, Act::Recount), (S::Detaching, Act::Recount)] {
        let other = Entry {
            manifest: Some(serde_json::json!({})),
            seal: Some("s".into()),
            seal_now: Some("t".into()),
            ..leaf(0, state, P::Attached)
        };
        assert_eq!(next(Action::Archive, other.clone(), |_, _| ()), Ok(Some(act)), "{state}");
        let open = Entry { seal_now: None, ..other.clone() };
        assert_eq!(next(Action::Archive, open, |_, _| ()), Ok(Some(Act::Seal)), "{state}");
        let bare = Entry { manifest: None, ..other };
        assert_eq!(next(Action::Archive, bare, |_, _| ()), Ok(Some(Act::Archive)), "{state}");
    }
    let nowhere = next(Action::Archive, leaf(0, S::Attached, P::Attached), |_, terms| terms.can_archive = false);
    assert_eq!(nowhere, Err(Obstacle::NoArchive));
}

#[test]
fn only_what_is_wholly_older_than_retention_is_due() {
    for (from, due) in [(88, true), (89, true), (90, false), (99, false), (0, true)] {
        let got = next(Action::Drop, leaf(from, State::Attached, Presence::Attached), |_, _| ());
        assert_eq!(got, Ok(due.then_some(Act::Seal)), "day {from}");
    }
    let attached = || leaf(0, State::Attached, Presence::Attached);
    // A clock that jumped ahead makes no leaf due, because the final time decides. A stopped clock neither.
    let retention = retention(Action::Drop);
    for (now, fin, due) in [(NOW + 40_000, 5, false), (5, NOW, false), (NOW, NOW, true)] {
        let reference = Reference::Final(BTreeMap::from([(KEY, day(fin))]));
        let inventory = Inventory { now: day(now), ..Inventory::default() };
        assert_eq!(is_due(&inventory, &terms(&retention, &reference), &attached()), due, "{now} {fin}");
    }
    let nothing_final = Reference::Final(BTreeMap::new());
    let inventory = Inventory { now: day(NOW), ..Inventory::default() };
    assert!(!is_due(&inventory, &terms(&retention, &nothing_final), &attached()));
    let reference = Reference::Final(BTreeMap::from([(KEY, day(NOW))]));
    assert!(is_due(&inventory, &terms(&retention, &reference), &attached()));
    let forever = Retention { time: TimeDelta::MAX, ..retention };
    assert!(!is_due(&inventory, &terms(&forever, &reference), &attached()));
}

#[test]
fn a_detached_leaf_waits_for_its_grace_and_its_proof() {
    let detached = |ago: i64| Entry {
        detached_at: Some(day(NOW - ago)),
        seal: Some("s".into()),
        seal_now: Some("s".into()),
        manifest: Some(serde_json::json!({})),
        ..leaf(0, State::Detached, Presence::Standalone)
    };
    let floored = |inventory: &mut Inventory| _ = inventory.floors.insert(KEY, day(1).into());
    assert_eq!(next(Action::Archive, detached(7), |inventory, _| floored(inventory)), Ok(Some(Act::Drop)));
    let early = next(Action::Archive, detached(6), |inventory, _| floored(inventory));
    assert_eq!(early, Err(Obstacle::Grace { until: day(NOW + 1) }));
    let held = next(Action::Archive, detached(70), |inventory, _| {
        floored(inventory);
        inventory.holds.push(hold(-5, 1));
    });
    assert!(matches!(held, Err(Obstacle::Held { .. })));
    assert_eq!(next(Action::Archive, detached(70), |_, _| ()), Ok(Some(Act::Retire)), "the floor is below it");
    let broken = Entry { seal_now: Some("t".into()), ..detached(70) };
    assert_eq!(next(Action::Archive, broken.clone(), |inventory, _| floored(inventory)), Ok(Some(Act::Recount)));
    assert_eq!(
        next(Action::Drop, broken, |inventory, _| floored(inventory)),
        Ok(Some(Act::Drop)),
        "nothing to compare with"
    );
    let open = Entry { seal_now: None, ..detached(70) };
    assert_eq!(next(Action::Archive, open, |inventory, _| floored(inventory)), Ok(Some(Act::Seal)));
    let bare = Entry { manifest: None, ..detached(70) };
    assert_eq!(next(Action::Archive, bare.clone(), |inventory, _| floored(inventory)), Ok(Some(Act::Archive)));
    assert_eq!(next(Action::Detach, bare, |inventory, _| floored(inventory)), Ok(None), "it stays as it is");
    // Detached by hand before its time: kept.
    let young = Entry { bounds: Bounds::new(Some(day(95)), day(96)).unwrap(), ..detached(70) };
    assert_eq!(next(Action::Archive, young, |_, _| ()), Ok(None));
}

#[test]
fn too_much_at_once_is_not_begun() {
    let (retention, reference) = (retention(Action::Drop), Reference::Final(BTreeMap::from([(KEY, day(NOW))])));
    let begin = |days: std::ops::Range<i64>, young: i64, allow_many| {
        let mut entries: Vec<Entry> = days.map(|from| leaf(from, State::Attached, Presence::Attached)).collect();
        entries.extend((0..young).map(|more| leaf(NOW + more, State::Attached, Presence::Attached)));
        // On its way already: continues.
        entries.push(leaf(-9, State::Retired, Presence::Attached));
        let inventory = Inventory { entries, now: day(NOW), ..Inventory::default() };
        let moves = plan_moves(&inventory, &Terms { allow_many, ..terms(&retention, &reference) });
        (moves.moves.len(), moves.stopped().contains_key(&KEY))
    };
    assert_eq!(begin(0..3, 9, false), (4, false));
    assert_eq!(begin(0..4, 9, false), (1, true), "more than three leaves");
    assert_eq!(begin(0..2, 1, false), (1, true), "two thirds of the bytes");
    assert_eq!(begin(0..1, 1, false), (2, false), "half of the bytes");
    let alone = |bytes, allow_many| {
        let large = Entry { bytes, ..leaf(0, State::Attached, Presence::Attached) };
        let entries = vec![large, leaf(NOW, State::Attached, Presence::Attached)];
        let inventory = Inventory { entries, now: day(NOW), ..Inventory::default() };
        plan_moves(&inventory, &Terms { allow_many, ..terms(&retention, &reference) }).moves.len()
    };
    assert_eq!((alone(101, false), alone(101, true), alone(100, false)), (0, 1, 1), "a single leaf, too");
    assert_eq!(begin(0..40, 1, true), (41, false));
}

#[test]
fn words_are_read_as_they_are_written() {
    let fates = [Action::Keep, Action::Detach, Action::Drop, Action::Archive];
    assert_eq!(Action::NAMES.iter().map(|name| name.parse()).collect::<Vec<_>>(), fates.map(Ok));
    assert_eq!("dropped".parse::<Action>(), Err(()));
    for (act, word, lock) in [
        (Act::Note(State::Attached), "note", "none"),
        (Act::Seal, "seal", "SHARE ROW EXCLUSIVE on the leaf"),
        (Act::Archive, "archive", "ACCESS SHARE on the leaf"),
        (Act::Retire, "retire", "rows of the registry"),
        (Act::Detach, "detach", "SHARE UPDATE EXCLUSIVE on parent and leaf"),
        (Act::Finalize, "finalize", "SHARE UPDATE EXCLUSIVE on the parent"),
        (Act::Attach, "attach", "SHARE UPDATE EXCLUSIVE on the parent"),
        (Act::Recount, "recount", "ACCESS SHARE on the leaf"),
        (Act::Drop, "drop", "ACCESS EXCLUSIVE on the detached table"),
        (Act::Discard, "discard", "ACCESS EXCLUSIVE on the detached table"),
    ] {
        assert!(act.word() == word && act.lock().starts_with(lock), "{act:?}: {} {}", act.word(), act.lock());
    }
}

#[test]
fn an_obstacle_says_what_stands_in_the_way_and_what_to_do() {
    for (obstacle, text) in [
        (Obstacle::Held { hold: Box::new(hold(0, 1)) }, "held by a (r, hold 1)"),
        (Obstacle::Breaker { leaves: 4, share: 0.25 }, "4 leaves with 25 % of the bytes would go at once"),
        (Obstacle::Newest, "the newest leaf of its key"),
        (Obstacle::Grace { until: day(0) }, "kept until 2024-10-04 00:00 (grace)"),
        (Obstacle::Pending { leaf: "logs_1".into() }, "after logs_1, whose detach has not ended"),
        (Obstacle::Off { switch: "drop" }, "`Switches::drop` is false"),
        (Obstacle::Taken, "another user detached it from its table: it is left alone"),
        (Obstacle::NoArchive, "see the archive's URL"),
        (
            Obstacle::Hindered { by: Hindrance::Default { parent: "s.p".into(), partition: "s.rest".into() } },
            "ALTER TABLE s.p DETACH PARTITION s.rest",
        ),
        (
            Obstacle::Hindered { by: Hindrance::Referenced { by: "k".into(), of: "s.t".into() } },
            "foreign key k of s.t points here",
        ),
        (Obstacle::Differs, "see `archive verify`"),
    ] {
        assert!(obstacle.to_string().contains(text), "{obstacle}");
    }
}

/// A database, and a manager that crashes.
struct Model {
    rng: StdRng,
    inventory: Inventory,
    action: Action,
    reference: BTreeMap<i64, DateTime<Utc>>,
    today: i64,
    seals: u64,
    dropped: Vec<i64>,
}

fn archive(entry: &mut Entry, crash: bool) {
    entry.version += 1;
    entry.manifest = None;
    if entry.state != State::Detached {
        entry.state = State::Archiving;
    }
    // Without its seal, it does not become archived.
    if !crash && entry.seal_now.is_some() {
        entry.manifest = Some(serde_json::json!({ "version": entry.version }));
        entry.seal = entry.seal_now.clone();
        if entry.state != State::Detached {
            entry.state = State::Archived;
        }
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        let inventory = Inventory { now: day(0), ..Inventory::default() };
        let rng = StdRng::seed_from_u64(seed);
        Self {
            rng,
            inventory,
            action: Action::Archive,
            reference: BTreeMap::new(),
            today: 0,
            seals: 0,
            dropped: Vec::new(),
        }
    }

    /// A change from outside.
    fn live(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => {
                self.today += self.rng.random_range(1..4);
                while !self.inventory.entries.iter().any(|entry| entry.bounds.to() > day(self.today)) {
                    let newest = self.inventory.entries.iter().map(|entry| entry.id - 1_000).max().unwrap_or(-1);
                    self.inventory.entries.push(leaf(
                        newest.max(self.dropped.iter().copied().max().unwrap_or(-1)) + 1,
                        State::Attached,
                        Presence::Attached,
                    ));
                }
                self.reference.insert(KEY, day(self.today));
                self.inventory.now = day(self.today);
            }
            4 => self.inventory.now = day(self.today + self.rng.random_range(-500..5_000)),
            5 => {
                let from = self.rng.random_range(-2..self.today.max(1));
                self.inventory.holds.push(hold(from, from + self.rng.random_range(1..5)));
            }
            6 => self.inventory.holds.clear(),
            7 => {
                self.action = [Action::Archive, Action::Drop, Action::Detach, Action::Keep][self.rng.random_range(0..4)]
            }
            // A user breaks a seal, detaches or attaches by hand.
            8 => {
                let broken = format!("broken {}", self.rng.random::<u32>());
                let count = self.inventory.entries.len();
                if count > 0 {
                    let at = self.rng.random_range(0..count);
                    let entry = &mut self.inventory.entries[at];
                    entry.seal_now = entry.seal_now.as_ref().map(|_| broken);
                }
            }
            _ => {
                let count = self.inventory.entries.len();
                if count > 0 {
                    let at = self.rng.random_range(0..count);
                    let entry = &mut self.inventory.entries[at];
                    entry.presence = match entry.presence {
                        Presence::Attached => [Presence::Pending, Presence::Standalone][self.rng.random_range(0..2)],
                        Presence::Standalone => [Presence::Attached, Presence::Elsewhere][self.rng.random_range(0..2)],
                        Presence::Elsewhere => Presence::Attached,
                        other => other,
                    };
                }
            }
        }
    }

    /// Makes a move like the executor, or the part before a crash.
    fn carry_out(&mut self, next: &Move, crash: bool) {
        self.seals += 1;
        let mark = format!("seal {}", self.seals);
        let now = self.inventory.now;
        let at = self.inventory.entries.iter().position(|entry| entry.id == next.entry.id).unwrap();
        self.judge(next);
        let entry = &mut self.inventory.entries[at];
        match (next.act, crash) {
            (Act::Note(state), _) => {
                entry.state = state;
                entry.detached_at = (state == State::Detached).then(|| entry.detached_at.unwrap_or(now));
                if state == State::Dropped {
                    self.inventory.entries.remove(at);
                }
            }
            (Act::Seal, false) => {
                entry.seal_now = Some(mark);
                if entry.state == State::Attached {
                    entry.state = State::Sealed;
                }
            }
            (Act::Archive, crash) => archive(entry, crash),
            (Act::Retire, false) => {
                let floor = self.inventory.floors.entry(KEY).or_insert(entry.bounds.upper().time());
                *floor = (*floor).max(entry.bounds.upper().time());
                if entry.state != State::Detached {
                    entry.state = State::Retired;
                }
            }
            (Act::Detach, crash) => {
                entry.state = State::Detaching;
                entry.presence = match (crash, self.rng.random_range(0..3)) {
                    (false, _) | (true, 2) => Presence::Standalone,
                    (true, 1) => Presence::Pending,
                    (true, _) => Presence::Attached,
                };
                if !crash {
                    (entry.state, entry.detached_at) = (State::Detached, Some(now));
                }
            }
            (Act::Finalize, false) => {
                let is_ours = matches!(entry.state, State::Detaching | State::Detached);
                entry.state = if is_ours { State::Detached } else { State::Taken };
                (entry.presence, entry.detached_at) = (Presence::Standalone, is_ours.then_some(now));
            }
            (Act::Attach, false) => {
                let is_proved = entry.is_proved();
                (entry.state, entry.presence) = (State::Attached, Presence::Attached);
                if is_proved { entry.state = State::Archived } else { entry.seal_now = None }
            }
            (Act::Recount, false) => entry.seal = entry.seal_now.clone(),
            (Act::Drop, false) | (Act::Discard, false) => {
                self.dropped.push(entry.id - 1_000);
                self.inventory.entries.remove(at);
            }
            (Act::Seal | Act::Retire | Act::Finalize | Act::Attach | Act::Recount | Act::Drop | Act::Discard, true) => {
            }
        }
    }

    /// Outcomes that no policy may cause.
    fn judge(&self, next: &Move) {
        let is_held = self.inventory.holds_on(&next.entry).next().is_some();
        if next.act == Act::Drop {
            self.judge_drop(&next.entry);
        }
        if matches!(next.act, Act::Seal | Act::Retire | Act::Detach | Act::Finalize | Act::Drop) {
            assert!(!is_held, "{:?} of a held leaf", next.act);
        }
        if matches!(next.act, Act::Retire | Act::Detach | Act::Drop) {
            assert!(!is_newest(&self.inventory, &next.entry), "{:?} of the newest leaf", next.act);
        }
        let mut pending = self.inventory.entries.iter().filter(|entry| entry.presence == Presence::Pending);
        assert!(next.act != Act::Detach || pending.next().is_none(), "the server would refuse it");
    }

    /// The never-drop rule, written a second time and independently.
    fn judge_drop(&self, entry: &Entry) {
        assert_eq!((entry.state, entry.presence), (State::Detached, Presence::Standalone));
        assert!(self.inventory.floors[&KEY] >= entry.bounds.upper().time(), "above the floor");
        assert!(entry.seal_now.is_some(), "open to writes");
        assert!(self.inventory.now - entry.detached_at.unwrap() >= TimeDelta::days(7), "within its grace");
        assert!(matches!(self.action, Action::Drop | Action::Archive));
        if self.action == Action::Archive {
            assert!(entry.manifest.is_some() && entry.seal == entry.seal_now, "without proof");
        }
    }

    /// At most three leaves, or half of the bytes, begin to go or approach the floor; all leaves have the same size.
    fn judge_breaker(&self, moves: &[Move]) {
        let stands = |entry: &Entry| entry.state < State::Retired && entry.presence == Presence::Attached;
        let goes = |next: &&Move| stands(&next.entry) && matches!(next.act, Act::Seal | Act::Archive | Act::Retire);
        let (going, all) =
            (moves.iter().filter(goes).count(), self.inventory.entries.iter().filter(|entry| stands(entry)).count());
        assert!(going <= 3 && going * 2 <= all, "{going} of {all} go at once");
    }

    /// A run, which may crash at any move; then runs to the end.
    fn run(&mut self) {
        let crash_at = self.rng.random_range(0..12);
        // Without permission, many leaves at once stay until a user allows them.
        let allow_many = self.rng.random_bool(0.7);
        for round in 0..60 {
            let (retention, reference) = (retention(self.action), Reference::Final(self.reference.clone()));
            let terms = Terms { allow_many, ..terms(&retention, &reference) };
            let moves = plan_moves(&self.inventory, &terms).moves;
            if !allow_many {
                self.judge_breaker(&moves);
            }
            if moves.is_empty() {
                return;
            }
            for next in moves {
                let crash = round == 0 && self.rng.random_range(0..12) == crash_at;
                self.carry_out(&next, crash);
                if crash {
                    break;
                }
            }
        }
        panic!("it goes in circles: {:#?}", self.inventory.entries);
    }
}

#[test]
fn nothing_is_lost_whatever_happens_and_wherever_it_crashes() {
    let given = std::env::var("DALP_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let first: u64 = given.unwrap_or_else(rand::random);
    let mut dropped = 0;
    for seed in (0..300).map(|more| first.wrapping_add(more)) {
        println!("replay with DALP_TEST_SEED={seed}");
        let mut model = Model::new(seed);
        for _ in 0..60 {
            model.live();
            model.run();
        }
        dropped += model.dropped.len();
    }
    assert!(dropped > 1_000, "only {dropped} leaves ever went: the model does not test much");
}
