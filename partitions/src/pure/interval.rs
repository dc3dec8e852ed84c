//! The calendar: the begin and end of a leaf, in UTC.

use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};

const DAY: f64 = 86_400.0;
/// Of the calendar's 400 years, 97 are leap years.
const YEAR: f64 = 365.2425 * DAY;

/// The width of a leaf. Intervals are aligned in UTC, which has no daylight saving: no hour is missing or doubled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    /// From minute 0 to minute 0.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday (ISO 8601).
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// From 1 January to 1 January.
    Year,
}

impl Interval {
    /// The words that [`str::parse`] accepts, narrowest first.
    pub const NAMES: &[&str] = &["hour", "day", "week", "month", "year"];

    /// All intervals, narrowest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// Its word for [`str::parse`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Its length in seconds; the average for months and years.
    pub fn seconds(self) -> f64 {
        match self {
            Self::Hour => 3_600.0,
            Self::Day => DAY,
            Self::Week => 7.0 * DAY,
            Self::Month => YEAR / 12.0,
            Self::Year => YEAR,
        }
    }

    /// Start of the interval that holds `time`; `None` outside the calendar.
    pub fn start_of(self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let date = time.date_naive();
        let start = match self {
            Self::Hour => date.and_hms_opt(time.hour(), 0, 0),
            Self::Day => midnight(date),
            Self::Week => midnight(date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into()))?),
            Self::Month => midnight(date.with_day(1)?),
            Self::Year => midnight(date.with_ordinal(1)?),
        };
        Some(start?.and_utc())
    }

    /// Start of the interval after the one that begins at `start`; `None` outside the calendar.
    pub fn after(self, start: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Hour => start.checked_add_signed(TimeDelta::hours(1)),
            Self::Day => start.checked_add_days(Days::new(1)),
            Self::Week => start.checked_add_days(Days::new(7)),
            Self::Month => start.checked_add_months(Months::new(1)),
            Self::Year => start.checked_add_months(Months::new(12)),
        }
    }

    /// The next wider interval, for the case of too many leaves: hour, day, month, year. A year stays.
    #[must_use]
    pub fn wider(self) -> Self {
        match self {
            Self::Hour => Self::Day,
            Self::Day | Self::Week => Self::Month,
            Self::Month | Self::Year => Self::Year,
        }
    }
}

fn midnight(date: NaiveDate) -> Option<NaiveDateTime> {
    date.and_hms_opt(0, 0, 0)
}

/// Parses one of [`Interval::NAMES`]. The error has no text: the caller knows the input.
impl FromStr for Interval {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|interval| interval.name() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_aligned_in_utc() {
        for (interval, time, start, end) in [
            (Interval::Hour, "2024-02-29T23:59:59Z", "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z"),
            (Interval::Day, "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            // A Sunday belongs to the week of the Monday before, also across a new year.
            (Interval::Week, "2023-01-01T12:00:00Z", "2022-12-26T00:00:00Z", "2023-01-02T00:00:00Z"),
            (Interval::Month, "2023-12-31T23:59:59Z", "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z"),
            (Interval::Year, "2024-12-31T23:59:59Z", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            (Interval::Month, "+52217-02-03T00:00:00Z", "+52217-02-01T00:00:00Z", "+52217-03-01T00:00:00Z"),
            (Interval::Day, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z"),
        ] {
            let [time, start, end] = [time, start, end].map(|text| text.parse::<DateTime<Utc>>().unwrap());
            assert_eq!(interval.start_of(time), Some(start), "{interval:?} of {time}");
            assert_eq!(interval.after(start), Some(end), "{interval:?} after {start}");
        }
        assert_eq!(Interval::Year.after(DateTime::<Utc>::MAX_UTC), None);
    }

    #[test]
    fn every_interval_has_its_word_and_is_wider_than_the_one_before() {
        assert_eq!(Interval::ALL.map(Interval::name), Interval::NAMES);
        for interval in Interval::ALL {
            assert_eq!(interval.name().parse(), Ok(interval));
        }
        assert_eq!("fortnight".parse::<Interval>(), Err(()));
        assert!(Interval::ALL.windows(2).all(|two| two[0] < two[1] && two[0].seconds() < two[1].seconds()));
        assert_eq!(Interval::ALL.map(Interval::seconds), [3_600.0, 86_400.0, 604_800.0, 2_629_746.0, 31_556_952.0]);
        use Interval::{Day, Hour, Month, Week, Year};
        assert_eq!([Hour, Day, Week, Month, Year].map(Interval::wider), [Day, Month, Month, Year, Year]);
    }
}
