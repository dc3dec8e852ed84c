//! Reads the file and the environment into checked texts, and collects every problem on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use strsim::levenshtein;

use super::kind::Kind;
use super::setting::{self, DATASETS, Default, Named, SETTINGS, Setting};
use super::tables::REGISTRY;
use super::value;
use crate::dataset::{Dataset, Datasets};

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "dalp-indexer.toml";

/// Names under our prefix that belong to tools and tests, not to the configuration.
const FOREIGN: &[&str] = &["DALP_HOME", "DALP_PG_BIN", "DALP_ANVIL", "DALP_TOOLS", "DALP_LOG_FORMAT", "DALP_CONFIG"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// This configuration file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// Neither: it is missing.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Nowhere => f.write_str("not set"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about; empty for the file as a whole.
    pub key: String,
    /// Where that key was found.
    pub origin: Origin,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{} ({}): {}", self.key, self.origin, self.message)
        }
    }
}

/// Everything that is wrong with a configuration, at least one problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The problems, in the order they were found.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        writeln!(f, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        write!(f, "docs/configuration.md lists every setting. For a file to start from: ")?;
        write!(f, "dalp-indexer config example > {DEFAULT_FILE}")
    }
}

/// A value that somebody set, as text: one item, or a list's items.
struct Found {
    items: Vec<String>,
    origin: Origin,
}

/// A configuration whose every text has passed its check, before it becomes a [`super::Config`].
pub struct Settings {
    found: BTreeMap<String, Found>,
    named: Named,
    datasets: Datasets,
}

impl Settings {
    /// Reads `path` (or [`DEFAULT_FILE`], if it exists), then lets the environment override it. `datasets`: the tables of chains that
    /// `[tables.NAME]` and `[indexes]` may name.
    ///
    /// # Errors
    /// All problems at once.
    pub fn load(
        datasets: Datasets,
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(datasets);
        let default = Path::new(DEFAULT_FILE);
        if let Some(path) = path.or_else(|| default.exists().then_some(default)) {
            // A file that cannot be read would only bury its one problem under all that is then missing.
            let table = read_file(path).map_err(|problem| ConfigErrors { problems: vec![problem] })?;
            reader.walk(&Origin::File(path.to_owned()), "", table);
        }
        for (name, value) in environment {
            reader.take_variable(&name, &value);
        }
        reader.finish()
    }

    /// Takes what these variables say, and reads no file.
    ///
    /// # Errors
    /// All problems at once.
    #[cfg(feature = "dev")]
    pub fn of_variables(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(Datasets::own());
        for (name, value) in variables {
            reader.take_variable(&name, &value);
        }
        reader.finish()
    }

    /// The names of the chains, in order.
    pub fn chains(&self) -> impl Iterator<Item = &String> {
        self.named.get("chains").into_iter().flatten()
    }

    /// The names of the tables that are mentioned, in order.
    pub(super) fn tables(&self) -> impl Iterator<Item = &String> {
        self.named.get("tables").into_iter().flatten()
    }

    /// The tables of rows of chains.
    pub(super) fn datasets(&self) -> &Datasets {
        &self.datasets
    }

    /// The names of `[tables.NAME]` that need no `table`.
    pub(super) fn own_tables(&self) -> Vec<&str> {
        self.datasets.partitioned().map(Dataset::name).chain([super::tables::ACTIVITY]).collect()
    }

    /// Whether somebody set it.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.found.contains_key(key)
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// A key's items and where they come from; none if it is neither set nor has a default.
    pub(super) fn items(&self, key: &str) -> (Vec<String>, Origin) {
        if let Some(found) = self.found.get(key) {
            return (found.items.clone(), found.origin.clone());
        }
        match setting::find(key).map(|setting| (&setting.default, setting.many)) {
            Some((Default::Value(""), true)) => (Vec::new(), Origin::Default),
            Some((Default::Value(text), true)) => (text.split(',').map(str::to_owned).collect(), Origin::Default),
            Some((Default::Value(text), false)) => (vec![(*text).to_owned()], Origin::Default),
            Some((Default::Same(other), _)) => self.items(other),
            Some((Default::OfDataset, _)) => (setting::indexes_of(&self.datasets, key), Origin::Default),
            Some((Default::Required(_) | Default::Unset(_), _)) | None => (Vec::new(), Origin::Nowhere),
        }
    }

