//! The public state of a chain's indexing, at one moment.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

/// The role of a process for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It writes.
    Leader,
    /// It will write after the end of the leader's lease.
    Standby,
}

/// The name of this process among several that write to one database: host and process id.
pub fn instance() -> String {
    format!("{} pid {}", rustix::system::uname().nodename().to_string_lossy(), std::process::id())
}

/// The reach of each level of verification: every block from the first to this one has the level or a stronger one; none if the
/// first block has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifiedTo {
    /// What a node returned, checked at the ends of each range.
    pub returned: Option<u64>,
    /// Each header fetched and linked to the one below.
    pub linked: Option<u64>,
    /// Logs proved by the headers' blooms.
    pub bloom: Option<u64>,
    /// Logs proved by the headers' receipts roots.
    pub receipts: Option<u64>,
}

impl VerifiedTo {
    /// Each level by its word, from weak to strong.
    pub fn levels(&self) -> [(&'static str, Option<u64>); 4] {
        [("returned", self.returned), ("linked", self.linked), ("bloom", self.bloom), ("receipts", self.receipts)]
    }
}

/// One chain's progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChainStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its id.
    pub chain_id: u64,
    /// Whether this process leads it or stands by.
    pub role: Role,
    /// Number of the newest block the nodes report; none before the first answer.
    pub head: Option<u64>,
    /// The head's time, from its header.
    pub head_time: Option<DateTime<Utc>>,
    /// Number of the newest final block; none while nothing is final.
    pub finalized: Option<u64>,
    /// Number of the last block that the tail committed; none before the first commit. History below may have gaps.
    pub tail: Option<u64>,
    /// The tail's time, from its header.
    pub tail_time: Option<DateTime<Utc>>,
    /// Number of the last block up to which no block is missing; none if the first block is.
    pub complete_to: Option<u64>,
    /// Blocks below the tail that are not stored yet.
    pub gap_blocks: u64,
    /// The work of the backfill lane, in words; empty for none.
    pub history: String,
    /// The progress in fetching missing blocks; none if only the newest blocks are missing.
    pub catching_up: Option<Progress>,
    /// Blocks from the tail to the head.
    pub lag_blocks: Option<u64>,
    /// Seconds of chain time from the tail to the head.
    pub lag_seconds: Option<f64>,
    /// Events committed per second, recently.
    pub events_per_second: f64,
    /// The possible level of new blocks, and why it is not stronger: `receipts`, or `bloom` with a reason.
    pub verification: String,
    /// Answers of nodes that receipts proved wrong since the start; rows were taken from the receipts instead.
    pub distrusted_answers: u64,
    /// The reach of each level of verification at the last query of the database, at most about ten seconds ago.
    pub verified_to: VerifiedTo,
    /// Unwinds of orphaned blocks that this process committed; each is a row of `dalp_indexed.reorg`.
    pub reorgs: u64,
    /// Logs that those unwinds moved to `dalp_indexed.orphaned_log`.
    pub orphaned_logs: u64,
    /// Times that its indexing ended with a failure and restarted.
    pub stops: u64,
    /// Seconds without progress while work is waiting; 0 while it moves or has no work.
    pub stalled_seconds: u64,
    /// Failed statements beside the indexing, such as the heartbeat.
    pub background_failures: u64,
    /// Logs without a typed table since this process leads: they are only in `logs`.
    pub untyped_logs: u64,
    /// Kinds of logs without a typed table: contract and first topic.
    pub untyped_kinds: u64,
    /// Both in words, with the most frequent kinds; none if there are no such logs.
    pub untyped: Option<String>,
    /// Partitions of this chain.
    pub leaves: u64,
    /// Partitions without indexes, loaded or about to be: their rows are stored and slow to find.
    pub bare_leaves: u64,
    /// Contracts whose stored logs are not all in the tables of their kind yet.
    pub undecoded_contracts: u64,
    /// Whether readers may rely on it: caught up, no block missing, all indexes built, all logs decoded, and every part works.
    pub ready: bool,
    /// The reason why it waits, in words; empty for none.
    pub waits_for: String,
    /// The state of each of its nodes, in the order of the configuration.
    pub nodes: Vec<NodeReport>,
}

