//! The use of PostgreSQL in general: the begin of transactions, lock waits, and the meaning of refusals.

pub(crate) mod failure;
pub(crate) mod patience;
pub(crate) mod session;
pub(crate) mod wire;
