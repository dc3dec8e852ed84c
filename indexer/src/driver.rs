//! The loop that carries out the machine's actions. Only this file and `driver/` await both nodes and store.

mod backfill;
mod chores;
mod decode;
mod fetch;
mod fetches;
mod newcomers;
mod still;
mod tokens;
mod trouble;
mod way;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::chain::backfill::BackfillInput;
use crate::chain::block::{BlockRange, BlockRef};
use crate::chain::machine::{Action, Input, Limits, Machine, Tail, Wait};
use crate::config::{Chain, Finality};
use crate::dataset::Sorted;
use crate::dataset::untyped::Untyped;
use crate::nodes::Nodes;
use crate::nodes::heads::News;
use crate::status::{ChainStatus, Meter, Watchdog};
use crate::store::StoreError;
use crate::task::{Lost, Watched};

pub use self::backfill::BackfillLane;
pub use self::decode::{decode_stored, register};
pub use self::newcomers::Newcomers;
pub use self::tokens::read_tokens;
pub use self::work::Context;

use self::chores::Chores;
use self::fetch::{Want, cover_ahead, fetch, sizer};
use self::fetches::Fetches;
use self::still::Stillness;
use self::trouble::{Patience, Trouble};
use self::way::Way;
use self::work::Work;

/// One chain's loop and its parts.
pub struct Driver {
    /// The chain's settings.
    pub chain: Chain,
    /// Its nodes, the database, and the right to write.
    pub context: Context,
    /// The head, as it changes.
    pub news: watch::Receiver<News>,
    /// The place where this chain's status is published.
    pub status: watch::Sender<ChainStatus>,
}

/// How the loop ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It received the stop signal.
    Stopped,
    /// Another process has a newer token: a write under ours would fail.
    Fenced,
}

/// Why a failure that no retry mends ended the loop.
#[derive(Clone, Debug, thiserror::Error)]
#[error("chain \"{chain}\": {why}")]
pub struct ChainError {
    /// The chain's name.
    pub chain: String,
    /// The failure, and the next step.
    pub why: String,
}

/// The moving parts of a running loop.
struct Running {
    machine: Machine,
    fetches: Fetches,
    /// The one write or comparison under way.
    work: Option<Work>,
    /// The batch being appended.
    appending: Option<Arc<Sorted>>,
    fetch_trouble: Trouble,
    work_trouble: Trouble,
    backfill: BackfillLane,
    meter: Meter,
    /// Logs that stay raw, and the number of kinds at the last report.
    untyped: Untyped,
    told_kinds: Option<(Instant, u64)>,
    tail_time: Option<i64>,
    patience: Patience,
    /// Whether our tail is on a chain with a final block: asked beside the fetches.
    anchoring: Option<Watched<Option<Input>>>,
    stillness: Stillness<Mark>,
    watchdog: Watchdog<(Mark, u64)>,
}

/// The mark, which differs after each step that changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    tail: Tail,
    head: Option<BlockRef>,
    settled: Option<u64>,
}

/// After this time without progress while work is waiting, a warning follows. A chain that waits for its operator restarts by
/// then: the cause may have been removed.
const STALLED: Duration = Duration::from_secs(60);

/// A tail at least this many blocks below the newest final block leaves the blocks between to the backfill lane.
const FAR_BEHIND: u64 = 1_024;

