use std::fmt;

use chrono::{DateTime, Datelike, Timelike, Utc};

/// The times that a leaf holds: from `from` (included) to `to` (excluded), as in `FOR VALUES FROM .. TO ..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    from: Option<DateTime<Utc>>,
    to: DateTime<Utc>,
}

impl Bounds {
    /// `from` of `None` means MINVALUE. `None` is the answer if the bounds would hold no time.
    pub fn new(from: Option<DateTime<Utc>>, to: DateTime<Utc>) -> Option<Self> {
        from.is_none_or(|from| from < to).then_some(Self { from, to })
    }

    /// First time inside; `None` means MINVALUE.
    pub fn from(&self) -> Option<DateTime<Utc>> {
        self.from
    }

    /// First time after; `MAX_UTC` stands for MAXVALUE and infinity, which we never create.
    pub fn to(&self) -> DateTime<Utc> {
        self.to
    }

    /// Whether a row of this time belongs here.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= time) && time < self.to
    }

    /// Whether some time belongs to both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from.is_none_or(|from| from < other.to) && other.from.is_none_or(|from| from < self.to)
    }
}

/// As PostgreSQL reads it: `FROM ('2024-01-01 00:00:00+00') TO ('2024-01-02 00:00:00+00')`.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(from) => write!(f, "FROM ('{}') TO ('{}')", Literal(from), Literal(self.to)),
            None => write!(f, "FROM (MINVALUE) TO ('{}')", Literal(self.to)),
        }
    }
}

/// A timestamptz literal that reads the same in every TimeZone and DateStyle. Not chrono's own format, which writes
/// `+52217` for a year beyond 9999; PostgreSQL takes the bare number, and the year before 1 as `0001 BC`.
struct Literal(DateTime<Utc>);

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_common_era, year) = self.0.year_ce();
        write!(f, "{year:04}{}", self.0.format("-%m-%d %H:%M:%S"))?;
        if self.0.nanosecond() > 0 {
            write!(f, ".{:06}", self.0.nanosecond() / 1_000)?;
        }
        f.write_str(if is_common_era { "+00" } else { "+00 BC" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_are_half_open() {
        let day = Bounds::new(Some(at("2024-01-01T00:00:00Z")), at("2024-01-02T00:00:00Z")).unwrap();
        let before = Bounds::new(None, at("2024-01-01T00:00:00Z")).unwrap();
        assert!(day.contains(at("2024-01-01T00:00:00Z")) && !day.contains(at("2024-01-02T00:00:00Z")));
        assert!(before.contains(DateTime::<Utc>::MIN_UTC) && !before.contains(at("2024-01-01T00:00:00Z")));
        assert!(!before.overlaps(&day) && !day.overlaps(&before) && day.overlaps(&day));
        assert_eq!(Bounds::new(Some(day.to()), day.to()), None);
    }

    #[test]
    fn literals_are_what_postgres_reads() {
        let bounds = |from: &str, to: &str| Bounds::new(Some(at(from)), at(to)).unwrap().to_string();
        assert_eq!(
            bounds("2024-01-01T00:00:00Z", "+52217-06-30T01:02:03.004Z"),
            "FROM ('2024-01-01 00:00:00+00') TO ('52217-06-30 01:02:03.004000+00')"
        );
        assert_eq!(Literal(at("0000-02-01T00:00:00Z")).to_string(), "0001-02-01 00:00:00+00 BC");
    }
}
