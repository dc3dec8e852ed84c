//! The existing leaves: read from the catalog, made, indexed, analyzed and checked.

pub(crate) mod analyze;
pub(crate) mod audit;
pub(crate) mod blockers;
pub(crate) mod catalog;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod index;
pub(crate) mod shape;
pub(crate) mod sizes;
pub(crate) mod template;