impl Driver {
    /// Runs until `stop` turns true, another process leads the chain, or a failure that no retry mends. Dropping it loses
    /// nothing: uncommitted blocks are fetched again.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<End, ChainError> {
        let mut running = self.start().await;
        let mut beat = interval(Duration::from_secs(1));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut chores, mut way) = (Chores::default(), Way::default());
        loop {
            // Repeated steps that change nothing run later.
            let held = running.stillness.holds(Instant::now());
            let input = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
                _ = beat.tick() => {
                    self.beat(&mut running, &mut chores)?;
                    if running.backfill.knows() {
                        way.look(&self.status, self.chain.start_block);
                    }
                    self.tell_untyped(&mut running);
                    continue;
                }
                () = running.stillness.over(), if held => continue,
                Ok(()) = self.news.changed() => match self.head() {
                    Some(input) => input,
                    None => continue,
                },
                fetched = running.fetches.next(), if !held => fetched.map_err(|why| self.failed(why))?,
                committed = running.backfill.next() => match committed {
                    Ok(_blocks) => continue,
                    Err(StoreError::Fenced { .. }) => return Ok(End::Fenced),
                    Err(error) => return Err(self.fatal(&error)),
                },
                anchored = anchoring(&mut running.anchoring) => match anchored {
                    Some(input) => input,
                    None => continue,
                },
                done = working(&mut running.work), if !held => {
                    running.work = None;
                    match done {
                        Err(StoreError::Fenced { .. }) => return Ok(End::Fenced),
                        done => done.map_err(|error| self.fatal(&error))?,
                    }
                }
            };
            self.step(&mut running, input);
        }
    }

    /// Gives the machine an input, and begins its actions.
    fn step(&self, running: &mut Running, input: Input) {
        if input == Input::Committed {
            self.committed(running);
        }
        let (seen, moved) = (
            matches!(input, Input::Head { .. }),
            matches!(input, Input::Loaded { .. } | Input::Jumped(_) | Input::Unwound),
        );
        running.machine.limit_range(self.context.nodes.max_range_blocks());
        for action in running.machine.step(input) {
            self.perform(action, running);
        }
        running.fetches.keep(&running.machine);
        if moved {
            running.backfill.step(BackfillInput::Moved);
        }
        // Heads arrive by themselves, changed or not.
        if !seen && running.stillness.step(running.mark(), Instant::now()) {
            let waits_for = running.machine.wait();
            warn!("the same steps repeat and change nothing; they are slowed down. The chain waits for {waits_for}");
        }
        self.publish(running);
    }

    async fn start(&mut self) -> Running {
        let chain = &self.chain;
        let limits = Limits {
            fetches: chain.fetch_parallelism as usize,
            bytes: chain.fetch_buffer_bytes,
            far_behind: FAR_BEHIND,
        };
        let machine = Machine::new(chain.finality, chain.start_block, limits, sizer(chain));
        let backfill = BackfillLane::new(chain, self.context.clone(), None);
        let mut running = Running {
            fetches: Fetches::default(),
            work: None,
            appending: None,
            fetch_trouble: Trouble::default(),
            work_trouble: Trouble::default(),
            backfill,
            meter: Meter::default(),
            untyped: Untyped::default(),
            told_kinds: None,
            tail_time: None,
            patience: Patience::new(),
            anchoring: None,
            stillness: Stillness::new(),
            watchdog: Watchdog::default(),
            machine,
        };
        let first = running.machine.begin();
        self.perform(first, &mut running);
        running
    }

    /// Once a second.
    fn beat(&self, running: &mut Running, chores: &mut Chores) -> Result<(), ChainError> {
        running.check().map_err(|lost| self.failed(lost.to_string()))?;
        running.backfill.go_on(running.machine.settled());
        if let Some(block) = running.machine.unconfirmed().filter(|_| running.anchoring.is_none()) {
            let asked = on_one_chain(self.context.nodes.clone(), block, running.machine.tail());
            running.anchoring = Some(Watched::spawn(asked));
        }
        let busy = {
            let status = self.status.borrow();
            status.gap_blocks > 0 || status.lag_blocks.is_none_or(|lag| lag > 0)
        };
        let mark = (running.mark(), running.backfill.missing_blocks());
        let still = running.watchdog.look(mark, busy, std::time::Instant::now());
        let (before, now) = (self.status.borrow().stalled_seconds, still.as_secs());
        self.status.send_modify(|status| {
            status.nodes = self.context.nodes.reports();
            status.stalled_seconds = now;
        });
        self.publish(running);
        if before < STALLED.as_secs() && now >= STALLED.as_secs() {
            let waits_for = self.status.borrow().waits_for.clone();
            let history = self.status.borrow().history.clone();
            warn!("no progress for {now} s; the tail waits for {waits_for}; history: {history}");
            if let Wait::Operator(stop) = running.machine.wait() {
                return Err(self.failed(stop.to_string()));
            }
        }
        let failures = chores.beat(&self.context.store, &self.context.claim, &self.status, running.machine.settled());
        let failures = failures + self.context.leaves.failures(self.context.claim.chain_id);
        self.status.send_modify(|status| status.background_failures = failures);
        Ok(())
    }

    fn fatal(&self, error: &StoreError) -> ChainError {
        self.failed(error.to_string())
    }

    fn failed(&self, why: String) -> ChainError {
        ChainError { chain: self.chain.name.clone(), why }
    }

    fn head(&mut self) -> Option<Input> {
        let news = self.news.borrow_and_update();
        let head = news.head.as_ref()?;
        if let Some(time) = crate::store::timestamp(head.header.time) {
            self.context.leaves.book.head(self.context.claim.chain_id, time);
        }
        Some(Input::Head { head: head.header.block(), finalized: head.finalized })
    }

    fn perform(&self, action: Action, running: &mut Running) {
        match action {
            Action::Fetch { id, range, near_head } => {
                let head =
                    running.machine.head().filter(|head| range == BlockRange { first: head.number, last: head.number });
                let what = match (near_head, head) {
                    (true, Some(head)) => Want::Head(head),
                    (true, None) => Want::NearHead(range),
                    (false, _) => Want::Range(range),
                };
                let (nodes, source, trouble) =
                    (self.context.nodes.clone(), self.context.source.clone(), running.fetch_trouble.clone());
                let (leaves, store, chain_id) =
                    (self.context.leaves.clone(), self.context.store.clone(), self.context.claim.chain_id);
                let (patience, timings) = (running.patience.clone(), self.context.timings.tail.clone());
                running.fetches.begin(id, range, async move {
                    let fetched = fetch(&nodes, &source, what, &trouble, &patience, &timings).await;
                    let fetched = fetched.map(|batch| store.sort(chain_id, batch));
                    if let Ok(batch) = &fetched {
                        cover_ahead(&leaves, &store, chain_id, batch).await;
                    }
                    fetched
                });
            }
            Action::Append { id, on, finalized } => match running.fetches.batch(id).map(|of| self.context.sorted(of)) {
                Ok(batch) => {
                    running.appending = Some(batch.clone());
                    running.work = Some(self.context.append(batch, on, finalized, running.work_trouble.clone()));
                }
                Err(lost) => {
                    running.work = Some(Box::pin(async move { Err(StoreError::Fatal { why: lost.to_string() }) }));
                }
            },
            Action::Forget => running.fetches.forget(),
            Action::Compare { floor, anchor } => {
                running.work = Some(self.context.compare(
                    running.machine.tail(),
                    floor.unwrap_or(0).max(self.chain.start_block),
                    anchor,
                    self.chain.finality == Finality::Never,
                    running.work_trouble.clone(),
                ));
            }
            Action::Unwind { from, to } => {
                warn!(from_block = from.next, to_block = to.next, "reorg: unwinding orphaned blocks");
                running.work = Some(self.context.unwind(from, to, self.status.clone(), running.work_trouble.clone()));
            }
            Action::Jump { from, to, anchor } => {
                info!(
                    from_block = from.next,
                    to_block = to,
                    "far behind: the tail follows the head first, history is \
                    fetched beside it"
                );
                running.work = Some(self.context.jump(from, to, anchor, running.work_trouble.clone()));
            }
            Action::Reload => running.work = Some(self.context.reload(running.work_trouble.clone())),
            Action::Stop(stop) => error!("stopped: {stop}"),
        }
    }

    fn committed(&self, running: &mut Running) {
        let Some(batch) = running.appending.take() else { return };
        running.meter.add(batch.logs().len() as u64);
        running.untyped.add(batch.untyped());
        running.tail_time = Some(batch.last().time);
    }

    /// Publishes the logs that stay raw, and logs them at once, and again when there are more kinds. Without raw logs, none is
    /// kept.
    fn tell_untyped(&self, running: &mut Running) {
        let more = running.backfill.take_untyped();
        running.untyped.add(&more);
        let untyped = &running.untyped;
        if !self.chain.raw || untyped.logs() == 0 {
            return;
        }
        let due = running.told_kinds.is_none_or(|(at, kinds)| kinds < untyped.kinds() && at.elapsed() >= UNTYPED_EVERY);
        if due {
            info!("{untyped}");
            running.told_kinds = Some((Instant::now(), untyped.kinds()));
        }
        self.status.send_modify(|status| {
            (status.untyped_logs, status.untyped_kinds) = (untyped.logs(), untyped.kinds());
            status.untyped = Some(untyped.to_string());
        });
    }

    fn publish(&self, running: &Running) {
        let news = self.news.borrow();
        let machine = &running.machine;
        let head = news.head.as_ref().map(|head| &head.header);
        let trouble = running.work_trouble.get().or_else(|| match machine.wait() {
            Wait::Fetch(_) => running.fetch_trouble.get(),
            _ => None,
        });
        let repeats = || "the same steps repeat and change nothing; they are slowed down".to_owned();
        let trouble = trouble.or_else(|| running.stillness.is_still().then(repeats)).or_else(|| news.trouble.clone());
        self.status.send_modify(|status| {
            status.head = head.map(|header| header.number);
            status.head_time = head.and_then(|header| crate::store::timestamp(header.time));
            status.finalized = machine.settled();
            status.tail = machine.tail().hash.map(|_| machine.tail().next - 1);
            if let Some(time) = running.tail_time {
                status.tail_time = crate::store::timestamp(time);
            }
            running.tell_backfill(status, self.chain.start_block);
            status.events_per_second = running.meter.per_second();
            let able = self.context.nodes.capabilities();
            (status.verification, status.distrusted_answers) = (able.to_string(), able.distrusted);
            status.leaves = self.context.leaves.book.count(self.context.claim.chain_id);
            status.bare_leaves = self.context.leaves.book.bare(self.context.claim.chain_id);
            status.waits_for = match &trouble {
                Some(why) => format!("{}: {why}", machine.wait()),
                None => machine.wait().to_string(),
            };
            // A chain that waits for its operator falls behind, however near the head it stopped.
            let stopped = matches!(machine.wait(), Wait::Operator(_));
            let found = self.context.store.has_undecoded_news(self.context.claim.chain_id);
            let well = trouble.is_none() && !stopped && running.backfill.knows() && !found;
            status.derive(self.chain.start_block, well);
            self.context
                .leaves
                .book
                .complete(self.context.claim.chain_id, running.backfill.knows() && status.is_complete());
        });
    }
}

