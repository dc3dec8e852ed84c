//! Replaces archives in a build without them: the type has no values, so no code can write or read an archive.

use std::collections::HashMap;
use std::convert::Infallible;

use tokio_postgres::{Client, Transaction};

use super::{ArchiveError, Claim, Counted, Listing, Manifest, ManifestColumn, Marker, Probed, Subject};
use crate::Table;

/// The place of archives; it does not exist in a build without the feature `archive`.
#[derive(Clone, Debug)]
pub struct Archive(Infallible);

impl Archive {
    /// Always [`ArchiveError::NotBuilt`].
    pub fn open(_url: &str, _options: impl IntoIterator<Item = (String, String)>) -> Result<Self, ArchiveError> {
        Err(ArchiveError::NotBuilt)
    }

    /// Cannot be called.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn write(&self, _: &mut Client, _: &Table, _: &Subject<'_>) -> Result<Manifest, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn probe(&self) -> Result<Probed, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn verify(&self, _: &Manifest) -> Result<Counted, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn check(&self, _: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn check_manifest(&self, _: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn list(&self, _: Option<&str>) -> Result<Listing, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn void(&self, _: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn replace_manifest(&self, _: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn void_earlier(&self, _: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    pub(crate) fn make(&self) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn marker(&self) -> Result<Option<Marker>, ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn mark(&self, _: &Marker) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn newest_claim(&self) -> Result<Option<Claim>, ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn claim(&self, _: &Claim) -> Result<Claim, ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn sizes(&self, _: &str) -> Result<HashMap<String, u64>, ArchiveError> {
        match self.0 {}
    }

    pub(crate) fn judge(&self, _: &Manifest, _: &HashMap<String, u64>) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn load(
        &self,
        _transaction: &Transaction<'_>,
        _manifest: &Manifest,
        _into: &str,
    ) -> Result<Counted, ArchiveError> {
        match self.0 {}
    }
}

/// Always [`ArchiveError::NotBuilt`]: rows are counted in the same way as in archives.
pub async fn count(_transaction: &Transaction<'_>, _table: &Table, _leaf: &str) -> Result<Counted, ArchiveError> {
    Err(ArchiveError::NotBuilt)
}

/// Always [`ArchiveError::NotBuilt`].
pub(crate) async fn count_as(
    _transaction: &Transaction<'_>,
    _manifest: &Manifest,
    _relation: &str,
) -> Result<Counted, ArchiveError> {
    Err(ArchiveError::NotBuilt)
}

/// Always [`ArchiveError::NotBuilt`].
pub(crate) async fn recount(
    _transaction: &Transaction<'_>,
    _manifest: &Manifest,
    _relation: &str,
) -> Result<Counted, ArchiveError> {
    Err(ArchiveError::NotBuilt)
}

/// Always empty: this build has no archives.
pub(crate) fn is_written(_column: &ManifestColumn) -> bool {
    false
}

/// Always [`ArchiveError::NotBuilt`].
pub(crate) fn safe_type<'c>(_manifest: &Manifest, _column: &'c ManifestColumn) -> Result<&'c str, ArchiveError> {
    Err(ArchiveError::NotBuilt)
}
