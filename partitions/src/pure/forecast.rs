//! The expected size of a table, from its recent growth and its retention. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Action, Retention};

/// The time span of the measured growth.
const WINDOW: TimeDelta = TimeDelta::days(30);
const DAY: f64 = 86_400.0;

/// The bytes of rows of one time span.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// First time; `None` for the beginning.
    pub from: Option<DateTime<Utc>>,
    /// First time after.
    pub to: DateTime<Utc>,
    /// Bytes with indexes.
    pub bytes: i64,
}

/// Bytes per day, over the leaves that were full in the last 30 days; `None` if there was none.
pub fn growth(sizes: &[Size], now: DateTime<Utc>) -> Option<f64> {
    let recent = sizes.iter().filter_map(|size| {
        let from = size.from?;
        (size.to <= now && size.to > now - WINDOW).then(|| (size.bytes as f64, (size.to - from).as_seconds_f64() / DAY))
    });
    let (bytes, days) = recent.fold((0.0, 0.0), |(bytes, days), (more, span)| (bytes + more, days + span));
    (days > 0.0).then(|| bytes / days)
}

/// Bytes after this number of days, with the same growth and the configured retention; a detached leaf still uses disk space.
pub fn forecast(sizes: &[Size], retention: &Retention, now: DateTime<Utc>, days: i64) -> Option<f64> {
    let daily = growth(sizes, now)?;
    let later = now.checked_add_signed(TimeDelta::days(days))?;
    let frees = matches!(retention.action, Action::Drop | Action::Archive);
    let cutoff = later.checked_sub_signed(retention.time).and_then(|at| at.checked_sub_signed(retention.grace));
    let is_gone = |to: DateTime<Utc>| frees && cutoff.is_some_and(|cutoff| to <= cutoff);
    let kept: f64 = sizes.iter().filter(|size| !is_gone(size.to)).map(|size| size.bytes as f64).sum();
    let stays = match cutoff {
        Some(cutoff) if frees => (later - now.max(cutoff)).as_seconds_f64() / DAY,
        _ => days as f64,
    };
    Some(kept + daily * stays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_until_retention_takes_as_much_as_comes() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let day =
            |ago: i64| Size { from: Some(now - TimeDelta::days(ago)), to: now - TimeDelta::days(ago - 1), bytes: 100 };
        let sizes: Vec<Size> = (1..=60).map(day).collect();
        assert_eq!(growth(&sizes, now), Some(100.0));
        let keep = Retention::default();
        assert_eq!(forecast(&sizes, &keep, now, 30), Some(9_000.0));
        let drop = Retention { action: Action::Drop, time: TimeDelta::days(40), grace: TimeDelta::zero(), ..keep };
        assert_eq!(forecast(&sizes, &drop, now, 30), Some(1_000.0 + 3_000.0));
        assert_eq!(forecast(&sizes, &drop, now, 365), Some(4_000.0), "forty days of a hundred");
        let detach = Retention { action: Action::Detach, ..drop };
        assert_eq!(forecast(&sizes, &detach, now, 30), Some(9_000.0));
        assert_eq!(forecast(&[], &keep, now, 30), None);
        // Leaves ahead, and the first leaf, which has no lower bound, show no growth.
        let ahead = Size { from: Some(now), to: now + TimeDelta::days(1), bytes: 8 };
        assert_eq!(growth(&[ahead, Size { from: None, ..day(3) }], now), None);
    }
}
