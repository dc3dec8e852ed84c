//! Headers in the nodes' form, and the request for one.

use alloy::primitives::{B256, Bloom, U64};
use serde::Deserialize;
use serde_json::json;

use super::rpc::Call;
use crate::chain::block::{BlockRef, Header, TIMES};

/// A node's newest block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its header.
    pub header: Header,
    /// The block tagged `finalized`; `None` if it was not asked, or the node has none yet.
    pub finalized: Option<BlockRef>,
}

/// Most headers per JSON-RPC batch.
pub(super) const HEADERS_PER_CALL: usize = 100;

pub(super) fn hex(number: u64) -> String {
    format!("{number:#x}")
}

pub(super) fn header_by_number(number: u64) -> Call {
    Call::new("eth_getBlockByNumber", json!([hex(number), false]))
}

/// The fields of a header that every EVM chain has; the other fields differ between chains and are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcHeader {
    pub(super) number: Option<U64>,
    pub(super) hash: Option<B256>,
    parent_hash: B256,
    pub(super) timestamp: U64,
    logs_bloom: Option<Box<Bloom>>,
}

impl RpcHeader {
    /// `None` for a pending block, which has no number or hash yet.
    pub fn header(self) -> Option<Header> {
        Some(Header {
            number: self.number?.to(),
            hash: self.hash?,
            parent: Some(self.parent_hash),
            // No chain has a block after the year 9999: such a time is in milliseconds, or nonsense.
            time: i64::try_from(self.timestamp.to::<u64>()).ok().filter(|time| TIMES.contains(time))?,
            bloom: self.logs_bloom,
        })
    }
}