/// The state of one node, and its limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeReport {
    /// Scheme, host and port.
    pub name: String,
    /// `unknown`, `up`, `resting` (its circuit breaker is open) or `refused` (another chain).
    pub state: String,
    /// Milliseconds of its light calls, smoothed; none before the first.
    pub latency_ms: Option<f64>,
    /// Failed calls and refused answers in a row.
    pub failures: u64,
    /// Its last failure, in words.
    pub last_error: Option<String>,
    /// Blocks that it allows in one `eth_getLogs`; none before the first limit.
    pub max_blocks: Option<u64>,
    /// Logs that it allows in one answer; none before the first limit.
    pub max_logs: Option<u64>,
    /// Bytes that it allows in one answer; none before the first limit.
    pub max_bytes: Option<u64>,
    /// Calls that it allows in one batch; none before the first limit, 1 if it knows no batches.
    pub max_batch: Option<u64>,
    /// Addresses or topics that it accepts in one request; none before the first limit.
    pub max_list: Option<u64>,
    /// Parallel requests that it accepts; none before its first throttle.
    pub max_parallel: Option<u64>,
    /// Methods that it lacks.
    pub refused_methods: Vec<String>,
}

impl NodeReport {
    /// Whether the two differ in more than the values that every call changes.
    pub fn differs(&self, other: &Self) -> bool {
        let still = |report: &Self| Self { latency_ms: None, ..report.clone() };
        still(self) != still(other)
    }
}

impl ChainStatus {
    /// A chain without any known state or leader in this process.
    pub fn new(name: String, chain_id: u64) -> Self {
        Self {
            name,
            chain_id,
            role: Role::Standby,
            head: None,
            head_time: None,
            finalized: None,
            tail: None,
            tail_time: None,
            complete_to: None,
            gap_blocks: 0,
            history: String::new(),
            catching_up: None,
            lag_blocks: None,
            lag_seconds: None,
            events_per_second: 0.0,
            verification: String::new(),
            distrusted_answers: 0,
            verified_to: VerifiedTo::default(),
            reorgs: 0,
            orphaned_logs: 0,
            stops: 0,
            stalled_seconds: 0,
            background_failures: 0,
            untyped_logs: 0,
            untyped_kinds: 0,
            untyped: None,
            leaves: 0,
            bare_leaves: 0,
            undecoded_contracts: 0,
            ready: false,
            waits_for: "the node's first head".into(),
            nodes: Vec::new(),
        }
    }

    /// Its state is unknown now; its counters stay: a counter never falls.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self {
            distrusted_answers: self.distrusted_answers,
            reorgs: self.reorgs,
            orphaned_logs: self.orphaned_logs,
            stops: self.stops,
            background_failures: self.background_failures,
            leaves: self.leaves,
            ..Self::new(self.name.clone(), self.chain_id)
        }
    }

    /// Fills in the fields that follow from the others, for a chain indexed from `start_block`. `well`: no step fails, and the
    /// missing blocks are known.
    pub fn derive(&mut self, start_block: u64, well: bool) {
        let next = self.tail.map_or(start_block, |tail| tail + 1);
        self.lag_blocks = self.head.map(|head| (head + 1).saturating_sub(next));
        self.lag_seconds = match (self.lag_blocks, self.head_time, self.tail_time) {
            (Some(0), ..) => Some(0.0),
            (_, Some(head), Some(tail)) => Some((head - tail).as_seconds_f64().max(0.0)),
            _ => None,
        };
        self.ready = well && self.bare_leaves == 0 && self.undecoded_contracts == 0 && self.is_complete();
    }

    /// Whether no known block is missing, up to near the head.
    pub fn is_complete(&self) -> bool {
        self.gap_blocks == 0 && self.tail.is_some() && self.lag_blocks.is_some_and(|lag| lag <= READY_LAG)
    }
}

/// The state of a background task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Its last turn went well.
    Well,
    /// Its last turn failed; it will try again.
    Failing,
    /// It ended, or a part of it panicked, and no turn has succeeded since: a fault of the program.
    Down,
}

/// One background task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskReport {
    /// Its name.
    pub name: &'static str,
    /// Its state.
    pub state: TaskState,
    /// Turns that failed since the process began.
    pub failures: u64,
    /// The reason, while it fails.
    pub error: Option<String>,
}

