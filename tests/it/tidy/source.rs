//! The facts of a Rust file that the house rules need.

use std::collections::BTreeSet;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, Item, ItemFn, ItemMod, ItemUse, LitStr, Macro, Signature, Token, UseTree, Visibility,
};

use crate::text;

/// Facts of one file.
#[derive(Debug, Default)]
pub struct Facts {
    pub lines: usize,
    /// Names of functions with their lines, signature and braces included.
    pub functions: Vec<(String, usize)>,
    /// Top-level modules of its own crate that it names.
    pub modules: BTreeSet<String>,
    /// Every path it names, as written.
    pub paths: BTreeSet<String>,
    /// Names of the macros it calls.
    pub macros: BTreeSet<String>,
    /// The first texts given to `format!` and its kin.
    pub formatted: Vec<String>,
    /// Identifiers and texts outside of its tests.
    pub words: BTreeSet<String>,
    pub ignored_tests: Vec<String>,
    /// Whether anything in it is async.
    pub awaits: bool,
    /// The module that it is, from the crate's root.
    pub module: Vec<String>,
    /// The names of other modules in its modules, outside its tests.
    pub uses: BTreeSet<Named>,
    /// The names that `use` gives its modules, outside its tests: names used elsewhere are resolved through these.
    pub imports: Vec<Import>,
    /// The modules that are declared here for tests alone.
    pub test_modules: Vec<Vec<String>>,
    /// The module under analysis, from the crate's root.
    at: Vec<String>,
    /// Whether tests are being read.
    in_tests: bool,
}

/// A path as written, and its module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub at: Vec<String>,
    pub path: Vec<String>,
}

/// A name in a module, and the path of its item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// `None` for a glob: all names of the path.
    pub name: Option<String>,
    pub of: Named,
}

/// Reads the file at `path`, relative to the repository's root.
pub fn facts(path: &Path) -> Facts {
    read(path, &text(path))
}

pub fn read(path: &Path, text: &str) -> Facts {
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let module = module(path);
    let mut facts = Facts { lines: text.lines().count(), at: module.clone(), module, ..Facts::default() };
    facts.in_tests = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    facts.visit_file(&file);
    facts
}

/// `indexer/src/store/read.rs` is the module `store::read`.
fn module(path: &Path) -> Vec<String> {
    let inside = path.iter().map(|part| part.to_string_lossy().into_owned()).skip_while(|part| part != "src").skip(1);
    let names = inside.map(|part| part.trim_end_matches(".rs").to_owned());
    names.filter(|name| !["mod", "lib", "main"].contains(&name.as_str())).collect()
}

impl Facts {
    fn used(&mut self, segments: &[String]) {
        if !self.in_tests {
            self.uses.insert(Named { at: self.at.clone(), path: segments.to_vec() });
        }
        self.path(segments);
    }

    fn path(&mut self, segments: &[String]) {
        self.paths.insert(segments.join("::"));
        let (mut at, mut rest) = (self.at.clone(), segments);
        match rest.first().map(String::as_str) {
            Some("crate") => {
                at.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            _ => return,
        }
        at.extend(rest.iter().cloned());
        self.modules.extend(at.into_iter().next());
    }

    /// The names of a `use`. A re-export shows another module's items, and is no use of them.
    fn tree(&mut self, before: &[String], tree: &UseTree, is_shown: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.tree(&with(&path.ident), &path.tree, is_shown),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.tree(before, tree, is_shown));
            }
            UseTree::Name(name) if name.ident == "self" => (before.to_vec(), before.last().cloned()),
            UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(rename) if rename.ident == "self" => (before.to_vec(), Some(rename.rename.to_string())),
            UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
            UseTree::Glob(_) => (before.to_vec(), None),
        };
        match is_shown {
            true => self.path(&path),
            false => self.used(&path),
        }
        if !self.in_tests {
            self.imports.push(Import { name, of: Named { at: self.at.clone(), path } });
        }
    }

    /// The paths in a macro's arguments of any kind.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 => path.push(name.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() && colons < 2 => {
                    colons += 1;
                    continue;
                }
                token => {
                    self.path_of_tokens(&mut path);
                    match token {
                        TokenTree::Ident(name) => path.push(name.to_string()),
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
            colons = 0;
        }
        self.path_of_tokens(&mut path);
    }

    fn path_of_tokens(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.used(path);
        }
        path.clear();
    }

    fn function(&mut self, signature: &Signature, body: &Block) {
        let lines = body.brace_token.span.close().end().line - signature.fn_token.span.start().line + 1;
        self.functions.push((signature.ident.to_string(), lines));
        self.awaits |= signature.asyncness.is_some();
    }
}

fn is(attribute: &Attribute, name: &str) -> bool {
    attribute.path().is_ident(name)
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|a| is(a, "cfg") && a.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Facts {
    fn visit_item(&mut self, item: &'ast Item) {
        let before = self.in_tests;
        self.in_tests |= only_for_tests(attributes(item));
        visit::visit_item(self, item);
        self.in_tests = before;
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.at.push(module.ident.to_string());
        if self.in_tests {
            self.test_modules.push(self.at.clone());
        }
        visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree, !matches!(item.vis, Visibility::Inherited));
    }

    /// `pub(super)` says who may name a thing, and names nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.used(&segments);
        visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if item.attrs.iter().any(|attribute| is(attribute, "ignore")) {
            self.ignored_tests.push(item.sig.ident.to_string());
        }
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.awaits = true;
        visit::visit_expr_await(self, expression);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        // A macro's arguments are any tokens; most are expressions. For the others, their names must do.
        self.tokens(call.tokens.clone());
        if let Ok(arguments) = call.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            if ["format", "write", "writeln", "format_args", "concat"].contains(&name.as_str()) {
                self.formatted.extend(arguments.iter().find_map(literal));
            }
            arguments.iter().for_each(|argument| Visit::visit_expr(self, argument));
        }
        self.macros.insert(name);
        visit::visit_macro(self, call);
    }

    fn visit_ident(&mut self, ident: &'ast proc_macro2::Ident) {
        if !self.in_tests {
            self.words.insert(ident.to_string());
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        if !self.in_tests {
            self.words.insert(text.value());
        }
    }
}

fn literal(argument: &Expr) -> Option<String> {
    match argument {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

#[test]
fn facts_are_what_the_text_says() {
    let text = r#"
        use super::read::{self, Page};
        use crate::{chain::block::BlockRef, config};
        pub async fn run() {
            let now = std::time::Instant::now();
            let sql = format!("SELECT {}", super::super::api::column());
            tokio::select! { () = crate::driver::step() => dbg!(now), }
        }
        #[cfg(test)]
        mod tests {
            use super::*;
            use super::super::unwind;
            #[test]
            #[ignore]
            fn slow() { let chain_id = 1; }
        }"#;
    let facts = read(Path::new("indexer/src/store/append.rs"), text);
    let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(facts.modules, set(&["api", "chain", "config", "driver", "store"]));
    assert!(facts.paths.contains("std::time::Instant::now") && facts.awaits);
    assert_eq!(facts.formatted, ["SELECT {}"]);
    assert_eq!(facts.ignored_tests, ["slow"]);
    assert_eq!(facts.functions, [("run".to_owned(), 5), ("slow".to_owned(), 1)]);
    assert!(facts.macros.contains("format") && facts.macros.contains("select"));
    assert!(facts.words.contains("sql") && !facts.words.contains("chain_id"), "tests may say what they like");
}