    /// A list's items, read as `T`.
    pub(super) fn list<T: FromStr>(&self, key: &str) -> Result<Vec<T>, ConfigErrors> {
        self.items_with(key, |item| item.parse().ok())
    }

    /// One value, read as `T`.
    pub(super) fn one<T: FromStr>(&self, key: &str) -> Result<T, ConfigErrors> {
        self.one_with(key, |item| item.parse().ok())
    }

    /// One duration.
    pub(super) fn duration(&self, key: &str) -> Result<Duration, ConfigErrors> {
        self.one_with(key, |item| value::duration(item).ok())
    }

    pub(super) fn one_with<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, ConfigErrors> {
        self.items_with(key, read)?.pop().ok_or_else(|| self.unreadable(key))
    }

    pub(super) fn items_with<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ConfigErrors> {
        let (items, _) = self.items(key);
        items.iter().map(|item| read(item).ok_or_else(|| self.unreadable(key))).collect()
    }

    /// Only for a check that is looser than the type it guards: a bug, but never a panic.
    pub(super) fn unreadable(&self, key: &str) -> ConfigErrors {
        let message = "its value passed its check but could not be read; please report this".to_owned();
        ConfigErrors { problems: vec![Problem { key: key.into(), origin: self.items(key).1, message }] }
    }
}

/// Reads and parses a file. The parser's own message is not used whole: it quotes the line, and so its secrets.
fn read_file(path: &Path) -> Result<toml::Table, Problem> {
    let problem = |message| Problem { key: String::new(), origin: Origin::File(path.to_owned()), message };
    let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        problem(format!("is not valid TOML: line {line}, column {column}: {}", error.message()))
    })
}

/// The work in progress of [`Settings::load`].
struct Reader {
    datasets: Datasets,
    found: BTreeMap<String, Found>,
    named: Named,
    problems: Vec<Problem>,
}

impl Reader {
    fn new(datasets: Datasets) -> Self {
        let names = datasets.partitioned().map(|dataset| dataset.name().to_owned()).collect();
        Self { datasets, found: BTreeMap::new(), named: Named::from([(DATASETS, names)]), problems: Vec::new() }
    }

    fn problem(&mut self, key: &str, origin: &Origin, message: impl Into<String>) {
        self.problems.push(Problem { key: key.into(), origin: origin.clone(), message: message.into() });
    }

