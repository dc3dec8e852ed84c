//! The configuration from outside: files and environments in, values or problems out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;

use super::all::SECTIONS;
use super::setting::Default;
use super::*;

/// A file with this text, in a folder of its own that goes with the value.
struct File {
    folder: PathBuf,
}

impl File {
    fn new(name: &str, text: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("dalp-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(DEFAULT_FILE), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(DEFAULT_FILE)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn load(name: &str, text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let file = File::new(name, text);
    Config::load(Some(&file.path()), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

const REQUIRED: &[(&str, &str)] = &[
    ("DALP_DATABASE__URL", "postgres://postgres@127.0.0.1:5432/dalp"),
    ("DALP_CHAINS__ANVIL__CHAIN_ID", "31337"),
    ("DALP_CHAINS__ANVIL__RPC_URLS", "http://127.0.0.1:8545"),
];

#[test]
fn the_example_parses_and_equals_the_defaults() {
    let defaults = load("defaults", "", REQUIRED).unwrap();
    assert_eq!(load("example", &Config::example(), &[]).unwrap(), defaults);
    let uncommented: Vec<String> = Config::example()
        .lines()
        .map(|line| {
            match line
                .strip_prefix("# ")
                .filter(|rest| rest.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ') && !name.is_empty()))
            {
                Some(setting) => setting.to_owned(),
                None => line.to_owned(),
            }
        })
        .collect();
    assert!(uncommented.contains(&"pool_size = 8".to_owned()));
    assert_eq!(load("uncommented", &uncommented.join("\n"), &[]).unwrap(), defaults);
}

#[test]
fn the_defaults_are_the_promised_ones() {
    let config = load("promised", "", REQUIRED).unwrap();
    assert_eq!(config.database.pool_size, 8);
    assert_eq!(config.database.admin_url, config.database.url);
    assert_eq!((config.database.tls, &config.database.ca_file), (TlsMode::VerifyFull, &None));
    assert_eq!(config.roles.writer, "dalp_writer");
    assert_eq!(config.chains[0].finality, Finality::Tag);
    assert_eq!(config.chains[0].max_response_bytes, 64 << 20);
    assert_eq!(config.partitions.history_after, Duration::from_secs(90 * 86_400));
    assert_eq!(config.http.listen, Some("127.0.0.1:9464".parse().unwrap()));
}

#[test]
fn the_environment_wins_key_by_key() {
    let file =
        "[database]\nurl = \"postgres://a/x\"\npool_size = 2\n[chains.one]\nchain_id = 1\nrpc_urls = [\"http://a\"]\n";
    let env = [
        ("DALP_DATABASE__URL", "postgres://b/x"),
        ("DALP_CHAINS__TWO_B__CHAIN_ID", "2"),
        ("DALP_CHAINS__TWO_B__RPC_URLS", "http://a, https://b/key"),
        ("DALP_CHAINS__ONE__FINALITY", "depth:12"),
        ("DALP_HTTP__LISTEN", "off"),
        ("DALP_DATABASE__POOL_SIZE", ""),
        ("DALP_TEST_ANYTHING", "1"),
        ("DALP_HOME", "/x"),
        ("PATH", "/bin"),
    ];
    let config = load("wins", file, &env).unwrap();
    assert_eq!(config.database.url.expose(), "postgres://b/x");
    assert_eq!(config.database.pool_size, 2, "an empty variable is not set");
    assert_eq!(config.http.listen, None);
    let names: Vec<&str> = config.chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["one", "two_b"]);
    assert_eq!(config.chains[0].finality, Finality::Depth(12));
    assert_eq!(config.chains[1].rpc_urls[1].expose(), "https://b/key");
}

#[test]
fn all_problems_are_reported_together() {
    let file = r#"
        colour = "red"
        [databse]
        url = "x"
        [database]
        url = "postgres://u:HUNTER2@h/x?sslmode=prefer"
        pool_size = "8"
        connect_timeout = "soon"
        [roles]
        writer = "same"
        reader = "same"
        [http]
        listen = 9464
        [chains.Bad]
        chain_id = 5
        [chains.a]
        chain_id = 1
        rpc_urls = []
        range_blocks = 100
        max_range_blocks = 10
        addresses = ["0x12"]
        start_blok = 7
        [chains.b]
        chain_id = 1
        rpc_urls = ["ftp://HUNTER2@h", "ws://HUNTER2@h"]
        ws_urls = ["https://h"]
    "#;
    let env = [("DALP_CHAINS__B__POLL_INTERVALL", "1s"), ("DALP_PARTITIONS__PREMAKE", "-3")];
    let errors = load("together", file, &env).unwrap_err();
    let text = errors.to_string();
    for expected in [
        "colour (",
        "databse (",
        "did you mean `database`?",
        "sslmode must be verify-full or disable",
        "it is a text in quotes, not a whole number from 1 to 1000",
        "\"soon\" is not a time from 100ms to 10m",
        "\"same\" is roles.writer too",
        "it is a number, not an IP address and port",
        "chains.Bad (",
        "the list is empty",
        "100 is more than max_range_blocks, 10",
        "\"0x12\" is not an address",
        "did you mean `chains.a.start_block`?",
        "1 is the id of chains.a too",
        "its value (not shown) is not a URL that starts with http:// or https://",
        "http:// or https://: put it into chains.b.ws_urls",
        "ws:// or wss://: put it into chains.b.rpc_urls",
        "did you mean DALP_CHAINS__B__POLL_INTERVAL?",
        "partitions.premake (DALP_PARTITIONS__PREMAKE): \"-3\" is not a whole number from 1 to 100",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    assert_eq!(errors.problems.len(), 18, "{text}");
    assert!(!text.contains("HUNTER2"), "{text}");
}

#[test]
fn what_must_be_set_is_asked_for_by_both_names() {
    let text = load("empty", "[chains.a]", &[]).unwrap_err().to_string();
    for expected in ["database.url (not set)", "DALP_DATABASE__URL", "DALP_CHAINS__A__CHAIN_ID", "chains.a.rpc_urls"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
}

#[test]
fn a_bad_file_is_one_problem_without_its_secrets() {
    let missing = Config::load(Some(Path::new("/nonexistent/x.toml")), std::iter::empty()).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/x.toml") && missing.contains("config example"), "{missing}");
    for (name, file) in [
        ("open", "[database]\nurl = \"postgres://u:HUNTER2@h"),
        ("twice", "[database]\nurl = \"HUNTER2\"\nurl = \"HUNTER2\""),
        ("bare", "[database]\nurl = HUNTER2"),
    ] {
        let text = load(name, file, &[]).unwrap_err().to_string();
        assert!(text.contains("is not valid TOML: line "), "{text}");
        assert!(!text.contains("HUNTER2"), "{text}");
    }
}

#[test]
fn nothing_shows_a_secret() {
    let env = [
        ("DALP_DATABASE__URL", "postgres://u:HUNTER2@h/x"),
        ("DALP_CHAINS__A__CHAIN_ID", "1"),
        ("DALP_CHAINS__A__RPC_URLS", "https://eth.example/HUNTER2"),
    ];
    let env = || env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let file = File::new("secret", "");
    let settings = Settings::load(Datasets::own(), Some(&file.path()), env()).unwrap();
    let text = format!("{}{:?}", settings.describe(), settings.config());
    assert!(text.contains("https://eth.example") && text.contains("postgres://h:5432"), "{text}");
    assert!(!text.contains("HUNTER2"), "{text}");
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == Config::reference(),
        "docs/configuration.md is out of date: cargo run -- config reference > docs/configuration.md"
    );
}

/// What is wrong with this key, of all that is wrong.
fn problems_of(key: &str, env: &[(&str, &str)]) -> Vec<String> {
    let problems = load("problems_of", "", env).map_or_else(|errors| errors.problems, |_| Vec::new());
    problems.into_iter().filter(|problem| problem.key == key).map(|problem| problem.message).collect()
}

#[test]
fn defaults_and_examples_pass_their_own_checks() {
    for setting in SECTIONS.settings() {
        let text = match setting.default {
            Default::Value("") | Default::OfDataset => continue,
            Default::Value(text) | Default::Required(text) | Default::Unset(text) => text,
            Default::Same(other) => {
                assert!(SECTIONS.find(other).is_some_and(|other| other.path != setting.path), "{}", setting.path);
                continue;
            }
        };
        let (key, path) = (setting.key("anvil"), setting.path);
        let variable = setting::variable(&key);
        let env = [REQUIRED, &[(variable.as_str(), text)]].concat();
        let expected: &[&str] = match path {
            // A file of this name need not be here.
            "database.ca_file" | "contracts.*.abi" => &["is not a file that can be read"],
            // It is of addresses, which are another setting.
            "contracts.*.end_block" => &["there are none: name them"],
            _ => &[],
        };
        let problems = problems_of(&key, &env);
        assert_eq!(problems.len(), expected.len(), "{path}: {problems:?}");
        assert!(problems.iter().zip(expected).all(|(problem, said)| problem.contains(said)), "{path}: {problems:?}");
        // A text that no kind allows is refused for every setting.
        let wrong = [REQUIRED, &[(variable.as_str(), "\0")]].concat();
        assert_eq!(problems_of(&key, &wrong).len(), 1, "{path}");
    }
}

#[test]
fn every_setting_says_what_it_is_and_why() {
    for setting in SECTIONS.settings() {
        let (help, reason, path) = (setting.help(), setting.reason(), setting.path);
        assert!(help.ends_with('.') && reason.ends_with('.'), "{path}: {help} | {reason}");
        assert_eq!(setting.docs.split(|line| line.is_empty()).count(), 2, "{path}: what it is, and why");
    }
}

fn in_code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn the_references_defaults_are_the_defaults() {
    let reference = Config::reference().replace("TABLES__NAME", "TABLES__LOGS").replace("NAME", "ANVIL");
    let rows: Vec<Vec<&str>> = reference.lines().map(|line| line.split(" | ").collect()).collect();
    let stated = rows.iter().filter(|row| row.len() > 4).filter_map(|row| Some((in_code(row[1])?, in_code(row[2])?)));
    // Contracts without an ABI are a problem, so none can be stated alone.
    let stated: Vec<(&str, &str)> = stated.filter(|(variable, _)| !variable.contains("CONTRACTS")).collect();
    assert!(stated.len() > 40, "{stated:?}");
    let config = load("stated", "", &[REQUIRED, &stated].concat()).unwrap();
    assert_eq!(config, load("unstated", "", REQUIRED).unwrap());
}

#[test]
fn what_is_the_same_as_another_setting_is_told_once() {
    let without_url = &REQUIRED[1..];
    let bad_url = [without_url, &[("DALP_DATABASE__URL", "x")]].concat();
    let bad_interval = [REQUIRED, &[("DALP_PARTITIONS__INTERVAL", "x")]].concat();
    for (env, key) in
        [(without_url, "database.url"), (&bad_url, "database.url"), (&bad_interval, "partitions.interval")]
    {
        let errors = load("same", "", env).unwrap_err();
        let keys: Vec<&str> = errors.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, [key], "{errors}");
    }
}

#[test]
fn tables_are_configured_by_name() {
    let of = |more: &str| {
        let text = format!("[database]\nurl = \"postgres://a@127.0.0.1/b\"\n{more}");
        load("tables", &text, &[]).map_err(|errors| errors.to_string())
    };
    let config = of(
        "[tables.logs]\naction = \"drop\"\nretention = \"90d\"\n[tables.mine]\ntable = \"s.t\"\ntime_column = \"at\"\n",
    )
    .unwrap();
    let names: Vec<&str> = config.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["logs", "erc20_transfer", "activity", "mine"]);
    assert_eq!(config.tables[0].retention.time, TimeDelta::days(90));
    assert_eq!(config.tables[1].retention.action, Action::Keep);
    assert_eq!((config.tables[2].interval, config.tables[3].interval), (Interval::Month, Interval::Day));
    assert!(config.tables[3].table.flat && !config.tables[0].table.flat);
    for (more, said) in [
        ("[tables.logs]\naction = \"drop\"", "tables.logs.retention"),
        ("[tables.logs]\nretention = \"1d\"", "tables.logs.action"),
        ("[tables.logs]\naction = \"archive\"\nretention = \"1d\"", "partitions.archive_url"),
        ("[tables.logs]\nlist = true", "tables.logs.list"),
        ("[tables.logs]\ntable = \"a.b\"", "tables.logs.table"),
        ("[tables.mine]\ntable = \"a.b\"", "tables.mine.time_column"),
        ("[tables.mine]\ntable = \"ab\"\ntime_column = \"t\"", "tables.mine.table"),
        (
            "[tables.a]\ntable = \"s.t\"\ntime_column = \"t\"\n[tables.b]\ntable = \"s.t\"\ntime_column = \"t\"",
            "s.t is tables.a already",
        ),
        ("[tables.a]\ntable = \"dalp_indexed.logs\"\ntime_column = \"t\"", "is the indexer's own"),
        ("[tables.a]\ntable = \"dalp_audit.activity\"\ntime_column = \"t\"", "is the indexer's own"),
        ("[tables.Mine]", "tables.Mine"),
        ("[tables.logs]\nretenton = \"1d\"", "did you mean `tables.logs.retention`"),
    ] {
        let errors = of(more).unwrap_err();
        assert!(errors.contains(said), "{more}: {errors}");
    }
    for (written, schema, name) in [
        ("app.Position", "app", "Position"),
        ("app.a.b", "app", "a.b"),
        (r#""my.app"."Pos.""x""ü""#, "my.app", "Pos.\"x\"ü"),
        (r#"app."a b""#, "app", "a b"),
    ] {
        let column = r#"time_column = '"When ""it"" was"'"#;
        let config = of(&format!("[tables.mine]\ntable = '{written}'\n{column}")).unwrap();
        let table = &config.tables[3].table;
        assert_eq!(
            (table.schema.as_str(), table.name.as_str(), table.time_column.as_str()),
            (schema, name, "When \"it\" was")
        );
    }
    for wrong in [r#"app."x"#, r#""app.x""#, r#""app"x.y"#, r#"app."x"y"#, "app.", ".x", r#""".x"#] {
        let errors = of(&format!("[tables.mine]\ntable = '{wrong}'\ntime_column = \"at\"")).unwrap_err();
        assert!(errors.contains("tables.mine.table"), "{wrong}: {errors}");
    }
    let variable = [("DALP_TABLES__LOGS__ACTION", "detach"), ("DALP_TABLES__LOGS__RETENTION", "7d"), REQUIRED[0]];
    assert_eq!(load("tables_env", "", &variable).unwrap().tables[0].retention.action, Action::Detach);
    for secret in ["s3://u:GEHEIM@bucket/x", "s3://bucket/x?key=GEHEIM", "ftp://GEHEIM"] {
        let errors = of(&format!("[partitions]\narchive_url = {secret:?}")).unwrap_err();
        assert!(errors.contains("partitions.archive_url") && !errors.contains("GEHEIM"), "{errors}");
    }
}

/// The tables that contracts add: a section `[contracts.NAME]` with these lines.
fn tables_of(name: &str, lines: &str) -> Result<Vec<String>, Vec<String>> {
    // Each call has a file of its own: tests run side by side.
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let address = "addresses = [\"0x5fbdb2315678afecb367f032d93f642f64180aa3\"]";
    let own = crate::dataset::Datasets::own();
    match load(&format!("contracts-{name}-{call}"), &format!("[contracts.{name}]\n{address}\n{lines}\n"), REQUIRED) {
        Ok(config) => {
            let tables = config.datasets.iter().map(|dataset| dataset.name().to_owned());
            Ok(tables.filter(|name| own.get(name).is_none()).collect())
        }
        Err(errors) => Err(errors.problems.into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect()),
    }
}

#[test]
fn a_built_in_kind_needs_no_abi_and_takes_more_events() {
    let file = File::new("vault-abi", "event Deposit(string note)\nevent Moved(uint8 a)");
    let abi = format!("abi = [{:?}]", file.path());
    let plain = tables_of("tokens", "kind = \"vault\"").unwrap();
    assert_eq!(plain.len(), crate::events::catalogue::of("vault").unwrap().abi().events.len());
    assert!(plain.iter().all(|name| name.starts_with("vault_")), "{plain:?}");
    assert_eq!(tables_of("vault", "").unwrap(), plain, "the section's name is its kind");
    let both = tables_of("wallets", &format!("kind = \"vault\"\n{abi}")).unwrap();
    assert_eq!(both[..plain.len()], plain[..]);
    assert!(both[plain.len()].starts_with("vault_deposit_") && both[plain.len() + 1..] == ["vault_moved"], "{both:?}");
    // Its own events alone: the author may not know of the built-in kind.
    assert_eq!(tables_of("vault", &abi).unwrap(), ["vault_deposit", "vault_moved"]);
}

#[test]
fn a_kind_that_is_not_built_in_needs_an_abi() {
    for (name, lines, key) in [("tokens", "kind = \"smart_tokn\"", "kind"), ("smart_tokn", "", "abi")] {
        let problems = tables_of(name, lines).unwrap_err();
        let begin = format!("contracts.{name}.{key}: the kind smart_tokn is not built in; did you mean smart_token?");
        assert!(problems.len() == 1 && problems[0].starts_with(&begin), "{problems:?}");
        assert!(problems[0].contains("identity_registry, "), "{problems:?}");
    }
}
