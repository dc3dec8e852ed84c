//! The range of times of a leaf.

use std::fmt;

use chrono::{DateTime, Utc};

use super::time::Edge;

/// The times of a leaf: from `from` (included) to `to` (excluded), as in `FOR VALUES FROM .. TO ..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    lower: Edge,
    upper: Edge,
}

impl Bounds {
    /// `from` of `None` means MINVALUE. Returns `None` if the bounds are empty.
    pub fn new(from: Option<DateTime<Utc>>, to: DateTime<Utc>) -> Option<Self> {
        Self::between(from.map_or(Edge::MinValue, Edge::from), to.into())
    }

    /// The bounds from the server. Returns `None` if they are empty.
    pub fn between(lower: Edge, upper: Edge) -> Option<Self> {
        (lower < upper).then_some(Self { lower, upper })
    }

    /// The lower bound.
    pub fn lower(&self) -> Edge {
        self.lower
    }

    /// The upper bound.
    pub fn upper(&self) -> Edge {
        self.upper
    }

    /// The first time inside that the calendar can express; `None` if there is none.
    pub fn from(&self) -> Option<DateTime<Utc>> {
        match self.lower {
            Edge::MinValue => None,
            Edge::At(time) if time == crate::Time::MINUS_INFINITY => None,
            lower => Some(lower.time().utc()),
        }
    }

    /// The first time after the bounds that the calendar can express, or `MAX_UTC`.
    pub fn to(&self) -> DateTime<Utc> {
        self.upper.time().utc()
    }

    /// Whether a row of this time belongs to the leaf.
    pub fn contains(&self, time: DateTime<Utc>) -> bool {
        let time = Edge::from(time);
        self.lower <= time && time < self.upper
    }

    /// Whether the two share a time.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.lower < other.upper && other.lower < self.upper
    }
}

/// The bounds as PostgreSQL reads them: `FROM ('2024-01-01 00:00:00+00') TO ('2024-01-02 00:00:00+00')`.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FROM ({}) TO ({})", self.lower, self.upper)
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
        let whole = Bounds::between(Edge::MinValue, Edge::MaxValue).unwrap();
        assert_eq!(whole.to_string(), "FROM (MINVALUE) TO (MAXVALUE)");
    }
}
