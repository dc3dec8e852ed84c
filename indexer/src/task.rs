//! Tasks with an owner: one that is lost is its owner's error, and none outlives who began it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};
use tracing::{Instrument as _, debug, info, warn};

/// A task that ended without its result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task ended unexpectedly: {0}; please report this")]
pub struct Lost(String);

impl From<JoinError> for Lost {
    fn from(error: JoinError) -> Self {
        let cause = match error.try_into_panic() {
            Ok(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                format!("it panicked: {}", text.unwrap_or("without words"))
            }
            Err(error) => error.to_string(),
        };
        Self(cause)
    }
}

/// A task that is awaited, and ends when it is dropped.
#[derive(Debug)]
#[must_use = "a task that is dropped ends"]
pub struct Watched<T>(JoinHandle<T>);

impl<T: Send + 'static> Watched<T> {
    /// Begins it, within the span of its owner.
    pub fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work.in_current_span()))
    }
}

impl<T> Future for Watched<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(Lost::from)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is done beside the indexing, which goes on without it: a failure is told once, until it works again, and counted always.
#[derive(Debug, Default)]
pub struct Beside {
    /// What failed when it was last tried.
    failing: BTreeSet<&'static str>,
    failures: u64,
}

impl Beside {
    /// How `what` ended; whether it failed.
    pub fn tell(&mut self, what: &'static str, outcome: Result<(), String>) -> bool {
        let Err(why) = outcome else {
            if self.failing.remove(what) {
                info!(what, "works again");
            }
            return false;
        };
        self.failures += 1;
        match self.failing.insert(what) {
            true => warn!(what, "failed beside the indexing, which goes on: {why}"),
            false => debug!(what, "failed again: {why}"),
        }
        true
    }

    /// How often something failed.
    pub fn failures(&self) -> u64 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_owners_error_and_a_dropped_owner_ends_its_task() {
        let lost = Watched::spawn(async { assert_eq!(1 + 1, 3, "arithmetic") }).await.unwrap_err();
        assert!(lost.to_string().contains("arithmetic"), "{lost}");
        let (ended, seen) = tokio::sync::oneshot::channel::<()>();
        drop(Watched::spawn(async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        }));
        seen.await.expect_err("its end is dropped with it");
    }

    #[test]
    fn what_fails_is_counted_each_time_and_told_once() {
        let mut beside = Beside::default();
        let no = || Err("no".to_owned());
        assert!(beside.tell("a", no()) && beside.tell("a", no()) && beside.tell("b", no()));
        assert_eq!((beside.failures(), beside.failing.len()), (3, 2));
        assert!(!beside.tell("a", Ok(())));
        assert_eq!((beside.failures(), beside.failing.len()), (3, 1));
    }
}
