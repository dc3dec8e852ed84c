//! The shared part of the commands for partitions: the connection, the selected tables, and the format of times, sizes and
//! faults.

use chrono::{DateTime, NaiveDate, Utc};
use dalp_partitions::Presence;
use serde::Serialize;
use tokio_postgres::Client;

use crate::cli::failure::Failure;
use crate::cli::grid::Grid;
use crate::cli::out::say;
use crate::config::{Config, ManagedTable};
use crate::maintenance::{Connector, LeavesError, Place};

/// The selected tables, and the output format.
#[derive(Clone, Debug, clap::Args)]
pub struct Selection {
    /// One table by its name in the configuration: logs, erc20_transfer, activity, or one of [tables.NAME] [default: all]
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// A leaf, and the reason.
#[derive(Clone, Debug, clap::Args)]
pub struct LeafArgs {
    /// The leaf, with or without its schema
    pub leaf: String,
    /// Reason, for the record
    #[arg(long)]
    pub reason: String,
    /// Author of the request [default: the system's user name]
    #[arg(long)]
    pub author: Option<String>,
}

/// The partitioner's connection, and the archive.
pub(super) struct Session {
    pub client: Client,
    pub place: Place,
}

impl Session {
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        let client = Connector::new(config).connect().await.map_err(failed)?;
        match dalp_migrations::check(&client).await {
            // The partitioner may not read which migrations were applied; it sees only that there were some.
            Ok(_) | Err(dalp_migrations::Error::Unreadable { .. }) => {}
            Err(error) => return Err(Failure::other(error.to_string())),
        }
        Ok(Self { client, place: Place::open(&config.partitions) })
    }

    pub fn archive(&self) -> Result<&dalp_partitions::Archive, Failure> {
        let none = || {
            Failure::usage("no archive is configured: set partitions.archive_url, such as file:///var/lib/dalp/archive")
        };
        match (&self.place.archive, &self.place.fault) {
            (Some(archive), _) => Ok(archive),
            (None, Some(fault)) => Err(Failure::other(fault.clone())),
            (None, None) => Err(none()),
        }
    }
}

/// The faults of tables, one per line: a table that cannot be maintained does not stop the others.
#[derive(Debug, Default)]
pub(super) struct Faults(pub Vec<String>);

impl Faults {
    /// The result of a table, if there is one.
    pub fn keep<T>(&mut self, table: &ManagedTable, answer: Result<T, Failure>) -> Option<T> {
        let told = |error: Failure| {
            let fault = format!("{}: {error}", table.name);
            if !self.0.contains(&fault) {
                self.0.push(fault);
            }
        };
        answer.map_err(told).ok()
    }

    /// An error if there were any.
    pub fn end(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::other(self.0.join("\n"))) }
    }
}

pub(super) fn failed(error: impl Into<LeavesError>) -> Failure {
    Failure::other(error.into().to_string())
}

/// The selected tables.
pub(super) fn tables<'c>(config: &'c Config, name: Option<&str>) -> Result<Vec<&'c ManagedTable>, Failure> {
    let chosen: Vec<_> = config.tables.iter().filter(|table| name.is_none_or(|name| table.name == name)).collect();
    match (chosen.is_empty(), name) {
        (true, Some(name)) => {
            let known: Vec<&str> = config.tables.iter().map(|table| table.name.as_str()).collect();
            Err(Failure::usage(format!("there is no table \"{name}\"; maintained tables: {}", known.join(", "))))
        }
        _ => Ok(chosen),
    }
}

/// The table of a leaf, by the registry and the catalog, and the leaf's name with its schema.
pub(super) async fn table_of<'c>(
    session: &mut Session,
    config: &'c Config,
    leaf: &str,
) -> Result<Option<(&'c ManagedTable, String)>, Failure> {
    let (mut found, mut faults) = (Vec::new(), Faults::default());
    for table in &config.tables {
        let inventory = dalp_partitions::read_inventory(&mut session.client, &table.table).await.map_err(failed);
        // An unreadable table matters only if no other table has the leaf.
        let Some(inventory) = faults.keep(table, inventory) else { continue };
        let meant = inventory.entries.into_iter().filter(|entry| entry.is_called(leaf));
        found.extend(meant.map(|entry| (table, entry)));
    }
    if found.is_empty() {
        faults.end()?;
    }
    // A leaf that was moved to another table belongs to that table.
    found.sort_by_key(|(_, entry)| (entry.to_string(), entry.presence == Presence::Elsewhere));
    found.dedup_by_key(|(_, entry)| entry.to_string());
    let mut found: Vec<_> = found.into_iter().map(|(table, entry)| (table, entry.to_string())).collect();
    match &found[..] {
        [_, _, ..] => {
            let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
            Err(Failure::usage(format!("\"{leaf}\" may be {}: give the schema too", names.join(" or "))))
        }
        _ => Ok(found.pop()),
    }
}

pub(super) fn bare(schema: &str, leaf: &str) -> String {
    let rest = leaf.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.'));
    rest.unwrap_or(leaf).to_owned()
}

/// The author: as given, or the system's user. People who read the record want to know the author.
pub(super) fn author(said: Option<&str>) -> Result<String, Failure> {
    let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    let author = said.map(str::to_owned).or_else(user).filter(|author| !author.trim().is_empty());
    author
        .ok_or_else(|| Failure::usage("the request has no author, and the system has no user name: add --author NAME"))
}

/// A date, which means its midnight in UTC, or RFC 3339.
pub(super) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let date = || Some(text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?.and_utc());
    let whole = DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    whole.or_else(date).ok_or_else(|| "write 2024-01-31, or 2024-01-31T12:00:00Z".to_owned())
}

pub(super) fn grid(header: &[&str]) -> Grid {
    Grid::new(header)
}

/// Bytes for people, by powers of 1,000.
pub(super) fn size(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut at = 0;
    let mut left = bytes;
    while left.abs() >= 1_000.0 && at + 1 < units.len() {
        left /= 1_000.0;
        at += 1;
    }
    if at == 0 { format!("{left:.0} B") } else { format!("{left:.1} {}", units[at]) }
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::other(error.to_string()))?;
    say!("{text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_written_as_people_do() {
        assert_eq!(time("2024-01-31"), time("2024-01-31T00:00:00Z"));
        assert_eq!(time("2024-01-31T02:00:00+02:00"), time("2024-01-31"));
        assert!(time("31.1.2024").is_err() && time("").is_err());
        for (bytes, text) in [(0.0, "0 B"), (999.0, "999 B"), (1_500.0, "1.5 kB"), (2e9, "2.0 GB"), (3e18, "3000.0 PB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(bare("dalp_indexed", "dalp_indexed.logs_1"), "logs_1");
        assert_eq!(bare("dalp_indexed", "dalp_indexed_1"), "dalp_indexed_1");
    }
}
