//! dalp-indexer: streams chain events into time-partitioned PostgreSQL tables.

pub mod api;
mod backoff;
pub mod chain;
pub mod cli;
pub mod config;
pub mod dataset;
mod driver;
pub mod events;
pub mod maintenance;
pub mod nodes;
pub mod service;
#[cfg(test)]
mod simulation;
mod spans;
pub mod status;
pub mod store;
mod task;
pub mod telemetry;
pub mod timings;
