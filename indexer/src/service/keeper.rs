//! One chain from its start to the end of the process. After any end without a stop signal, it logs the reason, waits and
//! restarts: no chain ends another one, or the process.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, warn};

use super::error::ServiceError;
use super::meet::meet;
use super::tenure::Tenure;
use crate::backoff::Backoff;
use crate::config::{Chain, Finality};
use crate::driver::ChainError;
use crate::maintenance::Leaves;
use crate::nodes::heads::{News, follow};
use crate::status::ChainStatus;
use crate::store::lease::Lease;
use crate::store::{Store, StoreError};
use crate::task::{Lost, Watched};
use crate::timings::ChainTimings;

/// The result of the first start, for the waiting caller: an error if only the operator can mend it.
pub(super) type First = Arc<std::sync::Mutex<Option<oneshot::Sender<Result<(), ServiceError>>>>>;

/// The parts for the start of a chain.
#[derive(Clone)]
pub(super) struct Keeper {
    pub chain: Chain,
    pub store: Store,
    pub leaves: Arc<Leaves>,
    pub status: watch::Sender<ChainStatus>,
    pub first: First,
    pub timings: ChainTimings,
}

/// Pauses between two starts, the first and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Restarts until it ends well or `stop` turns true. Logs every other end before the pause: its error, or that it was lost.
async fn again_and_again<F, E>(
    first_pause: Duration,
    mut stop: watch::Receiver<bool>,
    begin: impl Fn() -> F,
    tell: impl Fn(Result<E, Lost>),
) where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let fresh = || Backoff::between(first_pause, LAST_PAUSE);
    let mut backoff = fresh();
    loop {
        let began = Instant::now();
        let ended = match Watched::spawn(begin()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Ok(error),
            Err(lost) => Err(lost),
        };
        if began.elapsed() > LAST_PAUSE {
            backoff = fresh();
        }
        tell(ended);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = backoff.pause() => {}
        }
    }
}

impl Keeper {
    /// Runs the chain until `stop` turns true.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let begin = || self.clone().once(stop.clone());
        again_and_again(FIRST_PAUSE, stop.clone(), begin, |ended| {
            let error = ended.unwrap_or_else(|lost| self.failed(lost.to_string()).into());
            let error = match error.is_for_the_operator() {
                // If the caller waits for the first start, the chain ends with it and reports the reason; it restarts only if no
                // caller waits.
                true => self.answer(Err(error)).and_then(Result::err),
                false => {
                    self.answer(Ok(()));
                    Some(error)
                }
            };
            if let Some(error) = error {
                self.tell(&error);
            }
        })
        .await;
    }

    /// Answers the caller that waits for the first start; returns the answer if no caller waits.
    fn answer(&self, outcome: Result<(), ServiceError>) -> Option<Result<(), ServiceError>> {
        match self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(first) => first.send(outcome).err(),
            None => Some(outcome),
        }
    }

    fn tell(&self, error: &ServiceError) {
        error!("stopped: {error}; it restarts");
        self.status.send_modify(|status| {
            let waits_for = format!("a new start: {error}");
            let stops = status.stops + 1;
            *status = ChainStatus { waits_for, stops, ..status.anew() };
        });
    }

    fn failed(&self, why: String) -> ChainError {
        ChainError { chain: self.chain.name.clone(), why }
    }

    /// One start, and its result.
    async fn once(self, mut stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
        let (chain, store) = (&self.chain, &self.store);
        let (nodes, new) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            met = meet(chain) => met?,
        };
        nodes.remember(&store.nodes(chain.chain_id).await?);
        self.leaves.learn(chain.chain_id).await?;
        if new.reset {
            store.reset_if_changed(&new).await?;
        }
        let source = new.source.clone();
        let mut lease = Lease::new(store, new);
        // The first bid is made here, so that a fault that prevents every bid is reported before the start. A temporary fault
        // (another process that starts at the same moment) is left to the next bid.
        let bid = match lease.bid().await {
            Err(StoreError::Retry { why }) => {
                warn!("the lease cannot be read yet: {why}");
                None
            }
            bid => Some(bid?),
        };
        self.answer(Ok(()));
        let devnet = if chain.finality == Finality::Never { None } else { nodes.devnet().await };
        if let Some(version) = &devnet {
            let name = &chain.name;
            warn!(
                "the node is a devnet ({version}) and reverts blocks that it calls final: set chains.{name}.finality = \
                 \"never\", otherwise reverted blocks stay stored"
            );
        }
        let (news, news_seen) = watch::channel(News::default());
        let heads = Watched::spawn(follow(nodes.clone(), chain.clone(), news, devnet.is_some()));
        let tenure = Tenure {
            chain: chain.clone(),
            nodes,
            source,
            store: store.clone(),
            leaves: self.leaves.clone(),
            lease: Arc::new(Mutex::new(lease)),
            news: news_seen,
            status: self.status.clone(),
            timings: self.timings.clone(),
        };
        tokio::select! {
            ended = tenure.run(bid, stop) => Ok(ended?),
            lost = heads => {
                let lost = lost.and_then(|ended| ended).err();
                Err(self.failed(lost.map_or("no task follows the head".into(), |lost| lost.to_string())).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chain_that_fails_or_panics_is_told_and_begun_anew() {
        let (_stop, stopped) = watch::channel(false);
        let (begun, told) = (Arc::new(std::sync::Mutex::new(0)), std::sync::Mutex::new(Vec::new()));
        let begin = || {
            let begun = begun.clone();
            async move {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                *begun += 1;
                match *begun {
                    1 => Err("no task works on a fetch".to_owned()),
                    2 => panic!("out of order"),
                    _ => Ok(()),
                }
            }
        };
        let tell = |ended: Result<String, Lost>| {
            told.lock().unwrap().push(ended.unwrap_or_else(|lost| lost.to_string()));
        };
        again_and_again(Duration::from_millis(1), stopped, begin, tell).await;
        let told = told.into_inner().unwrap();
        assert!(told.len() == 2 && told[0] == "no task works on a fetch", "{told:?}");
        assert!(told[1].contains("it panicked: out of order"), "{told:?}");
    }
}
