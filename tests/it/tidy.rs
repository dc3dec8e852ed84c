//! The house rules that a program can check. ARCHITECTURE.md and CONTRIBUTING.md give their reasons.

mod circles;
mod english;
mod fields;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use self::source::{Facts, facts};
use crate::{root, text};

/// Lines of a file and of a function, at most.
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 60;

/// Functions that are longer, with their lines. Shorten one and lower its number here; the list never grows.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// The same for files.
const LONG_FILES: &[(&str, usize)] = &[];

/// The allowed imports of an indexer module. A module that is not named here may use all others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("chain", &[]),
    ("spans", &[]),
    ("status", &[]),
    ("task", &[]),
    ("telemetry", &[]),
    ("timings", &[]),
    ("events", &["chain"]),
    ("dataset", &["chain", "events"]),
    ("config", &["chain", "dataset", "events"]),
    // `status` for the states of its nodes.
    ("nodes", &["backoff", "chain", "config", "spans", "status", "task"]),
    ("store", &["chain", "config", "dataset", "status"]),
    ("api", &["chain", "config", "dataset", "status", "store", "timings"]),
];

/// The modules that may see both the nodes and the database: the loop that awaits both, and those that pass them to it.
const SEES_NODES_AND_STORE: &[&str] = &["driver", "service", "cli"];

/// Crates of which no files use each other in a circle.
const WITHOUT_CIRCLES: &[&str] = &["indexer/src/", "partitions/src/", "tests/src/"];

/// The floors of the partitions, from the bottom up: each uses itself and lower ones.
const FLOORS: &[&str] =
    &["pure/", "pg/", "archive/", "error.rs", "leaves/", "registry/", "moves/", "manager.rs", "lib.rs"];

/// Code without waits, clocks or open resources.
const PURE: &[&str] = &[
    "indexer/src/chain/",
    "indexer/src/dataset/",
    "indexer/src/events/",
    "partitions/src/pure/",
    "partitions/src/archive/columns.rs",
    "partitions/src/archive/numeric.rs",
];
const IMPURE_PATHS: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::env",
];

/// Words of the chain, which the partitions know nothing of: they serve any table.
const CHAIN_WORDS: &[&str] =
    &["chain_id", "block_number", "block_time", "block_hash", "erc20", "log_index", "reorg", "dalp_indexed"];

/// Names of programs that use the partitions, and of their objects: a library names none of them.
const OTHERS_WORDS: &[&str] = &["dalp-indexer", "dalp_audit", "dalp_indexed", "the indexer", "Ethereum"];

/// Texts written by people, by the ends of file names.
const TEXTS: &[&str] = &[
    ".rs",
    ".sql",
    ".sol",
    ".abi",
    ".md",
    ".toml",
    ".json",
    ".yml",
    ".sh",
    ".service",
    "Dockerfile",
    ".ci/run",
    ".ci/smoke",
    ".ci/long",
    ".ci/pairs",
    ".ci/pairs.py",
];

/// Every file of the repository whose name has one of `endings`, relative to its root.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder that can be read") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if path.is_dir() {
                if !["target", "node_modules", ".git"].contains(&name) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file ends with {endings:?}");
    found
}

/// The facts of every Rust file.
fn rust() -> BTreeMap<String, Facts> {
    files(&[".rs"]).iter().map(|path| (path.display().to_string(), facts(path))).collect()
}

/// The indexer's files, each with the top-level module that it belongs to.
fn indexer() -> Vec<(String, String, Facts)> {
    let of_indexer = rust().into_iter().filter_map(|(path, facts)| {
        let module = path.strip_prefix("indexer/src/")?.split('/').next()?.trim_end_matches(".rs").to_owned();
        Some((path, module, facts))
    });
    of_indexer.collect()
}