/// The counts of one chain's commits by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitReport {
    /// The chain.
    pub chain_id: u64,
    /// Its name.
    pub chain: String,
    /// Commits, by their change.
    pub commits: BTreeMap<&'static str, u64>,
    /// Rows written or removed, by table and change.
    pub rows: BTreeMap<(String, &'static str), u64>,
    /// Commits of other processes in between, and commits that were too many at once to count.
    pub gaps: u64,
}

impl CommitReport {
    /// A chain without commits.
    pub fn new(chain_id: u64, chain: String) -> Self {
        Self { chain_id, chain, commits: BTreeMap::new(), rows: BTreeMap::new(), gaps: 0 }
    }
}

/// The results of retention for a table since the process began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableReport {
    /// Its name in the configuration.
    pub name: String,
    /// Moves of its leaves by kind: their number, their time and their wait for locks, in seconds.
    pub moves: BTreeMap<&'static str, (u64, f64, f64)>,
    /// Moves and runs that failed.
    pub failures: u64,
    /// Leaves that are due or on their way, and do not move.
    pub blocked: u64,
    /// Last run without a failure.
    pub succeeded_at: Option<DateTime<Utc>>,
}

impl TableReport {
    /// Counts a move.
    pub fn count(&mut self, act: &'static str, took: Duration, waited: Duration) {
        let (count, seconds, waiting) = self.moves.entry(act).or_default();
        *count += 1;
        *seconds += took.as_secs_f64();
        *waiting += waited.as_secs_f64();
    }
}

/// The progress of a chain towards all blocks up to its head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Blocks from the first to the head: stored blocks of any process count.
    pub of_blocks: u64,
    /// Blocks that it still has to fetch.
    pub missing_blocks: u64,
    /// Recent blocks per second.
    pub blocks_per_second: f64,
}

impl Progress {
    /// Percent of the blocks that are stored.
    pub fn percent(&self) -> f64 {
        (1.0 - self.missing_blocks as f64 / self.of_blocks.max(self.missing_blocks).max(1) as f64) * 100.0
    }

    /// The remaining time at this rate; none without a rate.
    pub fn left(&self) -> Option<Duration> {
        let seconds = self.missing_blocks as f64 / self.blocks_per_second;
        Duration::try_from_secs_f64(seconds).ok().filter(|_| self.blocks_per_second > 0.0)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of_blocks, missing_blocks, blocks_per_second } = self;
        write!(
            f,
            "{:.1} % of {of_blocks} blocks, {missing_blocks} missing, {blocks_per_second:.0} blocks/s",
            self.percent()
        )?;
        match self.left() {
            Some(left) => write!(f, ", about {} left", human(left)),
            None => Ok(()),
        }
    }
}

/// A time for people: its two largest units.
pub fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Watches the decrease of a chain's missing blocks.
#[derive(Clone, Debug, Default)]
pub struct CatchUp {
    /// Its begin, and the blocks that were missing then or arrived since.
    began: Option<(Instant, u64)>,
    /// Recent numbers of missing blocks, oldest first.
    seen: VecDeque<(Instant, u64)>,
}

/// The result of a check of a chain that catches up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CaughtUp {
    /// Only the newest blocks are missing, as nearly always.
    Before,
    /// On its way.
    Not(Progress),
    /// It has just caught up: the number of blocks, and the time.
    Now(u64, Duration),
}

impl CatchUp {
    /// Records that this number of all blocks, from the first to the head, is missing at `now`.
    pub fn look(&mut self, now: Instant, missing: u64, of_blocks: u64) -> CaughtUp {
        let Some((since, fetched)) = &mut self.began else {
            if missing > BEHIND {
                (self.began, self.seen) = (Some((now, missing)), VecDeque::from([(now, missing)]));
                return CaughtUp::Not(Progress { of_blocks, missing_blocks: missing, blocks_per_second: 0.0 });
            }
            return CaughtUp::Before;
        };
        if missing <= READY_LAG {
            let done = CaughtUp::Now(*fetched, now - *since);
            self.began = None;
            return done;
        }
        let before = self.seen.back().map_or(missing, |(_, before)| *before);
        *fetched += missing.saturating_sub(before);
        self.seen.push_back((now, missing));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(at, _)| now - *at > LATELY) {
            self.seen.pop_front();
        }
        let (at, first) = self.seen.front().copied().unwrap_or((now, missing));
        let seconds = (now - at).as_secs_f64();
        let blocks_per_second = if seconds > 0.0 { first.saturating_sub(missing) as f64 / seconds } else { 0.0 };
        CaughtUp::Not(Progress { of_blocks, missing_blocks: missing, blocks_per_second })
    }
}

