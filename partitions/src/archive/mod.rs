//! STUB
#![allow(missing_docs)]
use crate::{Bounds, Table};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Transaction};
#[derive(Debug)]
pub struct Archive {}
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct ArchiveError;
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub rows: u64,
}
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub rows: u64,
}
impl Manifest {
    pub fn is_of(&self, c: &Counted) -> bool {
        self.rows == c.rows
    }
}
impl Archive {
    pub async fn write(
        &self,
        _c: &mut Client,
        _t: &Table,
        _k: i64,
        _l: &str,
        _b: Bounds,
        _v: u32,
    ) -> Result<Manifest, ArchiveError> {
        Err(ArchiveError)
    }
    pub async fn verify(&self, _m: &Manifest) -> Result<Counted, ArchiveError> {
        Err(ArchiveError)
    }
    pub async fn void_others(&self, _m: &Manifest) -> Result<(), ArchiveError> {
        Err(ArchiveError)
    }
    pub async fn load(&self, _t: &Transaction<'_>, _m: &Manifest, _i: &str) -> Result<Counted, ArchiveError> {
        Err(ArchiveError)
    }
}
pub async fn count(_t: &Transaction<'_>, _table: &Table, _l: &str) -> Result<Counted, ArchiveError> {
    Err(ArchiveError)
}
