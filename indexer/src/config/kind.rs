//! The kinds of values of settings: how a value is read, shown and described. A kind reads all values that it allows.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use alloy::primitives::{Address, B256};

use super::database_url::DatabaseUrl;
use super::value::{self, Finality, Secret};
use crate::dataset::Dataset;

/// The largest integer of TOML, and of PostgreSQL.
pub(super) const MAX_INT: u64 = i64::MAX as u64;

/// How a value is written in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Number,
    Flag,
    Text,
}

/// A kind of values, independent of the Rust type of a value.
pub(super) trait Kind: Sync {
    /// The allowed values, as a list or a noun.
    fn allowed(&self) -> String;

    /// The allowed values, to finish the sentence "… is not …".
    fn noun(&self) -> String {
        self.allowed()
    }

    fn form(&self) -> Form {
        Form::Text
    }

    /// Whether a value may hold a password or an API key, and so is never shown.
    fn is_secret(&self) -> bool {
        false
    }

    /// The value as it may be shown: only the public parts of a secret.
    fn shown(&self, text: &str) -> String {
        text.into()
    }
}

/// A kind whose values have the type `T`. Reading is the only check: an unreadable value is refused.
pub(super) trait Reads<T>: Kind {
    /// Reads one value.
    ///
    /// # Errors
    /// The problem, if [`Kind::allowed`] does not say enough; otherwise an empty text.
    fn read(&self, text: &str) -> Result<T, String>;
}

/// For a kind whose [`Kind::allowed`] says enough: a missing value is an error with an empty text.
fn plain<T>(value: Option<T>) -> Result<T, String> {
    value.ok_or_else(String::new)
}

/// A whole number from the first limit to the second. The limits have the type of the number, so no limit exceeds this type.
pub(super) struct Int<N>(pub N, pub N);

/// A type of the numbers of [`Int`].
pub(super) trait Number: Copy + PartialOrd + FromStr + Into<u64> + Sync {}

impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

impl<N: Number> Kind for Int<N> {
    fn allowed(&self) -> String {
        match (self.0.into(), self.1.into()) {
            (min, MAX_INT) => format!("a whole number, {min} or more"),
            (min, max) => format!("a whole number from {min} to {max}"),
        }
    }

    fn form(&self) -> Form {
        Form::Number
    }
}

impl<N: Number> Reads<N> for Int<N> {
    fn read(&self, text: &str) -> Result<N, String> {
        plain(text.parse().ok().filter(|number| (self.0..=self.1).contains(number)))
    }
}

/// A time from the first limit to the second, both in milliseconds: `Time(100 * MS, 10 * MINUTE)`.
pub(super) struct Time(pub u64, pub u64);

impl Kind for Time {
    fn allowed(&self) -> String {
        let [min, max] = [self.0, self.1].map(value::duration_text);
        format!("a time from {min} to {max}, as a whole number and ms, s, m, h or d, such as \"5s\"")
    }
}

impl Reads<Duration> for Time {
    fn read(&self, text: &str) -> Result<Duration, String> {
        let limits = Duration::from_millis(self.0)..=Duration::from_millis(self.1);
        plain(value::duration(text).ok().filter(|time| limits.contains(time)))
    }
}

/// One of these words.
pub(super) struct Choice(pub &'static [&'static str]);

impl Kind for Choice {
    fn allowed(&self) -> String {
        self.0.join(", ")
    }

    fn noun(&self) -> String {
        format!("one of {}", self.allowed())
    }
}

impl<T: FromStr> Reads<T> for Choice {
    fn read(&self, text: &str) -> Result<T, String> {
        plain(Some(text).filter(|text| self.0.contains(text)).and_then(|text| text.parse().ok()))
    }
}

/// A URL that begins with one of these schemes.
pub(super) struct Url(pub &'static [&'static str]);

impl Kind for Url {
    fn allowed(&self) -> String {
        format!("a URL that starts with {}", self.0.join(":// or ") + "://")
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn shown(&self, text: &str) -> String {
        value::endpoint(text)
    }
}

impl Reads<Secret> for Url {
    fn read(&self, text: &str) -> Result<Secret, String> {
        let url = url::Url::parse(text).ok().filter(|url| self.0.contains(&url.scheme()) && url.host().is_some());
        plain(url.map(|_| Secret::new(text)))
    }
}

/// An index of this table.
pub(super) struct IndexOf<'d>(pub &'d Dataset);

