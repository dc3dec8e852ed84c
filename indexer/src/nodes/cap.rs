//! A size that a node accepts, learned from its refusals and answers. Pure: time is an argument.

use std::time::{Duration, Instant};

/// The lifetime of a learned limit. After it, one request tries the old size again, at the cost of one refused call: plans are
/// upgraded and nodes reconfigured.
pub const BELIEVED: Duration = Duration::from_secs(3_600);
/// After this number of answers of the working size, a larger size is tried, if the node named no limit. Each refused try makes
/// the next one wait longer, up to the last number.
const FIRST_RUN: u32 = 8;
const LAST_RUN: u32 = 512;
const LONGER: u32 = 4;

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The largest size to ask for.
    value: u64,
    /// The smallest refused size; none if the node named its limit.
    refused: Option<u64>,
    at: Instant,
    /// Answers of that size in a row.
    run: u32,
    /// Answers in a row before the next try of a larger size.
    patience: u32,
}

/// A limit; none before the first refusal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cap(Option<Known>);

impl Cap {
    /// The node named its limit.
    pub fn name(&mut self, value: u64, now: Instant) {
        self.0 = Some(Known { value: value.max(1), refused: None, at: now, run: 0, patience: FIRST_RUN });
    }

    /// A limit of an earlier run, named or not.
    pub fn remember(&mut self, value: Option<u64>, now: Instant) {
        let known = |value| Known { value, refused: Some(u64::MAX), at: now, run: 0, patience: FIRST_RUN };
        self.0 = value.filter(|value| *value > 0).map(known);
    }

    /// `size` was refused in a request that `began` then. The next size is half of it, or `instead`, or the size that worked
    /// before a larger one was tried. A request from before this was learned adds nothing new.
    pub fn refuse(&mut self, size: u64, instead: Option<u64>, began: Instant, now: Instant) {
        if self.0.is_some_and(|known| began < known.at) {
            return;
        }
        let half = instead.filter(|instead| (1..size).contains(instead)).unwrap_or(size / 2).max(1);
        let mut next = Known { value: half, refused: Some(size), at: now, run: 0, patience: FIRST_RUN };
        if let Some(known) = self.0.filter(|known| known.refused.is_some() && known.value < size) {
            next.value = known.value;
            next.patience = known.patience.saturating_mul(LONGER).min(LAST_RUN);
        }
        self.0 = Some(next);
    }

    /// `size` was answered.
    pub fn answer(&mut self, size: u64) {
        let Some(known) = &mut self.0 else { return };
        if size < known.value {
            return;
        }
        // A size refused before is accepted now, or the limit named by the node is wrong.
        if known.refused.is_none_or(|refused| size >= refused) && size > known.value {
            self.0 = None;
        } else if size > known.value {
            (known.value, known.run, known.patience) = (size, 0, FIRST_RUN);
        } else {
            known.run = known.run.saturating_add(1);
        }
    }

    /// The size known to work, for people.
    pub fn known(&self) -> Option<u64> {
        self.0.map(|known| known.value)
    }

    /// The largest size to ask for: the size known to work, and from time to time its increase by `more`.
    pub fn get(&self, now: Instant, more: impl Fn(u64) -> u64) -> Option<u64> {
        let known = self.0.filter(|known| now.saturating_duration_since(known.at) < BELIEVED)?;
        Some(if known.refused.is_some() && known.run >= known.patience { more(known.value) } else { known.value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `times` times for the largest size that seems to work, at most `wanted`, from a node that accepts `limit`: returns
    /// the number of refusals.
    fn ask(cap: &mut Cap, now: Instant, wanted: u64, limit: u64, times: u32) -> u32 {
        let mut refused = 0;
        for _ in 0..times {
            let size = cap.get(now, |value| value * 2).unwrap_or(u64::MAX).min(wanted);
            if size > limit {
                cap.refuse(size, None, now, now);
                refused += 1;
            } else {
                cap.answer(size);
            }
        }
        refused
    }

    #[test]
    fn a_limit_without_a_number_costs_a_few_refusals() {
        let (mut cap, now) = (Cap::default(), Instant::now());
        let refused = ask(&mut cap, now, 100, 7, 1_000);
        assert!(refused <= 8, "{refused} refusals");
        assert_eq!(cap.known(), Some(6));
    }

    #[test]
    fn a_dense_stretch_is_left_behind() {
        let (mut cap, now) = (Cap::default(), Instant::now());
        ask(&mut cap, now, 1_000, 10, 60);
        assert!(cap.known() <= Some(10));
        assert_eq!(ask(&mut cap, now, 1_000, u64::MAX, 150), 0);
        assert_eq!(cap.known(), None, "what was refused is taken");
    }

    #[test]
    fn what_was_asked_before_it_was_learned_tells_nothing() {
        let (mut cap, now) = (Cap::default(), Instant::now());
        let later = now + Duration::from_millis(1);
        cap.refuse(100, None, now, later);
        for _ in 0..7 {
            cap.refuse(100, None, now, later);
        }
        assert_eq!(cap.get(later, |value| value * 2), Some(50), "eight questions of one width are one refusal");
        cap.refuse(50, Some(7), later, later);
        assert_eq!(cap.get(later, |value| value * 2), Some(7), "what it says would work");
    }

    #[test]
    fn a_named_limit_holds_until_it_is_passed_or_old() {
        let (mut cap, now) = (Cap::default(), Instant::now());
        cap.name(2_000, now);
        for _ in 0..100 {
            cap.answer(2_000);
        }
        assert_eq!(cap.get(now, |value| value * 2), Some(2_000), "it was named: more is not tried");
        assert_eq!(cap.get(now + BELIEVED, |value| value * 2), None);
        cap.answer(2_001);
        assert_eq!(cap.get(now, |value| value * 2), None, "it takes more now");
    }
}
