//! The planner against a model: random steps on a catalog, with invariants that hold after each step.
//!
//! `DALP_TEST_SEED` replays the seed that a failed test printed.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::Interval;

const SEEDS: u64 = 300;
const STEPS: usize = 60;

struct Model {
    seed: u64,
    random: StdRng,
    catalog: Catalog,
    policy: Policy,
    now: DateTime<Utc>,
    made: usize,
    refused: usize,
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let table = ["logs", &"é".repeat(31), &"x".repeat(63), "a"][random.random_range(0..4)].to_owned();
        let catalog = Catalog { table, key: random.random(), ..Catalog::default() };
        let (policy, now) = (Policy::default(), at("2024-03-20T12:00:00Z"));
        Self { seed, random, catalog, policy, now, made: 0, refused: 0 }
    }

    fn chance(&mut self, of: u32) -> bool {
        self.random.random_range(0..of) == 0
    }

    /// Normal times, and times that should never come.
    fn time(&mut self) -> DateTime<Utc> {
        let hours = |random: &mut StdRng, most: i64| TimeDelta::minutes(random.random_range(-60 * most..60 * most));
        let extremes = [
            DateTime::<Utc>::MIN_UTC,
            DateTime::<Utc>::MAX_UTC,
            DateTime::UNIX_EPOCH,
            DateTime::from_timestamp_micros(i64::MIN).unwrap_or(DateTime::<Utc>::MIN_UTC),
            DateTime::from_timestamp_micros(i64::MAX).unwrap_or(DateTime::<Utc>::MAX_UTC),
            DateTime::from_timestamp_nanos(i64::MAX),
            at("+52217-05-06T07:08:09Z"),
        ];
        let edge = match self.catalog.leaves.len() {
            0 => None,
            count => {
                let bounds = self.catalog.leaves[self.random.random_range(0..count)].bounds;
                let edge = if self.random.random() { bounds.from() } else { Some(bounds.to()) };
                edge.and_then(|edge| edge.checked_add_signed(TimeDelta::microseconds(self.random.random_range(-1..=1))))
            }
        };
        match self.random.random_range(0..10) {
            0 => extremes[self.random.random_range(0..extremes.len())],
            1 | 2 => edge.unwrap_or(self.now),
            3 => at("2020-01-01T00:00:00Z") + hours(&mut self.random, 50_000),
            4 => self.now.checked_add_signed(hours(&mut self.random, 900_000)).unwrap_or(self.now),
            _ => self.now.checked_add_signed(hours(&mut self.random, 500)).unwrap_or(self.now),
        }
    }

    /// Clocks jump by years and return, or show times outside the calendar.
    fn jump(&mut self) {
        self.now = match self.random.random_range(0..6) {
            0 => [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC][self.random.random_range(0..2)],
            1 => DateTime::UNIX_EPOCH,
            2 | 3 => at("2024-03-20T12:00:00Z"),
            _ => {
                let by = TimeDelta::days(self.random.random_range(-3_000..3_000));
                self.now.checked_add_signed(by).unwrap_or(self.now)
            }
        };
    }

    fn reconfigure(&mut self) {
        let random = &mut self.random;
        let first = if random.random_range(0..4) > 0 { 0 } else { random.random_range(0..9_000) };
        self.policy = Policy {
            interval: Interval::ALL[random.random_range(0..5)],
            history: Interval::ALL[random.random_range(0..5)],
            history_after: TimeDelta::days(random.random_range(0..400)),
            premake: random.random_range(0..5),
            max_leaves: random.random_range(20..200),
            first: at("2015-01-01T00:00:00Z") + TimeDelta::hours(first),
            ahead_at_most: [TimeDelta::days(36_525), TimeDelta::days(3), TimeDelta::MAX][random.random_range(0..3)],
        };
    }

    /// Leaves go by retention, one or a dozen at a time; some keep their names, as separate tables.
    fn remove(&mut self) {
        for _ in 0..self.random.random_range(1..12).min(self.catalog.leaves.len()) {
            let place = self.random.random_range(0..self.catalog.leaves.len());
            if self.chance(8) {
                self.catalog.leaves[place].detaching ^= true;
            } else {
                let leaf = self.catalog.leaves.remove(place);
                if self.random.random() {
                    self.catalog.names.remove(&leaf.name);
                }
            }
        }
    }

    fn need(&mut self) -> Need {
        let times = (0..self.random.random_range(0..9)).map(|_| self.time()).collect();
        let head = self.random.random::<bool>().then(|| self.time());
        let load = if self.chance(3) { Bounds::new(Some(self.time()), self.time()) } else { None };
        let bare_before = self.random.random::<bool>().then(|| self.time());
        Need { times, head, bare_before, load }
    }

    fn plan(&mut self) {
        let need = self.need();
        let told = format!("seed {}, now {}, {need:?}, {:?}", self.seed, self.now, self.policy);
        let before = self.catalog.clone();
        match plan(&before, &self.policy, self.now, &need) {
            Ok(plan) => {
                let new = apply(&mut self.catalog, &plan, &told);
                self.made += new.len();
                let after = &self.catalog;
                let check =
                    Check { policy: &self.policy, now: self.now, need: &need, before: &before, after, new: &new };
                check.all(&plan, &told);
            }
            Err(PlanError::TooMany { would_be, max_leaves, .. }) => {
                self.refused += 1;
                let most = before.leaves.len() + need.times.len() + self.policy.premake as usize + 1;
                assert!(max_leaves == self.policy.max_leaves && (max_leaves + 1..=most).contains(&would_be), "{told}");
            }
            Err(PlanError::Detaching { time, leaf }) => {
                let leaf = before.leaves.iter().find(|other| other.name == leaf);
                assert!(leaf.is_some_and(|leaf| leaf.detaching && leaf.bounds.contains(time)), "{told}");
                assert!(need.times.contains(&time) && !self.policy.is_absurd(time, self.now), "{told}");
            }
        }
    }

    fn run(mut self) -> (usize, usize) {
        for _ in 0..STEPS {
            match self.random.random_range(0..10) {
                0 => self.jump(),
                1 => self.reconfigure(),
                2 | 3 => self.remove(),
                _ => self.plan(),
            }
        }
        (self.made, self.refused)
    }
}

