//! dalp-indexer: a chain indexer for PostgreSQL.

pub mod api;
pub mod cli;
pub mod config;
pub mod status;
pub mod store;
pub mod telemetry;