impl Kind for IndexOf<'_> {
    fn allowed(&self) -> String {
        INDEX.allowed()
    }
}

impl Reads<value::Index> for IndexOf<'_> {
    fn read(&self, text: &str) -> Result<value::Index, String> {
        let of: Vec<&str> = self.0.indexable().collect();
        let fits = |index: &value::Index| index.columns().iter().all(|column| of.contains(&column.as_str()));
        INDEX.read(text).ok().filter(fits).ok_or_else(|| format!("the columns are {}", of.join(", ")))
    }
}

/// A kind with one description, and one function that reads a value.
pub(super) struct Text<T> {
    allowed: &'static str,
    read: fn(&str) -> Result<T, String>,
    form: Form,
    /// For a secret: the function that returns its public parts.
    shown: Option<fn(&str) -> String>,
}

const fn text<T>(allowed: &'static str, read: fn(&str) -> Result<T, String>) -> Text<T> {
    Text { allowed, read, form: Form::Text, shown: None }
}

impl<T> Kind for Text<T> {
    fn allowed(&self) -> String {
        self.allowed.into()
    }

    fn form(&self) -> Form {
        self.form
    }

    fn is_secret(&self) -> bool {
        self.shown.is_some()
    }

    fn shown(&self, text: &str) -> String {
        self.shown.map_or_else(|| text.into(), |shown| shown(text))
    }
}

impl<T> Reads<T> for Text<T> {
    fn read(&self, text: &str) -> Result<T, String> {
        (self.read)(text)
    }
}

// Kinds that are one description and one function each.

pub(super) const BOOL: Text<bool> = Text { form: Form::Flag, ..text("true or false", |text| plain(text.parse().ok())) };

pub(super) const ROLE: Text<String> =
    text("a role name of a-z, 0-9 and _, at most 63 characters, that starts with a letter", |text| {
        plain(Some(text.to_owned()).filter(|text| is_role(text)))
    });

/// A name as that of a section.
pub(super) const NAME: Text<String> = text("a name of a-z, 0-9 and _ that starts with a letter", |text| {
    plain(Some(text.to_owned()).filter(|text| is_role(text)))
});

pub(super) const FILE: Text<PathBuf> = text("a file that can be read", file);

pub(super) const FINALITY: Text<Finality> =
    text("tag, depth:N (N blocks, such as depth:64), instant or never", |text| plain(text.parse().ok()));

/// `None` is off.
pub(super) const LISTEN: Text<Option<SocketAddr>> =
    text("an IP address and port, such as 127.0.0.1:9464, or off", |text| plain(value::listen(text).ok()));

pub(super) const ADDRESS: Text<Address> = text("an address of 20 bytes, 0x and 40 hexadecimal digits", value::address);

/// The name of an event, or its signature.
pub(super) const EVENT: Text<String> = text("an event, such as Created or Created(address,string)", |text| {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_$(),[]".contains(c);
    plain(Some(text.to_owned()).filter(|text| !text.is_empty() && text.chars().all(is_part)))
});

/// A name in a contract.
pub(super) const WORD: Text<String> = text("the name of a parameter", |text| {
    plain(
        Some(text.to_owned())
            .filter(|text| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_$".contains(c))),
    )
});

pub(super) const TOPIC: Text<B256> = text(
    "a topic of 32 bytes, 0x and 64 hexadecimal digits, or an event such as Transfer(address,address,uint256)",
    |text| plain(value::topic(text)),
);

pub(super) const DATABASE_URL: Text<Secret> = Text {
    shown: Some(|text| DatabaseUrl::parse(text).map_or_else(|_| "(not shown)".into(), |url| url.endpoint())),
    ..text("a URL such as postgres://user:password@host:5432/database", database_url)
};

/// Columns of an index, joined by `+`.
pub(super) const INDEX: Text<value::Index> =
    text("columns of the table joined by +, each once", |text| plain(value::index(text)));

/// Schema and name of a table.
pub(super) const TABLE: Text<(String, String)> =
    text("a schema and a table, joined by a point, such as dalp_assets.position", |text| plain(value::table(text)));

/// A name in the database.
pub(super) const COLUMN: Text<String> =
    text("a name in the database, at most 63 bytes", |text| plain(value::name(text)));

/// The place of archives.
pub(super) const ARCHIVE: Text<String> = Text {
    shown: Some(value::place),
    ..text(
        "a URL such as file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, without user, \
         password and query",
        |text| plain(Some(text.to_owned()).filter(|text| is_archive(text))),
    )
};

/// A name and a value, joined by `=`.
pub(super) const PAIR: Text<Secret> = Text {
    shown: Some(|text| format!("{}=…", text.split('=').next().unwrap_or_default())),
    ..text("a name and a value, joined by =, such as aws_endpoint=http://127.0.0.1:9000", |text| {
        plain(text.split_once('=').filter(|(name, _)| !name.is_empty()).map(|_| Secret::new(text)))
    })
};

fn is_role(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        // PostgreSQL reserves this prefix.
        && !text.starts_with("pg_")
}

fn is_archive(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        let is_plain = is_bare && url.query().is_none() && url.fragment().is_none();
        is_plain && ["file", "s3", "gs", "az"].contains(&url.scheme())
    })
}

