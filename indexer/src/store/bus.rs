//! Passes commits to listeners.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::commit::{Change, Commit, Touched};
use super::recent::Recent;

/// The message to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The chain's next commit.
    Commit(Arc<Commit>),
    /// Commits that this listener missed: it was too slow, or retention, another process or a lost answer moved the epoch. Data
    /// derived from this chain's rows may be stale; without a chain, from any chain's.
    Gap(Option<u64>),
}

/// Commits that wait for a listener.
const WAITING: usize = 1_024;
/// Commits that wait for an earlier one of ours: fewer than those of a listener, so that no listener is overrun afterwards.
const HELD: usize = 256;

/// Passes commits to listeners, each chain's in the order of its epochs. A commit whose answer came early waits while a
/// transaction of ours is under way that began before it and may be the earlier commit.
#[derive(Debug)]
pub(super) struct Bus {
    sender: broadcast::Sender<Arc<Commit>>,
    chains: Mutex<HashMap<u64, Order>>,
}

#[derive(Debug, Default)]
struct Order {
    /// The last reported epoch.
    told: Option<i64>,
    /// Each with the number of the first transaction that began after it: none from there on is earlier.
    waiting: BTreeMap<i64, (Arc<Commit>, u64)>,
    /// The numbers of the transactions under way.
    under_way: BTreeSet<u64>,
    /// The number of the next one.
    next: u64,
    recent: Recent,
}

impl Order {
    /// The commits that are due.
    fn due(&mut self) -> Vec<Arc<Commit>> {
        let (mut due, is_full) = (Vec::new(), self.waiting.len() >= HELD);
        while let Some(first) = self.waiting.first_entry() {
            let is_next = self.told.is_some_and(|told| *first.key() <= told + 1);
            let may_be_earlier = self.under_way.first().is_some_and(|number| *number < first.get().1);
            if !is_next && may_be_earlier && !is_full {
                break;
            }
            self.told = self.told.max(Some(*first.key()));
            due.push(first.remove().0);
        }
        due
    }
}

impl Bus {
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(WAITING), chains: Mutex::default() }
    }

    /// Announces a transaction of a chain, which may commit until the returned value is dropped.
    pub fn begin(self: &Arc<Self>, chain_id: u64) -> UnderWay {
        let mut number = 0;
        self.with(chain_id, |order| {
            number = order.next;
            order.next += 1;
            order.under_way.insert(number);
        });
        UnderWay { bus: self.clone(), chain_id, number }
    }

    /// A listener to all future commits.
    pub fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe(), last: HashMap::new(), held: None }
    }

    /// The indexes of the datasets with rows of a chain's blocks from `first` upwards, just before the commit that makes `epoch`;
    /// `None` if unknown.
    pub fn touched_since(&self, chain_id: u64, first: u64, epoch: i64) -> Option<BTreeSet<usize>> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        chains.get(&chain_id)?.recent.since(first, epoch)
    }

    /// Forgets which tables a chain's newest blocks have rows in: what is stored is read anew. A failover may lose commits, and another
    /// process make as many.
    pub fn forget(&self, chain_id: u64) {
        self.with(chain_id, |order| order.recent.forget());
    }

    fn with(&self, chain_id: u64, act: impl FnOnce(&mut Order)) {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let order = chains.entry(chain_id).or_default();
        act(order);
        for commit in order.due() {
            order.recent.note(&commit);
            // An error means that there is no listener.
            self.sender.send(commit).ok();
        }
    }
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    bus: Arc<Bus>,
    chain_id: u64,
    number: u64,
}

impl UnderWay {
    /// COMMIT was answered.
    pub fn committed(self, epoch: i64, change: Change, touched: Vec<Touched>) -> Arc<Commit> {
        let commit = Arc::new(Commit { chain_id: self.chain_id, epoch, change, touched, at: Utc::now() });
        let waiting = commit.clone();
        self.bus.with(self.chain_id, |order| {
            order.under_way.remove(&self.number);
            order.waiting.insert(epoch, (waiting, order.next));
        });
        commit
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.bus.with(self.chain_id, |order| {
            order.under_way.remove(&self.number);
        });
    }
}

/// Receives commits.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Arc<Commit>>,
    /// The last received epoch of each chain.
    last: HashMap<u64, i64>,
    held: Option<Arc<Commit>>,
}

