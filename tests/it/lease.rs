//! One process leads a chain, the others stand by: who takes over, when, and what a leader that was stopped can still do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dalp_fixtures::{Anvil, AnvilOptions, Deployed, deploy};
use dalp_indexer::service::Service;
use dalp_indexer::status::{ChainStatus, Role};
use dalp_tests::indexer::{Running, Site};
use dalp_tests::proxy::{Moment, Proxy, Then, Upstream};
use dalp_tests::stage::{Database, WRITER, anvil, anvil_with, head, pooler, stage, until};
use dalp_tests::truth::assert_exact;
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;

use crate::{burst, caught_up, rng, socket, tries, waits_for};

/// After a SIGKILL: the lease has to run out, and the standby to notice.
const AFTER_A_KILL: Duration = Duration::from_secs(5);
/// After a clean stop the lease is over at once.
const AFTER_A_STOP: Duration = Duration::from_secs(1);

async fn token(client: &Client) -> i64 {
    let row = client.query_opt("SELECT token FROM dalp_indexed.chain_state", &[]).await.unwrap();
    row.map_or(0, |row| row.get(0))
}

/// The process that has the lease, which must last.
async fn leader(client: &Client) -> Option<u32> {
    let sql = "SELECT holder FROM dalp_indexed.lease WHERE expires_at > clock_timestamp()";
    let row = client.query_opt(sql, &[]).await.unwrap()?;
    row.get::<_, &str>(0).rsplit(' ').next()?.parse().ok()
}

async fn leads(client: &Client, running: &Running) {
    until("it leads", || async { leader(client).await == Some(running.pid()) }).await;
}

/// Waits until a process said something `times` times.
async fn says(running: &Running, what: &str, times: usize) {
    until(what, || async { running.log().matches(what).count() >= times }).await;
}

/// How long it takes until somebody has a token newer than `before`.
async fn taken_over(client: &Client, before: i64, since: Instant) -> Duration {
    while token(client).await <= before {
        assert!(since.elapsed() < Duration::from_secs(60), "nobody takes over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    since.elapsed()
}

async fn exact(database: &Database, anvil: &Anvil) {
    caught_up(database, anvil).await;
    let client = database.superuser().await;
    assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
}

#[test]
fn a_standby_says_so_and_takes_over_within_seconds_of_a_kill() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let client = database.superuser().await;
        let mut first = site.spawn();
        leads(&client, &first).await;
        let mut standby = Service::start(&site.config()).await.unwrap();
        waits_for(&standby, &format!("pid {} leads, its lease ends at ", first.pid())).await;
        burst(anvil.rpc(), &deployed, 5, 1).await;
        exact(&database, &anvil).await;
        let status = standby.status().borrow()[0].clone();
        assert_eq!((status.role, status.ready), (Role::Standby, false), "{status:?}");

        let (before, killed) = (token(&client).await, Instant::now());
        first.kill();
        burst(anvil.rpc(), &deployed, 5, 2).await;
        let took = taken_over(&client, before, killed).await;
        exact(&database, &anvil).await;
        println!("taken over {took:?} after SIGKILL, caught up after {:?}", killed.elapsed());
        assert!(killed.elapsed() < AFTER_A_KILL, "{took:?}, {:?}", killed.elapsed());
        let mut status = standby.status();
        tokio::select! {
            error = standby.failed() => panic!("{error}"),
            ready = status.wait_for(|chains| chains[0].role == Role::Leader && chains[0].ready) => drop(ready.unwrap()),
        }
        standby.stop().await;
    });
}

#[test]
fn a_standby_takes_over_at_once_when_its_leader_is_told_to_stop() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let client = database.superuser().await;
        let mut leader = site.spawn();
        leads(&client, &leader).await;
        for seed in 0..5 {
            let standby = site.spawn();
            says(&standby, "standby: ", 1).await;
            burst(anvil.rpc(), &deployed, 5, seed).await;
            let (before, told) = (token(&client).await, Instant::now());
            leader.signal(Signal::TERM);
            let took = taken_over(&client, before, told).await;
            println!("taken over {took:?} after SIGTERM");
            assert!(took < AFTER_A_STOP, "{took:?}\n{}", leader.log());
            assert!(leader.ended().await.success(), "{}", leader.log());
            leader = standby;
        }
        exact(&database, &anvil).await;
        assert!(leader.stop().await.success(), "{}", leader.log());
    });
}

