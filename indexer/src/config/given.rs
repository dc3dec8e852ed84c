//! The given texts by their keys, each with its origin. A text is read once here: it becomes a value or a problem.

use std::collections::BTreeMap;

use super::kind::{Kind, Reads};
use super::problem::{ConfigErrors, Origin, Problem};
use super::setting::{self, Default, Named, Sections, Setting, Shape};
use crate::dataset::{Dataset, Datasets};

/// The section of indexes, whose names are the datasets.
pub(super) const DATASETS: &str = "indexes";

/// There is no value, and a reported problem gives the reason. Only the report of a problem makes this mark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// A value, or a problem that was reported.
pub(super) type Read<T> = Result<T, Reported>;

/// A setting that was read, with its key: a rule about several settings reports a problem under this key.
pub(super) struct Drafted<T> {
    pub key: String,
    pub value: Read<T>,
}

impl<T> Drafted<T> {
    /// The value; `None` if the value is wrong by itself. That problem is already reported.
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref().ok()
    }
}

/// The type of a field, which is made from values of type `T`.
pub(super) trait Field<T>: Sized {
    const SHAPE: Shape;

    /// `None` if a value is missing.
    fn of(values: Vec<T>) -> Option<Self>;
}

impl<T> Field<T> for T {
    const SHAPE: Shape = Shape::One;

    fn of(mut values: Vec<T>) -> Option<Self> {
        values.pop()
    }
}

impl<T> Field<T> for Option<T> {
    const SHAPE: Shape = Shape::Maybe;

    fn of(mut values: Vec<T>) -> Option<Self> {
        Some(values.pop())
    }
}

impl<T> Field<T> for Vec<T> {
    const SHAPE: Shape = Shape::Many;

    fn of(values: Vec<T>) -> Option<Self> {
        Some(values)
    }
}

/// A value from the file or the environment, as text: one item, or the items of a list.
struct Found {
    items: Vec<String>,
    origin: Origin,
}

/// The texts of the file and the environment, and all problems found so far.
pub(super) struct Given {
    sections: Sections,
    datasets: Datasets,
    named: Named,
    found: BTreeMap<String, Found>,
    problems: Vec<Problem>,
}

impl Given {
    /// No texts yet.
    pub fn new(sections: Sections, datasets: Datasets) -> Self {
        let (named, found) = (Named::default(), BTreeMap::new());
        let mut given = Self { sections, datasets, named, found, problems: Vec::new() };
        given.extend(given.datasets.clone());
        given
    }

    /// Takes these tables of chain rows in place of the present ones. Their names become names of `[indexes]`.
    pub fn extend(&mut self, datasets: Datasets) {
        let names = datasets.partitioned().map(|dataset| dataset.name().to_owned()).collect();
        self.named.insert(DATASETS, names);
        self.datasets = datasets;
    }

    /// The tables of chain rows.
    pub fn datasets(&self) -> &Datasets {
        &self.datasets
    }

    pub fn named(&self) -> &Named {
        &self.named
    }

    /// The names of the chains or tables of a section, in order.
    pub fn names(&self, section: &str) -> Vec<String> {
        self.named.get(section).into_iter().flatten().cloned().collect()
    }

    /// Adds a name to a section. A chain exists if its section exists, even if the section is empty.
    pub fn mention(&mut self, section: &'static str, name: &str) {
        self.named.entry(section).or_default().insert(name.to_owned());
    }

    /// Takes the items of a key, and replaces earlier items.
    pub fn take(&mut self, key: String, items: Vec<String>, origin: Origin) {
        if let Some((section, name)) = self.sections.name_of(&key) {
            self.mention(section, name);
        }
        self.found.insert(key, Found { items, origin });
    }

    /// Whether the file or the environment sets this key.
    pub fn is_set(&self, key: &str) -> bool {
        self.found.contains_key(key)
    }

    /// The items of a key, and their origin; no items if the key is not set and has no default.
    pub fn items(&self, key: &str) -> (Vec<String>, Origin) {
        if let Some(found) = self.found.get(key) {
            return (found.items.clone(), found.origin.clone());
        }
        match self.sections.find(key).map(|setting| (setting.default, setting.is_list())) {
            Some((Default::Value(""), true)) => (Vec::new(), Origin::Default),
            Some((Default::Value(text), true)) => (text.split(',').map(str::to_owned).collect(), Origin::Default),
            Some((Default::Value(text), false)) => (vec![text.to_owned()], Origin::Default),
            Some((Default::Same(other), _)) => self.items(other),
            Some((Default::OfDataset, _)) => (indexes_of(&self.datasets, key), Origin::Default),
            Some((Default::Required(_) | Default::Unset(_), _)) | None => (Vec::new(), Origin::Nowhere),
        }
    }

