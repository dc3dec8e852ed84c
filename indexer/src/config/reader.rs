//! Reads the file and the environment into texts by their keys. An unknown key is a problem, with the nearest known key.

use std::collections::BTreeSet;
use std::path::Path;

use strsim::levenshtein;

use super::all::SECTIONS;
use super::contract;
use super::given::Given;
use super::kind::Form;
use super::problem::{ConfigErrors, DEFAULT_FILE, Origin, Problem};
use super::setting::{self, Default, Named, Setting};
use crate::dataset::Datasets;

/// The prefix of our variables.
const PREFIX: &str = "DALP_";

/// Names under our prefix that belong to tools and tests, not to the configuration.
const FOREIGN: &[&str] = &["DALP_HOME", "DALP_PG_BIN", "DALP_ANVIL", "DALP_TOOLS", "DALP_LOG_FORMAT", "DALP_CONFIG"];

/// Reads `path` (or [`DEFAULT_FILE`], if it exists), then lets the environment override it. `datasets`: the tables of chains that
/// `[tables.NAME]` and `[indexes]` may name.
///
/// # Errors
/// An unreadable file. All other problems are among the given texts.
pub(super) fn read(
    datasets: Datasets,
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(Given, contract::Sections), ConfigErrors> {
    let reader = Reader::new(datasets);
    let default = Path::new(DEFAULT_FILE);
    if let Some(path) = path.or_else(|| default.exists().then_some(default)) {
        // A file that cannot be read would only bury its one problem under all that is then missing.
        let table = read_file(path).map_err(|problem| ConfigErrors { problems: vec![problem] })?;
        return Ok(reader.all(Some((Origin::File(path.to_owned()), table)), environment));
    }
    Ok(reader.all(None, environment))
}

/// Takes these variables, and reads no file.
#[cfg(feature = "dev")]
pub(super) fn read_variables(
    datasets: Datasets,
    variables: impl Iterator<Item = (String, String)>,
) -> (Given, contract::Sections) {
    Reader::new(datasets).all(None, variables)
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

/// The work in progress of [`read`].
struct Reader {
    given: Given,
}

impl Reader {
    fn new(datasets: Datasets) -> Self {
        Self { given: Given::new(SECTIONS, datasets) }
    }

    /// Takes the file, and lets the variables override it. First the contracts: their ABIs tell which tables there are.
    fn all(
        mut self,
        file: Option<(Origin, toml::Table)>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> (Given, contract::Sections) {
        let of_contracts = format!("{PREFIX}{}__", contract::SECTION.to_ascii_uppercase());
        let (first, rest): (Vec<_>, Vec<_>) = variables.partition(|(name, _)| name.starts_with(&of_contracts));
        let (origin, mut table) = file.unwrap_or((Origin::Nowhere, toml::Table::new()));
        if let Some(contracts) = table.remove(contract::SECTION) {
            self.walk(&origin, "", toml::Table::from_iter([(contract::SECTION.to_owned(), contracts)]));
        }
        self.variables(first);
        let contracts = contract::read(&mut self.given);
        self.walk(&origin, "", table);
        self.variables(rest);
        (self.given, contracts)
    }

    fn variables(&mut self, variables: Vec<(String, String)>) {
        for (name, value) in variables {
            self.take_variable(&name, &value);
        }
    }

    fn walk(&mut self, origin: &Origin, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Some(setting) = self.find(&key) {
                match items_of(setting, value) {
                    Ok(items) => self.given.take(key, items, origin.clone()),
                    Err(given) => {
                        let message = format!("it is {given}, not {}", setting.wanted());
                        self.given.report(&key, origin, message);
                    }
                }
            } else if !SECTIONS.is_section(&key) {
                self.unknown(&key, origin);
            } else if SECTIONS.named(prefix).is_some() && !is_name(&name) {
                self.given.report(&key, origin, NAME);
            } else {
                match value {
                    toml::Value::Table(inner) => {
                        if let Some(section) = SECTIONS.named(prefix) {
                            self.given.mention(section, &name);
                        }
                        self.walk(origin, &key, inner);
                    }
                    _ => {
                        let message = format!("it is a section: write [{key}] and its settings below");
                        self.given.report(&key, origin, message);
                    }
                }
            }
        }
    }

    fn take_variable(&mut self, name: &str, value: &str) {
        // Compose files and CI pass an unset variable as an empty text.
        if value.is_empty() || FOREIGN.contains(&name) || name.starts_with("DALP_TEST_") {
            return;
        }
        let Some(rest) = name.strip_prefix(PREFIX) else { return };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Variable(name.to_owned());
        match self.find(&key) {
            Some(_) if setting::variable(&key) != name => self.unknown(&key, &origin),
            Some(setting) => {
                if let Some((section, name)) = SECTIONS.name_of(&key).filter(|(_, name)| !is_name(name)) {
                    self.given.report(&format!("{section}.{name}"), &origin, NAME);
                    return;
                }
                let items = if setting.is_list() { value.split(',').collect() } else { vec![value] };
                let items = items.into_iter().map(|item| item.trim().to_owned()).collect();
                self.given.take(key, items, origin);
            }
            None => self.unknown(&key, &origin),
        }
    }

    /// The setting of a key; of indexes, only those of tables that are there.
    fn find(&self, key: &str) -> Option<&'static Setting> {
        let named = self.given.named();
        let known = |setting: &&Setting| {
            !matches!(setting.default, Default::OfDataset) || setting.keys(named).iter().any(|known| known == key)
        };
        SECTIONS.find(key).filter(known)
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let hint = match (nearest(key, self.given.named()), origin) {
            (Some(near), Origin::Variable(_)) => format!("; did you mean {}?", setting::variable(&near)),
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, _) => String::new(),
        };
        self.given.report(key, origin, format!("there is no such setting{hint}"));
    }
}

