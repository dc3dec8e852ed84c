//! What goes wrong at the moment, and how long a lane waits before it looks again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::backoff::Backoff;

/// What the last failing step said, for the status line; cleared by the next success.
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

/// Before another look at what is about to change.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long a lane waits after an answer that says no more than "not there": twice as long each time, until one brings something.
/// Such an answer comes without delay, and so would the next.
#[derive(Clone, Debug)]
pub(super) struct Patience(Arc<Mutex<Backoff>>);

impl Patience {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Self::fresh())))
    }

    fn fresh() -> Backoff {
        Backoff::between(Duration::from_millis(50), Duration::from_secs(3))
    }

    /// Something came.
    pub fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Self::fresh();
    }

    pub async fn wait(&self) {
        let pause = self.0.lock().unwrap_or_else(PoisonError::into_inner).advance();
        sleep(pause).await;
    }
}
