//! The stage of tests and benchmarks: one private cluster and pooler per process, one database per test, one Anvil per test, and
//! the chain's own answer to compare the stored rows with.

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

/// One runtime for all tests of the process: they share a cluster, and its connections belong to the runtime.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("threads can be started")
});

/// Runs a test's body.
pub fn run<T>(body: impl Future<Output = T>) -> T {
    RUNTIME.block_on(body)
}

/// Runs a test's body on this thread alone, with its own runtime: no answer can arrive before the code waits for it. [`run`] must
/// have made the shared servers' part before.
pub fn run_alone<T>(body: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(body)
}
