//! Times and edges of partitions in the server's range: chrono's calendar ends earlier than the server's, and has no infinities.

use std::fmt;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const EPOCH: i64 = 946_684_800_000_000;
/// 400 years: the calendar repeats.
const CYCLE: TimeDelta = TimeDelta::days(146_097);

/// A timestamptz: every value of the server, with the infinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// Before all other times.
    pub const MINUS_INFINITY: Self = Self(i64::MIN);
    /// After all other times.
    pub const INFINITY: Self = Self(i64::MAX);

    /// From microseconds since 2000, the server's form; its infinities are the least and the greatest number.
    pub(crate) fn of_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The number of microseconds since 2000.
    pub(crate) fn micros(self) -> i64 {
        self.0
    }

    /// The nearest time in chrono's calendar.
    pub fn utc(self) -> DateTime<Utc> {
        let nearest = if self.0 < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
        self.exactly().unwrap_or(nearest)
    }

    /// The nearest time in chrono's calendar; `None` for the infinities.
    pub fn finite(self) -> Option<DateTime<Utc>> {
        (self != Self::MINUS_INFINITY && self != Self::INFINITY).then(|| self.utc())
    }

    fn exactly(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0.checked_add(EPOCH)?)
    }
}

/// To the microsecond, the server's precision.
impl From<DateTime<Utc>> for Time {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros() - EPOCH)
    }
}

impl PartialEq<DateTime<Utc>> for Time {
    fn eq(&self, other: &DateTime<Utc>) -> bool {
        *self == Self::from(*other)
    }
}

impl PartialOrd<DateTime<Utc>> for Time {
    fn partial_cmp(&self, other: &DateTime<Utc>) -> Option<std::cmp::Ordering> {
        self.partial_cmp(&Self::from(*other))
    }
}

/// A literal that reads the same in every TimeZone and DateStyle. Not chrono's own format, which writes `+52217` for a year
/// beyond 9999; PostgreSQL needs the bare number, and the year before 1 as `0001 BC`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MINUS_INFINITY => return f.write_str("-infinity"),
            Self::INFINITY => return f.write_str("infinity"),
            _ => {}
        }
        let (time, year) = match self.exactly() {
            Some(time) => (time, time.year()),
            // A year outside chrono's calendar; at the other end, the server has no such year.
            None => {
                let micros = CYCLE.num_microseconds().unwrap_or(i64::MAX);
                let shifted = self.0.checked_sub(100 * micros).and_then(|micros| Self(micros).exactly());
                let Some(time) = shifted else { return f.write_str(if self.0 < 0 { "-infinity" } else { "infinity" }) };
                (time, time.year() + 40_000)
            }
        };
        let (is_common_era, year) = if year > 0 { (true, year) } else { (false, 1 - year) };
        write!(f, "{year:04}{}", time.format("-%m-%d %H:%M:%S"))?;
        if time.nanosecond() > 0 {
            write!(f, ".{:06}", time.nanosecond() / 1_000)?;
        }
        f.write_str(if is_common_era { "+00" } else { "+00 BC" })
    }
}

/// The begin or end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    /// MINVALUE, before -infinity.
    MinValue,
    /// At a time.
    At(Time),
    /// MAXVALUE, after infinity.
    MaxValue,
}

impl Edge {
    /// The end in a registry: the registry writes infinity for MAXVALUE too.
    pub fn time(self) -> Time {
        match self {
            Self::MinValue => Time::MINUS_INFINITY,
            Self::At(time) => time,
            Self::MaxValue => Time::INFINITY,
        }
    }
}

impl From<DateTime<Utc>> for Edge {
    fn from(time: DateTime<Utc>) -> Self {
        Self::At(time.into())
    }
}

/// As PostgreSQL reads it in `FOR VALUES FROM (…)`.
impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinValue => f.write_str("MINVALUE"),
            Self::At(time) => write!(f, "'{time}'"),
            Self::MaxValue => f.write_str("MAXVALUE"),
        }
    }
}