#[test]
fn a_fenced_leader_stands_by_and_may_lead_again() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let client = database.superuser().await;
        let first = site.spawn();
        leads(&client, &first).await;
        let mut second = site.spawn();
        says(&second, "standby: ", 1).await;
        // Both live; the lease is made to run out under the first, as after a long pause of its machine.
        until("the second leads", || async {
            client
                .execute("UPDATE dalp_indexed.lease SET expires_at = '-infinity' WHERE token = 1", &[])
                .await
                .unwrap();
            leader(&client).await == Some(second.pid())
        })
        .await;
        says(&first, "fenced: ", 1).await;
        says(&first, "standby: ", 1).await;
        let fenced = token(&client).await;
        for seed in 0..5 {
            burst(anvil.rpc(), &deployed, 5, seed).await;
            exact(&database, &anvil).await;
        }
        assert_eq!(
            (token(&client).await, leader(&client).await),
            (fenced, Some(second.pid())),
            "they do not take turns"
        );
        assert!(second.stop().await.success());
        leads(&client, &first).await;
        burst(anvil.rpc(), &deployed, 5, 9).await;
        exact(&database, &anvil).await;
    });
}

/// Whom the chain's writers go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Pooled,
}

/// Stops a leader at `moment` with SIGSTOP: its successor commits within seconds; going on, it commits nothing.
async fn stopped_at(moment: Moment, way: Way) {
    let stage = stage().await;
    let (database, anvil) = (stage.database().await, anvil().await);
    let deployed = deploy(anvil.rpc()).await.unwrap();
    let bouncer = match way {
        Way::Direct => None,
        Way::Pooled => Some(pooler(&stage.cluster).await),
    };
    let (upstream, url) = match &bouncer {
        None => (Upstream::Unix(socket().await), database.direct_url(WRITER)),
        Some(bouncer) => (Upstream::Tcp(([127, 0, 0, 1], bouncer.port()).into()), bouncer.url(&database.name, WRITER)),
    };
    let proxy = Proxy::before(upstream, Moment::Never, Arc::new(|| {})).await;
    let mut site = Site::new(&database, &anvil.http_url());
    site.url = format!("postgres://{WRITER}@127.0.0.1:{}/{}", proxy.port, database.name);
    let client = database.superuser().await;
    let first = site.spawn();
    leads(&client, &first).await;
    burst(anvil.rpc(), &deployed, 5, 1).await;
    exact(&database, &anvil).await;
    site.url = url;
    let mut second = site.spawn();
    says(&second, "standby: ", 1).await;
    let strangers = strangers(&database).await;

    let before = token(&client).await;
    let pid = Pid::from_raw(i32::try_from(first.pid()).unwrap()).unwrap();
    proxy.strike_at(moment, Then::Hold, Arc::new(move || kill_process(pid, Signal::STOP).unwrap()));
    burst(anvil.rpc(), &deployed, 5, 2).await;
    until("the moment", || async { proxy.struck() }).await;
    let stopped = Instant::now();
    exact(&database, &anvil).await;
    println!("{moment:?} {way:?}: committed {:?} after SIGSTOP", stopped.elapsed());
    assert!(stopped.elapsed() < AFTER_A_KILL, "{:?}\n{}", stopped.elapsed(), second.log());
    for stranger in &strangers {
        let row =
            stranger.query_one("SELECT 1", &[]).await.expect("a writer of another chain, or another program, lives");
        assert_eq!(row.get::<_, i32>(0), 1);
    }

    first.signal(Signal::CONT);
    says(&first, "fenced: ", 1).await;
    says(&first, "standby: ", 1).await;
    burst(anvil.rpc(), &deployed, 5, 3).await;
    exact(&database, &anvil).await;
    assert_eq!((token(&client).await, leader(&client).await), (before + 1, Some(second.pid())), "{}", first.log());
    second.kill();
    leads(&client, &first).await;
    burst(anvil.rpc(), &deployed, 5, 4).await;
    exact(&database, &anvil).await;
    assert_eq!(token(&client).await, before + 2);
}

/// Open transactions of the same login that a takeover must leave alone.
async fn strangers(database: &Database) -> Vec<Client> {
    let mut strangers = Vec::new();
    for name in ["psql", "dalp-indexer", "dalp-indexer 31338/0", "dalp-indexer 313370/0", "dalp-indexer 31337/0 "] {
        let client = database.client(WRITER).await;
        client.batch_execute("BEGIN").await.unwrap();
        client.execute("SELECT set_config('application_name', $1, false)", &[&name]).await.unwrap();
        strangers.push(client);
    }
    strangers
}

#[test]
fn a_leader_stopped_in_the_middle_of_a_copy_holds_nobody_up() {
    dalp_tests::run(async {
        // The logs' and the transfers': a block has no others.
        for n in [1, 2] {
            stopped_at(Moment::MidCopy(n), Way::Direct).await;
        }
    });
}

