//! dalp-indexer: streams chain events into time-partitioned PostgreSQL tables.

pub mod api;
pub mod chain;
pub mod config;
pub mod events;
pub mod source;
pub mod status;
pub mod store;
pub mod telemetry;
