//! The time without a writer after a leader's end, beside the promised time: killed, stopped by signal, or paused during a COPY.
//!
//! `cargo bench -p dalp-tests --bench takeover -- [--runs N]` prints Markdown and judges nothing. `tests/it/lease.rs` asserts the
//! order of events, and the harmlessness of a leader that continues.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dalp_fixtures::{Anvil, Deployed, deploy};
use dalp_indexer::store::lease::{POLL, TTL};
use dalp_tests::indexer::{Running, Site};
use dalp_tests::lease::{leads, says, token};
use dalp_tests::proxy::{Moment, Proxy, Then, Upstream};
use dalp_tests::stage::{Database, WRITER, anvil, head, stage, until};
use dalp_tests::traffic::{burst, caught_up};
use rand::RngExt;
use rustix::process::Signal;
use tokio_postgres::Client;

const USAGE: &str = "options: --runs N (takeovers of each kind, 10 unless said), --smoke (one of each), --help";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runs = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 10,
        ["--smoke"] => 1,
        ["--runs", runs] if runs.parse().is_ok_and(|runs: usize| runs > 0) => runs.parse().unwrap_or(1),
        ["--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    dalp_tests::run(measure(runs));
    ExitCode::SUCCESS
}

/// How a leader goes.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Told,
    Stopped,
}

impl End {
    fn words(self) -> &'static str {
        match self {
            Self::Killed => "SIGKILL",
            Self::Told => "SIGTERM, a clean stop",
            Self::Stopped => "SIGSTOP in mid-COPY",
        }
    }

    /// As docs/failure-modes.md has it.
    fn promise(self) -> &'static str {
        match self {
            Self::Told => "1",
            Self::Killed | Self::Stopped => "5",
        }
    }
}

async fn measure(runs: usize) {
    println!(
        "A lease lasts {} s, and a standby looks each {} s. Seconds: least, median, most of {runs}.\n\n\
         | the leader's end | the standby has the chain | a block of then is stored | promised, at most |\n|---|---:|---:|---:|",
        TTL.as_secs_f64(),
        POLL.as_secs_f64()
    );
    for end in [End::Killed, End::Told, End::Stopped] {
        let (mut taken, mut stored) = (Vec::new(), Vec::new());
        for run in 0..runs {
            eprintln!("{}, {} of {runs} …", end.words(), run + 1);
            let times = Scene::set().await.play(end).await;
            taken.push(times.0);
            stored.push(times.1);
        }
        println!("| {} | {} | {} | {} |", end.words(), spread(&mut taken), spread(&mut stored), end.promise());
    }
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let [least, median, most] = [0, times.len() / 2, times.len() - 1].map(|at| times[at].as_secs_f64());
    format!("{least:.2}, {median:.2}, {most:.2}")
}

/// A leader whose writes pass a proxy, and a standby.
struct Scene {
    database: Database,
    anvil: Anvil,
    deployed: Deployed,
    client: Client,
    proxy: Proxy,
    first: Running,
    _standby: Running,
}

impl Scene {
    async fn set() -> Self {
        let stage = stage().await;
        let (database, anvil) = (stage.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.expect("the contracts are deployed");
        let socket = stage.cluster.socket_dir().join(format!(".s.PGSQL.{}", stage.cluster.port()));
        let proxy = Proxy::before(Upstream::Unix(socket), Moment::Never, Arc::new(|| {})).await;
        let direct = Site::new(&database, &anvil.http_url());
        let url = format!("postgres://{WRITER}@127.0.0.1:{}/{}", proxy.port, database.name);
        let first = Site { url, ..direct.clone() }.spawn();
        let client = database.superuser().await;
        leads(&client, &first).await;
        burst(anvil.rpc(), &deployed, 5, 1).await;
        caught_up(&database, &anvil).await;
        let standby = direct.spawn();
        says(&standby, "standby: ", 1).await;
        // At any moment between two renewals.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..1_000))).await;
        Self { database, anvil, deployed, client, proxy, first, _standby: standby }
    }

    /// How long until the standby has the chain, and until a block that came when the leader went is stored.
    async fn play(mut self, end: End) -> (Duration, Duration) {
        let before = token(&self.client).await;
        let began = match end {
            End::Killed => {
                let began = Instant::now();
                self.first.kill();
                began
            }
            End::Told => {
                let began = Instant::now();
                self.first.signal(Signal::TERM);
                began
            }
            End::Stopped => self.stop_in_mid_copy().await,
        };
        if !matches!(end, End::Stopped) {
            burst(self.anvil.rpc(), &self.deployed, 5, 2).await;
        }
        let block = i64::try_from(head(self.anvil.rpc()).await).expect("a block's number");
        let (mut taken, sql) = (None, "SELECT token, tail_number FROM dalp_indexed.chain_state");
        loop {
            let row = self.client.query_one(sql, &[]).await.expect("the state is read");
            let (now, tail) = (row.get::<_, i64>(0), row.get::<_, i64>(1));
            if now > before {
                let taken = *taken.get_or_insert_with(|| began.elapsed());
                if tail >= block {
                    let stored = began.elapsed();
                    caught_up(&self.database, &self.anvil).await;
                    return (taken, stored);
                }
            }
            assert!(began.elapsed() < dalp_tests::stage::PATIENCE, "nobody takes over: token {now}, tail {tail}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Answers when it was stopped.
    async fn stop_in_mid_copy(&self) -> Instant {
        let pid = i32::try_from(self.first.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        let stopped = Arc::new(Mutex::new(None));
        let at = stopped.clone();
        let strike = move || {
            *at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            rustix::process::kill_process(pid, Signal::STOP).expect("it takes a signal");
        };
        self.proxy.strike_at(Moment::MidCopy(1), Then::Hold, Arc::new(strike));
        burst(self.anvil.rpc(), &self.deployed, 5, 2).await;
        until("a COPY", || async { self.proxy.struck() }).await;
        let stopped = *stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.expect("it was stopped")
    }
}
