//! What the fuzz targets (`fuzz/`) read of an archive. Only with the feature `fuzzing`: no part of the library.

use super::manifest::Manifest;
use super::{ArchiveError, store, types};

/// All that is read of a manifest before its object is: whether its path and its columns are of this program.
pub fn is_usable(manifest: &Manifest) -> Result<bool, ArchiveError> {
    store::object_of(manifest)?;
    Ok(types::columns_of(manifest).is_some())
}
