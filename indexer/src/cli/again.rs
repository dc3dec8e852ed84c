//! What the database may be able to do a moment later.

use tracing::warn;

use crate::backoff::Backoff;
use crate::store::StoreError;

/// How often the database is asked before a command gives up.
const ASKED: u32 = 6;

/// Carries out what the database may be able to do a moment later, such as after a takeover, which ends what was begun
/// before: a few times, with growing pauses.
///
/// # Errors
/// The last try's.
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
