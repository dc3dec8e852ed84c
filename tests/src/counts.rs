//! Counts, compared with the committed counts. Pure, except for the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<String, f64>);

impl Counts {
    /// Adds one, with two digits: people read the file.
    pub fn put(&mut self, what: impl Into<String>, count: f64) {
        self.0.insert(what.into(), (count * 100.0).round() / 100.0);
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

/// Counts of one kind, with one limit and one reason.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Group {
    /// Their common name.
    name: String,
    /// The program that they depend on, if any: counts of another program are not comparable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<String>,
    /// The allowed rise of each, in percent.
    percent: f64,
    /// The reason of this limit.
    why: String,
    counts: BTreeMap<String, f64>,
}

impl Group {
    /// Counts that depend on no other program. Each may rise by `percent`, for the reason `why`.
    pub fn new(name: &str, percent: f64, why: &str, counts: Counts) -> Self {
        Self { name: name.to_owned(), with: None, percent, why: why.to_owned(), counts: counts.0 }
    }

    /// Counts that are comparable only with counts of the same program.
    #[must_use]
    pub fn with(self, with: String) -> Self {
        Self { with: Some(with), ..self }
    }

    fn is_like(&self, other: &Self) -> bool {
        (&self.name, &self.with) == (&other.name, &other.with)
    }

    fn title(&self) -> String {
        self.with.as_ref().map_or_else(|| self.name.clone(), |with| format!("{} ({with})", self.name))
    }

    fn judge(&self, name: &str, was: Option<f64>, now: Option<f64>, verdict: &mut Verdict) {
        let (Some(was), Some(now)) = (was, now) else {
            let how =
                if now.is_none() { "is committed and was not counted" } else { "was counted and is not committed" };
            return verdict.risen.push(format!("{}: {name}: {how}", self.name));
        };
        let (change, percent) = (now - was, self.percent);
        let by = if was == 0.0 { String::new() } else { format!(" ({:+.1} %)", 100.0 * change / was) };
        let line = format!("{}: {name}: from {was} to {now}{by}, where {percent} % are allowed", self.name);
        // Two digits are kept: a smaller difference does not count.
        match change.abs() > was.abs() * percent / 100.0 + 0.005 {
            true if change > 0.0 => verdict.risen.push(line),
            true => verdict.told.push(format!("{line}: it fell, so the committed one should be renewed")),
            false => {}
        }
    }
}

/// The result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The failures, one per line.
    pub risen: Vec<String>,
    /// The notes.
    pub told: Vec<String>,
}

/// The committed file.
#[derive(Debug, Deserialize, Serialize)]
pub struct Baseline {
    /// For readers of the file.
    how: String,
    groups: Vec<Group>,
}

impl Baseline {
    /// The committed file.
    ///
    /// # Errors
    /// Why the file cannot be read, with its name.
    pub fn read(file: &Path) -> Result<Self, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text = std::fs::read(file).map_err(|error| named(&error))?;
        serde_json::from_slice(&text).map_err(|error| named(&error))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Why the file cannot be written, with its name.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Replaces the present groups by `groups`. Of the groups with other programs, only those named in `keeps` stay.
    #[must_use]
    pub fn renewed(mut self, groups: Vec<Group>, keeps: &[&str]) -> Self {
        let is_replaced = |old: &Group| groups.iter().any(|new| new.is_like(old));
        self.groups.retain(|old| keeps.contains(&old.name.as_str()) && !is_replaced(old));
        self.groups.extend(groups);
        self.groups.sort_by(|a, b| (&a.name, &a.with).cmp(&(&b.name, &b.with)));
        self
    }