    fn walk(&mut self, origin: &Origin, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Some(setting) = self.find(&key) {
                match items_of(setting, value) {
                    Ok(items) => self.take(key, items, origin.clone()),
                    Err(given) => {
                        let message = format!("it is {given}, not {}", wanted(setting));
                        self.problem(&key, origin, message);
                    }
                }
            } else if !is_section(&key) {
                self.unknown(&key, origin);
            } else if setting::named_section(prefix).is_some() && !is_name(&name) {
                self.problem(&key, origin, NAME);
            } else {
                match value {
                    toml::Value::Table(inner) => {
                        // A chain is there as soon as its section is, even an empty one.
                        if let Some(section) = setting::named_section(prefix) {
                            self.named.entry(section).or_default().insert(name);
                        }
                        self.walk(origin, &key, inner);
                    }
                    _ => self.problem(&key, origin, format!("it is a section: write [{key}] and its settings below")),
                }
            }
        }
    }

    fn take_variable(&mut self, name: &str, value: &str) {
        // Compose files and CI pass what is not set as an empty text.
        if value.is_empty() || FOREIGN.contains(&name) || name.starts_with("DALP_TEST_") {
            return;
        }
        let Some(rest) = name.strip_prefix("DALP_") else { return };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Variable(name.to_owned());
        match self.find(&key) {
            Some(_) if setting::variable(&key) != name => self.unknown(&key, &origin),
            Some(setting) => {
                if let Some((section, name)) = name_of(&key).filter(|(_, name)| !is_name(name)) {
                    return self.problem(&format!("{section}.{name}"), &origin, NAME);
                }
                let items = if setting.many { value.split(',').collect() } else { vec![value] };
                let items = items.into_iter().map(|item| item.trim().to_owned()).collect();
                self.take(key, items, origin);
            }
            None => self.unknown(&key, &origin),
        }
    }

    /// The setting of a key; of indexes, only those of tables that are there.
    fn find(&self, key: &str) -> Option<&'static Setting> {
        let known = |setting: &&Setting| {
            !matches!(setting.default, Default::OfDataset) || setting.keys(&self.named).iter().any(|known| known == key)
        };
        setting::find(key).filter(known)
    }

    fn take(&mut self, key: String, items: Vec<String>, origin: Origin) {
        if let Some((section, name)) = name_of(&key) {
            self.named.entry(section).or_default().insert(name.to_owned());
        }
        self.found.insert(key, Found { items, origin });
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let hint = match (nearest(key, &self.named), origin) {
            (Some(near), Origin::Variable(_)) => format!("; did you mean {}?", setting::variable(&near)),
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, _) => String::new(),
        };
        self.problem(key, origin, format!("there is no such setting{hint}"));
    }

    fn finish(mut self) -> Result<Settings, ConfigErrors> {
        for setting in SETTINGS {
            for key in setting.keys(&self.named) {
                self.check(setting, &key);
            }
        }
        let Self { datasets, found, named, mut problems } = self;
        let settings = Settings { found, named, datasets };
        check_together(&settings, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(ConfigErrors { problems }) }
    }

    fn check(&mut self, setting: &Setting, key: &str) {
        let Some(found) = self.found.get(key) else {
            // A value of the wrong type was found and reported already.
            if matches!(setting.default, Default::Required(_)) && !self.problems.iter().any(|p| p.key == key) {
                let message =
                    format!("it must be set, in the file or as {}: {}", setting::variable(key), wanted(setting));
                self.problem(key, &Origin::Nowhere, message);
            }
            return;
        };
        let origin = found.origin.clone();
        let required = matches!(setting.default, Default::Required(_));
        let mut messages = Vec::new();
        if required && found.items.is_empty() {
            messages.push(format!("the list is empty: write {}", wanted(setting)));
        }
        for item in &found.items {
            let checked = match setting.kind {
                Kind::Index => setting::check_index(&self.datasets, key, item),
                _ => setting.kind.check(item),
            };
            if let Err(why) = checked {
                let mut message = refusal(&setting.kind, item, &why);
                if let Some(other) = belongs_to(key, item) {
                    message = format!("{message}: put it into {other}");
                }
                messages.push(message);
            }
        }
        for message in messages {
            self.problem(key, &origin, message);
        }
    }
}

/// The list of URLs that one of another kind belongs to.
fn belongs_to(key: &str, item: &str) -> Option<String> {
    let scheme = item.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())?;
    let (chain, list) = key.rsplit_once('.')?;
    match (list, scheme.as_str()) {
        ("rpc_urls", "ws" | "wss") => Some(format!("{chain}.ws_urls")),
        ("ws_urls", "http" | "https") => Some(format!("{chain}.rpc_urls")),
        _ => None,
    }
}

/// The sentence about one value that was refused.
fn refusal(kind: &Kind, item: &str, why: &str) -> String {
    let value = if kind.is_secret() { "its value (not shown)".to_owned() } else { format!("{item:?}") };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{value} is not {}{why}", one_of(kind))
}

fn one_of(kind: &Kind) -> String {
    if matches!(kind, Kind::Choice(_)) { format!("one of {}", kind.allowed()) } else { kind.allowed() }
}

/// What a setting wants, as a noun.
fn wanted(setting: &Setting) -> String {
    if setting.many { format!("a list, each {}", one_of(&setting.kind)) } else { one_of(&setting.kind) }
}

