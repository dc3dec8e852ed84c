//! Reads the metadata of tokens, beside the indexing: a few contracts at a time, each once.
//!
//! A reorg changes nothing here: the rows of orphaned transfers go, and a contract that is deployed again has its address by its maker and
//! its code.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::time::Duration;

use alloy::primitives::Address;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::newcomers::Newcomer;
use super::work::Context;
use crate::backoff::Backoff;
use crate::chain::token::Token;
use crate::events::TRANSFER;
use crate::nodes::NodeError;
use crate::store::StoreError;
use crate::task::Beside;

/// Pause between two requests: other work of the node comes first.
const PAUSE: Duration = Duration::from_secs(1);
/// Contracts of a request, with three calls each.
const ASKED: usize = 4;
/// Contracts of one look into the table.
const LOOKED_UP: usize = 500;
/// Most contracts that are asked again later; another one is met again at its next transfer.
const ASIDE: usize = 10_000;
/// Pauses after a failure.
const FIRST_AGAIN: Duration = Duration::from_secs(2);
const LAST_AGAIN: Duration = Duration::from_secs(600);

/// Reads the metadata of the chain's tokens, now and later. Ends with the future.
pub async fn read_tokens(context: Context) -> Infallible {
    let mut lane = Lane { context, knows_stored: false, aside: HashMap::new() };
    let (mut beside, mut backoff) = (Beside::default(), pauses());
    loop {
        let outcome = lane.turn().await;
        let pause = match &outcome {
            // Other contracts are asked meanwhile.
            Ok(()) | Err(Trouble::Contract(_)) => PAUSE,
            Err(_) => backoff.advance(),
        };
        if outcome.is_ok() {
            backoff = pauses();
        }
        match outcome {
            // The indexing tells it, which needs the same node.
            Err(Trouble::Node(error)) => debug!("the metadata of tokens is not read yet: {error}"),
            // While some contracts are still asked in vain, nothing works again.
            Ok(()) if !lane.aside.is_empty() => {}
            outcome => drop(beside.tell("the metadata of tokens", outcome.map_err(|trouble| trouble.to_string()))),
        }
        sleep(pause).await;
    }
}

fn pauses() -> Backoff {
    Backoff::between(FIRST_AGAIN, LAST_AGAIN)
}

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Node(#[from] NodeError),
    #[error("the node in use does not offer eth_call")]
    NoCalls,
    /// The node answers, and not for some contracts.
    #[error("{0}")]
    Contract(String),
}

struct Lane {
    context: Context,
    /// Whether the contracts from before this process are in line.
    knows_stored: bool,
    /// Contracts that the node could not ask.
    aside: HashMap<Address, Aside>,
}

/// A contract that is asked again later.
struct Aside {
    newcomer: Newcomer,
    /// `None`: it is in line.
    until: Option<Instant>,
    pauses: Backoff,
}

impl Lane {
    /// One request at most.
    async fn turn(&mut self) -> Result<(), Trouble> {
        if !self.knows_stored {
            self.meet_stored().await?;
            self.knows_stored = true;
        }
        let newcomers = self.context.newcomers.clone();
        let now = Instant::now();
        for aside in self.aside.values_mut().filter(|aside| aside.until.is_some_and(|until| until <= now)) {
            aside.until = None;
            newcomers.again([aside.newcomer]);
        }
        let next = newcomers.next(LOOKED_UP);
        if next.is_empty() {
            return Ok(());
        }
        let mut next = match self.unread(&next).await {
            Ok(unread) => unread,
            Err(error) => {
                newcomers.again(next);
                return Err(error.into());
            }
        };
        newcomers.put_back(&next.split_off(ASKED.min(next.len())));
        match self.ask(&next).await {
            Ok(trouble) => trouble.map_or(Ok(()), |why| Err(Trouble::Contract(why))),
            Err(trouble) => {
                newcomers.again(next);
                Err(trouble)
            }
        }
    }

    /// The contracts that may have been there before this process: those of kinds with a transfer, and those of the newest stored
    /// transfers.
    async fn meet_stored(&self) -> Result<(), StoreError> {
        let (store, chain_id) = (&self.context.store, self.context.claim.chain_id);
        let stored = store.unread_emitters(chain_id).await?;
        self.context.newcomers.add(stored.into_iter().map(|(address, block)| (address, Some(block))));
        let datasets = store.datasets();
        let transfers = |kind: &str| {
            datasets.of_kind(kind).any(|dataset| dataset.event().is_some_and(|event| event.topic0 == TRANSFER))
        };
        let configured = datasets.contracts().of(chain_id).iter().filter(|contract| transfers(&contract.kind));
        self.context.newcomers.add(configured.map(|contract| (contract.address, None)));
        Ok(())
    }

    /// Those without a row.
    async fn unread(&self, newcomers: &[Newcomer]) -> Result<Vec<Newcomer>, StoreError> {
        let addresses: Vec<_> = newcomers.iter().map(|(address, _)| *address).collect();
        let unread = self.context.store.unread_tokens(self.context.claim.chain_id, &addresses).await?;
        let unread: HashSet<_> = unread.into_iter().collect();
        Ok(newcomers.iter().copied().filter(|(address, _)| unread.contains(address)).collect())
    }

    /// Asks these contracts, and stores their answers; returns why some of them could not be asked.
    async fn ask(&mut self, next: &[Newcomer]) -> Result<Option<String>, Trouble> {
        let context = &self.context;
        if next.is_empty() {
            return Ok(None);
        }
        if !context.nodes.offers("eth_call") {
            return Err(Trouble::NoCalls);
        }
        let addresses: Vec<_> = next.iter().map(|(address, _)| *address).collect();
        let told = context.nodes.tokens(&addresses).await?;
        let (mut tokens, mut lagging, mut failed): (Vec<Token>, Vec<Newcomer>, Vec<Newcomer>) = Default::default();
        let mut trouble = None;
        for (newcomer, told) in next.iter().zip(told) {
            match (told, newcomer.1) {
                // The node does not have the block with the transfer yet: it may not have the contract either.
                (Ok(token), Some(block)) if token.at_block < block => lagging.push(*newcomer),
                (Ok(token), None) if token.is_silent() => context.newcomers.forget(&token.address),
                (Ok(token), _) => tokens.push(token),
                (Err(why), _) => {
                    failed.push(*newcomer);
                    trouble = Some(why);
                }
            }
        }
        if !tokens.is_empty() {
            context.store.save_tokens(context.claim.chain_id, &tokens).await?;
        }
        context.newcomers.again(lagging);
        for token in &tokens {
            self.aside.remove(&token.address);
        }
        failed.into_iter().for_each(|newcomer| self.set_aside(newcomer));
        Ok(trouble)
    }

    fn set_aside(&mut self, newcomer: Newcomer) {
        if self.aside.len() >= ASIDE {
            self.context.newcomers.forget(&newcomer.0);
            return;
        }
        let aside = Aside { newcomer, until: None, pauses: pauses() };
        let aside = self.aside.entry(newcomer.0).or_insert(aside);
        aside.until = Some(Instant::now() + aside.pauses.advance());
    }
}