#[test]
fn a_leader_stopped_between_its_fence_and_commit_holds_nobody_up() {
    dalp_tests::run(stopped_at(Moment::BeforeCommit(1), Way::Direct));
}

#[test]
fn a_leader_stopped_behind_a_pooler_holds_nobody_up() {
    dalp_tests::run(async {
        stopped_at(Moment::MidCopy(1), Way::Pooled).await;
        stopped_at(Moment::BeforeCommit(1), Way::Pooled).await;
    });
}

/// Stopped, overtaken, and stopped once more in mid-COPY before it notices: the renewals of its successor end that, too.
#[test]
fn a_writer_of_an_older_token_that_blocks_is_ended() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let mut running = Site::new(&database, &anvil.http_url()).spawn();
        burst(anvil.rpc(), &deployed, 5, 1).await;
        caught_up(&database, &anvil).await;
        let old = database.client(WRITER).await;
        old.batch_execute("BEGIN; SET LOCAL application_name = 'dalp-indexer 31337/0'").await.unwrap();
        old.batch_execute("SELECT 1 FROM dalp_indexed.chain_state FOR UPDATE").await.unwrap();
        // Who waits for the writer may wait in a row: this one, as a compaction of the coverage would, stands before it.
        let between = database.client(WRITER).await;
        between.batch_execute("BEGIN; SET LOCAL application_name = 'dalp-indexer 31337'").await.unwrap();
        let waiting = tokio::spawn(async move {
            between.batch_execute("SELECT 1 FROM dalp_indexed.chain_state FOR UPDATE; COMMIT").await
        });
        let in_row =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let client = database.superuser().await;
        until("it waits", || async { client.query_one(in_row, &[]).await.unwrap().get::<_, i64>(0) >= 1 }).await;
        burst(anvil.rpc(), &deployed, 5, 2).await;
        let began = Instant::now();
        exact(&database, &anvil).await;
        assert!(began.elapsed() < AFTER_A_KILL, "{:?}\n{}", began.elapsed(), running.log());
        waiting.await.unwrap().unwrap();
        let error = old.batch_execute("COMMIT").await.unwrap_err();
        assert!(error.is_closed() || error.code().is_some_and(|code| code.code() == "57P01"), "{error:?}");
        assert!(running.stop().await.success(), "{}", running.log());
    });
}

/// One way for a leader to go.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Told,
    Stopped,
}

#[test]
fn takeovers_in_a_row_lose_and_double_nothing() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("range_blocks = 2").with("max_range_blocks = 2");
        let client = database.superuser().await;
        let mut rng = rng("takeovers");
        let mut processes = vec![site.spawn()];
        leads(&client, &processes[0]).await;
        processes.push(site.spawn());
        let mut slowest = Duration::ZERO;
        for round in 0..tries(10, 50) {
            let led_by = leader(&client).await.expect("somebody leads");
            let at = processes.iter().position(|process| process.pid() == led_by).expect("it is one of ours");
            let leader = processes.remove(at);
            says(&processes[0], "standby: ", 1).await;
            let (before, end) = (token(&client).await, [End::Told, End::Killed, End::Stopped][round as usize % 3]);
            let pause = Duration::from_millis(rng.random_range(0..150));
            let handover = async {
                tokio::time::sleep(pause).await;
                let began = Instant::now();
                (end_of(leader, end).await, taken_over(&client, before, began).await)
            };
            let ((leader, took), ()) = tokio::join!(handover, traffic(&anvil, &deployed, round));
            slowest = slowest.max(took);
            processes.push(match leader {
                Some(leader) => {
                    let fenced = leader.log().matches("fenced: ").count();
                    leader.signal(Signal::CONT);
                    says(&leader, "fenced: ", fenced + 1).await;
                    leader
                }
                None => site.spawn(),
            });
            leads(&client, &processes[0]).await;
        }
        println!("slowest takeover {slowest:?}");
        exact(&database, &anvil).await;
        assert!(slowest < AFTER_A_KILL, "{slowest:?}");
    });
}

/// A few blocks while a leader goes.
async fn traffic(anvil: &Anvil, deployed: &Deployed, round: u64) {
    for block in 0..4 {
        burst(anvil.rpc(), deployed, 10, 10 * round + block).await;
    }
}

async fn end_of(mut leader: Running, end: End) -> Option<Running> {
    match end {
        End::Killed => leader.kill(),
        End::Told => assert!(leader.stop().await.success(), "{}", leader.log()),
        End::Stopped => {
            leader.signal(Signal::STOP);
            return Some(leader);
        }
    }
    None
}