/// The texts of a TOML value of the right type, or the name of the wrong type.
fn items_of(setting: &Setting, value: toml::Value) -> Result<Vec<String>, &'static str> {
    match value {
        toml::Value::Array(items) if setting.many => {
            items.into_iter().map(|item| text_of(&setting.kind, item).or(Err("a list of other values"))).collect()
        }
        value if setting.many => Err(value.type_str()),
        value => text_of(&setting.kind, value).map(|text| vec![text]),
    }
    .map_err(|given| match given {
        "string" => "a text in quotes",
        "integer" => "a number",
        "float" => "a number with a point",
        "boolean" => "true or false",
        "datetime" => "a date",
        "array" => "a list",
        "table" => "a section",
        other => other,
    })
}

fn text_of(kind: &Kind, value: toml::Value) -> Result<String, &'static str> {
    match (kind, value) {
        (Kind::Int(..), toml::Value::Integer(number)) => Ok(number.to_string()),
        (Kind::Bool, toml::Value::Boolean(flag)) => Ok(flag.to_string()),
        (Kind::Int(..) | Kind::Bool, value) => Err(value.type_str()),
        (_, toml::Value::String(text)) => Ok(text),
        (_, value) => Err(value.type_str()),
    }
}

const NAME: &str = "such a name is made of a-z, 0-9 and _, starts with a letter, has no __ and no _ at its end \
                          (so that it fits into the names of environment variables)";

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}

/// The section and the name that a key such as `chains.mainnet.raw` is about.
fn name_of(key: &str) -> Option<(&'static str, &str)> {
    let (section, rest) = key.split_once('.')?;
    Some((setting::named_section(section)?, rest.split('.').next()?))
}

/// Whether settings lie below this key.
fn is_section(key: &str) -> bool {
    let parts: Vec<&str> = key.split('.').collect();
    SETTINGS.iter().any(|setting| {
        let wanted: Vec<&str> = setting.path.split('.').collect();
        wanted.len() > parts.len() && wanted.iter().zip(&parts).all(|(wanted, part)| *wanted == "*" || wanted == part)
    })
}

/// The known key or section nearest to an unknown one, if any is near enough to be meant.
fn nearest(key: &str, named: &Named) -> Option<String> {
    let depth = key.split('.').count();
    let name = name_of(key).map_or("*", |(_, name)| name);
    let filled = |path: &str| path.replace('*', name);
    let mut known = BTreeSet::new();
    for setting in SETTINGS {
        if matches!(setting.default, Default::OfDataset) {
            known.extend(setting.keys(named));
            continue;
        }
        let path = filled(setting.path);
        known.extend(setting.section().split('.').next().filter(|_| depth == 1).map(str::to_owned));
        known.insert(path);
    }
    let close = known.iter().map(|path| (levenshtein(key, path), path)).min();
    if let Some((_, path)) = close.filter(|(edits, _)| *edits <= 2.max(key.len() / 8)) {
        return Some(path.clone());
    }
    // A setting written in the wrong section.
    let last = key.rsplit('.').next()?;
    SETTINGS.iter().find(|setting| setting.name() == last).map(|setting| filled(setting.path))
}

/// The rules that concern more than one value. A value that is bad by itself has been reported, and is passed over.
fn check_together(settings: &Settings, problems: &mut Vec<Problem>) {
    let number = |key: &str| settings.one::<u64>(key).ok();
    let mut report = |key: String, message: String| {
        let (_, origin) = settings.items(&key);
        problems.push(Problem { key, origin, message });
    };
    let mut ids = BTreeMap::new();
    for chain in settings.chains() {
        let id = number(&format!("chains.{chain}.chain_id"));
        if let Some((id, first)) = id.and_then(|id| Some((id, ids.insert(id, chain)?))) {
            report(
                format!("chains.{chain}.chain_id"),
                format!("{id} is the id of chains.{first} too: a chain is named once, with all its URLs"),
            );
        }
        let [first, most] = ["range_blocks", "max_range_blocks"].map(|name| format!("chains.{chain}.{name}"));
        if let (Some(blocks), Some(limit)) = (number(&first), number(&most))
            && blocks > limit
        {
            report(first, format!("{blocks} is more than max_range_blocks, {limit}: lower it, or raise that"));
        }
    }
    for name in settings.tables() {
        check_table(settings, name, &mut report);
    }
    check_tables_once(settings, &mut report);
    let mut roles = BTreeMap::new();
    for name in ["migrator", "writer", "partitioner", "reader"] {
        let key = format!("roles.{name}");
        let role = settings.one::<String>(&key).unwrap_or_default();
        if let Some(first) = roles.insert(role.clone(), name) {
            report(key, format!("\"{role}\" is roles.{first} too: each needs a role of its own, with its own rights"));
        }
    }
}

