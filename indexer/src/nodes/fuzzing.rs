//! What the fuzz targets (`fuzz/`) read of a node's answers. Only with the feature `fuzzing`: no part of the library.

use super::header::RpcHeader;
pub use super::plain::Cursor;
pub use super::receipts::{parse as receipts, parse_each as each_receipt};
pub use super::refusal::{Refusal, retry_after};
use super::rpc::Answer;
use crate::chain::block::Header;

/// The header in the answer to a question for a block, as every node's answer is read; `None` for `null`, and for a header
/// without number, hash or a sane time.
///
/// # Errors
/// What is malformed and where.
pub fn header(answer: &Answer) -> Result<Option<Header>, serde_json::Error> {
    Ok(serde_json::from_str::<Option<RpcHeader>>(answer.get())?.and_then(RpcHeader::header))
}
