//! The words a setting's value is written in: secrets, durations, finality, intervals, listen addresses.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use alloy::primitives::{Address, B256, keccak256};

use crate::chain::backfill::Order;

pub use dalp_partitions::{Action, Index, Interval};

use crate::chain::level::Level;
pub use crate::chain::machine::Finality;
pub use crate::chain::proof::Verify;

/// Text that may hold a password or an API key. `Debug` and `Display` show nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it. Never for a log, an error or a metric.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `scheme://host:port` of a URL: all of it that may be shown. User, password, path and query can each hold a key.
pub fn endpoint(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return "(not a URL)".into() };
    let host = url.host_str().unwrap_or("");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

/// A schema and a table, joined by a point. Each is as the database has it, or in quotes as SQL takes it.
pub fn table(text: &str) -> Option<(String, String)> {
    let (schema, rest) = match text.starts_with('"') {
        true => unquoted(text)?,
        false => text.split_at_checked(text.find('.')?).map(|(schema, rest)| (schema.to_owned(), rest))?,
    };
    let schema = Some(schema).filter(|schema| is_sql_name(schema));
    schema.zip(name(rest.strip_prefix('.')?))
}

/// A name: as the database has it, or in quotes as SQL takes it.
pub fn name(text: &str) -> Option<String> {
    let name = match text.starts_with('"') {
        true => unquoted(text).filter(|(_, rest)| rest.is_empty())?.0,
        false => text.to_owned(),
    };
    Some(name).filter(|name| is_sql_name(name))
}

fn is_sql_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 63 && !text.contains('\0')
}

/// The content of the quotes at the begin of a text, and the text after them.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('"')?;
    // Two quotes are one of the name.
    let end = quoted.replace("\"\"", "\0\0").find('"')?;
    let (name, rest) = quoted.split_at_checked(end)?;
    Some((name.replace("\"\"", "\""), rest.strip_prefix('"')?))
}

/// Scheme, host and path of a URL that holds nothing else worth showing.
pub fn place(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return "(not a URL)".into() };
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
}

/// Columns joined by `+`, each once, as an index.
pub fn index(text: &str) -> Option<Index> {
    let columns: Vec<&str> = text.split('+').collect();
    let once = columns.iter().collect::<std::collections::BTreeSet<_>>().len() == columns.len();
    (once && columns.iter().all(|column| !column.is_empty())).then(|| Index::on(columns))
}

impl FromStr for Finality {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tag" => Ok(Self::Tag),
            "instant" => Ok(Self::Instant),
            "never" => Ok(Self::Never),
            _ => match text.strip_prefix("depth:").and_then(|depth| depth.parse().ok()) {
                Some(depth) if depth > 0 => Ok(Self::Depth(depth)),
                _ => Err(()),
            },
        }
    }
}

impl FromStr for Verify {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            level => Level::parse(level).map(Self::To).ok_or(()),
        }
    }
}

/// Where TLS to a database is required. Unix sockets and loopback hosts go without it unless their URL asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Encrypt, check the certificate's chain and its host name.
    VerifyFull,
    /// Plain text, to any host.
    Disable,
}

impl TlsMode {
    /// The words a configuration (or `sslmode=` in a URL) may use.
    pub const NAMES: &[&str] = &["verify-full", "disable"];
}

impl FromStr for TlsMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "verify-full" => Ok(Self::VerifyFull),
            "disable" => Ok(Self::Disable),
            _ => Err(()),
        }
    }
}

/// An address. One with capitals has a checksum in them, which a wrong digit breaks.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    // The parser accepts an address without 0x; the tools of the chain do not.
    let parsed: Option<Address> = text.parse().ok().filter(|_| text.starts_with("0x"));
    let address = parsed.ok_or_else(String::new)?;
    let digits = &text[2..];
    let is_plain =
        !digits.contains(|c: char| c.is_ascii_uppercase()) || !digits.contains(|c: char| c.is_ascii_lowercase());
    match is_plain || address.to_checksum(None) == text {
        true => Ok(address),
        false => Err("its capitals are not those of its checksum (EIP-55), so a digit may be wrong: copy it again, or write it in small \
                      letters if you are sure of it"
            .into()),
    }
}

/// A first topic: a hash, or an event as it is declared, whose canonical form is hashed.
pub(super) fn topic(text: &str) -> Option<B256> {
    if text.starts_with("0x") {
        return text.parse().ok();
    }
    let declared = text.trim().trim_end_matches(';');
    let declared = declared.strip_prefix("event ").unwrap_or(declared).trim();
    let (name, rest) = declared.split_once('(')?;
    let (inputs, after) = rest.rsplit_once(')')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
    if !is_name || !["", "anonymous"].contains(&after.trim()) || after.contains("anonymous") {
        return None;
    }
    Some(keccak256(format!("{name}({})", types(inputs)?)))
}

/// The types of a list of parameters in their canonical form: no names, no `indexed`, whole words for `uint` and `int`.
fn types(inputs: &str) -> Option<String> {
    let (mut depth, mut item, mut items) = (0_i32, String::new(), Vec::new());
    for c in inputs.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if c == ',' && depth == 0 { items.push(std::mem::take(&mut item)) } else { item.push(c) }
    }
    if !(items.is_empty() && item.trim().is_empty()) {
        items.push(item);
    }
    let types: Option<Vec<String>> = items.iter().map(|item| canonical(item.trim())).collect();
    (depth == 0).then_some(())?;
    Some(types?.join(","))
}