    /// Compares `groups` with these.
    pub fn judge(&self, groups: &[Group]) -> Verdict {
        let mut verdict = Verdict::default();
        for was in self.groups.iter().filter(|was| groups.iter().all(|now| now.name != was.name)) {
            verdict.risen.push(format!("{}: all of it is committed and was not counted", was.name));
        }
        for now in groups {
            let Some(was) = self.groups.iter().find(|was| was.is_like(now)) else {
                verdict.told.push(format!("{}: not judged, there are no committed counts for it", now.title()));
                continue;
            };
            let names: BTreeSet<_> = was.counts.keys().chain(now.counts.keys()).collect();
            for name in names {
                was.judge(name, was.counts.get(name).copied(), now.counts.get(name).copied(), &mut verdict);
            }
        }
        verdict
    }

    /// `groups` as Markdown, beside these.
    pub fn beside(&self, groups: &[Group]) -> String {
        let mut text = String::new();
        for now in groups {
            let was = self.groups.iter().find(|was| was.is_like(now));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n| {} | now | committed |\n|---|---:|---:|", now.title());
            for (name, count) in &now.counts {
                let was = was.and_then(|was| was.counts.get(name)).map_or_else(String::new, f64::to_string);
                let _ = writeln!(text, "| {name} | {count} | {was} |");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, percent: f64, counts: &[(&str, f64)]) -> Group {
        let mut all = Counts::default();
        counts.iter().for_each(|(what, count)| all.put(*what, *count));
        Group::new(name, percent, "a reason", all)
    }

    fn baseline(groups: Vec<Group>) -> Baseline {
        Baseline { how: String::new(), groups }
    }

    #[test]
    fn a_count_that_rises_beyond_its_percentage_fails_and_one_that_falls_is_told() {
        for (percent, was, now, risen, told) in [
            (0.0, 5.0, 5.0, 0, 0),
            (0.0, 5.0, 6.0, 1, 0),
            (0.0, 5.0, 4.0, 0, 1),
            (2.0, 100.0, 102.0, 0, 0),
            (2.0, 100.0, 102.01, 1, 0),
            (2.0, 100.0, 97.99, 0, 1),
            (2.0, 0.0, 0.01, 1, 0),
        ] {
            let verdict = baseline(vec![group("g", percent, &[("a", was)])]).judge(&[group("g", 50.0, &[("a", now)])]);
            assert_eq!((verdict.risen.len(), verdict.told.len()), (risen, told), "{was} to {now}: {verdict:?}");
        }
        let verdict = baseline(vec![group("g", 1.0, &[("a", 200.0)])]).judge(&[group("g", 1.0, &[("a", 300.0)])]);
        assert_eq!(verdict.risen, ["g: a: from 200 to 300 (+50.0 %), where 1 % are allowed"]);
    }

    #[test]
    fn a_count_that_one_side_lacks_fails() {
        let committed = baseline(vec![group("g", 1.0, &[("a", 1.0)]), group("h", 1.0, &[("b", 1.0)])]);
        let verdict = committed.judge(&[group("g", 1.0, &[("c", 1.0)])]);
        assert_eq!(verdict.risen.len(), 3, "{verdict:?}");
    }

    #[test]
    fn what_was_counted_with_another_program_is_not_judged() {
        let with = |with: &str, count| group("g", 0.0, &[("a", count)]).with(with.to_owned());
        let committed = baseline(vec![with("15", 1.0), with("18", 2.0)]);
        assert_eq!(committed.judge(&[with("18", 3.0)]).risen.len(), 1);
        let verdict = committed.judge(&[with("19", 9.0)]);
        assert_eq!((verdict.risen.len(), verdict.told.len()), (0, 1), "{verdict:?}");
        let names = |renewed: Baseline| -> Vec<_> { renewed.groups.iter().map(Group::title).collect() };
        let old = || baseline(vec![with("15", 1.0), with("18", 2.0)]);
        assert_eq!(names(old().renewed(vec![with("18", 5.0)], &["g"])), ["g (15)", "g (18)"]);
        assert_eq!(names(old().renewed(vec![with("18", 5.0)], &[])), ["g (18)"]);
        assert_eq!(old().renewed(vec![with("18", 5.0)], &["g"]).judge(&[with("18", 5.0)]), Verdict::default());
    }
}