/// A chain with more missing blocks than this catches up, and reports its progress.
const BEHIND: u64 = 32;

/// The time span of a rate: ranges of blocks arrive in bursts.
const LATELY: Duration = Duration::from_secs(30);

/// A chain this close to its head counts as caught up: the newest block is always on its way.
const READY_LAG: u64 = 2;

/// Measures the time without progress while work is waiting.
#[derive(Clone, Debug)]
pub struct Watchdog<M> {
    mark: Option<M>,
    since: Option<Instant>,
}

impl<M> Default for Watchdog<M> {
    fn default() -> Self {
        Self { mark: None, since: None }
    }
}

impl<M: PartialEq> Watchdog<M> {
    /// `mark` differs from the last one after progress; `busy`: work is waiting.
    pub fn look(&mut self, mark: M, busy: bool, now: Instant) -> Duration {
        if !busy || self.mark.as_ref() != Some(&mark) {
            (self.mark, self.since) = (Some(mark), None);
        }
        now.saturating_duration_since(*self.since.get_or_insert(now))
    }
}

/// Events a second over the last few seconds.
#[derive(Clone, Debug, Default)]
pub struct Meter(VecDeque<(Instant, u64)>);

const WINDOW: Duration = Duration::from_secs(10);

impl Meter {
    /// Counts `events` now.
    pub fn add(&mut self, events: u64) {
        let now = Instant::now();
        self.0.push_back((now, events));
        while self.0.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.0.pop_front();
        }
    }

    /// The rate over the window.
    pub fn per_second(&self) -> f64 {
        let recent = self.0.iter().filter(|(at, _)| at.elapsed() <= WINDOW);
        let events: u64 = recent.map(|(_, events)| events).sum();
        events as f64 / WINDOW.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_does_not_move_is_noticed_while_it_has_something_to_do() {
        let (mut dog, now) = (Watchdog::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(dog.look(1, true, at(0)), Duration::ZERO);
        assert_eq!(dog.look(1, true, at(90)), Duration::from_secs(90));
        assert_eq!(dog.look(2, true, at(100)), Duration::ZERO, "it moved");
        assert_eq!(dog.look(2, false, at(500)), Duration::ZERO, "nothing to do");
        assert_eq!(dog.look(2, true, at(510)), Duration::from_secs(10));
    }

    #[test]
    fn a_chain_that_catches_up_tells_how_far_it_is_and_when_it_is_done() {
        let (begin, mut watch) = (Instant::now(), CatchUp::default());
        // An earlier process stored 1,000 blocks.
        let mut look = |seconds, missing, of| watch.look(begin + Duration::from_secs(seconds), missing, of);
        assert_eq!(look(0, BEHIND, 2_000), CaughtUp::Before);
        assert!(
            matches!(look(0, 1_000, 2_000), CaughtUp::Not(first) if first.left().is_none() && first.percent() == 50.0)
        );
        let CaughtUp::Not(more) = look(10, 500, 2_000) else { panic!("not done") };
        assert_eq!(more.to_string(), "75.0 % of 2000 blocks, 500 missing, 50 blocks/s, about 10 s left");
        // The head moved on; then the node stops for longer than the time span of a rate.
        let CaughtUp::Not(more) = look(20, 600, 2_100) else { panic!("not done") };
        assert_eq!((more.of_blocks, more.missing_blocks, more.blocks_per_second), (2_100, 600, 20.0));
        look(60, 600, 2_100);
        let CaughtUp::Not(still) = look(70, 600, 2_100) else { panic!("not done") };
        assert_eq!(still.left(), None, "{still}");
        assert_eq!(look(90, 1, 2_100), CaughtUp::Now(1_100, Duration::from_secs(90)));
        assert_eq!(look(91, 3, 2_102), CaughtUp::Before);
        assert_eq!(human(Duration::from_secs(93_784)), "1 d 2 h");
    }
}
