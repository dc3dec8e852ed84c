//! The words a setting's value is written in: secrets, durations, finality, intervals, listen addresses.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::chain::backfill::Order;

pub use dalp_partitions::{Fate, Index, Interval};

use crate::chain::batch::Level;
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

/// A schema and a table, joined by a point.
pub fn table(text: &str) -> Option<(&str, &str)> {
    text.split_once('.')
        .filter(|(schema, table)| super::setting::is_sql_name(schema) && super::setting::is_sql_name(table))
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

/// Which end of history comes first, by its name in [`ORDERS`].
pub(super) fn order(text: &str) -> Option<Order> {
    ORDERS.iter().zip([Order::Newest, Order::Oldest]).find(|(name, _)| **name == text).map(|(_, order)| order)
}

/// The names of [`order`].
pub(super) const ORDERS: &[&str] = &["newest", "oldest"];

/// Parses `127.0.0.1:9464`, or `off` for no listener.
pub(super) fn listen(text: &str) -> Result<Option<SocketAddr>, ()> {
    if text == "off" { Ok(None) } else { text.parse().map(Some).or(Err(())) }
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses a whole number and its unit: `500ms`, `5s`, `2m`, `1h`, `90d`.
pub(super) fn duration(text: &str) -> Result<Duration, ()> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(())?;
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(())?;
    let number: u64 = number.parse().or(Err(()))?;
    number.checked_mul(*millis).map(Duration::from_millis).ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("90d", 7_776_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
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
