//! How this crate speaks to PostgreSQL, whatever it says: how transactions begin, how long a lock is waited for, what a refusal means.

pub(crate) mod failure;
pub(crate) mod patience;
pub(crate) mod session;
pub(crate) mod wire;
