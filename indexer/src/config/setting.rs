//! One setting, and all of them by their keys.

use std::collections::{BTreeMap, BTreeSet};

use super::kind::{Form, Kind};

/// One setting: a field of a struct that `settings!` made, with its kind, shape, default and documentation.
pub(super) struct Setting {
    /// Its dotted key; `*` stands for the name of a chain or a table.
    pub path: &'static str,
    pub kind: &'static dyn Kind,
    pub shape: Shape,
    pub default: Default,
    /// The lines of its documentation: the meaning; then, after an empty line, the reason for the default, or when to change it.
    pub docs: &'static [&'static str],
}

/// How many values a setting has, which follows from the type of its field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// `Option`: one or none.
    Maybe,
    /// `Vec`: a list.
    Many,
}

/// The value of a setting that is not set.
#[derive(Clone, Copy)]
pub(super) enum Default {
    /// This text (of a list: its items, separated by commas; empty for none).
    Value(&'static str),
    /// The value of that other setting.
    Same(&'static str),
    /// None: the setting must be set; the example shows this text.
    Required(&'static str),
    /// None; the example shows this text.
    Unset(&'static str),
    /// The indexes in the description of the table.
    OfDataset,
}

impl Default {
    /// Itself, if a setting of this shape may have it: one value is never left out, and one that may be is left out by default.
    pub const fn fitting(self, shape: Shape) -> Self {
        match (shape, &self) {
            (Shape::One, Self::Unset(_)) => panic!("a setting without a default is an Option, a Vec, or must be set"),
            (Shape::Maybe, Self::Value(_) | Self::Same(_) | Self::Required(_)) => {
                panic!("an Option is unset by default")
            }
            _ => self,
        }
    }
}

/// The names that sections such as `[chains.NAME]` and `[tables.NAME]` have been given.
pub(super) type Named = BTreeMap<&'static str, BTreeSet<String>>;

impl Setting {
    /// Its key, where the name of the chain or table is this.
    pub fn key(&self, name: &str) -> String {
        self.path.replace('*', name)
    }

    /// The keys it stands for: its path, or one for each name of its section.
    pub fn keys(&self, named: &Named) -> Vec<String> {
        match self.names() {
            Some(section) => named.get(section).into_iter().flatten().map(|name| self.key(name)).collect(),
            None => vec![self.path.to_owned()],
        }
    }

    /// The section whose names are of one's own, if it stands in one.
    fn names(&self) -> Option<&'static str> {
        self.path.split_once(".*").map(|(section, _)| section)
    }

    /// The section it stands in, such as `database` or `chains.*`.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name inside its section.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Whether it holds a list.
    pub fn is_list(&self) -> bool {
        self.shape == Shape::Many
    }

    /// Whether TOML has it without quotes.
    pub fn is_bare(&self) -> bool {
        self.kind.form() != Form::Text
    }

    /// The meaning.
    pub fn help(&self) -> String {
        self.paragraph(0)
    }

    /// The reason for the default, or when to change it.
    pub fn reason(&self) -> String {
        self.paragraph(1)
    }

    fn paragraph(&self, number: usize) -> String {
        let lines = self.docs.split(|line| line.is_empty()).nth(number).unwrap_or_default();
        lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// The wanted value, as a noun.
    pub fn wanted(&self) -> String {
        if self.is_list() { format!("a list, each {}", self.kind.noun()) } else { self.kind.noun() }
    }
}

/// The environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("DALP_{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// Every setting, section by section, in the order of the example and the reference.
#[derive(Clone, Copy)]
pub(super) struct Sections(pub &'static [&'static [Setting]]);

impl Sections {
    /// One after the other.
    pub fn settings(self) -> impl Iterator<Item = &'static Setting> {
        self.0.iter().copied().flatten()
    }

    /// Finds the setting of a key, whose chain's or table's name may be any.
    pub fn find(self, key: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| {
            let mut parts = key.split('.');
            setting.path.split('.').all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
                && parts.next().is_none()
        })
    }

    /// The section of this name, if those below it have names of one's own.
    pub fn named(self, name: &str) -> Option<&'static str> {
        let with_sections = self.settings().filter(|setting| setting.path.contains(".*."));
        with_sections.filter_map(Setting::names).find(|section| *section == name)
    }

    /// The section and the name that a key such as `chains.mainnet.raw` is about.
    pub fn name_of(self, key: &str) -> Option<(&'static str, &str)> {
        let (section, rest) = key.split_once('.')?;
        Some((self.named(section)?, rest.split('.').next()?))
    }

    /// Whether settings lie below this key.
    pub fn is_section(self, key: &str) -> bool {
        let parts: Vec<&str> = key.split('.').collect();
        self.settings().any(|setting| {
            let wanted: Vec<&str> = setting.path.split('.').collect();
            wanted.len() > parts.len()
                && wanted.iter().zip(&parts).all(|(wanted, part)| *wanted == "*" || wanted == part)
        })
    }
}