fn none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut broken = Vec::new();
    for (path, module, facts) in indexer() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else { continue };
        let used = facts.modules.iter().filter(|used| **used != module && !allowed.contains(&used.as_str()));
        broken.extend(used.map(|used| format!("{path} uses crate::{used}; {module} may use {allowed:?}")));
    }
    none(&broken, "the direction of imports (MAY_USE)");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let rust = rust();
    let told = |source: &&str| {
        let uses = circles::uses(&rust, source);
        assert!(!uses.is_empty(), "{source} has no file that uses another");
        circles::told(circles::circles(&uses))
    };
    none(&WITHOUT_CIRCLES.iter().flat_map(told).collect::<Vec<_>>(), "each of these is part of a circle of files");
}

#[test]
fn a_floor_of_the_partitions_uses_those_below_it() {
    let (rust, source) = (rust(), "partitions/src/");
    let floor = |path: &str| {
        let name = path.strip_prefix(source)?;
        FLOORS.iter().position(|floor| name.starts_with(floor))
    };
    let files = rust.keys().filter(|path| path.starts_with(source) && floor(path).is_none());
    none(&files.cloned().collect::<Vec<_>>(), "these stand on no floor (FLOORS)");
    let uses = circles::uses(&rust, source);
    let upward = circles::told(uses.iter().filter(|used| floor(&used.from) < floor(&used.to)));
    none(&upward, "these use what stands above them (FLOORS)");
}

#[test]
fn only_the_driver_and_those_who_start_it_see_both_nodes_and_store() {
    let both = indexer().into_iter().filter(|(_, module, facts)| {
        let sees = |name: &str| facts.modules.contains(name);
        sees("nodes") && sees("store") && !SEES_NODES_AND_STORE.contains(&module.as_str())
    });
    none(&both.map(|(path, ..)| path).collect::<Vec<_>>(), "these see both the nodes and the database");
}

#[test]
fn pure_code_is_pure() {
    let mut broken = Vec::new();
    let is_pure = |path: &str| PURE.iter().any(|pure| path.starts_with(pure)) && !path.ends_with("tests.rs");
    for (path, facts) in rust().iter().filter(|(path, _)| is_pure(path)) {
        broken.extend(facts.awaits.then(|| format!("{path} is async")));
        let impure = facts.paths.iter().filter(|used| IMPURE_PATHS.iter().any(|path| used.starts_with(path)));
        broken.extend(impure.map(|used| format!("{path} uses {used}")));
    }
    none(&broken, "no async, clock, socket or file in pure code");
}

#[test]
fn partitions_and_migrations_stand_alone() {
    let mut broken = Vec::new();
    for member in ["partitions", "migrations", "fixtures"] {
        let manifest = text(format!("{member}/Cargo.toml"));
        let depends = manifest.lines().any(|line| line.trim_start().starts_with("dalp-indexer"));
        broken.extend(depends.then(|| format!("{member}/Cargo.toml depends on dalp-indexer")));
    }
    for (path, facts) in rust().iter().filter(|(path, _)| path.starts_with("partitions/src/")) {
        let words = facts.words.iter().filter(|word| CHAIN_WORDS.iter().any(|chain| word.contains(chain)));
        broken.extend(words.map(|word| format!("{path} says {word:?}")));
    }
    none(&broken, "partitions know no chain, and nothing depends on the indexer but the tests");
}

#[test]
fn partitions_name_no_other_program_and_no_chain() {
    let of_partitions = |path: &Path| {
        ["partitions/src", "partitions/examples", "partitions/README.md"].iter().any(|of| path.starts_with(of))
    };
    let mut broken = Vec::new();
    let files = files(&[".rs", ".sql", ".md"]).into_iter().filter(|path| of_partitions(path));
    for path in files.filter(|path| !path.ends_with("tests.rs")) {
        let text = text(&path);
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, line) in own.lines().enumerate() {
            // An iterator's method has that name, too.
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '.');
            let is_of_chain = words.any(|word| ["chain", "chains"].contains(&word.trim_end_matches('.')));
            if is_of_chain || OTHERS_WORDS.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{}: {}", path.display(), at + 1, line.trim()));
            }
        }
    }
    none(&broken, "the partitions are used alone, too (OTHERS_WORDS)");
}

