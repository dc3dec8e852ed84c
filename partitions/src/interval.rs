use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};

/// How much time a leaf holds. Intervals are aligned in UTC, which has no daylight saving: no hour is missing or twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// The words that [`str::parse`] takes, narrowest first.
    pub const NAMES: &[&str] = &["hour", "day", "week", "month", "year"];

    /// Start of the interval that holds `time`; `None` outside the years that can be computed with.
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

    /// Start of the interval after the one that begins at `start`; `None` outside the years that can be computed with.
    pub fn after(self, start: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Hour => start.checked_add_signed(TimeDelta::hours(1)),
            Self::Day => start.checked_add_days(Days::new(1)),
            Self::Week => start.checked_add_days(Days::new(7)),
            Self::Month => start.checked_add_months(Months::new(1)),
            Self::Year => start.checked_add_months(Months::new(12)),
        }
    }

    /// The next wider interval that leaves use when there would be too many: hour, day, month, year. A year stays.
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

/// One of [`Interval::NAMES`]; anything else is an error without words, as the caller knows what was being read.
impl FromStr for Interval {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "week" => Ok(Self::Week),
            "month" => Ok(Self::Month),
            "year" => Ok(Self::Year),
            _ => Err(()),
        }
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
            // A Sunday belongs to the week of the Monday before, also over a new year.
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
}
