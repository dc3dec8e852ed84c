//! Nodes that refuse, fail, lag and lie, played by [`FaultyNode`] before a real Anvil: while a fault lasts nothing false is
//! stored and nothing true is lost, and once it is over everything is stored exactly once. Each fault is seen to strike.
//!
//! A theme is a table of cases. They share one chain, each with its own faulty node, indexer and database, at the same time.

mod balancers;
mod heads;
mod lies;
mod limits;
mod weather;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use dalp_fixtures::faulty::{Fault, Injection, Rule};
use dalp_fixtures::{Anvil, Deployed, FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, head, stage, until};
use dalp_tests::traffic::caught_up_or;
use dalp_tests::truth::{Row, assert_exact, on_chain, stored};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{burst, caught_up};

const CHAIN: i64 = 31_337;

/// The correct state during the fault. Afterwards, every log must be stored exactly once in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// Everything is stored.
    Stored,
    /// Only true logs are stored: more knowledge may be impossible.
    True,
}

/// One row of a table.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    rules: Vec<Rule>,
    meanwhile: Meanwhile,
    /// Lines of the chain's section.
    lines: Vec<String>,
    /// Whether there is a second node, honest and slower.
    honest: bool,
    /// Whether the indexer hears of heads from the faulty node's WebSocket.
    socket: bool,
}

impl Case {
    fn new(name: &str, meanwhile: Meanwhile, rules: Vec<Rule>) -> Self {
        // The limit of a wait for an event that never comes.
        let hangs = rules.iter().any(|rule| rule.what == Fault::Hang);
        let lines = if hangs { vec!["request_timeout = \"2s\"".to_owned()] } else { Vec::new() };
        Self { name: name.to_owned(), rules, meanwhile, lines, honest: false, socket: false }
    }

    fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// The same with an honest second node: then everything is stored while the first one misbehaves.
    fn beside_an_honest_node(mut self) -> Self {
        self.name.push_str(", beside an honest node");
        (self.honest, self.meanwhile) = (true, Meanwhile::Stored);
        self
    }
}

/// Indexers that start at the same time: a table of cases that all start at once would keep each from starting in time.
static STARTS: Semaphore = Semaphore::const_new(3);

/// A case that runs.
struct Play {
    case: Case,
    database: Database,
    faulty: FaultyNode,
    service: Service,
    rules: Vec<Arc<Injection>>,
    /// The rows stored before the fault.
    before: Vec<Row>,
    _honest: Option<FaultyNode>,
}

impl Play {
    /// Starts the case's indexer; its rules are in force from the start if `at_once`.
    async fn start(case: Case, anvil: &Anvil, at_once: bool) -> Self {
        let _turn = STARTS.acquire().await.expect("it is never closed");
        let database = stage().await.database().await;
        let faulty = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let mut site = Site::new(&database, &faulty.url());
        if case.socket {
            site = site.with(&format!("ws_urls = [{:?}]", faulty.ws_url()));
        }
        let mut honest = None;
        if case.honest {
            // Slower, so that no preference for the faster node keeps the fault from being met.
            let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
            node.inject(Rule::new(Fault::Delay { ms: 40 }));
            site.rpc_urls.push(node.url());
            honest = Some(node);
        }
        let site = case.lines.iter().fold(site, |site, line| site.with(line));
        let mut play = Self {
            rules: if at_once { case.rules.iter().map(|rule| faulty.inject(rule.clone())).collect() } else { vec![] },
            service: Service::start(&site.config()).await.unwrap_or_else(|error| panic!("it does not start: {error}")),
            before: Vec::new(),
            case,
            database,
            faulty,
            _honest: honest,
        };
        if !at_once {
            caught_up(&play.database, anvil).await;
            if play.case.socket {
                // Polls catch up without it, and an unread head cannot be struck.
                until("the socket to be subscribed", || async { play.faulty.subscribers() > 0 }).await;
            }
            play.before = play.stored(anvil).await;
            play.rules = play.case.rules.iter().map(|rule| play.faulty.inject(rule.clone())).collect();
        }
        play
    }

    async fn stored(&self, anvil: &Anvil) -> Vec<Row> {
        stored(&self.database.superuser().await, CHAIN, 0, head(anvil.rpc()).await).await
    }

    /// Every rule struck, as often as shows that one failure is not the end.
    async fn struck(&self) {
        for rule in &self.rules {
            let enough = rule.rule().when.times.unwrap_or(2).min(2);
            let enough = if self.case.meanwhile == Meanwhile::Stored { 1 } else { enough };
            until(&format!("{:?} to strike", rule.rule().what), || async { rule.count() >= enough }).await;
        }
    }

