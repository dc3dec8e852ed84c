//! The entry points of the fuzz targets (`fuzz/`) into an archive. Only with the feature `fuzzing`: not part of the library.

use super::manifest::Manifest;
use super::{ArchiveError, store, types};

/// Every check of a manifest before its object is read: its path and its columns.
pub fn is_usable(manifest: &Manifest) -> Result<bool, ArchiveError> {
    store::object_of(manifest)?;
    Ok(types::columns_of(manifest).is_some())
}
