//! One chain in this process: stands by while another process leads it, and leads it after the end of that process's lease.

use std::convert::Infallible;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::chain::source::Source;
use crate::config::Chain;
use crate::driver::{ChainError, Context, Driver, End, Newcomers, decode_stored, read_tokens, register};
use crate::maintenance::Leaves;
use crate::nodes::Nodes;
use crate::nodes::heads::News;
use crate::status::{ChainStatus, Role};
use crate::store::chain::State;
use crate::store::lease::{Bid, Lease, POLL, RENEWAL};
use crate::store::{Claim, Store, StoreError, timestamp};
use crate::task::Watched;
use crate::timings::ChainTimings;

/// All parts of a chain, already connected: a takeover waits for no connection.
pub(super) struct Tenure {
    pub chain: Chain,
    pub nodes: Arc<Nodes>,
    pub source: Source,
    pub store: Store,
    pub leaves: Arc<Leaves>,
    pub lease: Arc<Mutex<Lease>>,
    pub news: watch::Receiver<News>,
    pub status: watch::Sender<ChainStatus>,
    pub timings: ChainTimings,
}

impl Tenure {
    /// Leads or stands by, in turns, until `stop` turns true. `bid` is the result of the first bid, if it was made.
    ///
    /// # Errors
    /// [`ChainError`] for a fault that neither a retry nor another leader mends.
    pub async fn run(self, mut bid: Option<Bid>, mut stop: watch::Receiver<bool>) -> Result<(), ChainError> {
        loop {
            let Some(claim) = self.stand_by(bid.take(), &mut stop).await? else { return Ok(()) };
            match self.lead(claim, stop.clone()).await? {
                End::Stopped => return Ok(()),
                End::Fenced => {
                    warn!("fenced: another dalp-indexer leads this chain now; this process stops writing and stands by")
                }
            }
        }
    }

    /// Bids until this process leads the chain; none after an earlier stop signal.
    async fn stand_by(
        &self,
        mut bid: Option<Bid>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Claim>, ChainError> {
        let mut leader = None;
        loop {
            let outcome = match bid.take() {
                Some(bid) => Ok(bid),
                None => tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                    outcome = async { self.lease.lock().await.bid().await } => outcome,
                },
            };
            match outcome {
                Ok(Bid::Won(claim)) => return Ok(Some(claim)),
                Ok(Bid::Held { holder, until }) => {
                    self.publish_standby(standby(&holder, until));
                    if leader.as_ref() != Some(&holder) {
                        info!("standby: {holder} leads; this process takes over when that lease ends");
                        leader = Some(holder);
                    }
                }
                Err(StoreError::Fatal { why }) => return Err(self.failed(why)),
                Err(error) => self.publish_standby(format!("standby: {error}")),
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                () = sleep(POLL) => {}
            }
        }
    }

    /// Indexes under `claim` until it is fenced, gets the stop signal, or fails. Unless it was fenced, it releases the lease at
    /// the end.
    async fn lead(&self, claim: Claim, stop: watch::Receiver<bool>) -> Result<End, ChainError> {
        // A separate task: encoding a large batch must not delay a renewal.
        let mut keeper = Watched::spawn(keep(self.lease.clone(), claim.clone()));
        let end = tokio::select! {
            end = self.index(claim.clone(), stop) => end,
            ended = &mut keeper => match ended {
                Ok(()) => Ok(End::Fenced),
                Err(lost) => Err(self.failed(format!("the renewal of its lease: {lost}"))),
            },
        };
        // The holder of this lock is not inside a renewal.
        let mut lease = self.lease.lock().await;
        drop(keeper);
        if !matches!(end, Ok(End::Fenced))
            && let Err(error) = lease.release(&claim).await
        {
            warn!("the lease was not released and expires by itself: {error}");
        }
        end
    }