fn file(text: &str) -> Result<PathBuf, String> {
    let found = File::open(text).and_then(|file| file.metadata()).map_err(|error| error.to_string())?;
    if found.is_file() { Ok(text.into()) } else { Err("it is not a file".into()) }
}

fn database_url(text: &str) -> Result<Secret, String> {
    if let Some(path) = DatabaseUrl::parse(text)?.ca_file.as_deref().map(|path| path.to_string_lossy()) {
        file(&path).map_err(|why| format!("its sslrootcert {path}: {why}"))?;
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::backfill::Order;
    use crate::config::value::{Action, DAY, Interval, MINUTE, MS, ORDERS, SECOND, TlsMode, Verify};

    fn refuses<T>(kind: &impl Reads<T>, texts: &[&str]) {
        for text in texts {
            assert!(kind.read(text).is_err(), "{text:?} was accepted as {}", kind.allowed());
        }
    }

    #[test]
    fn kinds_refuse() {
        refuses::<u32>(&Int(1, 8), &["0", "9", "-1", "1.0", "", "x", "99999999999999999999"]);
        refuses(&BOOL, &["yes", "1", "True"]);
        refuses(&Time(SECOND, MINUTE), &["999ms", "61s", "5", "forever"]);
        refuses::<Interval>(&Choice(Interval::NAMES), &["Day", "days", ""]);
        refuses(&ROLE, &["", "Writer", "1x", "a-b", "a\"b", "pg_writer", &"x".repeat(64)]);
        refuses(&FILE, &["/nonexistent/ca.pem", "/"]);
        refuses(&LISTEN, &["9464", "localhost:9464", "127.0.0.1", "OFF"]);
        refuses(&ADDRESS, &["0x12", "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef"]);
        refuses(&TOPIC, &["0xdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef"]);
        refuses(&Url(&["http", "https"]), &["ws://h", "h:8545", "http://", "ftp://h"]);
        refuses(&PAIR, &["a", "=a", ""]);
        refuses(&DATABASE_URL, &["mysql://h/x", "postgres://h/x?sslrootcert=/nonexistent/ca.pem"]);
    }

    #[test]
    fn limits_are_allowed_and_said_as_they_are_written() {
        assert_eq!((Int(1_u16, 9).read("1"), Int(1_u16, 9).read("9")), (Ok(1), Ok(9)));
        assert_eq!(Int(1, MAX_INT).read("9223372036854775807"), Ok(MAX_INT));
        assert_eq!(Int(0, MAX_INT).allowed(), "a whole number, 0 or more");
        let time = Time(100 * MS, 36_500 * DAY);
        assert!(time.read("100ms").is_ok() && time.read("36500d").is_ok());
        assert!(time.allowed().starts_with("a time from 100ms to 36500d,"), "{}", time.allowed());
    }

    #[test]
    fn every_word_of_a_choice_is_read() {
        fn all<T: FromStr>(names: &'static [&'static str]) {
            for name in names {
                assert!(Reads::<T>::read(&Choice(names), name).is_ok(), "{name}");
            }
        }
        all::<TlsMode>(TlsMode::NAMES);
        all::<Verify>(Verify::NAMES);
        all::<Order>(ORDERS);
        all::<Interval>(Interval::NAMES);
        all::<Action>(Action::NAMES);
    }
}