    /// Reads the setting of the chain or table of this name; other sections ignore the name.
    pub fn read<F: Field<T>, T>(&mut self, setting: &Setting, name: &str, kind: &impl Reads<T>) -> Drafted<F> {
        let key = setting.key(name);
        let value = match setting.default {
            // The other setting's own read reports its problems.
            Default::Same(other) if !self.is_set(&key) => match self.reported(other) {
                Some(reported) => Err(reported),
                None => self.value(setting, other, kind),
            },
            _ => self.value(setting, &key, kind),
        };
        Drafted { key, value }
    }

    fn value<F: Field<T>, T>(&mut self, setting: &Setting, key: &str, kind: &impl Reads<T>) -> Read<F> {
        let (items, origin) = self.items(key);
        if items.is_empty() && matches!(setting.default, Default::Required(_)) {
            return Err(self.missing(setting, key));
        }
        let (mut values, mut refused) = (Vec::new(), None);
        for item in &items {
            match kind.read(item) {
                Ok(value) => values.push(value),
                Err(why) => refused = Some(self.report(key, &origin, refusal(kind, key, item, &why))),
            }
        }
        match (refused, F::of(values)) {
            (Some(reported), _) => Err(reported),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(self.missing(setting, key)),
        }
    }

    fn missing(&mut self, setting: &Setting, key: &str) -> Reported {
        let wanted = setting.wanted();
        if self.is_set(key) {
            return self.object(key, format!("the list is empty: write {wanted}"));
        }
        // The value had the wrong type, and this problem is already reported.
        self.reported(key).unwrap_or_else(|| {
            let message = format!("it must be set, in the file or as {}: {wanted}", setting::variable(key));
            self.report(key, &Origin::Nowhere, message)
        })
    }

    /// Whether a problem of this key was reported.
    fn reported(&self, key: &str) -> Option<Reported> {
        self.problems.iter().any(|problem| problem.key == key).then_some(Reported(()))
    }

    pub fn report(&mut self, key: &str, origin: &Origin, message: impl Into<String>) -> Reported {
        self.problems.push(Problem { key: key.into(), origin: origin.clone(), message: message.into() });
        Reported(())
    }

    /// Reports a problem of a key's value, with the value's origin.
    pub fn object(&mut self, key: &str, message: impl Into<String>) -> Reported {
        let (_, origin) = self.items(key);
        self.report(key, &origin, message)
    }

    /// `made` and these texts if there is no problem; otherwise all problems.
    pub fn finish<T>(self, made: Read<T>) -> Result<(T, Self), ConfigErrors> {
        match made {
            Ok(made) if self.problems.is_empty() => Ok((made, self)),
            _ => Err(ConfigErrors { problems: self.problems }),
        }
    }
}

/// The table of a key such as `indexes.logs`.
fn dataset_of<'d>(datasets: &'d Datasets, key: &str) -> Option<&'d Dataset> {
    key.split_once('.').and_then(|(_, name)| datasets.get(name))
}

/// The indexes in the description of a table: the default of a key such as `indexes.logs`.
pub(super) fn indexes_of(datasets: &Datasets, key: &str) -> Vec<String> {
    let dataset = dataset_of(datasets, key);
    dataset.into_iter().flat_map(Dataset::indexes).map(|columns| columns.join("+")).collect()
}

/// The sentence about one value that was refused.
fn refusal(kind: &impl Kind, key: &str, item: &str, why: &str) -> String {
    let value = if kind.is_secret() { "its value (not shown)".to_owned() } else { format!("{item:?}") };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let other = belongs_to(key, item).map(|other| format!(": put it into {other}")).unwrap_or_default();
    format!("{value} is not {}{why}{other}", kind.noun())
}

/// The setting for a URL that is in the wrong list: `ws_urls` for a WebSocket URL, `rpc_urls` for an HTTP URL.
fn belongs_to(key: &str, item: &str) -> Option<String> {
    let scheme = item.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())?;
    let (chain, list) = key.rsplit_once('.')?;
    match (list, scheme.as_str()) {
        ("rpc_urls", "ws" | "wss") => Some(format!("{chain}.ws_urls")),
        ("ws_urls", "http" | "https") => Some(format!("{chain}.rpc_urls")),
        _ => None,
    }
}
