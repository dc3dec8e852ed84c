//! The health of one node: the results of its calls, its rests, and its grade. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

use crate::backoff::jittered;
use crate::status::NodeReport;

/// Failures in a row that open the circuit breaker: the node rests.
const TRIP: u32 = 3;
/// The first rest; each further one is twice as long, up to the last.
const FIRST_REST: Duration = Duration::from_secs(1);
const LAST_REST: Duration = Duration::from_secs(60);
/// After this time, a failure no longer affects the choice of a node.
const FORGIVEN: Duration = Duration::from_secs(60);
/// A failure followed by successes is shown for this time.
const TOLD: Duration = Duration::from_secs(10);
/// A node is behind if it is more than this number of blocks below another one, and more than this number of seconds of chain
/// time or of no progress, in this number of polls in a row: smaller values are the normal spread of nodes that receive a block
/// one after the other.
const BEHIND_BLOCKS: u64 = 2;
const BEHIND_SECONDS: i64 = 2;
const BEHIND_POLLS: u32 = 3;
/// An older head says nothing about the other nodes.
const FRESH: Duration = Duration::from_secs(60);

/// The grade of a node; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It answers, and its answers are consistent.
    Good,
    /// Its head stays behind the others'.
    Lagging,
    /// Its last calls failed, or it lacked a requested object.
    Troubled,
    /// Its chain is not known yet.
    Unchecked,
    /// Its logs were proved wrong, and it has not proved correct logs since.
    Caught,
    /// Its circuit breaker is open until then.
    Resting(Instant),
    /// It serves another chain.
    Refused,
}

/// The relevant part of a newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenHead {
    /// Its number.
    pub number: u64,
    /// Its time, Unix seconds.
    pub time: i64,
    /// The time of its report.
    pub at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    began: Instant,
    until: Instant,
    /// The node asked for the rest.
    throttled: bool,
}

/// The results of one node's calls.
#[derive(Clone, Debug, Default)]
pub struct Health {
    answered: bool,
    /// Milliseconds of its light calls, smoothed.
    latency: Option<f64>,
    /// Failed calls in a row.
    failures: u32,
    /// Inconsistent answers in a row, since the last consistent batch. A node that lies still answers.
    wrong: u32,
    /// Missing blocks in a row.
    missing: u32,
    behind: u32,
    head: Option<SeenHead>,
    last_error: Option<String>,
    failed_at: Option<Instant>,
    rest: Option<Rest>,
    /// Rests in a row.
    rests: u32,
}

impl Health {
    /// A call that `began` then was answered. `light`: it was so small that its duration depends only on the node.
    pub fn answered(&mut self, began: Instant, now: Instant, light: bool) {
        self.answered = true;
        self.failures = 0;
        if light {
            let took = (now - began).as_secs_f64() * 1_000.0;
            self.latency = Some(self.latency.map_or(took, |known| known * 0.8 + took * 0.2));
        }
        // An answer from before the rest says nothing about the time after it.
        if self.wrong < TRIP && self.rest.is_some_and(|rest| rest.began <= began || rest.until <= now) {
            self.rest = None;
            self.rests = 0;
        }
    }

    /// A call that `began` then failed. `true` if a working node rests from now on.
    pub fn failed(&mut self, began: Instant, now: Instant, why: String, random: f64) -> bool {
        self.trouble(now, why);
        self.failures += 1;
        self.failures >= TRIP && self.rest_from(began, now, None, random) && self.rests == 1
    }

    /// A call that `began` then was postponed; `after`: the end of the pause, if the node names it.
    pub fn throttled(&mut self, began: Instant, now: Instant, why: String, after: Option<Duration>, random: f64) {
        self.trouble(now, why);
        self.rest_from(began, now, Some(after.unwrap_or_default()), random);
    }

    /// An answer was inconsistent.
    pub fn wrong(&mut self, now: Instant, why: String, random: f64) {
        self.trouble(now, why);
        self.missing = 0;
        self.wrong += 1;
        if self.wrong >= TRIP {
            self.rest_from(now, now, None, random);
        }
    }

    /// A batch was consistent.
    pub fn whole(&mut self) {
        (self.wrong, self.missing) = (0, 0);
    }

