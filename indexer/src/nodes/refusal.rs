//! The meaning of a refusal: messages and codes of clients and hosted providers, translated. Pure.
//!
//! No list of wordings is complete. An unknown wording is interpreted by its sound: a wording that sounds like size makes the
//! next requests smaller, which is right for every kind of limit.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// A limit that a node names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Blocks in one `eth_getLogs`.
    Blocks(u64),
    /// Logs in one answer.
    Logs(u64),
    /// Bytes in one answer.
    Bytes(u64),
}

/// The consequence of an error answer for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Ask for less, with the limit that it names and the number of blocks that it suggests.
    TooLarge {
        /// The general limit.
        limit: Option<Limit>,
        /// The number of blocks that would work here, at this density of logs.
        suggested: Option<u64>,
    },
    /// Ask later.
    Throttled,
    /// It does not keep history that far back: ask another node.
    Pruned,
    /// It does not know that block, or not yet.
    UnknownBlock,
    /// It lacks that method.
    NoMethod,
    /// It accepts fewer calls in one batch: this number, if it names one; 1 for none.
    Batch {
        /// Calls allowed.
        max: Option<u64>,
    },
    /// It accepts fewer addresses or topics in one request: this number, if it names one.
    List {
        /// Values of one list allowed.
        max: Option<u64>,
    },
    /// Any other error: ask again, here or elsewhere.
    Other,
}

impl Refusal {
    /// By code and text. `asked`: the blocks of the `eth_getLogs` among the refused calls, `None` without one; `list`: the values
    /// of the longest list in their filters.
    pub fn of(code: i64, message: &str, asked: Option<u64>, list: u64) -> Self {
        let text = message.to_lowercase();
        if asked.is_some() && list > 1 && ["address", "topic"].iter().any(|word| text.contains(word)) {
            let sized = SIZES.iter().any(|word| text.contains(word));
            let max = bound(&text, None).map(|(value, _)| value).filter(|max| (1..list).contains(max));
            if sized && !THROTTLES.iter().any(|word| text.contains(word)) {
                return Self::List { max };
            }
        }
        Self::of_blocks(code, &text, asked, list)
    }

    fn of_blocks(code: i64, text: &str, asked: Option<u64>, list: u64) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["batch"]) && !says(&["batch response"]) && says(BATCH_LIMITS) {
            let none = says(&["not supported", "unsupported", "disabled", "not enabled"]) && numbers(text).is_empty();
            return Self::Batch { max: if none { Some(1) } else { bound(text, None).map(|(value, _)| value) } };
        }
        let of_a_range = says(&["range", "block", "results"]);
        let of_time = says(THROTTLES) || (!of_a_range && says(SCARCE));
        if [429, -32029, -32007].contains(&code) || of_time {
            return Self::Throttled;
        }
        if code == 4444 || says(PRUNED) {
            return Self::Pruned;
        }
        if code == -32601 || says(NO_METHOD) {
            return Self::NoMethod;
        }
        if says(NOT_THERE) {
            return Self::UnknownBlock;
        }
        let (Some(blocks), false) = (asked, says(&["connection"])) else {
            return if code == -32005 { Self::Throttled } else { Self::Other };
        };
        match (code == -32005 || says(SIZES), blocks) {
            // One block cannot be halved; its filter can.
            (true, ..=1) if list > 1 => Self::List { max: None },
            // One block is the smallest request: a refusal of it is not about size unless it says so.
            (true, ..=1) if !says(SIZE_OF_ONE) => Self::Throttled,
            (true, _) => too_large(text, blocks),
            (false, 2..) if says(SCARCE) || says(&["timeout", "timed out", "deadline"]) => too_large(text, blocks),
            _ => Self::Other,
        }
    }
}

/// Whether an error answer to `eth_call` is the contract's own failure, which is the same at every node and at every try.
pub fn is_of_contract(code: i64, message: &str) -> bool {
    let text = message.to_lowercase();
    [3, -32015].contains(&code) || CONTRACT.iter().any(|word| text.contains(word))
}

/// Words of the virtual machine.
const CONTRACT: &[&str] = &[
    "revert",
    "opcode",
    "vm execution error",
    "evm error",
    "out of gas",
    "outofgas",
    "gas uint64 overflow",
    "invalid jump",
    "bad jump",
    "stack underflow",
    "stack overflow",
    "stack limit",
    "write protection",
    "return data out of bounds",
];
const BATCH_LIMITS: &[&str] = &[
    "large",
    "limit",
    "exceed",
    "more than",
    "max",
    "too many",
    "not supported",
    "unsupported",
    "not allowed",
    "disabled",
    "not enabled",
];
const THROTTLES: &[&str] = &[
    "rate limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "per second",
    "request rate",
    "throughput",
    "compute unit",
    "throttl",
    "daily request",
    "monthly",
    "out of credits",
];
/// Words of a time limit, unless they refer to a range.
const SCARCE: &[&str] = &["request limit", "quota", "capacity limit"];
const PRUNED: &[&str] = &[
    "missing trie node",
    "pruned",
    "pruning",
    "archive",
    "historical state",
    "history unavailable",
    "history not available",
    "history is not available",
];
const NO_METHOD: &[&str] = &[
    "method not found",
    "method not supported",
    "method is not supported",
    "unsupported method",
    "does not exist/is not available",
    "method not available",
    "method is not available",
    "not whitelisted",
    "method disabled",
    "method is disabled",
    "unknown method",
];
const NOT_THERE: &[&str] = &[
    "unknown block",
    "block not found",
    "blocknotfound",
    "header not found",
    "could not find block",
    "block could not be found",
    "out of range",
    "beyond current head",
    "beyond the head",
    "beyond the current",
    "after last accepted",
    "unfinalized data",
    "invalid block range",
    "requested was",
    "resource not found",
    "not found",
];
const SIZES: &[&str] = &[
    "range",
    "too large",
    "too big",
    "too wide",
    "too many",
    "more than",
    "exceed",
    "limit",
    "response size",
    "maximum",
    "max results",
    "query timeout",
];
/// Words of size that match an answer for a single block.
const SIZE_OF_ONE: &[&str] = &["result", "response", "size", "large", "big", " logs", "byte"];

