//! The contracts of a chain that this process knows.

use std::sync::Arc;

use crate::dataset::Directory;

/// The contracts of a chain that this process knows.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownContracts {
    /// Shared with those who sort by it: a change copies it while they do, and nobody waits.
    pub directory: Arc<Directory>,
    /// How often contracts with undecoded logs may have come.
    pub news: u64,
    /// At how many of these the undecoded contracts were read.
    pub seen: u64,
}
