//! How long a lock is waited for, and how often it is asked for.

use std::time::Duration;

/// How long a lock on a table is waited for at a time: whoever comes after us waits behind us.
pub(crate) const PATIENCE: &str = "200ms";
/// Tries of a move that needs a lock which somebody else has, where somebody waits for it.
pub(crate) const TRIES: u32 = 10;
/// How long FINALIZE waits at a time: under deadlock_timeout, past which an autovacuum in the way would be cancelled.
pub(crate) const FINALIZE_PATIENCE: &str = "800ms";

/// Pause after the first try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Doubling, with jitter of a half each way, so that several managers do not come back together.
pub(crate) fn pause(retries: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << retries.min(16)).min(LONGEST_PAUSE);
    pause.mul_f64(rand::random_range(0.5..1.5))
}
