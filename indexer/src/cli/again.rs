//! Statements that the database may accept a moment later.

use tracing::warn;

use crate::backoff::Backoff;
use crate::store::StoreError;

/// The number of tries before a command gives up.
const ASKED: u32 = 6;

/// Runs a statement that the database may accept a moment later, such as after a takeover, which ends older work: a few times,
/// with growing pauses.
///
/// # Errors
/// The error of the last try.
pub(super) async fn again<T, F>(mut step: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new();
    for _ in 1..ASKED {
        match step().await {
            Err(StoreError::Retry { why }) => warn!("{why}"),
            done => return done,
        }
        backoff.pause().await;
    }
    step().await
}
