//! The stage on which tests and benchmarks play: one private cluster and pooler a process, one database a test, one
//! Anvil a test, and the chain's own answer to compare stored rows with.

pub mod counts;
pub mod cut;
pub mod indexer;
pub mod lease;
pub mod made_up;
pub mod proxy;
pub mod stage;
pub mod traffic;
pub mod truth;

use std::future::Future;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// One runtime for all tests of the process, since they share a cluster whose connections belong to it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("threads can be started")
});

/// Runs a test's body.
pub fn run<T>(body: impl Future<Output = T>) -> T {
    RUNTIME.block_on(body)
}

/// Runs a test's body on this thread alone, with a runtime of its own: no answer can come before it is waited for. What belongs
/// to the shared servers must have been made by [`run`] before.
pub fn run_alone<T>(body: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(body)
}
