//! Plain English in comments and documents: a bound for the word "what", and phrases that do not come back.

use std::path::Path;

use super::{files, none};
use crate::text;

/// Most times of the word "what" per 1,000 words. In place of a noun, the word is hard to read for people who learned English late.
const WHATS_IN_COMMENTS: f64 = 1.0;
const WHATS_IN_DOCUMENTS: f64 = 1.2;

/// Phrases without a clear subject or object. CONTRIBUTING.md ("Plain English") has the rules.
const PHRASES: &[&str] = &[
    "begins anew",
    "begun anew",
    "by what it says",
    "goes by what",
    "in its way",
    "in the way of",
    "is nobody's",
    "nobody is at",
    "not to be had",
    "of whom",
    "taken back",
    "told of what",
    "what is meant",
    "what there is",
    "with what helps",
];

/// The comments of a Rust file, as one line. A `//` inside a text follows a colon or a quote, as in an address.
fn comments(path: &Path) -> String {
    let text = text(path);
    let comments = text.lines().filter_map(|line| {
        let at = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with([':', '"', '/']))?.0;
        Some(line[at..].trim_start_matches(['/', '!']).trim())
    });
    comments.collect::<Vec<_>>().join(" ")
}

fn document(path: &Path) -> String {
    text(path).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && !['_', '-', '\''].contains(&c)).filter(|word| !word.is_empty())
}

/// The rate of the word "what" in `texts`, per 1,000 words.
fn whats<'t>(texts: impl Iterator<Item = &'t str>) -> f64 {
    let (mut whats, mut all) = (0_u32, 0_u32);
    for word in texts.flat_map(words) {
        whats += u32::from(word.eq_ignore_ascii_case("what"));
        all += 1;
    }
    assert!(all > 10_000, "only {all} words were found");
    1_000.0 * f64::from(whats) / f64::from(all)
}

#[test]
fn comments_and_documents_are_in_plain_english() {
    let of = |endings: &[&str], read: fn(&Path) -> String| -> Vec<(String, String)> {
        files(endings).iter().map(|path| (path.display().to_string(), read(path))).collect()
    };
    let (comments, documents) = (of(&[".rs"], comments), of(&[".md"], document));
    let mut broken = Vec::new();
    for (kind, texts, bound) in
        [("comments", &comments, WHATS_IN_COMMENTS), ("documents", &documents, WHATS_IN_DOCUMENTS)]
    {
        let rate = whats(texts.iter().map(|(_, text)| text.as_str()));
        let rule =
            format!("{kind} have {rate:.2} times \"what\" in 1,000 words, and {bound} are allowed: name the thing");
        broken.extend((rate > bound).then_some(rule));
    }
    for (path, text) in comments.iter().chain(&documents) {
        let text = text.to_lowercase();
        let said = PHRASES.iter().filter(|phrase| text.contains(**phrase));
        broken.extend(said.map(|phrase| format!("{path}: \"{phrase}\"")));
    }
    none(&broken, "people who are not native speakers read this (CONTRIBUTING.md, \"Plain English\")");
}
