//! The wait for a lock, and the number of tries.

use std::time::Duration;

/// The wait for a table lock per try: later sessions wait behind ours.
pub(crate) const PATIENCE: &str = "200ms";
/// Tries of a move whose lock another session holds, if a caller waits for the move.
pub(crate) const TRIES: u32 = 10;
/// The wait of FINALIZE per try: less than deadlock_timeout, after which a blocking autovacuum would be cancelled.
pub(crate) const FINALIZE_PATIENCE: &str = "800ms";

/// Pause after the first try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Doubles, with jitter of half each way, so that several managers do not return together.
pub(crate) fn pause(retries: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << retries.min(16)).min(LONGEST_PAUSE);
    pause.mul_f64(rand::random_range(0.5..1.5))
}
