//! Texts made from the settings: the example, the reference, the effective configuration.

use std::fmt::Write as _;

use super::all::SECTIONS;
use super::given::{Given, indexes_of};
use super::setting::{self, Default, Setting};
use crate::dataset::Datasets;

/// A working TOML file with every setting; settings with a default are commented out.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# Configuration of dalp-indexer. A line that begins with `# name =` shows a default: remove the # to change it.\n\
         # Each setting is also an environment variable, which wins over this file: database.pool_size is\n\
         # DALP_DATABASE__POOL_SIZE. Lists are separated by commas there.\n",
    );
    let mut section = "";
    for setting in SECTIONS.settings() {
        if setting.section() != section {
            section = setting.section();
            let named = section.replace("chains.*", "chains.anvil").replace("tables.*", "tables.logs");
            // The file works as it is, and it has no ABI.
            let out = if section.starts_with(CONTRACTS) { "# " } else { "" };
            let _ = write!(text, "\n{out}[{}]\n", named.replace(CONTRACTS, "contracts.bond"));
        }
        let _ = writeln!(text, "\n# {}\n# {}", setting.help(), setting.reason());
        if matches!(setting.default, Default::OfDataset) {
            for dataset in Datasets::own().partitioned() {
                let items = indexes_of(&Datasets::own(), &format!("{}.{}", setting.section(), dataset.name()));
                let _ = writeln!(text, "# {}\n# {} = {items:?}", dataset.why_indexes(), dataset.name());
            }
            continue;
        }
        let name = setting.name();
        let _ = match setting.default {
            Default::Required(value) | Default::Value(value) if section.starts_with(CONTRACTS) => {
                writeln!(text, "#   {name} = {}", toml_value(setting, value))
            }
            Default::Required(value) => writeln!(text, "{name} = {}", toml_value(setting, value)),
            Default::Value(value) => writeln!(text, "# {name} = {}", toml_value(setting, value)),
            Default::Same(other) => writeln!(text, "#   {name} = the same as {other}"),
            Default::Unset(value) => writeln!(text, "#   {name} = {}   (not set)", toml_value(setting, value)),
            Default::OfDataset => Ok(()),
        };
    }
    text
}

fn toml_value(setting: &Setting, text: &str) -> String {
    let quoted = |text: &str| {
        if setting.is_bare() { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() }
    };
    if setting.is_list() {
        let items: Vec<String> = text.split(',').filter(|item| !item.is_empty()).map(quoted).collect();
        format!("[{}]", items.join(", "))
    } else {
        quoted(text)
    }
}

/// A section that only some have.
const CONTRACTS: &str = "contracts.*";

/// docs/configuration.md, whole.
pub(super) fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         `dalp-indexer config reference` writes this page; a test compares it with the code.\n\n\
         `dalp-indexer` reads the file of `--config` (or `DALP_CONFIG`). Without one, it reads `dalp-indexer.toml` in the working \
         directory, if that exists. Then it reads the environment, which overrides the file. An empty variable counts as not set. \
         `dalp-indexer` refuses unknown keys and variables, and reports all problems together: try `dalp-indexer config check`. \
         `dalp-indexer config example` prints a file to start from.\n\n\
         `NAME` stands for a name of your choice, as in `[chains.anvil]`; `[tables.NAME]` is one of the indexer's own tables (`logs`, \
         `erc20_transfer`, `activity`), or your table. In a variable, commas separate the items of a list. A time is a whole number \
         with its unit: `500ms`, `5s`, `2m`, `1h`, `90d`. Relative paths start at the working directory. Database and RPC URLs may \
         contain secrets and are never printed: messages show only scheme, host and port.\n",
    );
    let mut section = "";
    for setting in SECTIONS.settings() {
        if setting.section() != section {
            section = setting.section();
            let _ = write!(
                text,
                "\n## {}\n\n| Setting | Variable | Default | Allowed | Meaning |\n|---|---|---|---|---|\n",
                section.replace('*', "NAME")
            );
        }
        if matches!(setting.default, Default::OfDataset) {
            indexes(&mut text, setting);
            continue;
        }
        let path = setting.path.replace('*', "NAME");
        let variable = setting::variable(&path);
        let list = if setting.is_list() { "a list: " } else { "" };
        let allowed = format!("{list}{}", setting.kind.allowed());
        let (default, help, reason) = (default_text(setting), setting.help(), setting.reason());
        let _ = writeln!(text, "| `{}` | `{variable}` | {default} | {allowed} | {help} {reason} |", setting.name());
    }
    text
}

/// A line for each of the indexer's own tables.
fn indexes(text: &mut String, setting: &Setting) {
    let datasets = Datasets::own();
    for dataset in datasets.partitioned() {
        let path = format!("{}.{}", setting.section(), dataset.name());
        let (variable, default) = (setting::variable(&path), indexes_of(&datasets, &path).join(","));
        let of: Vec<&str> = dataset.indexable().collect();
        let (name, why, help) = (dataset.name(), dataset.why_indexes(), setting.help());
        let _ = writeln!(
            text,
            "| `{name}` | `{variable}` | `{default}` | a list: columns joined by +, each once, of {} | {help} {why} {} |",
            of.join(", "),
            setting.reason()
        );
    }
}

fn default_text(setting: &Setting) -> String {
    match setting.default {
        Default::Value("") => "none".into(),
        Default::Value(value) => format!("`{value}`"),
        Default::Same(other) => format!("the same as `{other}`"),
        Default::Required(_) => "**must be set**".into(),
        Default::Unset(_) | Default::OfDataset => "none".into(),
    }
}

/// The effective configuration, each value with where it comes from; secrets by scheme, host and port.
pub(super) fn describe(given: &Given) -> String {
    let mut lines = Vec::new();
    for setting in SECTIONS.settings() {
        for key in setting.keys(given.named()) {
            let (items, origin) = given.items(&key);
            let shown: Vec<String> = items.iter().map(|item| setting.kind.shown(item)).collect();
            let value = if shown.is_empty() { "(none)".to_owned() } else { shown.join(", ") };
            lines.push((format!("{key} = {value}"), origin));
        }
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(72);
    lines.iter().fold(String::new(), |mut text, (line, origin)| {
        let _ = writeln!(text, "{line:width$}  # {origin}");
        text
    })
}
