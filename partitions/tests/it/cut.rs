//! A future that is dropped at one of its awaits.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// Polls `future` until it waited `times` times, then drops it. `None` when it was dropped.
pub async fn cut<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut waited = 0;
    poll_fn(move |context| {
        if waited == times {
            return Poll::Ready(None);
        }
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => {
                waited += 1;
                // The n-th wait is cut while it lasts, not when it is over.
                if waited == times { Poll::Ready(None) } else { Poll::Pending }
            }
        }
    })
    .await
}