/// Carries the plan out; names must be new, and fit.
fn apply(catalog: &mut Catalog, plan: &Plan, told: &str) -> Vec<Bounds> {
    let mut new = Vec::new();
    for step in &plan.steps {
        let (Step::CreateLeaf { name, .. } | Step::CreateSubParent { name }) = step;
        assert!(catalog.names.insert(name.clone()), "{name} twice; {told}");
        assert!((1..=63).contains(&name.len()), "{name} is too long; {told}");
        match step {
            Step::CreateSubParent { name } => assert_eq!(catalog.sub_parent.replace(name.clone()), None, "{told}"),
            Step::CreateLeaf { name, bounds, .. } => {
                assert!(catalog.sub_parent.is_some(), "{told}");
                new.push(*bounds);
                catalog.leaves.push(Leaf {
                    name: name.clone(),
                    bounds: *bounds,
                    detaching: false,
                    indexes: Vec::new(),
                });
            }
        }
    }
    assert!(new.is_sorted_by(|one, next| one.to() < next.to()), "{told}");
    catalog.leaves.sort_by_key(|leaf| leaf.bounds.to());
    new
}

/// A completed plan.
struct Check<'c> {
    policy: &'c Policy,
    now: DateTime<Utc>,
    need: &'c Need,
    before: &'c Catalog,
    after: &'c Catalog,
    new: &'c [Bounds],
}

impl Check<'_> {
    fn all(&self, plan: &Plan, told: &str) {
        let leaves = &self.after.leaves;
        let disjoint =
            leaves.windows(2).all(|pair| pair[1].bounds.from().is_some_and(|from| from >= pair[0].bounds.to()));
        assert!(disjoint, "leaves overlap; {told}");

        let absurd = |time: &DateTime<Utc>| self.policy.is_absurd(*time, self.now);
        assert_eq!(self.after.uncovered(self.need.times.iter().copied()), plan.quarantined, "not covered; {told}");
        assert!(plan.quarantined.iter().all(absurd), "quarantined in vain; {told}");

        let again = super::plan(self.after, self.policy, self.now, self.need).unwrap();
        assert_eq!(again, Plan { steps: Vec::new(), quarantined: plan.quarantined.clone() }, "not idempotent; {told}");

        let is_over = !self.new.is_empty() && leaves.len() > self.policy.max_leaves;
        let of_now = self.need.times.iter().filter(|time| self.policy.is_of_now(**time, self.now)).count();
        let of_head = self.need.head.map_or(0, |_| self.policy.premake as usize + 1);
        assert!(!is_over || self.new.len() <= of_now + of_head, "too many; {told}");
        let rows: BTreeSet<_> = self.need.times.iter().filter(|time| self.before.leaf_at(**time).is_none()).collect();
        let ahead = self.need.head.map_or(0, |_| self.policy.premake as usize + 1);
        let onward = self.need.load.map_or(0, |_| 2 * MOST_ONWARD);
        assert!(self.new.len() <= rows.len() + ahead + onward, "{} leaves are not bounded; {told}", self.new.len());

        let why: Vec<_> = (0..=WIDEST).map(|widened| self.is_needed(widened)).collect();
        assert!(why.contains(&Ok(())), "{:?}: {why:?}; {told}", self.new);
    }

    /// Checks, at one width, that each new leaf is correct and needed, and that no leaf is missing ahead of the head.
    fn is_needed(&self, widened: u32) -> Result<(), String> {
        let walked = self.walk_ahead(widened)?;
        for bounds in self.new {
            let is_onward = self.need.load.is_some_and(|load| load.overlaps(bounds));
            let is_row = self.need.times.iter().any(|time| bounds.contains(*time));
            let is_asked = is_row || is_onward || walked.contains(bounds);
            is_asked.then_some(()).ok_or_else(|| format!("nobody needs {bounds}"))?;
            self.fits(bounds, widened)
                .then_some(())
                .ok_or_else(|| format!("no interval cut at neighbours: {bounds}"))?;
        }
        Ok(())
    }

    /// Whether bounds are one interval of old or recent times, or its rest beside a neighbour leaf.
    fn fits(&self, bounds: &Bounds, widened: u32) -> bool {
        let just_before = bounds.to() - TimeDelta::microseconds(1);
        let wide = |interval: Interval| (0..widened).fold(interval, |interval, _| interval.wider());
        [self.policy.interval, self.policy.history].map(wide).iter().any(|interval| {
            let (Some(start), first) = (interval.start_of(just_before), self.policy.first) else { return false };
            let (from, to) = match interval.after(start) {
                _ if just_before < first => (None, Some(first)),
                to => (Some(start.max(first)), to),
            };
            let mut others = self.after.leaves.iter().map(|leaf| leaf.bounds);
            let is_from = bounds.from() == from || others.clone().any(|other| Some(other.to()) == bounds.from());
            let is_to = Some(bounds.to()) == to || others.any(|other| other.from() == Some(bounds.to()));
            is_from && is_to && bounds.from().is_none_or(|own| from.is_none_or(|from| own >= from))
        })
    }

    /// Leaves exist from the head on: without a gap, as far as the policy says.
    fn walk_ahead(&self, widened: u32) -> Result<Vec<Bounds>, String> {
        let Some(head) = self.need.head else { return Ok(Vec::new()) };
        let mut reach = head;
        for _ in 0..=self.policy.premake {
            reach = self.policy.bounds_at(reach, self.now, widened).map_or(reach, |bounds| bounds.to());
        }
        let (mut time, mut walked) = (head, Vec::new());
        while walked.len() <= self.policy.premake as usize && time < reach && !self.policy.is_absurd(time, self.now) {
            let leaf = self.after.leaves.iter().find(|leaf| leaf.bounds.contains(time));
            let leaf = leaf.ok_or_else(|| format!("nothing stands at {time}, ahead of {head}"))?;
            walked.push(leaf.bounds);
            time = leaf.bounds.to();
        }
        Ok(walked)
    }
}