    /// The stored logs are on the chain, and the earlier ones are still stored.
    async fn only_truth(&self, anvil: &Anvil) {
        let stored = self.stored(anvil).await;
        let truth: BTreeSet<Row> = on_chain(anvil.rpc(), 0, head(anvil.rpc()).await).await.into_iter().collect();
        let false_rows: Vec<&Row> = stored.iter().filter(|row| !truth.contains(row)).collect();
        assert!(false_rows.is_empty(), "{} false rows, the first {:?}", false_rows.len(), false_rows.first());
        let lost = self.before.iter().find(|row| stored.binary_search(row).is_err());
        assert!(lost.is_none(), "it was stored before the fault: {lost:?}");
    }

    /// Compares the stored rows with the correct ones, during the fault and after it.
    async fn judge(self, anvil: &Anvil, first: u64) {
        self.struck().await;
        self.only_truth(anvil).await;
        if self.case.meanwhile == Meanwhile::Stored {
            self.exact(anvil, first).await;
        }
        self.faulty.behave();
        self.exact(anvil, first).await;
        self.service.stop().await;
    }

    async fn exact(&self, anvil: &Anvil, first: u64) {
        exact(&self.service, &self.database, anvil, first).await;
    }
}

/// Everything from block `first` to the head is stored exactly once, or soon will be.
async fn exact(service: &Service, database: &Database, anvil: &Anvil, first: u64) {
    let status = service.status();
    caught_up_or(database, anvil, || format!("{:?}", status.borrow()[0])).await;
    let client = database.superuser().await;
    assert_exact(&client, anvil.rpc(), CHAIN, first, head(anvil.rpc()).await).await;
}

/// Runs all cases at the same time and names each failed one.
async fn each<F>(cases: Vec<Case>, run: impl Fn(Case) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut tasks, mut names) = (JoinSet::new(), std::collections::HashMap::new());
    for case in cases {
        let name = case.name.clone();
        names.insert(tasks.spawn(run(case)).id(), name);
    }
    let mut failed = Vec::new();
    while let Some(done) = tasks.join_next_with_id().await {
        let Err(error) = done else { continue };
        let name = names[&error.id()].clone();
        let panic = error.into_panic();
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        failed.push(format!("{name}: {text}"));
    }
    failed.sort();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// A chain of some 150 blocks, of which 45 have three logs each.
async fn history() -> Arc<Anvil> {
    let anvil = anvil().await;
    let deployed = deploy(anvil.rpc()).await.unwrap();
    for seed in 0..45 {
        burst(anvil.rpc(), &deployed, 3, seed).await;
        anvil.rpc().mine(2, 1).await.unwrap();
    }
    Arc::new(anvil)
}

/// The cases' faults hold while history is fetched.
async fn check_history(cases: Vec<Case>) {
    let anvil = history().await;
    each(cases, |case| {
        let anvil = anvil.clone();
        async move { Play::start(case, &anvil, true).await.judge(&anvil, 0).await }
    })
    .await;
}

/// The cases' faults begin once the indexer has caught up, and new blocks come; from the contracts' blocks on, so that a
/// filter by the contract that emits holds every log.
async fn check_tip(cases: impl FnOnce(&Deployed) -> Vec<Case>) {
    let anvil = Arc::new(anvil().await);
    let deployed = deploy(anvil.rpc()).await.unwrap();
    let first = head(anvil.rpc()).await + 1;
    for seed in 0..3 {
        burst(anvil.rpc(), &deployed, 2, seed).await;
    }
    let cases: Vec<Case> =
        cases(&deployed).into_iter().map(|case| case.with(format!("start_block = {first}"))).collect();
    let ready = Arc::new(tokio::sync::Barrier::new(cases.len() + 1));
    let (mined, seen) = tokio::sync::watch::channel(false);
    let traffic = async {
        ready.wait().await;
        for seed in 10..16 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        mined.send_replace(true);
    };
    let plays = each(cases, |case| {
        let (anvil, ready, mut seen) = (anvil.clone(), ready.clone(), seen.clone());
        async move {
            let started = tokio::spawn({
                let anvil = anvil.clone();
                async move { Play::start(case, &anvil, false).await }
            });
            let started = started.await;
            // Also a case that failed lets the others go on.
            ready.wait().await;
            let play = started.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            seen.wait_for(|mined| *mined).await.expect("the blocks are mined");
            play.judge(&anvil, first).await;
        }
    });
    tokio::join!(traffic, plays);
}
