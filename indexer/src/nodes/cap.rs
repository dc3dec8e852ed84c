//! A size that a node takes, learned from what it refuses and what it answers. Pure: time is an argument.

use std::time::{Duration, Instant};

/// How long a limit is believed. Then it is met once more, which costs one refused call, or it is gone: plans are
/// upgraded and nodes reconfigured.
pub const BELIEVED: Duration = Duration::from_secs(3_600);
/// So many answers of the size that works make a larger one worth a try, where the node named no limit. Each try that is
/// refused has the next one wait longer, up to the last.
const FIRST_RUN: u32 = 8;
const LAST_RUN: u32 = 512;
const LONGER: u32 = 4;

#[derive(Clone, Copy, Debug)]
struct Known {
    /// What to ask for at most.
    value: u64,
    /// The smallest size that was refused; none where the node named its limit.
    refused: Option<u64>,
    at: Instant,
    /// Answers of that size in a row.
    run: u32,
    /// Answers in a row that make more worth a try.
    patience: u32,
}

/// A limit; none while nothing was refused.
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

    /// `size` was refused in a question that `began` then: half of it may work, or `instead`, or what worked before more was
    /// tried. Questions that were under way when this was learned tell nothing new.
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
        // What was refused before is taken now, or what the node named does not hold.
        if known.refused.is_none_or(|refused| size >= refused) && size > known.value {
            self.0 = None;
        } else if size > known.value {
            (known.value, known.run, known.patience) = (size, 0, FIRST_RUN);
        } else {
            known.run = known.run.saturating_add(1);
        }
    }

    /// What is known to work, for people.
    pub fn known(&self) -> Option<u64> {
        self.0.map(|known| known.value)
    }

    /// What to ask for at most: what is known to work, and now and then what `more` makes of it.
    pub fn get(&self, now: Instant, more: impl Fn(u64) -> u64) -> Option<u64> {
        let known = self.0.filter(|known| now.saturating_duration_since(known.at) < BELIEVED)?;
        Some(if known.refused.is_some() && known.run >= known.patience { more(known.value) } else { known.value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `times` times for as much as is thought to work, at most `wanted`, of a node that takes `limit`: how often it
    /// refused.
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
