//! The intended state of leaves, in rows beside the catalog: states, holds, floors and archives, and the record of operations.

pub(crate) mod activity;
pub(crate) mod claim;
pub(crate) mod floor;
pub(crate) mod hindered;
pub(crate) mod holds;
pub(crate) mod install;
pub(crate) mod inventory;
pub(crate) mod newest;
pub(crate) mod rule;
pub(crate) mod seal;
pub(crate) mod survey;
pub(crate) mod transition;