fn too_large(text: &str, asked: u64) -> Refusal {
    let suggested = suggested(text).filter(|blocks| (1..asked.max(2)).contains(blocks));
    let limit = bound(text, Some(asked)).map(|(value, unit)| match unit {
        Unit::Blocks => Limit::Blocks(value),
        Unit::Logs => Limit::Logs(value),
        Unit::Bytes => Limit::Bytes(value),
    });
    Refusal::TooLarge { limit, suggested }
}

/// The width of "[0x10, 0x1f]" or "the range 16-31".
fn suggested(text: &str) -> Option<u64> {
    let number = |text: &str| {
        let text = text.trim();
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    };
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(inside, _)| inside);
    let ends = bracketed.and_then(|inside| inside.split_once(',')).or_else(|| {
        let (_, rest) = text.split_once("with the range ")?;
        rest.split_whitespace().next()?.trim_end_matches(['.', ',']).split_once('-')
    });
    let (from, to) = ends?;
    number(to)?.checked_sub(number(from)?)?.checked_add(1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Blocks,
    Logs,
    Bytes,
}

/// A decimal number in a text.
struct Number<'t> {
    value: u64,
    /// Whether it has a unit of bytes.
    bytes: bool,
    /// The words before it, back to the previous number or the sentence's beginning, at most six.
    before: Vec<&'t str>,
    after: Option<&'t str>,
}

fn numbers(text: &str) -> Vec<Number<'_>> {
    let words: Vec<&str> = text.split_whitespace().flat_map(|word| word.split_inclusive([':', '='])).collect();
    let mut found = Vec::new();
    let mut begins = 0;
    for (at, word) in words.iter().enumerate() {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if let Some((value, bytes)) = number(core) {
            let before = words[begins.max(at.saturating_sub(6))..at].to_vec();
            found.push(Number { value, bytes, before, after: words.get(at + 1).copied() });
            begins = at + 1;
        } else if word.ends_with('.') {
            begins = at + 1;
        }
    }
    found
}

/// "10,000", "2k", "10mb"; not "0x10".
fn number(word: &str) -> Option<(u64, bool)> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (factor, bytes) = match &word[digits.len()..] {
        "" => (1, false),
        "k" => (1_000, false),
        "m" => (1_000_000, false),
        "kb" => (1_000, true),
        "mb" => (1_000_000, true),
        _ => return None,
    };
    let value: u64 = digits.replace([',', '_'], "").parse().ok()?;
    Some((value.checked_mul(factor)?, bytes))
}

/// The number that a text names as a limit, and its unit. A limit in blocks is below `asked`, otherwise it was not the reason.
fn bound(text: &str, asked: Option<u64>) -> Option<(u64, Unit)> {
    const BOUNDS: &[&str] = &["max", "most", "limit", "up", "over", "allow", "than", "cap", "exceed", ">"];
    let begins = |word: &str, with: &[&str]| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '>');
        with.iter().any(|start| word.starts_with(start))
    };
    let numbers = numbers(text);
    let any_range = text.contains("any block range");
    let fits = |number: &&Number<'_>| {
        let unit = number.unit(text);
        let timed = number.after.is_some_and(|word| begins(word, &["second", "ms", "minute"]));
        let of_blocks = unit != Unit::Blocks || (!any_range && asked.is_none_or(|asked| number.value < asked));
        number.value > 0 && !timed && of_blocks
    };
    let named = numbers.iter().filter(fits).find(|number| number.before.iter().any(|word| begins(word, BOUNDS)));
    let plain = || numbers.iter().filter(fits).find(|number| number.after.is_some_and(|word| begins(word, &["block"])));
    named.or_else(plain).map(|number| (number.value, number.unit(text)))
}

impl Number<'_> {
    fn unit(&self, text: &str) -> Unit {
        const UNITS: &[(Unit, &[&str])] = &[
            (Unit::Blocks, &["block", "range"]),
            (Unit::Logs, &["result", "log", "record"]),
            (Unit::Bytes, &["byte"]),
        ];
        let of = |word: &str| {
            let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            UNITS.iter().find(|(_, starts)| starts.iter().any(|start| word.starts_with(start))).map(|(unit, _)| *unit)
        };
        if self.bytes {
            return Unit::Bytes;
        }
        let near = self.after.and_then(of).or_else(|| self.before.iter().rev().find_map(|word| of(word)));
        let anywhere = || text.split_whitespace().find_map(of);
        let of_an_answer = || text.contains("response").then_some(Unit::Bytes);
        near.or_else(anywhere).or_else(of_an_answer).unwrap_or(Unit::Blocks)
    }
}

/// The wait in `Retry-After`: seconds, or an HTTP date. Always between 100 ms and a minute.
pub fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    let asked = match header.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX),
        Err(_not_seconds) => {
            let date = DateTime::parse_from_rfc2822(header).ok()?;
            (date.with_timezone(&Utc) - now).to_std().unwrap_or_default()
        }
    };
    Some(asked.clamp(Duration::from_millis(100), Duration::from_secs(60)))
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
