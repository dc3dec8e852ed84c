//! The present failure, and the wait of a lane before it looks again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::backoff::Backoff;

/// The message of the last failing step, for the status line; the next success clears it.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    pub fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The pause before another look at something that is about to change.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The wait of a lane after an answer that only says "missing": doubles each time, until an answer has data. Such an answer
/// arrives without delay, and so would the next.
#[derive(Clone, Debug)]
pub(super) struct Patience(Arc<Mutex<Backoff>>);

impl Patience {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Self::fresh())))
    }

    fn fresh() -> Backoff {
        Backoff::between(Duration::from_millis(50), Duration::from_secs(3))
    }

    /// Data arrived.
    pub fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Self::fresh();
    }

    pub async fn wait(&self) {
        let pause = self.0.lock().unwrap_or_else(PoisonError::into_inner).advance();
        sleep(pause).await;
    }
}
