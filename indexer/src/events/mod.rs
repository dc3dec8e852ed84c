//! From logs to typed rows. Pure.

pub mod erc20;
pub mod untyped;
