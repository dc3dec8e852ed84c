//! Chooses the width of new leaves from the rate of rows. Pure.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Bounds, Interval, Policy};

const GB: i64 = 1_000_000_000;
/// The rate comes from the newest full leaves that together hold this number of days...
const RATE_DAYS: i64 = 7;
/// ...and from at least this number of leaves, if there are so many.
const RATE_LEAVES: usize = 3;
/// The factor by which another interval must be nearer to the target to replace the present one.
const MARGIN: f64 = 1.5;
/// The leaf FROM (MINVALUE) and the head's own leaf, beside the kept leaves and the leaves ahead.
const BESIDE: f64 = 2.0;

/// The size of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafSize {
    /// Its times.
    pub bounds: Bounds,
    /// Bytes with indexes and TOAST.
    pub bytes: i64,
    /// Bytes of its rows, without indexes and TOAST.
    pub row_bytes: i64,
}

/// The target size of leaves, and the limits of their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Target bytes of a leaf, with indexes. Default: 10 GB.
    pub bytes: i64,
    /// Least bytes of a leaf that needs no change. Default: 5 GB.
    pub least: i64,
    /// Most bytes of a leaf that needs no change. Default: 20 GB.
    pub most: i64,
    /// The narrowest allowed width. Default: an hour.
    pub narrowest: Interval,
    /// The retention time, which limits the number of leaves; `None` for ever: then there must be room for the existing leaves
    /// and one more year. Default: `None`.
    pub retention_time: Option<TimeDelta>,
}

impl Default for Target {
    fn default() -> Self {
        Self { bytes: 10 * GB, least: 5 * GB, most: 20 * GB, narrowest: Interval::Hour, retention_time: None }
    }
}

/// An interval, and the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// For new leaves of recent times.
    pub interval: Interval,
    /// Rows and indexes in bytes a second; `None` without a full leaf.
    pub bytes_per_second: Option<f64>,
    /// The reason in words.
    pub reason: String,
}

/// Bytes per second over the newest full leaves: those that end at or before `until`, the earlier of the head's time and now. A
/// leaf FROM (MINVALUE) shows no rate.
pub fn rate(sizes: &[LeafSize], until: DateTime<Utc>) -> Option<f64> {
    let is_full = |size: &&LeafSize| size.bounds.from().is_some() && size.bounds.to() <= until;
    let mut full: Vec<&LeafSize> = sizes.iter().filter(is_full).collect();
    full.sort_by_key(|size| std::cmp::Reverse(size.bounds.to()));
    let (mut bytes, mut span) = (0.0, TimeDelta::zero());
    for (taken, size) in full.iter().enumerate() {
        if taken >= RATE_LEAVES && span >= TimeDelta::days(RATE_DAYS) {
            break;
        }
        bytes += size.bytes.max(0) as f64;
        span += size.bounds.from().map_or(TimeDelta::zero(), |from| size.bounds.to() - from);
    }
    (span > TimeDelta::zero()).then(|| bytes / span.as_seconds_f64())
}

impl Policy {
    /// The interval for new leaves, from the sizes of the existing leaves (of one key, in any order).
    ///
    /// The policy's present interval stays while its leaves are within the target's band, and while no other interval is much
    /// nearer: a varying rate does not change it back and forth. Candidates are no narrower than the minimum and make at most
    /// [`Policy::max_leaves`] kept leaves; the candidate whose leaves are nearest to the target wins. The choice affects only new
    /// leaves: put it into [`Policy::interval`], and the next leaves begin at the end of the existing ones.
    pub fn sized(&self, sizes: &[LeafSize], target: &Target, until: DateTime<Utc>) -> Choice {
        let allowed: Vec<Interval> =
            Interval::ALL.into_iter().filter(|&interval| self.is_allowed(interval, sizes.len(), target)).collect();
        let rate = rate(sizes, until);
        let (interval, reason) = match rate {
            _ if allowed.is_empty() => (Interval::Year, Reason::Widest),
            Some(rate) if rate > 0.0 => nearest(&allowed, self.interval, rate, target),
            _ if allowed.contains(&self.interval) => (self.interval, Reason::Unknown),
            _ => (at_least(&allowed, self.interval), Reason::NotAllowed(self.interval)),
        };
        let told = Told { reason, interval, rate, target, max_leaves: self.max_leaves };
        Choice { interval, bytes_per_second: rate, reason: told.to_string() }
    }

