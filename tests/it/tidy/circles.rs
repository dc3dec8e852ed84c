//! The uses between files of a crate, and the circles among them.
//!
//! A file uses another if it names one of its items, by any path: through imports and re-exports, a file's own or those of
//! `lib.rs`, but not through globs of modules. A re-export (`pub use`) is no use, and neither is a name in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{Facts, Import, Named, read};

/// Most imports that a name is followed through.
const FAR: usize = 16;

/// One file that uses another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub from: String,
    pub to: String,
    /// The name, as written.
    pub named: String,
}

/// The files of one crate.
struct Crate<'f> {
    /// By their modules, from the crate's root.
    files: BTreeMap<&'f [String], (&'f str, &'f Facts)>,
    /// The imports of each module.
    imports: BTreeMap<&'f [String], Vec<&'f Import>>,
}

impl<'f> Crate<'f> {
    /// All files below the folder `source`, except programs and tests.
    fn of(rust: &'f BTreeMap<String, Facts>, source: &str) -> Self {
        let of_crate = || {
            let inside = rust.iter().filter_map(|(path, facts)| Some((path, path.strip_prefix(source)?, facts)));
            inside.filter(|(_, name, _)| *name != "main.rs" && !name.starts_with("bin/"))
        };
        let tests: Vec<&Vec<String>> = of_crate().flat_map(|(.., facts)| &facts.test_modules).collect();
        let is_test = |module: &[String]| tests.iter().any(|test| module.starts_with(test));
        let (mut files, mut imports) = (BTreeMap::new(), BTreeMap::<&[String], Vec<&Import>>::new());
        for (path, _, facts) in of_crate().filter(|(.., facts)| !is_test(&facts.module)) {
            files.insert(facts.module.as_slice(), (path.as_str(), facts));
            for import in &facts.imports {
                imports.entry(import.of.at.as_slice()).or_default().push(import);
            }
        }
        Self { files, imports }
    }

    /// The file of a module.
    fn file(&self, module: &[String]) -> Option<&'f str> {
        let within = (0..=module.len()).rev().find_map(|length| self.files.get(&module[..length]));
        within.map(|(path, _)| *path)
    }

    /// The file with the item of a path; `None` for an item outside this crate.
    fn follow(&self, named: &Named, far: usize) -> Option<&'f str> {
        let (mut at, mut rest) = (named.at.clone(), named.path.as_slice());
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            // Anything else is a module below, or a name that was imported; all other names are the file's own or another crate's.
            first if !self.has(&at, first) => {
                return self.imported(&at, rest, far);
            }
            _ => {}
        }
        while let Some(name) = rest.first().filter(|name| self.has(&at, name)) {
            at.push(name.clone());
            rest = &rest[1..];
        }
        self.imported(&at, rest, far).or_else(|| self.file(&at))
    }

    /// Whether a module has a file, or a folder of files, of this name below it.
    fn has(&self, at: &[String], name: &str) -> bool {
        let below = [at, &[name.to_owned()]].concat();
        self.files.keys().any(|module| module.starts_with(&below))
    }

    /// Where a name leads that a module imports.
    fn imported(&self, at: &[String], rest: &[String], far: usize) -> Option<&'f str> {
        let (name, further) = (rest.first()?, &rest[1..]);
        let imports = self.imports.get(at).filter(|_| far > 0)?;
        let goes_on = |import: &Import, more: &[String]| {
            let path = [import.of.path.as_slice(), more].concat();
            self.follow(&Named { at: import.of.at.clone(), path }, far - 1)
        };
        let by_name = imports.iter().find(|import| import.name.as_ref() == Some(name));
        by_name.and_then(|import| goes_on(import, further))
    }

    fn uses(&self) -> BTreeSet<Use> {
        let mut uses = BTreeSet::new();
        for (from, facts) in self.files.values() {
            // A name alone is a variable, or was imported.
            for named in facts.uses.iter().filter(|named| named.path.len() > 1) {
                if let Some(to) = self.follow(named, FAR).filter(|to| to != from) {
                    let (from, to) = ((*from).to_owned(), to.to_owned());
                    uses.insert(Use { from, to, named: named.path.join("::") });
                }
            }
        }
        uses
    }
}

