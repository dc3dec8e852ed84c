//! Repeated steps that change nothing, from any cause: detected, slowed down and named. Pure except for the random pauses.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// The number of such steps in a row before they are slowed down: more than any normal path to the next block has.
const MANY: u32 = 64;
const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(10);

/// Watches one loop.
#[derive(Debug)]
pub(super) struct Stillness<M> {
    mark: Option<M>,
    steps: u32,
    pauses: Backoff,
    /// The earliest time of the next step.
    until: Option<Instant>,
}

impl<M: PartialEq> Stillness<M> {
    pub fn new() -> Self {
        Self { mark: None, steps: 0, pauses: Backoff::between(FIRST, LAST), until: None }
    }

    /// A step was made; `mark` differs from the last one if it changed something. `true` if steps are slowed down from now on.
    pub fn step(&mut self, mark: M, now: Instant) -> bool {
        if self.mark.as_ref() != Some(&mark) {
            *self = Self { mark: Some(mark), ..Self::new() };
            return false;
        }
        self.steps = self.steps.saturating_add(1);
        if self.steps >= MANY {
            self.until = Some(now + self.pauses.advance());
        }
        self.steps == MANY
    }

    /// Whether the loop repeats itself.
    pub fn is_still(&self) -> bool {
        self.steps >= MANY
    }

    /// Whether the next step has to wait.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// Waits until the next step may be made; pending where none has to wait.
    pub async fn over(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_changes_nothing_is_slowed_down_until_something_changes() {
        let (mut still, now) = (Stillness::new(), Instant::now());
        let mut told = 0;
        let mut clock = now;
        for _ in 0..1_000 {
            if still.holds(clock) {
                clock += LAST;
            }
            told += u32::from(still.step(7, clock));
        }
        assert_eq!(told, 1, "it is named once");
        assert!(clock - now >= LAST * 900, "no faster than its pace");
        still.step(8, clock);
        assert!(!still.is_still() && !still.holds(clock));
    }
}
