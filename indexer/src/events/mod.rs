//! The meaning of a log's words: the events of an ABI, their types, and their values. Pure.

pub mod abi;
pub mod catalogue;
pub mod data;
pub mod name;
mod signature;
pub mod ty;

use alloy::primitives::{B256, b256};

/// keccak256("Transfer(address,address,uint256)"), the first topic of ERC-20's transfers with three topics, and of ERC-721's with
/// four.
pub const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