    fn is_allowed(&self, interval: Interval, standing: usize, target: &Target) -> bool {
        let leaves = match target.retention_time {
            Some(retention_time) => {
                (retention_time.as_seconds_f64() / interval.seconds()).ceil() + f64::from(self.premake) + BESIDE
            }
            None => Interval::Year.seconds() / interval.seconds() + standing as f64,
        };
        interval >= target.narrowest && leaves <= self.max_leaves as f64
    }
}

/// The narrowest of `allowed` that is no narrower than `interval`, or the widest.
fn at_least(allowed: &[Interval], interval: Interval) -> Interval {
    let wide = allowed.iter().find(|other| **other >= interval).or(allowed.last());
    wide.copied().unwrap_or(Interval::Year)
}

/// `rate` is more than 0.
fn nearest(allowed: &[Interval], current: Interval, rate: f64, target: &Target) -> (Interval, Reason) {
    let bytes = |interval: Interval| rate * interval.seconds();
    // The factor by which the size is too large or too small, as a logarithm.
    let distance = |interval: Interval| (bytes(interval) / target.bytes.max(1) as f64).ln().abs();
    let best = allowed.iter().copied().min_by(|one, other| distance(*one).total_cmp(&distance(*other)));
    let best = best.unwrap_or(Interval::Year);
    if !allowed.contains(&current) {
        return (best, Reason::NotAllowed(current));
    }
    let is_within = (target.least as f64..=target.most as f64).contains(&bytes(current));
    if best == current {
        (current, if is_within { Reason::Within } else { Reason::Nearest })
    } else if is_within {
        (current, Reason::Within)
    } else if distance(current) < distance(best) + MARGIN.ln() {
        (current, Reason::NotMuch(best))
    } else {
        (best, Reason::Nearer(current))
    }
}

#[derive(Debug, Clone, Copy)]
enum Reason {
    Within,
    Nearest,
    NotMuch(Interval),
    Nearer(Interval),
    NotAllowed(Interval),
    Unknown,
    Widest,
}

struct Told<'t> {
    reason: Reason,
    interval: Interval,
    rate: Option<f64>,
    target: &'t Target,
    max_leaves: usize,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = article(self.interval);
        let of = |interval: Interval| Bytes(self.rate.unwrap_or(0.0) * interval.seconds());
        let (own, target) = (of(self.interval), Bytes(self.target.bytes as f64));
        let (least, most) = (Bytes(self.target.least as f64), Bytes(self.target.most as f64));
        match self.reason {
            Reason::Within => write!(f, "{name} holds {own}, between {least} and {most}"),
            Reason::Nearest => write!(f, "{name} holds {own}, and no allowed interval is nearer to {target}"),
            Reason::NotMuch(best) => {
                write!(f, "{name} holds {own}; {} with {} is not much nearer to {target}", article(best), of(best))
            }
            Reason::Nearer(old) => {
                write!(f, "{name} holds {own}, nearer to {target} than {} with {}", article(old), of(old))
            }
            Reason::NotAllowed(old) => write!(
                f,
                "{} is narrower than the minimum {}, or would keep more leaves than max_leaves = {}; {name} does not",
                article(old),
                article(self.target.narrowest),
                self.max_leaves
            ),
            Reason::Unknown => write!(f, "{name} as before: there is no full leaf to measure the rate of rows"),
            Reason::Widest => {
                write!(
                    f,
                    "even leaves of one year would exceed max_leaves = {}: raise it, or shorten the retention",
                    self.max_leaves
                )
            }
        }
    }
}

fn article(interval: Interval) -> String {
    format!("{} {}", if interval == Interval::Hour { "an" } else { "a" }, interval.name())
}

