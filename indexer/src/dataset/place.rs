//! The place of a row.

use super::copy::{Fixed, pg_micros};
use crate::chain::block::Header;
use crate::chain::logs::Log;

/// The place of a row.
#[derive(Clone, Copy, Debug)]
pub struct Place<'h> {
    /// The chain's id, in stored form.
    pub chain_id: i64,
    /// The block's number, in stored form.
    pub number: i64,
    /// The block's time, in microseconds since 2000.
    pub time: i64,
    /// The block.
    pub header: &'h Header,
}

impl<'h> Place<'h> {
    pub(super) fn new(chain_id: i64, header: &'h Header) -> Self {
        // Refuses a time outside PostgreSQL's range before rows are encoded. It would be the last of all times, never the first:
        // old rows may be dropped. Numbers past 2^63 do not exist.
        let time = pg_micros(header.time).unwrap_or(i64::MAX - 1);
        Self { chain_id, number: i64::try_from(header.number).unwrap_or(i64::MAX), time, header }
    }

    /// Begins a row of `fields` fields with the key, for tables that begin with the key's columns.
    #[inline(always)]
    pub fn row<const SIZE: usize>(&self, fields: i16, log: &Log<'_>) -> Fixed<SIZE> {
        Fixed::row(fields).int8(self.chain_id).int8(self.time).int8(self.number).int4(log.log_index)
    }
}
