//! Archives of leaves: Parquet files in an object store, compared row by row with what they were made from.
//!
//! A file is trusted only after it was read back. Each row, as binary COPY sends it, is hashed, and the hashes are summed up
//! ([`RowHash`]), which does not depend on the order. Of the table, what the server sent is hashed; of the file, what a restore would
//! send. If both sums, the numbers of rows and the extents are equal, a restore brings back exactly these rows.
//!
//! Nothing is written outside the store, and a row group (about 120,000 rows) at a time is held in memory.
//!
//! Without the feature `archive` there is no [`Archive`] to be had; the registry still knows what others archived.

#[cfg(not(feature = "archive"))]
mod absent;
#[cfg(feature = "archive")]
mod columns;
#[cfg(feature = "archive")]
mod count;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "archive")]
mod leaf;
mod manifest;
#[cfg(feature = "archive")]
mod marker;
#[cfg(feature = "archive")]
mod numeric;
#[cfg(feature = "archive")]
mod open;
#[cfg(feature = "archive")]
mod read;
#[cfg(feature = "archive")]
mod store;
#[cfg(feature = "archive")]
mod types;
#[cfg(feature = "archive")]
mod write;

#[cfg(not(feature = "archive"))]
pub use absent::{Archive, count};
#[cfg(not(feature = "archive"))]
pub(crate) use absent::{count_as, is_written, recount, safe_type};
#[cfg(feature = "archive")]
pub use count::count;
pub use error::ArchiveError;
pub(crate) use manifest::{Claim, Marker};
pub use manifest::{
    Counted, Extent, FORMAT, Identity, Listing, Manifest, ManifestColumn, Probed, RowHash, ServerIdentity, Subject,
};
#[cfg(feature = "archive")]
pub use store::Archive;
#[cfg(feature = "archive")]
pub(crate) use {
    count::{count_as, recount},
    types::{is_written, safe_type},
};