/// The uses between files below the folder `source` (`partitions/src/`).
pub fn uses(rust: &BTreeMap<String, Facts>, source: &str) -> BTreeSet<Use> {
    Crate::of(rust, source).uses()
}

/// The uses that are part of a circle.
pub fn circles(uses: &BTreeSet<Use>) -> Vec<&Use> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for used in uses {
        reached.entry(&used.from).or_default().insert(&used.to);
    }
    loop {
        let mut further = reached.clone();
        for near in further.values_mut() {
            let more: Vec<&str> = near.iter().filter_map(|file| reached.get(file)).flatten().copied().collect();
            near.extend(more);
        }
        if further == reached {
            break;
        }
        reached = further;
    }
    let leads_back = |used: &&Use| reached.get(used.to.as_str()).is_some_and(|far| far.contains(used.from.as_str()));
    uses.iter().filter(leads_back).collect()
}

/// A line for each file and what it names of another.
pub fn told<'u>(uses: impl IntoIterator<Item = &'u Use>) -> Vec<String> {
    let mut named: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for used in uses {
        named.entry((&used.from, &used.to)).or_default().push(&used.named);
    }
    named.into_iter().map(|((from, to), named)| format!("{from} uses {to}: {}", named.join(", "))).collect()
}

fn of(files: &[(&str, &str)]) -> BTreeMap<String, Facts> {
    files.iter().map(|(path, text)| ((*path).to_owned(), read(Path::new(path), text))).collect()
}

#[test]
fn a_use_is_found_by_whatever_way_the_name_leads() {
    let lib =
        ("a/src/lib.rs", "mod low; mod high; pub use low::{Low, deep::Deep as Bottom}; pub use high::*; fn own() {}");
    let low = ("a/src/low.rs", "pub mod deep; pub struct Low; mod within { use super::Low; }");
    let deep = ("a/src/low/deep.rs", "pub struct Deep; #[cfg(test)] mod tests { use crate::high::High; }");
    for (high, expected) in [
        ("use crate::Low;", &["a/src/low.rs"][..]),
        ("use super::{Low as L, Bottom};", &["a/src/low.rs", "a/src/low/deep.rs"]),
        ("fn f() { crate::low::deep::Deep::new(); }", &["a/src/low/deep.rs"]),
        ("use crate::low; fn f(_: low::deep::Deep) {}", &["a/src/low.rs", "a/src/low/deep.rs"]),
        ("fn f() { log!(crate::Low, [super::Bottom::new()]) }", &["a/src/low.rs", "a/src/low/deep.rs"]),
        ("struct Own(crate::own);", &["a/src/lib.rs"]),
        ("use std::low::Low; pub(super) struct High; impl High { fn f(_: Self) -> fmt::Result { self::g() } }", &[]),
        ("pub use crate::low::Low;", &[]),
        ("#[cfg(test)] use crate::low::Low; #[cfg(test)] fn f() { crate::low::f() }", &[]),
        ("#[cfg(test)] mod model;", &[]),
    ] {
        let model = ("a/src/high/model.rs", "use crate::Low;");
        let beside = ("a/src/main.rs", "use crate::low::Low;");
        let rust = of(&[lib, low, deep, ("a/src/high.rs", high), model, beside]);
        let mut found: Vec<String> =
            uses(&rust, "a/src/").into_iter().filter(|used| used.from == "a/src/high.rs").map(|used| used.to).collect();
        found.sort();
        found.dedup();
        assert_eq!(found, expected, "{high}");
    }
}

#[test]
fn a_circle_is_found_however_long_it_is() {
    let files = |last: &str| {
        let end = format!("use {last};");
        let files = [
            ("a/src/lib.rs", "pub use three::Three;"),
            ("a/src/one.rs", "use crate::two::Two;"),
            ("a/src/two.rs", "use super::Three;"),
            ("a/src/three.rs", end.as_str()),
            ("a/src/four.rs", "use crate::one;"),
        ];
        uses(&of(&files), "a/src/")
    };
    assert_eq!(circles(&files("std::fmt")), [] as [&Use; 0]);
    let uses = files("crate::one::One");
    let from: Vec<&str> = circles(&uses).into_iter().map(|used| used.from.as_str()).collect();
    assert_eq!(from, ["a/src/one.rs", "a/src/three.rs", "a/src/two.rs"], "and not the fourth, which only looks on");
}
