//! Bounds the bytes of answers in memory: requests wait for each other if their answers would not fit together.
//!
//! A question holds its read bytes until it is done, and may ask again while it holds them. One question at a time may exceed the
//! limit until its end: it waits for nobody, so no two questions wait for each other, and an answer of any size gets through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The holders and their bytes. Pure.
#[derive(Debug)]
struct Ledger {
    limit: u64,
    held: u64,
    /// The holder that may exceed the limit.
    beyond: Option<u64>,
    next: u64,
}

impl Ledger {
    /// Takes `bytes` more for `holder` if possible, and returns whether it did.
    fn take(&mut self, holder: u64, bytes: u64) -> bool {
        if self.held.saturating_add(bytes) > self.limit && *self.beyond.get_or_insert(holder) != holder {
            return false;
        }
        self.held = self.held.saturating_add(bytes);
        true
    }

    /// `holder` releases its `bytes`.
    fn release(&mut self, holder: u64, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
        self.beyond = self.beyond.filter(|beyond| *beyond != holder);
    }
}

/// A limit on the bytes of all questions together.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    released: Notify,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

tokio::task_local! {
    /// The question of this task.
    static QUESTION: Arc<Hold>;
}

impl Budget {
    /// At most `limit` bytes, except for the one question that may exceed it.
    pub fn new(limit: u64) -> Self {
        let ledger = Mutex::new(Ledger { limit, held: 0, beyond: None, next: 0 });
        Self(Arc::new(Shared { ledger, released: Notify::new() }))
    }

    /// Runs a question: its read bytes count until it ends. A question within a question is part of it.
    pub async fn question<T>(&self, question: impl Future<Output = T>) -> T {
        match QUESTION.try_with(|_| ()) {
            Ok(()) => question.await,
            Err(_) => QUESTION.scope(Arc::new(self.hold()), question).await,
        }
    }

    /// As [`Budget::question`], but the read bytes count until the hold returned with the answer is dropped.
    pub async fn question_kept<T>(&self, question: impl Future<Output = T>) -> (T, Arc<Hold>) {
        let hold = Arc::new(self.hold());
        (QUESTION.scope(hold.clone(), question).await, hold)
    }

    /// The hold of the current question; for a call outside any question, a new hold.
    pub fn held(&self) -> Arc<Hold> {
        QUESTION.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(self.hold()))
    }

    /// Runs a question that other questions wait for while they hold memory: it waits for no memory, otherwise they would wait
    /// for each other. Its caller runs one at a time.
    pub async fn question_ahead<T>(&self, question: impl Future<Output = T>) -> T {
        QUESTION.scope(Arc::new(self.hold_as(true)), question).await
    }

    fn hold(&self) -> Hold {
        self.hold_as(false)
    }

    fn hold_as(&self, exempt: bool) -> Hold {
        let mut ledger = self.0.ledger();
        ledger.next += 1;
        Hold { budget: self.clone(), holder: ledger.next, taken: Mutex::new(0), exempt }
    }
}

/// Held bytes, released on drop.
#[derive(Debug)]
pub struct Hold {
    budget: Budget,
    holder: u64,
    taken: Mutex<u64>,
    /// Never waits, and is not counted.
    exempt: bool,
}

impl Hold {
    /// Takes `bytes` more if no wait is necessary.
    pub fn try_take(&self, bytes: u64) -> bool {
        // Exempt bytes are bounded by their callers: one at a time.
        let taken = self.exempt || self.budget.0.ledger().take(self.holder, bytes);
        if taken && !self.exempt {
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
        }
        taken
    }

