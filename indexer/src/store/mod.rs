//! PostgreSQL.

pub mod connect;