/// A table has one policy: under two names, the stricter one would win for both. What the indexer keeps for itself has its own names.
fn check_tables_once(settings: &Settings, report: &mut impl FnMut(String, String)) {
    let own = settings.own_tables();
    let mut seen: BTreeMap<(String, String), &str> = BTreeMap::new();
    for name in settings.tables().filter(|name| !own.contains(&name.as_str())) {
        let key = format!("tables.{name}.table");
        let named = settings.one::<String>(&key).ok();
        let Some((schema, table)) = named.as_deref().and_then(value::table) else { continue };
        let is_ours = schema == REGISTRY
            || (schema.as_str(), table.as_str()) == ("dalp_audit", "activity")
            || settings.datasets().of_table(&schema, &table).is_some();
        let table = (schema, table);
        if is_ours {
            let own = own.join(", ");
            report(key, format!("{}.{} is the indexer's own: its tables are looked after as {own}", table.0, table.1));
        } else if let Some(first) = seen.insert(table.clone(), name) {
            report(key, format!("{}.{} is tables.{first} already: a table has one policy", table.0, table.1));
        }
    }
}

/// A table of one's own says which it is; what becomes of old rows and when goes together.
fn check_table(settings: &Settings, name: &str, report: &mut impl FnMut(String, String)) {
    let key = |setting: &str| format!("tables.{name}.{setting}");
    let text = |setting: &str| settings.one::<String>(&key(setting)).ok();
    let own = settings.own_tables();
    let is_ours = own.contains(&name);
    for setting in ["table", "time_column"] {
        match (text(setting), is_ours) {
            (Some(_), true) => {
                report(key(setting), format!("{name} is the indexer's own table: name yours otherwise"));
            }
            (None, false) => report(
                key(setting),
                format!("it must be set: [tables.{name}] is none of the indexer's own tables ({})", own.join(", ")),
            ),
            _ => {}
        }
    }
    if is_ours && settings.one::<bool>(&key("list")).is_ok_and(|list| list) {
        report(key("list"), format!("{name} is the indexer's own table, whose kind is known: leave it out"));
    }
    let action = text("action").unwrap_or_default();
    match (action.as_str(), text("retention")) {
        ("keep", Some(_)) => report(
            key("action"),
            format!("tables.{name}.retention is set, and nothing is done when it is over: say detach, drop or archive"),
        ),
        ("detach" | "drop" | "archive", None) => {
            report(key("retention"), format!("action is {action}, and it is not said after what time: set retention"));
        }
        ("archive", Some(_)) if settings.one::<String>("partitions.archive_url").is_err() => report(
            "partitions.archive_url".to_owned(),
            format!("tables.{name}.action is archive: say where to, such as file:///var/lib/dalp/archive"),
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let reader = Reader::new(Datasets::own());
        for (key, near) in [
            ("databse", Some("database")),
            ("database.pool_sise", Some("database.pool_size")),
            ("databse.url", Some("database.url")),
            ("chains.anvil.start_blok", Some("chains.anvil.start_block")),
            ("pool_size", Some("database.pool_size")),
            ("indexes.erc20_transfers", Some("indexes.erc20_transfer")),
            ("index.logs", Some("indexes.logs")),
            ("indexes.a", None),
            ("colour", None),
        ] {
            assert_eq!(nearest(key, &reader.named).as_deref(), near, "{key}");
        }
    }

    #[test]
    fn names() {
        for (name, good) in
            [("anvil", true), ("a1_b", true), ("Anvil", false), ("1a", false), ("a__b", false), ("a_", false)]
        {
            assert_eq!(is_name(name), good, "{name}");
        }
    }
}
