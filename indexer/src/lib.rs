//! dalp-indexer: streams chain events into time-partitioned PostgreSQL tables.

pub mod chain;
pub mod events;
