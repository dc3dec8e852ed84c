//! What the value of a setting may be: how it is checked, shown, and described.

use std::path::Path;
use std::time::Duration;

use alloy::primitives::Address;

use super::database_url::DatabaseUrl;
use super::value::{self, Finality};

/// What a value may be.
pub(super) enum Kind {
    Int(u64, u64),
    Bool,
    Duration(&'static str, &'static str),
    Choice(&'static [&'static str]),
    Role,
    File,
    Finality,
    Listen,
    Address,
    Topic,
    DatabaseUrl,
    Url(&'static [&'static str]),
    /// Columns of an index, joined by `+`.
    Index,
    /// Schema and name of a table.
    Table,
    /// A name in the database.
    Column,
    /// Where archives go.
    Archive,
    /// A name and a value, joined by `=`.
    Pair,
}

impl Kind {
    /// What is allowed, to finish the sentence "… is not …".
    pub fn allowed(&self) -> String {
        match self {
            Self::Int(min, max) if *max == MAX_INT => format!("a whole number, {min} or more"),
            Self::Int(min, max) => format!("a whole number from {min} to {max}"),
            Self::Bool => "true or false".into(),
            Self::Duration(min, max) => {
                format!("a time from {min} to {max}, as a whole number and ms, s, m, h or d, such as \"5s\"")
            }
            Self::Choice(names) => names.join(", "),
            Self::Role => "a role name of a-z, 0-9 and _, at most 63 characters, that starts with a letter".into(),
            Self::File => "a file that can be read".into(),
            Self::Finality => "tag, depth:N (N blocks, such as depth:64), instant or never".into(),
            Self::Listen => "an IP address and port, such as 127.0.0.1:9464, or off".into(),
            Self::Address => "an address of 20 bytes, 0x and 40 hexadecimal digits".into(),
            Self::Topic => "a topic of 32 bytes, 0x and 64 hexadecimal digits, or an event such as Transfer(address,address,uint256)".into(),
            Self::DatabaseUrl => "a URL such as postgres://user:password@host:5432/database".into(),
            Self::Url(schemes) => format!("a URL that starts with {}", schemes.join(":// or ") + "://"),
            Self::Table => "a schema and a table, joined by a point, such as dalp_assets.position".into(),
            Self::Column => "a name in the database, at most 63 bytes".into(),
            Self::Archive => "a URL such as file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, without user, password and query".into(),
            Self::Pair => "a name and a value, joined by =, such as aws_endpoint=http://127.0.0.1:9000".into(),
            Self::Index => "columns of the table joined by +, each once".into(),
        }
    }

    /// Whether a value may hold a password or an API key, and so is never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::DatabaseUrl | Self::Url(_) | Self::Pair | Self::Archive)
    }

    /// The value as it may be shown: a secret only by its scheme, host and port.
    pub fn shown(&self, text: &str) -> String {
        match self {
            Self::DatabaseUrl => DatabaseUrl::parse(text).map_or_else(|_| "(not shown)".into(), |url| url.endpoint()),
            Self::Url(_) => value::endpoint(text),
            Self::Archive => value::place(text),
            Self::Pair => format!("{}=…", text.split('=').next().unwrap_or_default()),
            _ => text.into(),
        }
    }

    /// Checks one value.
    ///
    /// # Errors
    /// What is wrong, where [`Kind::allowed`] does not say it all; otherwise an empty text.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let good = match self {
            Self::Int(min, max) => text.parse().is_ok_and(|number: u64| (*min..=*max).contains(&number)),
            Self::Bool => text.parse::<bool>().is_ok(),
            Self::Duration(min, max) => {
                let limit = |text| value::duration(text).unwrap_or(Duration::ZERO);
                value::duration(text).is_ok_and(|time| (limit(min)..=limit(max)).contains(&time))
            }
            Self::Choice(names) => names.contains(&text),
            Self::Role => is_role(text),
            Self::File => return check_file(Path::new(text)),
            Self::Finality => text.parse::<Finality>().is_ok(),
            Self::Listen => value::listen(text).is_ok(),
            // Without 0x a parser would still take it; the chain's tools would not.
            Self::Address => text.starts_with("0x") && text.parse::<Address>().is_ok(),
            Self::Topic => value::topic(text).is_some(),
            Self::DatabaseUrl => return check_database_url(text),
            Self::Table => value::table(text).is_some(),
            Self::Column => value::name(text).is_some(),
            Self::Archive => {
                let url = url::Url::parse(text).ok();
                url.is_some_and(|url| {
                    let is_bare = url.username().is_empty() && url.password().is_none();
                    let is_plain = is_bare && url.query().is_none() && url.fragment().is_none();
                    is_plain && ["file", "s3", "gs", "az"].contains(&url.scheme())
                })
            }
            Self::Pair => text.split_once('=').is_some_and(|(name, _)| !name.is_empty()),
            Self::Index => value::index(text).is_some(),
            Self::Url(schemes) => {
                url::Url::parse(text).is_ok_and(|url| schemes.contains(&url.scheme()) && url.host().is_some())
            }
        };
        if good { Ok(()) } else { Err(String::new()) }
    }
}

fn is_role(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        // PostgreSQL keeps this prefix for itself.
        && !text.starts_with("pg_")
}

fn check_file(path: &Path) -> Result<(), String> {
    std::fs::File::open(path)
        .and_then(|file| file.metadata())
        .map_err(|error| error.to_string())
        .and_then(|found| if found.is_file() { Ok(()) } else { Err("it is not a file".into()) })
}

fn check_database_url(text: &str) -> Result<(), String> {
    match DatabaseUrl::parse(text)?.ca_file {
        Some(path) => check_file(&path).map_err(|why| format!("its sslrootcert {}: {why}", path.display())),
        None => Ok(()),
    }
}

/// TOML's integers end here, and so do PostgreSQL's.
pub(super) const MAX_INT: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Interval;

    #[test]
    fn kinds_refuse() {
        for (kind, texts) in [
            (Kind::Int(1, 8), &["0", "9", "-1", "1.0", "", "x", "99999999999999999999"][..]),
            (Kind::Bool, &["yes", "1", "True"]),
            (Kind::Duration("1s", "1m"), &["999ms", "61s", "5", "forever"]),
            (Kind::Choice(Interval::NAMES), &["Day", "days", ""]),
            (Kind::Role, &["", "Writer", "1x", "a-b", "a\"b", "pg_writer", &"x".repeat(64)]),
            (Kind::File, &["/nonexistent/ca.pem", "/"]),
            (Kind::Listen, &["9464", "localhost:9464", "127.0.0.1", "OFF"]),
            (Kind::Address, &["0x12", "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef"]),
            (Kind::Topic, &["0xdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef"]),
            (Kind::Url(&["http", "https"]), &["ws://h", "h:8545", "http://", "ftp://h"]),
        ] {
            for text in texts {
                assert!(kind.check(text).is_err(), "{text:?} was accepted as {}", kind.allowed());
            }
        }
    }
}