/// RFC 3339 if possible; nothing for MINVALUE.
impl Serialize for Edge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::MinValue => serializer.serialize_none(),
            Self::MaxValue => serializer.serialize_str("maxvalue"),
            Self::At(time) => match time.exactly() {
                Some(time) => time.serialize(serializer),
                None => serializer.collect_str(time),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Edge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(Self::MinValue) };
        match text.as_str() {
            "maxvalue" => Ok(Self::MaxValue),
            "infinity" => Ok(Self::At(Time::INFINITY)),
            "-infinity" => Ok(Self::At(Time::MINUS_INFINITY)),
            text => {
                if let Ok(time) = text.parse::<DateTime<Utc>>() {
                    // The form of older programs for a missing end.
                    return Ok(if time == DateTime::<Utc>::MAX_UTC { Self::MaxValue } else { time.into() });
                }
                far(text).map(Self::At).ok_or_else(|| de::Error::custom(format!("{text} is not a time")))
            }
        }
    }
}

/// Reads the output of [`Time`]'s Display for years outside chrono's calendar.
fn far(text: &str) -> Option<Time> {
    let (year, rest) = text.split_once('-')?;
    let year = year.parse::<i32>().ok()?.checked_sub(40_000)?;
    let rest = rest.strip_suffix("+00")?.replace(' ', "T");
    let time: DateTime<Utc> = format!("{}{year:04}-{rest}Z", if year > 9_999 { "+" } else { "" }).parse().ok()?;
    let micros = Time::from(time).0.checked_add(CYCLE.num_microseconds()?.checked_mul(100)?)?;
    Some(Time(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse::<DateTime<Utc>>().unwrap().into()
    }

    /// The last microsecond of the server: 294276-12-31.
    const LAST: Time = Time(9_223_371_331_199_999_999);

    #[test]
    fn times_are_written_as_postgres_reads_them() {
        for (time, text) in [
            (at("2024-01-01T00:00:00Z"), "2024-01-01 00:00:00+00"),
            (at("+52217-06-30T01:02:03.004Z"), "52217-06-30 01:02:03.004000+00"),
            (at("0000-02-01T00:00:00Z"), "0001-02-01 00:00:00+00 BC"),
            (LAST, "294276-12-31 23:59:59.999999+00"),
            (Time::INFINITY, "infinity"),
            (Time::MINUS_INFINITY, "-infinity"),
        ] {
            assert_eq!(time.to_string(), text);
        }
        assert!(Time::MINUS_INFINITY < at("-4713-01-01T00:00:00Z") && LAST < Time::INFINITY);
        assert!(LAST > DateTime::<Utc>::MAX_UTC && LAST.utc() == DateTime::<Utc>::MAX_UTC);
        assert_eq!((LAST.finite(), Time::INFINITY.finite()), (Some(DateTime::<Utc>::MAX_UTC), None));
    }

    #[test]
    fn edges_come_back_from_a_manifest_as_they_were() {
        let edges = [
            Edge::MinValue,
            Edge::At(Time::MINUS_INFINITY),
            Edge::At(at("2024-01-01T00:00:00Z")),
            Edge::At(LAST),
            Edge::At(Time::INFINITY),
            Edge::MaxValue,
        ];
        assert!(edges.windows(2).all(|two| two[0] < two[1]));
        for edge in edges {
            let json = serde_json::to_string(&edge).unwrap();
            assert_eq!(serde_json::from_str::<Edge>(&json).unwrap(), edge, "{json}");
        }
        assert_eq!(serde_json::to_string(&edges[2]).unwrap(), "\"2024-01-01T00:00:00Z\"");
        let old = serde_json::to_string(&DateTime::<Utc>::MAX_UTC).unwrap();
        assert_eq!(serde_json::from_str::<Edge>(&old).unwrap(), Edge::MaxValue);
        assert!(serde_json::from_str::<Edge>("\"soon\"").is_err());
    }
}