#[test]
fn nothing_is_left_over() {
    let mut broken = Vec::new();
    for (path, facts) in rust() {
        broken.extend(facts.ignored_tests.iter().map(|name| format!("{path}: test {name} is ignored")));
        let left = facts.macros.iter().filter(|name| ["todo", "unimplemented", "dbg"].contains(&name.as_str()));
        broken.extend(left.map(|name| format!("{path}: {name}!")));
    }
    // Spelt in halves, so that this file does not find itself.
    let notes = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    for path in files(TEXTS) {
        let text = text(&path);
        let noted = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.split(|c: char| !c.is_alphanumeric()).any(|word| notes.contains(&word)));
        broken.extend(noted.map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim())));
    }
    none(&broken, "promises belong in the tracker, and tests run or go");
}

#[test]
fn what_is_printed_goes_through_one_door() {
    let mut broken = Vec::new();
    for (path, _, facts) in indexer().into_iter().filter(|(path, ..)| path != "indexer/src/cli/out.rs") {
        let printed =
            facts.macros.iter().filter(|name| ["print", "println", "eprint", "eprintln"].contains(&name.as_str()));
        broken.extend(printed.map(|name| format!("{path}: {name}!, which panics when its reader has left")));
    }
    none(&broken, "commands print with say! and tell! (indexer/src/cli/out.rs)");
}

#[test]
fn every_test_that_is_named_is_there() {
    let functions: BTreeSet<String> =
        rust().into_values().flat_map(|facts| facts.functions).map(|(name, _)| name).collect();
    let (mut named, mut broken) = (0, Vec::new());
    for path in ["ARCHITECTURE.md", "docs/failure-modes.md"] {
        let text = text(path);
        // Every other part stands between backticks. Tests are sentences; a shorter name is something else.
        for name in text.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit("::").next()) {
            let is_sentence = name.matches('_').count() >= 3
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            named += usize::from(is_sentence);
            broken.extend((is_sentence && !functions.contains(name)).then(|| format!("{path}: {name}")));
        }
    }
    assert!(named > 50, "only {named} names were found");
    none(&broken, "a test that documents name as proof exists");
}

#[test]
fn every_place_that_answers_a_question_is_there() {
    let architecture = text("ARCHITECTURE.md");
    let section =
        architecture.split("### Questions").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Question"));
    let (mut places, mut broken) = (0, Vec::new());
    for row in rows {
        let mut code = String::new();
        // A file, then its items.
        for name in row.split('|').nth(2).unwrap_or_default().split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                code = if root().join(name).is_file() { text(name) } else { String::new() };
                continue;
            }
            let defines = ["fn", "struct", "enum", "const"].iter().any(|kind| {
                code.split(&format!("{kind} {name}"))
                    .skip(1)
                    .any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            });
            places += 1;
            broken.extend((!defines).then(|| format!("{name} in {row}")));
        }
    }
    assert!(places > 15, "only {places} places were found");
    none(&broken, "what ARCHITECTURE.md says answers a question is in the file that it names");
}

#[test]
fn every_file_says_what_it_is() {
    let headless = files(&[".rs"]).into_iter().filter(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        !name.ends_with("tests.rs") && !text(path).starts_with("//! ")
    });
    let found: Vec<String> = headless.map(|path| path.display().to_string()).collect();
    none(&found, "a file begins with //! and what it is");
}

/// `found` against a list of debts: nothing new, nothing worse, and every improvement is recorded.
fn ratchet<K: Ord + std::fmt::Debug>(found: &BTreeMap<K, usize>, debts: &BTreeMap<K, usize>, rule: &str) {
    assert_eq!(found, debts, "{rule} (left: the present debts; right: the list of debts, which only shrinks)");
}

#[test]
fn files_and_functions_are_short() {
    let mut long_files = BTreeMap::new();
    let mut long_functions = BTreeMap::new();
    for (path, facts) in rust() {
        for (name, lines) in facts.functions.into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES) {
            long_functions.insert((path.clone(), name), lines);
        }
        if facts.lines > FILE_LINES {
            long_files.insert(path, facts.lines);
        }
    }
    let debts = LONG_FUNCTIONS.iter().map(|(path, name, lines)| ((path.to_string(), name.to_string()), *lines));
    ratchet(&long_functions, &debts.collect(), "functions over 60 lines");
    let debts = LONG_FILES.iter().map(|(path, lines)| (path.to_string(), *lines));
    ratchet(&long_files, &debts.collect(), "files over 600 lines");
}

