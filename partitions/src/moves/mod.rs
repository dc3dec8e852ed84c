//! The moves of leaves past their time, and the ways back.

pub(crate) mod attach;
pub(crate) mod exclusive;
pub(crate) mod hold;
pub(crate) mod refit;
pub(crate) mod restore;
pub(crate) mod retire;
pub(crate) mod undo;
pub(crate) mod unseal;
pub(crate) mod worker;