/// One parameter's type. A tuple is written out: the name of a struct does not tell its fields.
fn canonical(input: &str) -> Option<String> {
    let input = input.strip_prefix("tuple").filter(|rest| rest.starts_with('(')).unwrap_or(input);
    if let Some(tuple) = input.strip_prefix('(') {
        let (inner, after) = tuple.rsplit_once(')')?;
        let array = after.split_whitespace().next().filter(|word| word.starts_with('[')).unwrap_or("");
        return Some(format!("({}){array}", types(inner)?));
    }
    let word = input.split_whitespace().next()?;
    let (base, array) = word.split_at(word.find('[').unwrap_or(word.len()));
    let is_array = array.chars().all(|c| c == '[' || c == ']' || c.is_ascii_digit());
    let base = match base {
        "uint" => "uint256",
        "int" => "int256",
        "byte" => "bytes1",
        known if is_elementary(known) => known,
        _ => return None,
    };
    is_array.then(|| format!("{base}{array}"))
}

fn is_elementary(word: &str) -> bool {
    let sized = |prefix: &str, most: u16, step: u16| {
        word.strip_prefix(prefix)
            .and_then(|size| size.parse::<u16>().ok())
            .is_some_and(|size| (1..=most).contains(&size) && size % step == 0)
    };
    ["address", "bool", "string", "bytes", "function"].contains(&word)
        || sized("uint", 256, 8)
        || sized("int", 256, 8)
        || sized("bytes", 32, 1)
}

/// The words of [`Order`].
pub(super) const ORDERS: &[&str] = &["newest", "oldest"];

impl FromStr for Order {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "newest" => Ok(Self::Newest),
            "oldest" => Ok(Self::Oldest),
            _ => Err(()),
        }
    }
}

/// Parses `127.0.0.1:9464`, or `off` for no listener.
pub(super) fn listen(text: &str) -> Result<Option<SocketAddr>, ()> {
    if text == "off" { Ok(None) } else { text.parse().map(Some).or(Err(())) }
}

/// The units of times, in milliseconds.
pub(super) const MS: u64 = 1;
pub(super) const SECOND: u64 = 1_000 * MS;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

const UNITS: [(&str, u64); 5] = [("ms", MS), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];

/// Parses a whole number and its unit: `500ms`, `5s`, `2m`, `1h`, `90d`.
pub(super) fn duration(text: &str) -> Result<Duration, ()> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(())?;
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(())?;
    let number: u64 = number.parse().or(Err(()))?;
    number.checked_mul(*millis).map(Duration::from_millis).ok_or(())
}

/// So many milliseconds in the largest unit that they are whole in.
pub(super) fn duration_text(millis: u64) -> String {
    let whole = UNITS.iter().rev().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    whole.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_hashes_or_events() {
        let transfer: B256 = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef".parse().unwrap();
        for text in [
            "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
            "Transfer(address,address,uint256)",
            "event Transfer(address indexed from, address indexed to, uint value);",
        ] {
            assert_eq!(topic(text), Some(transfer), "{text}");
        }
        let of = |text: &str| Some(keccak256(text));
        assert_eq!(topic("A()"), of("A()"));
        assert_eq!(topic("A((uint a, int[2][] b)[] x, bytes32[] y)"), of("A((uint256,int256[2][])[],bytes32[])"));
        for text in [
            "Transfer",
            "0x12",
            "T(",
            "T)",
            "T(adress)",
            "T(uint7)",
            "T(a,b",
            "T(uint256)x",
            "",
            "T(address,)",
            "T(bytes33)",
        ] {
            assert_eq!(topic(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("90d", 7_776_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration_text(millis), text);
        }
        assert_eq!((duration_text(0), duration_text(61_000)), ("0s".to_owned(), "61s".to_owned()));
        for text in ["", "5", "s", "-5s", "5 s", "1.5s", "5y", "99999999999999999999d", "999999999999999999d", "5S"] {
            assert_eq!(duration(text), Err(()), "{text}");
        }
    }

    #[test]
    fn finality() {
        for (text, value) in [
            ("tag", Ok(Finality::Tag)),
            ("instant", Ok(Finality::Instant)),
            ("never", Ok(Finality::Never)),
            ("depth:64", Ok(Finality::Depth(64))),
            ("depth:0", Err(())),
            ("depth", Err(())),
            ("depth:-1", Err(())),
            ("64", Err(())),
        ] {
            assert_eq!(text.parse(), value, "{text}");
        }
    }

    #[test]
    fn an_endpoint_shows_no_secret() {
        for (url, shown) in [
            ("https://eth.example/v2/KEY?token=KEY", "https://eth.example"),
            ("wss://user:KEY@eth.example:8546/KEY#KEY", "wss://eth.example:8546"),
            ("http://[::1]:8545", "http://[::1]:8545"),
            ("KEY", "(not a URL)"),
        ] {
            assert_eq!(endpoint(url), shown);
        }
        let secret = Secret::new("KEY");
        assert!(!format!("{secret} {secret:?}").contains("KEY"));
    }
}