/// The gate shares its machine. A test needs an order of events, a count, or a requested value; a duration is printed, or ends a
/// wait that hangs.
#[test]
fn no_test_asserts_how_long_something_took() {
    let folders = ["tests/it", "tests/src", "partitions/tests", "migrations/tests"];
    let mut broken = Vec::new();
    for path in files(&[".rs"]).iter().filter(|path| folders.iter().any(|folder| path.starts_with(folder))) {
        for (at, line) in text(path).lines().enumerate() {
            let is_fine = line.contains("PATIENCE") || line.trim_start().starts_with("println!");
            if line.contains(concat!(".elapsed", "()")) && !is_fine {
                broken.push(format!("{}:{}", path.display(), at + 1));
            }
        }
    }
    none(&broken, "a clock decides");
}

#[test]
fn statements_are_constants() {
    const BEGINNINGS: &[&str] = &[
        "SELECT", "INSERT", "UPDATE", "DELETE", "COPY", "WITH", "SET", "CREATE", "ALTER", "DROP", "TRUNCATE", "LOCK",
        "GRANT",
    ];
    let mut broken = Vec::new();
    for (path, module, facts) in indexer() {
        if !["store", "api"].contains(&module.as_str()) {
            continue;
        }
        let first = |text: &str| text.split_whitespace().next().map(str::to_owned).unwrap_or_default();
        let built = facts.formatted.iter().filter(|text| BEGINNINGS.contains(&first(text).as_str()));
        broken.extend(built.map(|text| format!("{path}: {text}")));
    }
    none(&broken, "SQL is never built with format!: values are parameters, names are constants");
}

#[test]
fn every_member_obeys_the_workspaces_lints() {
    let manifest = text("Cargo.toml");
    for member in ["indexer", "partitions", "migrations", "fixtures", "tests"] {
        assert!(manifest.contains(&format!("\"{member}\"")), "{member} is not a member");
        let own = text(format!("{member}/Cargo.toml"));
        assert!(own.contains("[lints]\nworkspace = true"), "{member}/Cargo.toml has lints of its own");
    }
}

#[test]
fn the_changelog_has_a_place_for_the_next_change() {
    let changelog = text("CHANGELOG.md");
    let first = changelog.lines().find(|line| line.starts_with("## "));
    assert_eq!(first, Some("## [Unreleased]"), "its first section");
}

#[test]
fn no_path_is_of_one_machine() {
    let homes = [concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    let home = concat!("/ho", "me/");
    let mut broken = Vec::new();
    for path in files(TEXTS) {
        let text = text(&path);
        let of_a_user =
            |line: &str| line.split(home).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
        let named = text.lines().filter(|line| homes.iter().any(|home| line.contains(home)) || of_a_user(line));
        broken.extend(named.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    none(&broken, "somebody's home");
}

/// The targets of `[…](…)` in `markdown`, outside of code.
fn links(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let prose: String = line.split('`').step_by(2).collect();
            links.extend(prose.split("](").skip(1).filter_map(|rest| rest.split(')').next().map(str::to_owned)));
        }
    }
    links
}

/// The anchors of `markdown`'s headings, as code hosts make them.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || "- _".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in files(&[".md"]) {
        for link in links(&text(&path)).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap_or(Path::new("")).join(file) };
            let there =
                root().join(&target).exists() && (anchor.is_empty() || anchors(&text(&target)).contains(anchor));
            broken.extend((!there).then(|| format!("{}: {link}", path.display())));
        }
    }
    none(&broken, "links that lead nowhere");
}

#[test]
fn links_and_anchors_are_read_as_written() {
    assert_eq!(links("[a](b.md#c) `[d](e)` [f](g)\n```\n[h](i)\n```"), ["b.md#c", "g"]);
    assert_eq!(anchors("## A walk: of `one` block\ntext"), BTreeSet::from(["a-walk-of-one-block".to_owned()]));
}