    /// Takes `bytes` more, and returns the wait. Cancel-safe.
    pub async fn take(&self, bytes: u64) -> Duration {
        let began = Instant::now();
        loop {
            let mut released = std::pin::pin!(self.budget.0.released.notified());
            // From here on a release is not missed.
            released.as_mut().enable();
            if self.try_take(bytes) {
                return began.elapsed();
            }
            released.await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let taken = *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.budget.0.ledger().release(self.holder, taken);
        self.budget.0.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn ledger(limit: u64) -> Ledger {
        Ledger { limit, held: 0, beyond: None, next: 0 }
    }

    #[test]
    fn one_may_go_beyond_and_the_others_wait_for_it() {
        let mut ledger = ledger(10);
        assert!(ledger.take(1, 6) && ledger.take(2, 4), "what fits is taken");
        assert!(ledger.take(2, 50), "the first that does not fit goes beyond");
        assert!(!ledger.take(1, 1) && !ledger.take(3, 1), "and is the only one");
        assert!(ledger.take(2, 1), "for as long as it lasts");
        ledger.release(2, 55);
        assert!(ledger.take(3, 4) && ledger.take(1, 9) && !ledger.take(3, 1));
    }

    /// Questions of random sizes, in random order: one can always continue, and never two exceed the limit.
    #[test]
    fn nobody_waits_for_ever_and_the_bound_holds() {
        const LIMIT: u64 = 100;
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut ledger = ledger(LIMIT);
            // The taken and the remaining bytes of each.
            let mut open: Vec<(u64, u64, u64)> = (0..8).map(|id| (id, 0, rng.random_range(0..300))).collect();
            while !open.is_empty() {
                let at = rng.random_range(0..open.len());
                let moves = |ledger: &mut Ledger, (id, taken, left): &mut (u64, u64, u64), step: u64| {
                    let step = step.min(*left);
                    let taken_now = ledger.take(*id, step);
                    if taken_now {
                        (*taken, *left) = (*taken + step, *left - step);
                    }
                    taken_now
                };
                let step = rng.random_range(1..40);
                let went_on = moves(&mut ledger, &mut open[at], step)
                    || open.iter_mut().any(|holder| moves(&mut ledger, holder, step));
                assert!(went_on, "seed {seed}: nobody can go on: {ledger:?} {open:?}");
                let largest = open.iter().map(|(_, taken, _)| *taken).max().unwrap_or(0);
                assert!(ledger.held <= LIMIT + largest, "seed {seed}: {ledger:?} {open:?}");
                open.retain(|(id, taken, left)| {
                    if *left == 0 {
                        ledger.release(*id, *taken);
                    }
                    *left > 0
                });
            }
            assert_eq!((ledger.held, ledger.beyond), (0, None), "seed {seed}");
        }
    }

    #[tokio::test]
    async fn a_question_holds_until_it_ends_and_asks_again_without_waiting_for_itself() {
        let budget = Budget::new(10);
        let mut others = tokio::task::JoinSet::new();
        let first = budget.question(async {
            budget.held().take(8).await;
            // Questions within are part of it.
            budget.question(async { budget.held().take(8).await }).await;
            let waiting = budget.clone();
            others.spawn(async move { waiting.held().take(1).await });
            tokio::task::yield_now().await;
            assert_eq!((budget.0.ledger().held, others.try_join_next().is_none()), (16, true));
        });
        first.await;
        assert!(others.join_next().await.is_some_and(|waited| waited.is_ok()));
        assert_eq!(budget.0.ledger().held, 0, "all is given back");
    }

    #[tokio::test]
    async fn what_was_read_counts_until_its_hold_is_dropped() {
        let budget = Budget::new(10);
        let ((), hold) = budget.question_kept(budget.question(async { _ = budget.held().take(7).await })).await;
        assert_eq!(budget.0.ledger().held, 7);
        drop(hold);
        assert_eq!(budget.0.ledger().held, 0);
    }

    #[tokio::test]
    async fn a_question_that_is_given_up_holds_nothing() {
        let budget = Budget::new(10);
        let mut question = Box::pin(budget.question(async {
            budget.held().take(50).await;
            std::future::pending::<()>().await;
        }));
        assert!(futures_util::poll!(&mut question).is_pending());
        assert_eq!(budget.0.ledger().held, 50);
        drop(question);
        // One guard at a time.
        let ledger = budget.0.ledger();
        assert_eq!((ledger.held, ledger.beyond), (0, None));
    }
}
