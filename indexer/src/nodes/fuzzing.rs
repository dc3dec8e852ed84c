//! The entry points of the fuzz targets (`fuzz/`) into a node's answers. Only with the feature `fuzzing`: not part of the
//! library.

use super::header::RpcHeader;
pub use super::plain::Cursor;
pub use super::receipts::{parse as receipts, parse_each as each_receipt};
pub use super::refusal::{Refusal, retry_after};
use super::rpc::Answer;
use crate::chain::block::Header;

/// The header in the answer to a request for a block, read as from any node; `None` for `null`, and for a header without number,
/// hash or a sane time.
///
/// # Errors
/// The malformed part and its position.
pub fn header(answer: &Answer) -> Result<Option<Header>, serde_json::Error> {
    Ok(serde_json::from_str::<Option<RpcHeader>>(answer.get())?.and_then(RpcHeader::header))
}