    async fn index(&self, claim: Claim, mut stop: watch::Receiver<bool>) -> Result<End, ChainError> {
        self.status.send_modify(|status| {
            status.role = Role::Leader;
            status.waits_for = "the state row".into();
        });
        // The earlier leader may have made some. Unknown leaves cost a query when they are needed.
        if let Err(error) = self.leaves.learn(claim.chain_id).await {
            warn!("the partitions are not known yet: {error}");
            self.leaves.book.forget(claim.chain_id);
        }
        let context = Context {
            nodes: self.nodes.clone(),
            store: self.store.clone(),
            leaves: self.leaves.clone(),
            claim,
            source: self.source.clone(),
            timings: self.timings.clone(),
            newcomers: Newcomers::default(),
        };
        let (undecoded, state) = loop {
            match self.loaded(&context).await {
                Ok(loaded) => break loaded,
                Err(StoreError::Fenced { .. }) => return Ok(End::Fenced),
                Err(StoreError::Retry { why }) => self.status.send_modify(|status| status.waits_for = why),
                Err(error) => return Err(self.failed(error.to_string())),
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
                () = sleep(POLL) => {}
            }
        };
        info!(chain_id = context.claim.chain_id, next_block = state.tail.next, token = context.claim.token, "indexing");
        self.status.send_modify(|status| {
            status.undecoded_contracts = undecoded;
            status.tail = state.tail.hash.map(|_| state.tail.next - 1);
            status.tail_time = state.tail_time;
        });
        let past = decode_stored(context.clone(), self.status.clone());
        let tokens = tokens(self.chain.tokens, context.clone());
        let (chain, news, status) = (self.chain.clone(), self.news.clone(), self.status.clone());
        let driver = Driver { chain, context, news, status };
        tokio::select! {
            end = driver.run(stop) => end,
            never = past => match never {},
            never = tokens => match never {},
        }
    }

    /// The state to continue from. The floors come first: a row below them would remake a leaf that retention has dropped. Then the
    /// contracts: what is stored up to now may lack their rows, and what comes has them.
    async fn loaded(&self, context: &Context) -> Result<(u64, State), StoreError> {
        self.store.learn_floors(context.claim.chain_id).await?;
        self.store.forget_contracts(context.claim.chain_id);
        let state = self.store.load(&context.claim).await?;
        Ok((register(context).await?, state))
    }

    fn publish_standby(&self, waits_for: String) {
        let head = self.news.borrow().head.as_ref().map(|head| (head.header.number, head.header.time));
        let leaves = self.leaves.book.count(self.chain.chain_id);
        // Its knowledge as a leader is outdated, and the new leader reports it now.
        self.status.send_modify(|status| {
            *status = ChainStatus {
                head: head.map(|(number, _)| number),
                head_time: head.and_then(|(_, time)| timestamp(time)),
                leaves,
                waits_for,
                nodes: self.nodes.reports(),
                ..status.anew()
            };
        });
    }

    fn failed(&self, why: String) -> ChainError {
        ChainError { chain: self.chain.name.clone(), why }
    }
}

/// Reads the metadata of tokens, if it is wanted.
async fn tokens(wanted: bool, context: Context) -> Infallible {
    if wanted { read_tokens(context).await } else { std::future::pending().await }
}

/// Renews the lease of `claim`; ends when another process has it.
async fn keep(lease: Arc<Mutex<Lease>>, claim: Claim) {
    let mut late = false;
    loop {
        sleep(if late { POLL } else { RENEWAL }).await;
        let renewed = lease.lock().await.renew(&claim).await;
        match &renewed {
            Ok(()) if late => info!("the lease is renewed again"),
            Ok(()) => {}
            Err(StoreError::Fenced { .. }) => return,
            Err(error) if !late => warn!("the lease was not renewed: {error}"),
            Err(_) => {}
        }
        late = renewed.is_err();
    }
}

/// The reason why a standby waits, in words.
fn standby(holder: &str, until: DateTime<Utc>) -> String {
    let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("standby: {holder} leads, its lease ends at {until} unless renewed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_says_for_whom_it_waits() {
        let until = timestamp(0).unwrap();
        assert_eq!(
            standby("h pid 1", until),
            "standby: h pid 1 leads, its lease ends at 1970-01-01T00:00:00Z unless renewed"
        );
    }
}
