//! The content of an archive, and the counting of rows. Pure.

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

/// The sum, modulo 2^128, of SipHash-1-3-128 (key: sixteen zero bytes) over each row as a tuple of binary COPY: the number of
/// fields, and for each field its length and its bytes. The sum does not depend on the order of rows. Written as 32 hexadecimal
/// digits.
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

/// The count of the rows of a table or of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The number of rows.
    pub rows: u64,
    /// The hash of the rows.
    pub hash: RowHash,
    /// The extents of the whole numbers and times in the primary key.
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

/// The owner of an archive. Names alone are reused: by another table, by another life of a leaf, in another database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The installation: the name of a registry and of all its copies.
    pub installation: String,
    /// The name of this life of the leaf.
    pub incarnation: String,
    /// The database that the rows were read from.
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

/// A database, distinguished from copies with the same rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// Its name.
    pub database: String,
    /// Its oid: a restored dump, and a database made from a template, have another one.
    pub oid: u32,
    /// The system identifier of the cluster; `None` if the server does not report it.
    pub system: Option<String>,
    /// The timeline: a restored base backup, a restore to an earlier time and a promoted standby raise it.
    pub timeline: String,
    /// Its port: a copy started from a base backup on the same machine, without promotion, differs only here.
    #[serde(default)]
    pub port: Option<i32>,
}

impl ServerIdentity {
    /// Whether both are the same database, under any name.
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

/// The content of an archive place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By table, key and time.
    pub manifests: Vec<Manifest>,
    /// The error of each unreadable manifest.
    pub unreadable: Vec<ArchiveError>,
}

/// The tested abilities of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Whether the store refuses to overwrite an object as new. Without this, two writers look like one.
    pub writes_once: bool,
}

/// The owner of a place. Written once, at its first use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// [`FORMAT`].
    pub format: u32,
    /// The installation.
    pub installation: String,
    /// The first database.
    pub server: ServerIdentity,
    /// The time of the first use.
    pub made_at: DateTime<Utc>,
}

/// The database that writes to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Its number: one greater than the number of the earlier claim.
    pub number: u64,
    /// Its nonce: a copy of the database makes another one.
    pub token: String,
    /// The database.
    pub server: ServerIdentity,
    /// The time.
    pub claimed_at: DateTime<Utc>,
}

/// A leaf ready for archiving.
#[derive(Debug, Clone)]
pub struct Subject<'s> {
    /// Value of the list level; 0 without one.
    pub key: i64,
    /// Its name.
    pub leaf: &'s str,
    /// Its times.
    pub bounds: Bounds,
    /// The version: greater than the version of any archive of this life of the leaf.
    pub version: u32,
    /// Its owner.
    pub identity: &'s Identity,
}

/// The content of an archive and its verification. Written once, after the file was read back; never changed.
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
    /// The version: it rises when a leaf was written and archived again.
    pub version: u32,
    /// The count, equal in table and file.
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
    /// The time of writing.
    pub created_at: DateTime<Utc>,
    /// The database server's version.
    pub server: String,
    /// The program that wrote it.
    pub software: String,
    /// The owner; `None` in archives of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

impl Manifest {
    /// The error for an object that differs from the written one.
    #[cfg(feature = "archive")]
    pub(super) fn corrupt(&self, why: String) -> ArchiveError {
        ArchiveError::Corrupt { object: self.object.clone(), why }
    }

    /// Whether the counted rows equal the archived rows.
    pub fn is_of(&self, counted: &Counted) -> bool {
        self.counted == *counted
    }

    /// The common part of two archives of one life of a leaf.
    pub fn life(&self) -> (&str, &str, Option<(&str, &str)>) {
        let identity = self.identity.as_ref();
        let life = identity.map(|identity| (identity.installation.as_str(), identity.incarnation.as_str()));
        (&self.table, &self.leaf, life)
    }

    /// The part in which another archive differs.
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