/// The texts of a TOML value of the right type, or the name of the wrong type.
fn items_of(setting: &Setting, value: toml::Value) -> Result<Vec<String>, &'static str> {
    let form = setting.kind.form();
    match value {
        toml::Value::Array(items) if setting.is_list() => {
            items.into_iter().map(|item| text_of(form, item).or(Err("a list of other values"))).collect()
        }
        value if setting.is_list() => Err(value.type_str()),
        value => text_of(form, value).map(|text| vec![text]),
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

fn text_of(form: Form, value: toml::Value) -> Result<String, &'static str> {
    match (form, value) {
        (Form::Number, toml::Value::Integer(number)) => Ok(number.to_string()),
        (Form::Flag, toml::Value::Boolean(flag)) => Ok(flag.to_string()),
        (Form::Text, toml::Value::String(text)) => Ok(text),
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

/// The known key or section nearest to an unknown one, if any is near enough to be meant.
fn nearest(key: &str, named: &Named) -> Option<String> {
    let depth = key.split('.').count();
    let name = SECTIONS.name_of(key).map_or("*", |(_, name)| name);
    let filled = |path: &str| path.replace('*', name);
    let mut known = BTreeSet::new();
    for setting in SECTIONS.settings() {
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
    SECTIONS.settings().find(|setting| setting.name() == last).map(|setting| filled(setting.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let given = Reader::new(Datasets::own()).given;
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
            assert_eq!(nearest(key, given.named()).as_deref(), near, "{key}");
        }
    }

    #[test]
    fn finds_by_pattern() {
        let path = |key: &str| SECTIONS.find(key).map(|setting| setting.path);
        assert_eq!(path("chains.anvil.start_block"), Some("chains.*.start_block"));
        assert_eq!((path("chains.anvil"), path("chains.anvil.start_block.x"), path("")), (None, None, None));
        assert_eq!(setting::variable("chains.anvil.start_block"), "DALP_CHAINS__ANVIL__START_BLOCK");
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
