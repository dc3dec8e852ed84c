//! What stands in the place of archives in a build without them: a type that has no values, so that nothing can be written or read.

use std::convert::Infallible;

use tokio_postgres::{Client, Transaction};

use super::{ArchiveError, Counted, Manifest};
use crate::{Bounds, Table};

/// Where archives are kept; there is none in a build without the feature `archive`.
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
    pub async fn write(
        &self,
        _client: &mut Client,
        _table: &Table,
        _key: i64,
        _leaf: &str,
        _bounds: Bounds,
        _version: u32,
    ) -> Result<Manifest, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn probe(&self) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn verify(&self, _manifest: &Manifest) -> Result<Counted, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn check(&self, _manifest: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn list(&self, _table: Option<&str>) -> Result<Vec<Manifest>, ArchiveError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn void(&self, _manifest: &Manifest) -> Result<(), ArchiveError> {
        match self.0 {}
    }

    pub(crate) async fn void_others(&self, _manifest: &Manifest) -> Result<(), ArchiveError> {
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

/// Always [`ArchiveError::NotBuilt`]: rows are counted as archives count them.
pub async fn count(_transaction: &Transaction<'_>, _table: &Table, _leaf: &str) -> Result<Counted, ArchiveError> {
    Err(ArchiveError::NotBuilt)
}
