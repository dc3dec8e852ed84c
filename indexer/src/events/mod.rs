//! From logs to typed rows. Pure.

pub mod erc20;
