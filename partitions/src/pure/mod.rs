//! Decisions and their words: no async, no clock, no socket, no file. The present state, the needs and the time of day are
//! arguments.

pub(crate) mod advice;
pub(crate) mod bounds;
pub(crate) mod finding;
pub(crate) mod forecast;
pub(crate) mod hindrance;
pub(crate) mod hindrances;
pub(crate) mod hold;
pub(crate) mod interval;
pub(crate) mod leaf;
pub(crate) mod lifecycle;
pub(crate) mod names;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod registry;
pub(crate) mod retention;
pub(crate) mod sizing;
pub(crate) mod table;
pub(crate) mod time;
