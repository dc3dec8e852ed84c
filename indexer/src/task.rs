//! Tasks with an owner: a lost task is its owner's error, and no task outlives its owner. Only the owner awaits a task.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tracing::{Instrument as _, debug, info, warn};

/// A task that ended without its result, or a missing task that its owner waits for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task ended unexpectedly: {0}; report this with the log")]
pub struct Lost(String);

impl Lost {
    /// The awaited result, which no task will bring.
    pub fn nobody_is_at(what: impl std::fmt::Display) -> Self {
        Self(format!("no task works on {what}, and the chain waits for it"))
    }

    fn joined(error: JoinError) -> Self {
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

/// An awaited task, which ends when it is dropped.
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
        Pin::new(&mut self.0).poll(context).map_err(Lost::joined)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tasks of one owner, each by its name. They finish in any order, and end when the group is dropped.
#[derive(Debug)]
pub struct Group<K, T> {
    tasks: JoinSet<T>,
    names: HashMap<Id, K>,
}

impl<K, T: 'static> Default for Group<K, T> {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new() }
    }
}

impl<K: PartialEq, T: Send + 'static> Group<K, T> {
    /// Begins one, within the span of its owner.
    pub fn spawn(&mut self, name: K, work: impl Future<Output = T> + Send + 'static) {
        let task = self.tasks.spawn(work.in_current_span());
        self.names.insert(task.id(), name);
    }

    /// The next finished task, with its result or the cause of its loss; pending while none is under way. Cancel-safe.
    pub async fn next(&mut self) -> (K, Result<T, Lost>) {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(ended) => {
                    if let Some(ended) = self.ended(ended) {
                        return ended;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// A task that has finished by now.
    pub fn try_next(&mut self) -> Option<(K, Result<T, Lost>)> {
        let ended = self.tasks.try_join_next_with_id()?;
        self.ended(ended)
    }

    fn ended(&mut self, ended: Result<(Id, T), JoinError>) -> Option<(K, Result<T, Lost>)> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(Lost::joined(error))),
        };
        Some((self.names.remove(&id)?, result))
    }

    /// Whether a task of that name is under way, or has finished and was not received yet.
    pub fn has(&self, name: &K) -> bool {
        self.names.values().any(|known| known == name)
    }

    /// Whether every result was received.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Ends all tasks; their results are dropped.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Statements beside the indexing, which continues without them: a failure is logged once, until it works again, and always
/// counted.
#[derive(Debug, Default)]
pub struct Beside {
    /// The statements whose last try failed.
    failing: BTreeSet<&'static str>,
    failures: u64,
}

impl Beside {
    /// Records the result of `what`; returns whether it failed.
    pub fn tell(&mut self, what: &'static str, outcome: Result<(), String>) -> bool {
        let Err(why) = outcome else {
            if self.failing.remove(what) {
                info!(what, "works again");
            }
            return false;
        };
        self.failures += 1;
        match self.failing.insert(what) {
            true => warn!(what, "failed beside the indexing, and indexing continues: {why}"),
            false => debug!(what, "failed again: {why}"),
        }
        true
    }

    /// The number of failures.
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

    /// The next task of a group; a silently lost task causes no endless wait.
    async fn heard<T: Send + 'static>(group: &mut Group<&'static str, T>) -> (&'static str, Result<T, Lost>) {
        tokio::time::timeout(std::time::Duration::from_secs(60), group.next()).await.expect("it is heard of")
    }

    #[tokio::test]
    async fn each_task_of_a_group_brings_its_result_or_is_lost_by_its_name() {
        let mut group: Group<&str, u32> = Group::default();
        group.spawn("well", async { 7 });
        assert_eq!(heard(&mut group).await, ("well", Ok(7)));
        group.spawn("bad", async { panic!("no more") });
        let (name, lost) = heard(&mut group).await;
        assert!(name == "bad" && lost.unwrap_err().to_string().contains("it panicked: no more"));
        // Cancelled, and not by its owner.
        group.spawn("cut", std::future::pending());
        group.tasks.abort_all();
        let (name, lost) = heard(&mut group).await;
        assert!(name == "cut" && lost.is_err() && !group.has(&"cut"));
        group.spawn("forgotten", std::future::pending());
        assert!(group.has(&"forgotten"));
        group.forget();
        assert!(!group.has(&"forgotten") && group.try_next().is_none(), "its owner does not want it");
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