    /// It lacked a requested object.
    pub fn missing(&mut self, now: Instant, why: String) {
        self.trouble(now, why);
        self.missing = self.missing.saturating_add(1);
    }

    fn trouble(&mut self, now: Instant, why: String) {
        self.last_error = Some(why);
        self.failed_at = Some(now);
    }

    /// `asked`: the pause that the node asked for, if any. Calls that fail together begin one rest.
    fn rest_from(&mut self, began: Instant, now: Instant, asked: Option<Duration>, random: f64) -> bool {
        if self.rest.is_some_and(|rest| began < rest.began) {
            return false;
        }
        let length = FIRST_REST.saturating_mul(1 << self.rests.min(10)).min(LAST_REST);
        let length = jittered(length, random).max(asked.unwrap_or_default());
        self.rests += 1;
        self.rest = Some(Rest { began: now, until: now + length, throttled: asked.is_some() });
        true
    }

    /// The pause that the node asked for.
    pub fn throttle_left(&self, now: Instant) -> Option<Duration> {
        let rest = self.rest.filter(|rest| rest.throttled && rest.until > now)?;
        Some(rest.until - now)
    }

    /// The head of a poll, and the recent best head of the other nodes.
    pub fn saw_head(&mut self, head: SeenHead, best: Option<SeenHead>) {
        let stands_still = self.head.is_some_and(|before| before.number >= head.number);
        let behind = best.is_some_and(|best| {
            let late = best.time > head.time.saturating_add(BEHIND_SECONDS);
            best.number > head.number + BEHIND_BLOCKS && (late || stands_still)
        });
        self.behind = if behind { self.behind.saturating_add(1) } else { 0 };
        self.head = Some(head);
    }

    /// Its newest block, if reported recently.
    pub fn head(&self, now: Instant) -> Option<SeenHead> {
        self.head.filter(|head| now.saturating_duration_since(head.at) < FRESH)
    }

    /// The time of the last request for its head.
    pub fn head_age(&self, now: Instant) -> Option<Duration> {
        self.head.map(|head| now.saturating_duration_since(head.at))
    }

