//! Archives of leaves: Parquet files in an object store, compared with their leaf row by row.
//!
//! A file is trusted only after it was read back. Each row is hashed in its binary COPY form, and the hashes are summed
//! ([`RowHash`]); the sum does not depend on the order. The hash of the table covers the bytes that the server sent; the hash of
//! the file covers the bytes that a restore would send. If both sums, the numbers of rows and the extents are equal, a restore
//! brings back exactly these rows.
//!
//! The code writes only into the store, and holds one row group (about 120,000 rows) in memory.
//!
//! Without the feature `archive`, no [`Archive`] can be opened; the registry still knows the archives of other builds.

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