#[test]
fn a_process_leads_one_chain_and_stands_by_for_another() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let first_chain = anvil().await;
        let second_chain = anvil_with(AnvilOptions { chain_id: 31_338, ..AnvilOptions::default() }).await;
        let one = Site::new(&database, &first_chain.http_url());
        let mut both = one.clone();
        both.more = format!(
            "[chains.other]\nchain_id = 31338\nrpc_urls = [{:?}]\nfinality = \"never\"\npoll_interval = \"100ms\"",
            second_chain.http_url()
        );
        let a = Service::start(&one.config()).await.unwrap();
        let b = Service::start(&both.config()).await.unwrap();
        let roles = |chains: &Vec<ChainStatus>| chains.iter().map(|c| (c.chain_id, c.role)).collect::<Vec<_>>();
        let mut status = b.status();
        let mixed = [(31_337, Role::Standby), (31_338, Role::Leader)];
        status.wait_for(|chains| roles(chains) == mixed).await.unwrap();
        a.stop().await;
        let leader = [(31_337, Role::Leader), (31_338, Role::Leader)];
        status.wait_for(|chains| roles(chains) == leader).await.unwrap();
        let client = database.superuser().await;
        let sql = "SELECT chain_id, token FROM dalp_indexed.lease ORDER BY chain_id";
        let tokens: Vec<(i64, i64)> =
            client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(tokens, [(31_337, 2), (31_338, 1)], "the other chain's writer was not disturbed");
        b.stop().await;
    });
}

/// Two that start at the same moment: one leads, the other stands by, neither fails.
#[test]
fn processes_that_start_together_agree() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let mut processes: Vec<Running> = (0..4).map(|_| site.spawn()).collect();
        let client = database.superuser().await;
        until("one leads and three stand by", || async {
            let count = |what| processes.iter().filter(|process| process.log().contains(what)).count();
            count("indexing") == 1 && count("standby: ") == 3
        })
        .await;
        burst(anvil.rpc(), &deployed, 5, 1).await;
        exact(&database, &anvil).await;
        assert_eq!(token(&client).await, 1);
        for process in &mut processes {
            assert!(process.is_running(), "{}", process.log());
        }
    });
}

/// The lease is not what keeps rows right: an expired one that nobody takes is renewed again.
#[test]
fn a_leader_that_lost_the_database_for_a_while_leads_on() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let service = Service::start(&Site::new(&database, &anvil.http_url()).config()).await.unwrap();
        let client = database.superuser().await;
        burst(anvil.rpc(), &deployed, 5, 1).await;
        caught_up(&database, &anvil).await;
        client.execute("UPDATE dalp_indexed.lease SET expires_at = '-infinity'", &[]).await.unwrap();
        until("the lease lasts again", || async { leader(&client).await == Some(std::process::id()) }).await;
        assert_eq!(token(&client).await, 1);
        burst(anvil.rpc(), &deployed, 5, 2).await;
        exact(&database, &anvil).await;
        service.stop().await;
        assert_eq!(leader(&client).await, None, "a clean stop ends the lease");
    });
}

/// What is counted for the tests above is what a takeover leaves of the writer before.
#[test]
fn every_data_transaction_says_whose_it_is() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let proxy = Proxy::start(socket().await, Moment::Never, Arc::new(|| {})).await;
        let mut site = Site::new(&database, &anvil.http_url());
        site.url = format!("postgres://{WRITER}@127.0.0.1:{}/{}", proxy.port, database.name);
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        let struck = Arc::new(AtomicU32::new(0));
        let strike = struck.clone();
        proxy.strike_at(Moment::BeforeCommit(1), Then::Hold, Arc::new(move || strike.store(1, Ordering::SeqCst)));
        burst(anvil.rpc(), &deployed, 5, 1).await;
        until("a transaction that is held", || async { struck.load(Ordering::SeqCst) == 1 }).await;
        let named = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 \
                     AND state = 'idle in transaction'";
        let held: i64 = client.query_one(named, &[&"dalp-indexer 31337/1"]).await.unwrap().get(0);
        assert_eq!(held, 1);
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'dalp-indexer 31337/1' \
                   AND datname = current_database()";
        client.query_one(end, &[]).await.unwrap();
        exact(&database, &anvil).await;
        let kept: i64 = client.query_one(named, &[&"dalp-indexer 31337/1"]).await.unwrap().get(0);
        assert_eq!(kept, 0, "the name ends with the transaction");
        service.stop().await;
    });
}