impl Running {
    /// Checks that a task works on everything that the machine and the backfill lane wait for.
    fn check(&self) -> Result<(), Lost> {
        if self.machine.is_busy() && self.work.is_none() {
            return Err(Lost::nobody_is_at(self.machine.wait()));
        }
        self.fetches.check(&self.machine)?;
        self.backfill.check()
    }

    fn mark(&self) -> Mark {
        Mark { tail: self.machine.tail(), head: self.machine.head(), settled: self.machine.settled() }
    }

    /// The missing blocks of the backfill lane.
    fn tell_backfill(&self, status: &mut ChainStatus, start_block: u64) {
        let backfill = &self.backfill;
        if !backfill.is_loaded() {
            return;
        }
        status.gap_blocks = backfill.missing_blocks();
        status.complete_to = match backfill.first_missing() {
            Some(first) => first.checked_sub(1).filter(|last| *last >= start_block),
            None => status.tail,
        };
        let trouble = backfill.trouble().filter(|_| status.gap_blocks > 0);
        status.history = match (status.gap_blocks, trouble) {
            (0, _) => String::new(),
            (blocks, None) => format!("{blocks} blocks to fetch"),
            (blocks, Some(why)) => format!("{blocks} blocks to fetch: {why}"),
        };
    }
}

/// Between two lines about logs that stay raw.
const UNTYPED_EVERY: Duration = Duration::from_secs(600);

/// The answer about a final block; pending while no node is asked.
async fn anchoring(asked: &mut Option<Watched<Option<Input>>>) -> Option<Input> {
    let Some(task) = asked else { return std::future::pending().await };
    let told = task.await;
    *asked = None;
    told.unwrap_or_else(|lost| {
        error!("{lost}");
        None
    })
}

/// Asks a node whether our tail is on the chain of that final block.
async fn on_one_chain(nodes: Arc<Nodes>, block: BlockRef, tail: Tail) -> Option<Input> {
    let number = tail.next.checked_sub(1)?;
    let told = nodes.hashes(&[block.number, number]).await.ok()?;
    (told == [Some(block.hash), tail.hash]).then_some(Input::Anchored { block, tail })
}

/// One piece of work if there is one; otherwise pending.
async fn working(work: &mut Option<Work>) -> Result<Input, StoreError> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
