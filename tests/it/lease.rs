//! One process leads a chain, the others stand by: the next leader, its condition, and the possible actions of a paused leader.
//!
//! The order of events is asserted here; `cargo bench -p dalp-tests --bench takeover` reports their times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dalp_fixtures::{Anvil, AnvilOptions, Deployed, deploy};
use dalp_indexer::service::Service;
use dalp_indexer::status::{ChainStatus, Role};
use dalp_indexer::store::lease::TTL;
use dalp_tests::indexer::{Running, Site};
use dalp_tests::lease::{Leases, leader, leads, says, taken_over, token};
use dalp_tests::proxy::{Moment, Proxy, Then, Upstream};
use dalp_tests::stage::{Database, WRITER, anvil, anvil_with, head, pooler, stage, until, until_shown};
use dalp_tests::truth::assert_exact;
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;

use crate::{burst, caught_up, rng, socket, tries, waits_for};

async fn exact(database: &Database, anvil: &Anvil) {
    caught_up(database, anvil).await;
    let client = database.superuser().await;
    assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
}

/// Waits until the lease is seen to end as long after its renewal as it may.
async fn lasts_as_it_should(client: &Client) {
    // Both times are the server's, of one statement: as whole seconds they equal the request.
    let sql = "SELECT floor(extract(epoch FROM expires_at - renewed_at))::int8 FROM dalp_indexed.lease";
    until_shown("a lease to be renewed for its time", || async {
        let seconds: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        if seconds as u64 == TTL.as_secs() { Ok(()) } else { Err(format!("it ends {seconds} s after its renewal")) }
    })
    .await;
}

#[test]
fn a_standby_says_so_and_takes_over_when_the_lease_of_a_killed_leader_runs_out() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let (client, leases) = (database.superuser().await, Leases::kept(&database).await);
        let mut first = site.spawn();
        leads(&client, &first).await;
        let mut standby = Service::start(&site.config()).await.unwrap();
        waits_for(&standby, &format!("pid {} leads, its lease ends at ", first.pid())).await;
        burst(anvil.rpc(), &deployed, 5, 1).await;
        exact(&database, &anvil).await;
        let status = standby.status().borrow()[0].clone();
        assert_eq!((status.role, status.ready), (Role::Standby, false), "{status:?}");

        first.kill();
        burst(anvil.rpc(), &deployed, 5, 2).await;
        // The lease of the dead process is still valid.
        assert_eq!((token(&client).await, leader(&client).await), (1, Some(first.pid())));
        leases.run_out().await;
        exact(&database, &anvil).await;
        assert_eq!(token(&client).await, 2);
        lasts_as_it_should(&client).await;
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
        // A lease that would last for an hour: there is no takeover without its release.
        let (client, _leases) = (database.superuser().await, Leases::kept(&database).await);
        let mut first = site.spawn();
        leads(&client, &first).await;
        for seed in 0..5 {
            let standby = site.spawn();
            says(&standby, "standby: ", 1).await;
            burst(anvil.rpc(), &deployed, 5, seed).await;
            let before = token(&client).await;
            assert!(first.stop().await.success(), "{}", first.log());
            assert_ne!(leader(&client).await, Some(first.pid()), "it ended before its lease did\n{}", first.log());
            leads(&client, &standby).await;
            assert_eq!(token(&client).await, before + 1);
            first = standby;
        }
        exact(&database, &anvil).await;
        assert!(first.stop().await.success(), "{}", first.log());
    });
}

#[test]
fn a_fenced_leader_stands_by_and_may_lead_again() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let (client, _leases) = (database.superuser().await, Leases::kept(&database).await);
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

/// Pauses a leader at `moment` with SIGSTOP: its successor ends its open transactions, and commits; the continued leader commits
/// nothing.
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
    let (client, leases) = (database.superuser().await, Leases::kept(&database).await);
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
    leases.run_out().await;
    exact(&database, &anvil).await;
    leads(&client, &second).await;
    leases.keep().await;
    // Told to end, rather than left to the limits that a transaction has.
    until("the server to say that it ended what was held", || async { proxy.was_ended_with("57P01") }).await;
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
    leases.run_out().await;
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
        // Sessions that wait for the writer may form a queue: this one, like a compaction of the coverage, is in front of it.
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
        // It has no time limits, and would wait for ever.
        exact(&database, &anvil).await;
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
        let (client, leases) = (database.superuser().await, Leases::kept(&database).await);
        let mut rng = rng("takeovers");
        let mut processes = vec![site.spawn()];
        leads(&client, &processes[0]).await;
        processes.push(site.spawn());
        for round in 0..tries(10, 50) {
            let led_by = leader(&client).await.expect("somebody leads");
            let at = processes.iter().position(|process| process.pid() == led_by).expect("it is one of ours");
            let first = processes.remove(at);
            says(&processes[0], "standby: ", 1).await;
            let (before, end) = (token(&client).await, [End::Told, End::Killed, End::Stopped][round as usize % 3]);
            let pause = Duration::from_millis(rng.random_range(0..150));
            let handover = async {
                tokio::time::sleep(pause).await;
                let stopped = end_of(first, end, &leases).await;
                taken_over(&client, before).await;
                stopped
            };
            let (stopped, ()) = tokio::join!(handover, traffic(&anvil, &deployed, round));
            leads(&client, &processes[0]).await;
            leases.keep().await;
            processes.push(match stopped {
                Some(stopped) => {
                    let fenced = stopped.log().matches("fenced: ").count();
                    stopped.signal(Signal::CONT);
                    says(&stopped, "fenced: ", fenced + 1).await;
                    stopped
                }
                None => site.spawn(),
            });
            assert_eq!(token(&client).await, before + 1, "one takeover for each leader that goes");
        }
        exact(&database, &anvil).await;
    });
}

/// A few blocks while a leader ends.
async fn traffic(anvil: &Anvil, deployed: &Deployed, round: u64) {
    for block in 0..4 {
        burst(anvil.rpc(), deployed, 10, 10 * round + block).await;
    }
}

/// Ends a leader, or stops it. Where it cannot give its lease back, that runs out.
async fn end_of(mut leader: Running, end: End, leases: &Leases) -> Option<Running> {
    match end {
        End::Killed => leader.kill(),
        End::Told => {
            assert!(leader.stop().await.success(), "{}", leader.log());
            return None;
        }
        End::Stopped => leader.signal(Signal::STOP),
    }
    leases.run_out().await;
    matches!(end, End::Stopped).then_some(leader)
}

#[test]
fn a_process_leads_one_chain_and_stands_by_for_another() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let _leases = Leases::kept(&database).await;
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
        let _leases = Leases::kept(&database).await;
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

/// The lease does not keep rows right: an expired lease without a new owner is renewed again.
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

/// The tests above count the remains of the earlier writer after a takeover.
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
