//! What can be proved on a chain, and what was learned of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::chain::level::Level;
use crate::chain::proof::{Disproof, Verify};

/// Contradictions that are remembered.
const REMEMBERED: usize = 64;

/// What can be verified on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The strongest level: `receipts`, or `bloom` where receipts prove nothing.
    pub best: Level,
    /// Why no more; empty for nothing to complain of.
    pub reason: String,
    /// Answers of `eth_getLogs` that receipts proved wrong.
    pub distrusted: u64,
    /// Receipts that did not fit their header.
    pub refused: u64,
    /// Blocks that no node could prove; they were taken at the next level.
    pub unproved: u64,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.best.as_str())?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// What is known of the chain's proofs.
#[derive(Debug)]
pub(super) struct Proofs {
    pub verify: Verify,
    /// Learned when it is first needed.
    pub probed: Mutex<Option<Probed>>,
    /// Held by who asks for it.
    pub probing: tokio::sync::Mutex<()>,
    pub distrusted: AtomicU64,
    pub refused: AtomicU64,
    pub unproved: AtomicU64,
    /// Whether blooms prove nothing here: zero, or without the logs of system transactions.
    pub bloomless: AtomicBool,
    /// Names of nodes without `eth_getBlockReceipts`.
    pub one_by_one: Mutex<BTreeSet<String>>,
    /// The last contradictions, and how often each was met.
    contradictions: Mutex<Vec<(Disproof, u32)>>,
}

/// What the last probe told.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    /// Why receipts prove nothing here; `None`: they do, and that is final.
    pub reason: Option<String>,
    /// When it is asked again: what failed may have been trouble of a moment.
    pub again: Instant,
    /// The pause before that.
    pub pause: Duration,
}

impl Proofs {
    /// The strongest level: by receipts, where nothing speaks against them.
    pub fn best(&self, reason: Option<&String>) -> Level {
        match (reason, self.bloomless.load(Ordering::Relaxed)) {
            (None, _) => Level::Receipts,
            (Some(_), false) => Level::Bloom,
            (Some(_), true) => Level::Linked,
        }
    }

    /// What is known, unless it is time to ask again.
    pub fn known(&self) -> Option<Level> {
        let probed = lock(&self.probed);
        let probed = probed.as_ref()?;
        (probed.reason.is_none() || Instant::now() < probed.again).then(|| self.best(probed.reason.as_ref()))
    }

    pub fn new(verify: Verify) -> Self {
        Self {
            verify,
            probed: Mutex::default(),
            probing: tokio::sync::Mutex::default(),
            distrusted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unproved: AtomicU64::new(0),
            bloomless: AtomicBool::new(false),
            one_by_one: Mutex::default(),
            contradictions: Mutex::default(),
        }
    }

    /// How often this contradiction was met by now.
    pub fn met(&self, disproof: &Disproof) -> u32 {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut known = lock(&self.contradictions);
        if let Some((_, times)) = known.iter_mut().find(|(known, _)| known == disproof) {
            *times += 1;
            return *times;
        }
        if known.len() == REMEMBERED {
            known.remove(0);
        }
        known.push((disproof.clone(), 1));
        1
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
