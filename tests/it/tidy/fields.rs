//! The fields of log lines and spans: one name for one thing, with its unit. A reader of logs knows the search terms.

use proc_macro2::{TokenStream, TokenTree};

/// Every field there is.
const FIELDS: &[&str] = &[
    // The subject of a line: spans.
    "chain",
    "node",
    "table",
    // The same, where only one line is about it.
    "chain_id",
    "key",
    "leaf",
    "task",
    "what",
    "endpoint",
    "from_node",
    "to_node",
    // Blocks.
    "block",
    "range",
    "next_block",
    "from_block",
    "to_block",
    "stored_genesis",
    "node_genesis",
    // How it went.
    "error",
    "act",
    "reason",
    "version",
    "token",
    "created",
    "leaves",
    "indexes",
    "logs",
    "tables",
    "max_batch",
    "max_list",
    "max_parallel",
    "took_seconds",
    "lock_wait_seconds",
];

const EVENTS: &[&str] = &["trace", "debug", "info", "warn", "error", "event"];
const SPANS: &[&str] = &["trace_span", "debug_span", "info_span", "warn_span", "error_span", "span"];

/// Words in names of times or sizes, and the units that such names end with.
const MEASURES: &[&str] = &["second", "took", "wait", "time", "elapsed", "latency", "age", "byte", "size"];
const UNITS: &[&str] = &["_seconds", "_bytes"];

/// The fields of all events and spans in a source, in their order.
fn fields(source: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = source.into_iter().collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let name = match at.checked_sub(2).map(|before| &tokens[before..at]) {
            Some([TokenTree::Ident(name), TokenTree::Punct(mark)]) if mark.as_char() == '!' => name.to_string(),
            _ => String::new(),
        };
        match (EVENTS.contains(&name.as_str()), SPANS.contains(&name.as_str())) {
            (false, false) => found.extend(fields(group.stream())),
            (_, is_span) => found.extend(of_macro(group.stream(), is_span)),
        }
    }
    found
}

/// The fields of one macro. After an event's message come its arguments; before a span's fields comes its name.
fn of_macro(arguments: TokenStream, is_span: bool) -> Vec<String> {
    let arguments: Vec<TokenTree> = arguments.into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
    let mut found = Vec::new();
    for argument in arguments.split(is_comma) {
        let marked = matches!(argument.first(), Some(TokenTree::Punct(_)));
        match &argument[usize::from(marked).min(argument.len())..] {
            [TokenTree::Literal(_), ..] if is_span => {}
            [TokenTree::Literal(_), ..] => break,
            [TokenTree::Ident(_), TokenTree::Punct(mark), ..] if mark.as_char() == ':' => {}
            [TokenTree::Ident(name), ..] => found.push(name.to_string()),
            _ => {}
        }
    }
    found
}

#[test]
fn log_lines_name_one_thing_by_one_name_with_its_unit() {
    let mut broken = Vec::new();
    for path in super::files(&[".rs"]).iter().filter(|path| path.starts_with("indexer/src")) {
        let source = crate::text(path).parse().expect("Rust");
        let strange = fields(source).into_iter().filter(|field| !FIELDS.contains(&field.as_str()));
        broken.extend(strange.map(|field| format!("{}: {field}", path.display())));
    }
    super::none(
        &broken,
        "these fields of log lines are none of FIELDS: take one that there is, or add one with its unit",
    );
    for field in FIELDS.iter().filter(|field| field.split('_').any(|word| MEASURES.iter().any(|m| word.starts_with(m))))
    {
        assert!(
            UNITS.iter().any(|unit| field.ends_with(unit)),
            "{field} is a time or a size, and does not say its unit"
        );
    }
}

#[test]
fn fields_are_found_wherever_they_stand() {
    for (source, expected) in [
        (
            r#"fn f() { info!(chain, %error, took_seconds = a.b(c, d), "{} {}", if x { y } else { z }, w); }"#,
            "chain error took_seconds",
        ),
        (r#"tokio::select! { _ = a => { tracing::warn!(?error, "it {why}") } }"#, "error"),
        (r#"let span = error_span!("chain", chain = name);"#, "chain"),
        (r#"span.in_scope(|| debug!(target: "x", leaf = a, "b"));"#, "leaf"),
        (r#"warn!("{why}"); println!("{}", strange);"#, ""),
    ] {
        assert_eq!(fields(source.parse().expect("Rust")).join(" "), expected, "{source}");
    }
}
