//! Pauses between tries: doubling, capped, and of random length, so that many clients of one node do not return together.

use std::time::Duration;

use tokio::time::sleep;

/// Pauses that double from the first to the last.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// From 100 ms to 5 s: for an operation that will soon work again.
    pub fn new() -> Self {
        Self::between(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// From 25 ms to 5 s: for a block near the head, which later blocks wait for. Most failures end at the next try.
    pub fn near_head() -> Self {
        Self::between(Duration::from_millis(25), Duration::from_secs(5))
    }

    /// From `first` to `last`.
    pub fn between(first: Duration, last: Duration) -> Self {
        Self { next: first, last }
    }

    /// The next pause.
    pub fn advance(&mut self) -> Duration {
        let pause = jittered(self.next, rand::random());
        self.next = (self.next * 2).min(self.last);
        pause
    }

    /// Sleeps for the next pause.
    pub async fn pause(&mut self) {
        self.pause_at_least(None).await;
    }

    /// Sleeps for the next pause, or for the pause that a node asked for if it is longer; not longer than the last pause, because
    /// another node may be back by then, and the node that asked is not called early anyway.
    pub async fn pause_at_least(&mut self, asked: Option<Duration>) {
        let pause = self.advance();
        sleep(pause.max(asked.unwrap_or_default().min(self.last))).await;
    }
}

/// From half of `pause` to all of it; `random` in 0..1.
pub fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_shorter_than_half_nor_longer_than_itself() {
        let pause = Duration::from_secs(2);
        assert_eq!(jittered(pause, 0.0), Duration::from_secs(1));
        assert_eq!(jittered(pause, 0.5), Duration::from_millis(1_500));
        assert_eq!(jittered(pause, 1.0), pause);
    }
}
