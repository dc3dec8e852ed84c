//! The stages of a data transaction. Each statement is sent directly behind the previous one, without waiting for its answer; the
//! server runs them in this order, and the first failure causes the later ones.

use std::future::Future;
use std::pin::Pin;

use futures_util::future::join_all;

use super::StoreError;

/// A part of a data transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Rows of the datasets: COPY, DELETE.
    Rows,
    /// Blocks.
    Blocks,
    /// The state row's lock: checks the token and the expected tail. A refused writer has not held this lock.
    Fence,
    /// Checks that need the lock: the branch, the anchor, and that no other writer covered the range.
    Looks,
    /// The covered blocks, and their level.
    Coverage,
}

/// For a write that adds: long steps come before the lock, and steps under the lock are short.
pub(super) const ADDING: &[Stage] = &[Stage::Rows, Stage::Blocks, Stage::Fence, Stage::Looks, Stage::Coverage];
/// For a write that removes: behind its fence, because orphans carry its new epoch, and reorgs are rare and short.
pub(super) const REMOVING: &[Stage] = &[Stage::Rows, Stage::Blocks, Stage::Coverage];

/// The answers to statements that were sent one behind the other.
///
/// # Errors
/// The first error in their order: later ones may only say that the transaction has already failed.
pub(super) async fn all<T, E>(
    answers: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
) -> Result<Vec<T>, E> {
    join_all(answers).await.into_iter().collect()
}

type Step<'t> = Pin<Box<dyn Future<Output = Result<Option<i64>, StoreError>> + Send + 't>>;

/// A transaction's steps under way: each sends all of its messages before its first wait.
pub(super) struct Stages<'t> {
    order: &'static [Stage],
    steps: Vec<(Stage, Step<'t>)>,
}

impl<'t> Stages<'t> {
    pub fn new(order: &'static [Stage]) -> Self {
        Self { order, steps: Vec::new() }
    }

    /// Adds a step.
    #[must_use]
    pub fn then(mut self, stage: Stage, step: impl Future<Output = Result<(), StoreError>> + Send + 't) -> Self {
        self.steps.push((stage, Box::pin(async move { step.await.map(|()| None) })));
        self
    }

    /// Adds the fence, which returns the chain's new epoch.
    #[must_use]
    pub fn fence(mut self, step: impl Future<Output = Result<i64, StoreError>> + Send + 't) -> Self {
        self.steps.push((Stage::Fence, Box::pin(async move { step.await.map(Some) })));
        self
    }

    /// Runs all steps; returns the chain's new epoch.
    ///
    /// # Errors
    /// The error of the first failed step; also, before any step runs, if the steps are not in the order of the stages.
    pub async fn run(self) -> Result<i64, StoreError> {
        let why = || StoreError::Fatal { why: "a transaction has no fence".to_owned() };
        self.carry_out().await?.ok_or_else(why)
    }

    /// Runs all steps behind an earlier fence.
    ///
    /// # Errors
    /// As [`Stages::run`].
    pub async fn run_behind_the_fence(self) -> Result<(), StoreError> {
        self.carry_out().await.map(drop)
    }

    async fn carry_out(self) -> Result<Option<i64>, StoreError> {
        let place = |stage: &Stage| self.order.iter().position(|of| of == stage);
        let places: Option<Vec<usize>> = self.steps.iter().map(|(stage, _)| place(stage)).collect();
        if !places.is_some_and(|places| places.is_sorted()) {
            let stages: Vec<_> = self.steps.iter().map(|(stage, _)| stage).collect();
            let why = format!("a transaction goes through {stages:?}, which is not the order {:?}", self.order);
            return Err(StoreError::Fatal { why });
        }
        let mut epoch = None;
        for answer in join_all(self.steps.into_iter().map(|(_, step)| step)).await {
            epoch = answer?.or(epoch);
        }
        Ok(epoch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn of_answers_the_first_failure_in_order_is_told() {
        let late = async {
            tokio::task::yield_now().await;
            Err::<u8, _>("the cause")
        };
        assert_eq!(all([late.boxed(), async { Err("what follows from it") }.boxed()]).await, Err("the cause"));
        assert_eq!(all([async { Ok::<_, &str>(1) }]).await, Ok(vec![1]));
    }

    #[tokio::test]
    async fn steps_begin_in_order_and_the_first_failure_is_told() {
        let begun = Mutex::new(Vec::new());
        let step = |name: &'static str, answer: Result<(), &'static str>| {
            let begun = &begun;
            async move {
                begun.lock().unwrap().push(name);
                // Later steps are sent while this one waits for its answer.
                tokio::task::yield_now().await;
                answer.map_err(|why| StoreError::Fatal { why: why.into() })
            }
        };
        let stages = Stages::new(ADDING)
            .then(Stage::Rows, step("rows", Ok(())))
            .fence(async { step("fence", Ok(())).await.map(|()| 7) })
            .then(Stage::Coverage, step("coverage", Ok(())));
        assert_eq!(stages.run().await, Ok(7));
        assert_eq!(*begun.lock().unwrap(), ["rows", "fence", "coverage"]);

        let stages = Stages::new(ADDING)
            .then(Stage::Rows, step("rows", Err("first")))
            .then(Stage::Blocks, async { Err(StoreError::Fatal { why: "at once, but later".into() }) });
        assert_eq!(stages.run().await, Err(StoreError::Fatal { why: "first".into() }));
    }

    #[tokio::test]
    async fn however_many_statements_a_step_has_all_are_sent_before_the_next_step() {
        const STATEMENTS: usize = 500;
        let sent = Mutex::new(Vec::new());
        let send = |stage: Stage| {
            let sent = &sent;
            async move {
                sent.lock().unwrap().push(stage);
                tokio::task::yield_now().await;
                Ok::<_, StoreError>(())
            }
        };
        let rows = async { all((0..STATEMENTS).map(|_| send(Stage::Rows))).await.map(drop) };
        let stages = Stages::new(ADDING).then(Stage::Rows, rows).then(Stage::Blocks, send(Stage::Blocks));
        stages.fence(async { send(Stage::Fence).await.map(|()| 1) }).run().await.unwrap();
        let sent = sent.into_inner().unwrap();
        assert_eq!(sent.iter().position(|stage| *stage == Stage::Blocks), Some(STATEMENTS));
        assert_eq!(sent.last(), Some(&Stage::Fence));
    }

    #[tokio::test]
    async fn another_order_is_refused_before_anything_is_done() {
        let never = || async { unreachable!("nothing is done") };
        for (order, stages) in [(ADDING, [Stage::Coverage, Stage::Rows]), (REMOVING, [Stage::Rows, Stage::Looks])] {
            let refused = Stages::new(order).then(stages[0], never()).then(stages[1], never()).run().await.unwrap_err();
            assert!(refused.to_string().contains("which is not the order"), "{refused}");
        }
        assert!(Stages::new(ADDING).run().await.unwrap_err().to_string().contains("no fence"));
    }
}