/// `12.3 GB`.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
            if self.0 >= unit {
                return write!(f, "{:.1} {name}", self.0 / unit);
            }
        }
        write!(f, "{:.0} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn until() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    /// This number of full leaves of this number of hours, the newest last.
    fn leaves(count: i64, hours: i64, bytes: i64) -> Vec<LeafSize> {
        let at = |ago: i64| until() - TimeDelta::hours(hours * ago);
        let leaf =
            |ago: i64| Some(LeafSize { bounds: Bounds::new(Some(at(ago)), at(ago - 1))?, bytes, row_bytes: bytes / 2 });
        (1..=count).rev().filter_map(leaf).collect()
    }

    #[test]
    fn a_rate_is_of_the_newest_full_leaves() {
        let mut sizes = leaves(30, 24, 86_400);
        sizes[0].bytes = i64::MAX;
        assert_eq!(rate(&sizes, until()), Some(1.0), "the oldest do not count");
        let ahead = Bounds::new(Some(until()), until() + TimeDelta::days(1)).unwrap();
        sizes.push(LeafSize { bounds: ahead, bytes: 5, row_bytes: 5 });
        sizes.insert(0, LeafSize { bounds: Bounds::new(None, until()).unwrap(), bytes: 5, row_bytes: 5 });
        assert_eq!(rate(&sizes, until()), Some(1.0), "nor does what is not full, or without a beginning");
        assert_eq!(rate(&leaves(2, 24 * 365, 365 * 86_400), until()), Some(1.0), "few and wide");
        assert_eq!(rate(&leaves(500, 1, 3_600), until()), Some(1.0));
        assert_eq!(rate(&[], until()), None);
    }

    #[test]
    fn leaves_aim_at_their_size() {
        const MB: i64 = 1_000_000;
        let days = |days| Some(TimeDelta::days(days));
        for (current, hours, bytes, retention_time, expected, reason) in [
            (Interval::Day, 24, 10 * GB, days(365), Interval::Day, "a day holds 10.0 GB, between 5.0 GB and 20.0 GB"),
            (Interval::Day, 24, 5 * GB, days(365), Interval::Day, "between"),
            (Interval::Day, 24, 300 * GB, days(20), Interval::Hour, "an hour"),
            (Interval::Day, 24, 300 * GB, days(365), Interval::Day, "no allowed interval is nearer"),
            (
                Interval::Day,
                24,
                GB,
                days(365),
                Interval::Week,
                "a week holds 7.0 GB, nearer to 10.0 GB than a day with 1.0 GB",
            ),
            (Interval::Day, 24, 300 * MB, days(365), Interval::Month, "a month holds 9.1 GB"),
            (Interval::Day, 24, 1_000, days(365), Interval::Year, "a year holds 365.2 kB"),
            (Interval::Week, 168, 150 * GB, days(365), Interval::Day, "a day holds 21.4 GB"),
            (Interval::Day, 24, 3_300 * MB, days(365), Interval::Day, "not much nearer"),
            (Interval::Hour, 1, 10 * GB, days(365), Interval::Day, "more leaves than max_leaves = 1000"),
            (Interval::Day, 24, 10 * GB, None, Interval::Day, "between"),
            (Interval::Day, 24, 0, days(365), Interval::Day, "as before"),
            (Interval::Hour, 1, 0, days(365), Interval::Day, "max_leaves"),
            (Interval::Year, 24, 10 * GB, days(2_000_000), Interval::Year, "even leaves of one year"),
        ] {
            let policy = Policy { interval: current, ..Policy::default() };
            let choice =
                policy.sized(&leaves(400, hours, bytes), &Target { retention_time, ..Target::default() }, until());
            assert!(
                choice.interval == expected && choice.reason.contains(reason),
                "{current:?} {bytes} {retention_time:?}: {choice:?}"
            );
        }
        let target = Target { narrowest: Interval::Week, retention_time: days(365), ..Target::default() };
        assert_eq!(Policy::default().sized(&leaves(9, 24, 500 * GB), &target, until()).interval, Interval::Week);
        assert_eq!(Policy::default().sized(&[], &Target::default(), until()).interval, Interval::Day);
        // For ever: the existing leaves leave room for a year of weeks, not for a year of days.
        let full = Policy::default().sized(&leaves(700, 24, 10 * GB), &Target::default(), until());
        assert_eq!(full.interval, Interval::Week);
    }

    /// For any rate, the choice stays for the same sizes, and for all rates within a fifth of it.
    #[test]
    fn a_rate_that_wavers_flips_nothing() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..5_000 {
            let bytes = 10_f64.powf(random.random_range(2.0..13.0));
            let retention_time = Some(TimeDelta::days(random.random_range(1..5_000)));
            let target = Target { retention_time, ..Target::default() };
            let sized = |interval: Interval, factor: f64| {
                let policy = Policy { interval, ..Policy::default() };
                policy.sized(&leaves(20, 24, (bytes * factor) as i64), &target, until()).interval
            };
            let chosen = sized(Interval::ALL[random.random_range(0..5)], 1.0);
            let mut flips = 0;
            let mut current = chosen;
            for _ in 0..20 {
                let next = sized(current, random.random_range(0.9..1.1));
                flips += usize::from(next != current);
                current = next;
            }
            assert!(flips <= 1, "seed {seed}: {flips} flips at {bytes} a day, kept {retention_time:?}");
            let policy = Policy { interval: chosen, ..Policy::default() };
            assert!(policy.is_allowed(chosen, 20, &target) || chosen == Interval::Year, "seed {seed}");
        }
    }
}