impl Listener {
    /// The next commit, or a gap; `None` when no writer is left. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        let commit = match self.held.take() {
            Some(held) => return Some(self.hear(held)),
            None => match self.receiver.recv().await {
                Ok(commit) => commit,
                Err(RecvError::Lagged(_)) => {
                    // Their chains are unknown.
                    self.last.clear();
                    return Some(Heard::Gap(None));
                }
                Err(RecvError::Closed) => return None,
            },
        };
        let is_next = self.last.get(&commit.chain_id).is_none_or(|last| commit.epoch == last + 1);
        if is_next {
            return Some(self.hear(commit));
        }
        let chain_id = commit.chain_id;
        self.held = Some(commit);
        Some(Heard::Gap(Some(chain_id)))
    }

    fn hear(&mut self, commit: Arc<Commit>) -> Heard {
        self.last.insert(commit.chain_id, commit.epoch);
        Heard::Commit(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::block::BlockRange;

    fn commit(under_way: UnderWay, epoch: i64) {
        under_way.committed(epoch, Change::Reset, Vec::new());
    }

    async fn heard(listener: &mut Listener, events: usize) -> Vec<Result<i64, Option<u64>>> {
        let mut all = Vec::new();
        for _ in 0..events {
            all.push(match listener.next().await.unwrap() {
                Heard::Commit(commit) => Ok(commit.epoch),
                Heard::Gap(chain) => Err(chain),
            });
        }
        all
    }

    #[tokio::test]
    async fn commits_come_in_the_order_of_their_epochs() {
        let bus = Arc::new(Bus::new());
        let mut listener = bus.listen();
        // Also the first ones of all.
        let (slow, fast) = (bus.begin(1), bus.begin(1));
        commit(fast, 5);
        commit(slow, 4);
        let (slow, fast, other) = (bus.begin(1), bus.begin(1), bus.begin(2));
        commit(fast, 7);
        commit(other, 90);
        commit(slow, 6);
        assert_eq!(heard(&mut listener, 5).await, [Ok(4), Ok(5), Ok(90), Ok(6), Ok(7)]);
        assert!(listener.receiver.is_empty());
    }

    #[tokio::test]
    async fn what_others_committed_is_a_gap_as_soon_as_it_cannot_be_ours() {
        let bus = Arc::new(Bus::new());
        let mut listener = bus.listen();
        commit(bus.begin(1), 5);
        let failing = bus.begin(1);
        commit(bus.begin(1), 7);
        assert_eq!(heard(&mut listener, 1).await, [Ok(5)]);
        assert!(listener.receiver.is_empty(), "epoch 6 may still be ours");
        // A transaction that begins now is later than 7, however long it takes.
        let later = bus.begin(1);
        drop(failing);
        assert_eq!(heard(&mut listener, 2).await, [Err(Some(1)), Ok(7)]);
        commit(later, 8);
        assert_eq!(heard(&mut listener, 1).await, [Ok(8)]);
    }

    #[tokio::test]
    async fn one_that_never_ends_keeps_others_waiting_for_so_long_only() {
        let bus = Arc::new(Bus::new());
        let mut listener = bus.listen();
        commit(bus.begin(1), 1);
        let _hangs = bus.begin(1);
        let last = HELD as i64 + 2;
        for epoch in 3..last {
            commit(bus.begin(1), epoch);
        }
        assert_eq!(heard(&mut listener, 1).await, [Ok(1)]);
        assert!(listener.receiver.is_empty());
        commit(bus.begin(1), last);
        assert_eq!(heard(&mut listener, 2).await, [Err(Some(1)), Ok(3)]);
        assert!(bus.chains.lock().unwrap()[&1].waiting.is_empty());
    }

    #[test]
    fn where_what_is_stored_was_read_anew_nothing_is_known_of_it() {
        let bus = Arc::new(Bus::new());
        let append = |first, last, epoch| {
            let touched = vec![Touched { dataset: 0, rows: 1 }];
            bus.begin(1).committed(epoch, Change::Appended(BlockRange { first, last }), touched);
        };
        append(1, 4, 1);
        assert_eq!(bus.touched_since(1, 1, 2), Some(BTreeSet::from([0])));
        bus.forget(1);
        assert_eq!(bus.touched_since(1, 1, 2), None);
        append(5, 8, 2);
        assert_eq!((bus.touched_since(1, 5, 3), bus.touched_since(1, 4, 3)), (Some(BTreeSet::from([0])), None));
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_is_told_so_once() {
        let bus = Arc::new(Bus::new());
        let mut listener = bus.listen();
        let count = WAITING as i64 + 10;
        for epoch in 1..=count {
            commit(bus.begin(1), epoch);
        }
        let mut all = heard(&mut listener, WAITING + 1).await;
        assert_eq!((all.remove(0), all[0], all[WAITING - 1]), (Err(None), Ok(11), Ok(count)));
        drop(bus);
        assert_eq!(listener.next().await, None);
    }
}
