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
    /// First time that the leaf holds; `None` for MINVALUE.
    pub from: Option<DateTime<Utc>>,
    /// First time after.
    pub to: DateTime<Utc>,
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
}

impl Manifest {
    /// Whether rows that were counted are those that are archived.
    pub fn is_of(&self, counted: &Counted) -> bool {
        self.counted == *counted
    }
}
