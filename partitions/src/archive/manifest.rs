//! What is in an archive, and how rows are counted. Pure.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "archive")]
use std::hash::Hasher as _;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
#[cfg(feature = "archive")]
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::ArchiveError;
use crate::{Bounds, Edge};

/// Version of the format: of the manifest and of the file.
pub const FORMAT: u32 = 1;

/// The sum, modulo 2^128, of SipHash-1-3-128 (with the key of sixteen zero bytes) over each row as a tuple of binary COPY: the number of
/// fields, and of each field its length and its bytes. The order of rows is of no importance. Written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowHash(u128);

impl RowHash {
    /// Adds a row.
    #[cfg(feature = "archive")]
    pub(super) fn add(&mut self, tuple: &[u8]) {
        let mut hasher = SipHasher13::new();
        hasher.write(tuple);
        self.0 = self.0.wrapping_add(hasher.finish128().as_u128());
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// 32 hexadecimal digits.
impl FromStr for RowHash {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for RowHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The smallest and the largest value of a column: a number, or microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The smallest.
    pub min: i64,
    /// The largest.
    pub max: i64,
}

impl Extent {
    #[cfg(feature = "archive")]
    pub(super) fn add(extent: &mut Option<Self>, value: i64) {
        let known = extent.get_or_insert(Self { min: value, max: value });
        *known = Self { min: known.min.min(value), max: known.max.max(value) };
    }
}

/// Rows of a table or of a file, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How many.
    pub rows: u64,
    /// What they are.
    pub hash: RowHash,
    /// Of the whole numbers and times among the columns of the primary key.
    pub extents: BTreeMap<String, Extent>,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows with hash {}", self.rows, self.hash)?;
        self.extents.iter().try_for_each(|(column, of)| write!(f, ", {column} from {} to {}", of.min, of.max))
    }
}

/// A column of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestColumn {
    /// Its name.
    pub name: String,
    /// Its type in PostgreSQL.
    pub sql_type: String,
    /// Its type in Parquet.
    pub parquet_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// Whose an archive is: names alone are given again, to another table, to another life of a leaf, in another database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The installation: names a registry, and each copy of it.
    pub installation: String,
    /// Names this life of the leaf.
    pub incarnation: String,
    /// Where its rows were read.
    pub server: ServerIdentity,
}

impl Identity {
    /// Its part of a file's name.
    #[cfg(feature = "archive")]
    pub(super) fn label(&self) -> String {
        let short = |id: &str| id.chars().filter(char::is_ascii_alphanumeric).take(12).collect::<String>();
        format!("{}-{}", short(&self.installation), short(&self.incarnation))
    }
}

/// A database, told from copies of it that carry the same rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// Its name.
    pub database: String,
    /// Its oid: a dump that was restored, and a database made from a template, have another.
    pub oid: u32,
    /// Of the cluster: `None` where the server does not tell.
    pub system: Option<String>,
    /// Grows when a base backup or an earlier time is restored, and when a standby is promoted.
    pub timeline: String,
    /// Where it listens: a copy beside it, that was started from a base backup without being promoted, has all else.
    #[serde(default)]
    pub port: Option<i32>,
}

impl ServerIdentity {
    /// Whether it is the same database, whatever it is called.
    pub fn is_same(&self, other: &Self) -> bool {
        let systems = self.system.as_ref().zip(other.system.as_ref());
        let ports = self.port.zip(other.port);
        (self.oid, &self.timeline) == (other.oid, &other.timeline)
            && systems.is_none_or(|(own, other)| own == other)
            && ports.is_none_or(|(own, other)| own == other)
    }
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = self.system.as_deref().unwrap_or("unknown");
        let port = self.port.map_or_else(|| "?".to_owned(), |port| port.to_string());
        let Self { database, oid, timeline, .. } = self;
        write!(f, "database \"{database}\" (oid {oid}, timeline {timeline}, port {port}, system {system})")
    }
}

/// What stands in an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By table, key and time.
    pub manifests: Vec<Manifest>,
    /// What is wrong with each that cannot be read.
    pub unreadable: Vec<ArchiveError>,
}

/// What a store was found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Whether it refuses to write an object as new that is there: without, two writers are not told from one.
    pub writes_once: bool,
}

/// Says whose a place is. Written once, when it is used for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// [`FORMAT`].
    pub format: u32,
    /// The installation.
    pub installation: String,
    /// The database that came first.
    pub server: ServerIdentity,
    /// When.
    pub made_at: DateTime<Utc>,
}

/// Says which database writes to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Each is one greater than the one before.
    pub number: u64,
    /// Nobody else's: a copy of the database makes another.
    pub token: String,
    /// The database.
    pub server: ServerIdentity,
    /// When.
    pub claimed_at: DateTime<Utc>,
}

/// A leaf that is about to be archived.
#[derive(Debug, Clone)]
pub struct Subject<'s> {
    /// Value of the list level; 0 without one.
    pub key: i64,
    /// Its name.
    pub leaf: &'s str,
    /// The times that it holds.
    pub bounds: Bounds,
    /// Greater than that of any archive of this incarnation.
    pub version: u32,
    /// Whose it is.
    pub identity: &'s Identity,
}

/// What is in an archive and how it was verified. Written once, after the file was read back; never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Schema and name of the table, unquoted, joined by a point.
    pub table: String,
    /// Value of the list level; 0 without one.
    pub key: i64,
    /// Name of the leaf.
    pub leaf: String,
    /// Where the leaf's times begin.
    pub from: Edge,
    /// Where they end.
    pub to: Edge,
    /// Grows when a leaf was written again and archived anew.
    pub version: u32,
    /// What was counted, in the table and in the file.
    #[serde(flatten)]
    pub counted: Counted,
    /// The file, as the store names it.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Its checksum: SHA-256, in hexadecimal.
    pub sha256: String,
    /// Bytes of the leaf's heap.
    pub heap_bytes: u64,
    /// Its columns, in order.
    pub columns: Vec<ManifestColumn>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// The database server's version.
    pub server: String,
    /// What wrote it.
    pub software: String,
    /// Whose it is; `None` for what was written before archives said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

impl Manifest {
    /// What is to be said of its object, which is not what was written.
    #[cfg(feature = "archive")]
    pub(super) fn corrupt(&self, why: String) -> ArchiveError {
        ArchiveError::Corrupt { object: self.object.clone(), why }
    }

    /// Whether rows that were counted are those that are archived.
    pub fn is_of(&self, counted: &Counted) -> bool {
        self.counted == *counted
    }

    /// What two archives of one leaf's life have in common.
    pub fn life(&self) -> (&str, &str, Option<(&str, &str)>) {
        let identity = self.identity.as_ref();
        let life = identity.map(|identity| (identity.installation.as_str(), identity.incarnation.as_str()));
        (&self.table, &self.leaf, life)
    }

    /// The part of it in which another one differs.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (own, others) = (serde_json::to_value(self).ok()?, serde_json::to_value(other).ok()?);
        let (own, others) = (own.as_object()?, others.as_object()?);
        let differs = |key: &&String| own.get(*key) != others.get(*key);
        let key = own.keys().chain(others.keys()).find(differs)?;
        let said =
            |of: &serde_json::Map<String, serde_json::Value>| of.get(key).map_or_else(String::new, ToString::to_string);
        Some(format!("\"{key}\" is {} there, and {} in the registry", said(others), said(own)))
    }
}