#[test]
fn whatever_comes_the_leaves_are_those_that_are_needed() {
    let given = std::env::var("DALP_TEST_SEED").ok().map(|seed| seed.parse().expect("DALP_TEST_SEED is a number"));
    let start = given.unwrap_or_else(|| rand::random_range(0..u64::MAX - SEEDS));
    let seeds = if given.is_some() { start..start + 1 } else { start..start + SEEDS };
    println!("{} seeds from {start}; replay one with DALP_TEST_SEED", seeds.end - seeds.start);
    let ran: Vec<_> = seeds.map(|seed| Model::new(seed).run()).collect();
    let (made, refused) = ran.iter().fold((0, 0), |(made, refused), ran| (made + ran.0, refused + ran.1));
    println!("{made} leaves, {refused} plans refused");
    assert!(given.is_some() || made > 20 * ran.len(), "too little happened: {made} leaves");
}

/// A wild clock makes no more leaves than a normal one: existing leaves are not made again.
#[test]
fn a_clock_that_jumps_makes_nothing_more() {
    let (policy, need) = (Policy::default(), Need::ahead_of(at("2024-03-20T12:00:00Z")));
    let mut catalog = Catalog { table: "logs".to_owned(), ..Catalog::default() };
    let mut counts = Vec::new();
    for round in 0..200 {
        let years = [0, 10, -10, 55, -60, 200_000, -200_000][round % 7];
        let now = need.head.and_then(|head| head.checked_add_signed(TimeDelta::days(365 * years))).unwrap();
        let plan = plan(&catalog, &policy, now, &need).unwrap();
        apply(&mut catalog, &plan, "jumping");
        counts.push(catalog.leaves.len());
    }
    assert!(counts[6] <= 7 && counts[6..].iter().all(|count| *count == counts[6]), "{counts:?}");
}

#[test]
fn a_dropped_range_stays_away_until_it_is_needed() {
    let (policy, now) = (Policy::default(), at("2024-03-20T12:00:00Z"));
    let mut catalog = Catalog { table: "logs".to_owned(), ..Catalog::default() };
    let days = |range: std::ops::Range<i64>| Need::rows(range.map(|day| now - TimeDelta::days(day)));
    let run = |catalog: &mut Catalog, need: &Need| {
        let plan = plan(catalog, &policy, now, need).unwrap();
        apply(catalog, &plan, "dropping").len()
    };
    assert_eq!(run(&mut catalog, &days(0..40)), 40);
    let dropped: Vec<_> = catalog.leaves.drain(..20).map(|leaf| leaf.bounds).collect();
    assert_eq!(run(&mut catalog, &days(0..20)), 0);
    assert_eq!(run(&mut catalog, &Need::ahead_of(now)), 3);
    assert!(!catalog.leaves.iter().any(|leaf| dropped.iter().any(|bounds| bounds.overlaps(&leaf.bounds))));
    assert_eq!(run(&mut catalog, &days(25..26)), 1);
    assert_eq!(catalog.leaves.iter().filter(|leaf| dropped.contains(&leaf.bounds)).count(), 1);
}
