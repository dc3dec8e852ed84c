//! The possible proofs of a chain, and the observations about them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::chain::level::Level;
use crate::chain::proof::{Disproof, Verify};

/// The number of remembered contradictions.
const REMEMBERED: usize = 64;

/// The possible levels of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The strongest level: `receipts`, or `bloom` if receipts prove nothing.
    pub best: Level,
    /// Why it is not stronger; empty if there is no reason.
    pub reason: String,
    /// Answers of `eth_getLogs` that receipts proved wrong.
    pub distrusted: u64,
    /// Receipts that did not match their header.
    pub refused: u64,
    /// Blocks that no node could prove; they were accepted at the next level.
    pub unproved: u64,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.best.as_str())?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// The knowledge about the chain's proofs.
#[derive(Debug)]
pub(super) struct Proofs {
    pub verify: Verify,
    /// Learned when it is first needed.
    pub probed: Mutex<Option<Probed>>,
    /// Held by the task that asks for it.
    pub probing: tokio::sync::Mutex<()>,
    pub distrusted: AtomicU64,
    pub refused: AtomicU64,
    pub unproved: AtomicU64,
    /// Whether blooms prove nothing here: zero, or without the logs of system transactions.
    pub bloomless: AtomicBool,
    /// Names of nodes without `eth_getBlockReceipts`.
    pub one_by_one: Mutex<BTreeSet<String>>,
    /// The last contradictions, and their counts.
    contradictions: Mutex<Vec<(Disproof, u32)>>,
}

/// The result of the last probe.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    /// Why receipts prove nothing here; `None`: they do, and that is final.
    pub reason: Option<String>,
    /// The time of the next probe: the failure may have been temporary.
    pub again: Instant,
    /// The pause before that.
    pub pause: Duration,
}

impl Proofs {
    /// The strongest level: receipts, unless there is a reason against them.
    pub fn best(&self, reason: Option<&String>) -> Level {
        match (reason, self.bloomless.load(Ordering::Relaxed)) {
            (None, _) => Level::Receipts,
            (Some(_), false) => Level::Bloom,
            (Some(_), true) => Level::Linked,
        }
    }

    /// The known result, unless the next probe is due.
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

    /// The count of this contradiction.
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
