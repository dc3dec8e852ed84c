//! For the fuzz targets alone.

use alloy::primitives::B256;
use bytes::Bytes;

use super::copy::{CopyBuffer, fields};
use super::place::Place;
use super::table::Dataset;
use crate::chain::block::Header;
use crate::chain::logs::Log;

/// The cells of the row of a log, whose number of topics chooses one of the forms of the table's event.
///
/// # Errors
/// The reason of its refusal.
pub fn decoded(dataset: &Dataset, log: &Log<'_>) -> Result<Vec<Option<Bytes>>, String> {
    let forms = dataset.event().into_iter().flat_map(|event| &event.forms);
    let form = forms.into_iter().find(|form| form.topics == log.topics.len()).ok_or("no form")?;
    let header = Header { number: 1, hash: B256::ZERO, parent: None, time: 1_000_000_000, bloom: None };
    let mut row = CopyBuffer::new(0);
    form.decoder.decode(&Place::new(1, &header), log, &mut row).map_err(|why| why.to_string())?;
    Ok(fields(&[row.take(0)]).pop().unwrap_or_default())
}