    /// Its grade, without its chain.
    pub fn grade(&self, now: Instant) -> Grade {
        if let Some(rest) = self.rest.filter(|rest| rest.until > now) {
            return Grade::Resting(rest.until);
        }
        let lately = self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < FORGIVEN);
        let troubled = lately && (self.failures > 0 || self.wrong > 0 || self.missing >= TRIP);
        match (troubled, self.behind >= BEHIND_POLLS) {
            (true, _) => Grade::Troubled,
            (false, true) => Grade::Lagging,
            (false, false) => Grade::Good,
        }
    }

    /// Milliseconds of its light calls, smoothed.
    pub fn latency(&self) -> Option<f64> {
        self.latency
    }

    /// Writes its state into `report`.
    pub fn report(&self, report: &mut NodeReport, now: Instant) {
        let resting = matches!(self.grade(now), Grade::Resting(_));
        report.state = match (resting, self.answered) {
            (true, _) => "resting",
            (false, true) => "up",
            (false, false) => "unknown",
        }
        .into();
        report.latency_ms = self.latency.map(|latency| (latency * 10.0).round() / 10.0);
        report.failures = u64::from(self.failures + self.wrong);
        // Past failures of a working node are not shown.
        let lately = self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < TOLD);
        let current = lately || resting || self.failures > 0 || self.wrong > 0;
        report.last_error = self.last_error.clone().filter(|_| current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn fail(health: &mut Health, at: Instant) -> bool {
        health.failed(at, at, "no".into(), 1.0)
    }

    #[test]
    fn a_node_rests_after_failures_in_a_row_and_longer_each_time() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(!fail(&mut health, now) && !fail(&mut health, now));
        assert_eq!(health.grade(now), Grade::Troubled);
        assert!(fail(&mut health, now), "the third");
        assert_eq!(health.grade(now), Grade::Resting(now + MS(1_000)));
        let half_open = now + MS(1_000);
        assert_eq!(health.grade(half_open), Grade::Troubled, "a probe may pass");
        assert!(!fail(&mut health, half_open), "told once");
        assert_eq!(health.grade(half_open), Grade::Resting(half_open + MS(2_000)), "one failure is enough now");
        let mut at = half_open;
        for _ in 0..20 {
            at += LAST_REST;
            fail(&mut health, at);
        }
        assert_eq!(health.grade(at), Grade::Resting(at + LAST_REST), "never longer than this");
        let probe = at + LAST_REST;
        health.answered(probe, probe + MS(10), true);
        assert_eq!(health.grade(probe + MS(10)), Grade::Good);
    }

    #[test]
    fn calls_that_fail_together_begin_one_rest() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..8 {
            health.failed(now, now + MS(5), "no".into(), 1.0);
        }
        assert_eq!(health.grade(now + MS(5)), Grade::Resting(now + MS(1_005)));
        health.answered(now, now + MS(6), true);
        assert_ne!(health.grade(now + MS(6)), Grade::Good, "it was asked before the rest began");
        health.answered(now + MS(7), now + MS(9), true);
        assert_eq!(health.grade(now + MS(9)), Grade::Good);
    }

    #[test]
    fn a_node_that_lies_rests_however_well_it_answers() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..3 {
            health.answered(now, now + MS(1), true);
            health.wrong(now + MS(1), "no parent".into(), 1.0);
        }
        assert_eq!(health.grade(now + MS(1)), Grade::Resting(now + MS(1_001)));
        health.answered(now + MS(2), now + MS(3), true);
        assert!(matches!(health.grade(now + MS(3)), Grade::Resting(_)), "a head does not make up for it");
        let later = now + MS(1_002);
        health.answered(later, later, true);
        health.whole();
        assert_eq!(health.grade(later), Grade::Good);
    }

    #[test]
    fn a_throttled_node_is_left_alone_for_as_long_as_it_asks() {
        let now = Instant::now();
        let mut health = Health::default();
        health.throttled(now, now, "429".into(), Some(MS(7_000)), 1.0);
        assert_eq!(health.throttle_left(now + MS(1_000)), Some(MS(6_000)));
        assert_eq!(health.throttle_left(now + MS(7_000)), None);
        let mut health = Health::default();
        health.throttled(now, now, "429".into(), None, 0.0);
        assert_eq!(health.throttle_left(now), Some(MS(500)), "without a word: the usual pause");
        fail(&mut health, now + MS(600));
        assert_eq!(health.throttle_left(now + MS(600)), None, "other failures do not bind the callers");
    }

    #[test]
    fn what_a_node_does_not_have_and_how_far_it_is_behind_counts_when_it_lasts() {
        let now = Instant::now();
        let mut health = Health::default();
        let head = |number, time| SeenHead { number, time, at: now };
        for _ in 0..BEHIND_POLLS {
            assert_eq!(health.grade(now), Grade::Good);
            health.saw_head(head(100, 1_000), Some(head(110, 1_120)));
        }
        assert_eq!(health.grade(now), Grade::Lagging);
        health.saw_head(head(108, 1_096), Some(head(110, 1_120)));
        assert_eq!(health.grade(now), Grade::Good);
        for number in 110..115 {
            health.saw_head(head(number, 1_000), Some(head(number + 40, 1_002)));
        }
        assert_eq!(health.grade(now), Grade::Good, "forty blocks in two seconds: a fast chain");
        for _ in 0..BEHIND_POLLS {
            health.saw_head(head(114, 1_000), Some(head(117, 1_000)));
        }
        assert_eq!(health.grade(now), Grade::Lagging, "it stands still below another");
        health.saw_head(head(117, 1_000), Some(head(117, 1_000)));
        for _ in 0..TRIP {
            health.missing(now, "block 7".into());
        }
        assert_eq!(health.grade(now), Grade::Troubled);
        health.whole();
        assert_eq!(health.grade(now), Grade::Good);
    }

    #[test]
    fn an_old_failure_is_forgiven() {
        let now = Instant::now();
        let mut health = Health::default();
        health.wrong(now, "no".into(), 1.0);
        assert_eq!(health.grade(now + MS(100)), Grade::Troubled);
        assert_eq!(health.grade(now + FORGIVEN), Grade::Good);
    }
}
