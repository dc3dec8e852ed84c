//! Killed, cut off, or in doubt: afterwards every log is stored, once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dalp_fixtures::{Anvil, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::{Running, Site};
use dalp_tests::proxy::{Moment, Proxy};
use dalp_tests::stage::{Database, WRITER, anvil, head, stage};
use dalp_tests::truth::assert_exact;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{burst, caught_up, socket};

/// A chain of a few hundred logs, to be indexed in many small batches.
async fn chain() -> Anvil {
    let anvil = anvil().await;
    let deployed = deploy(anvil.rpc()).await.unwrap();
    for seed in 0..60 {
        burst(anvil.rpc(), &deployed, 10, seed).await;
    }
    anvil
}

/// A site whose writes go through the proxy, in ranges of at most three blocks.
fn through(database: &Database, anvil: &Anvil, proxy: &Proxy) -> Site {
    let mut site = Site::new(database, &anvil.http_url()).with("range_blocks = 3").with("max_range_blocks = 3");
    site.url = format!("postgres://{WRITER}@127.0.0.1:{}/{}", proxy.port, database.name);
    site
}

/// Runs the indexer into a kill at `moment`, then without a proxy to the end, and compares.
async fn killed_at(moment: Moment) {
    let (database, anvil) = (stage().await.database().await, chain().await);
    let target = Arc::new(AtomicU32::new(0));
    let kill = target.clone();
    let strike = Arc::new(move || {
        let pid = i32::try_from(kill.load(Ordering::SeqCst)).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("the indexer runs"), rustix::process::Signal::KILL)
            .expect("it is killed");
    });
    let proxy = Proxy::start(socket().await, moment, strike).await;
    let mut running = through(&database, &anvil, &proxy).spawn();
    target.store(running.pid(), Ordering::SeqCst);
    assert!(running.was_killed().await, "{moment:?}: {}", running.log());
    assert!(proxy.struck(), "{moment:?} came");
    finish(&database, &anvil).await;
}

/// Starts the indexer once more and lets it end its work.
async fn finish(database: &Database, anvil: &Anvil) {
    let mut running = Site::new(database, &anvil.http_url()).spawn();
    caught_up(database, anvil).await;
    let client = database.superuser().await;
    assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
    assert!(running.stop().await.success(), "{}", running.log());
}

#[test]
fn killed_in_the_middle_of_a_copy() {
    dalp_tests::run(async {
        // The n-th COPY may be of logs, transfers or blocks.
        for n in [1, 5, 6] {
            killed_at(Moment::MidCopy(n)).await;
        }
    });
}

#[test]
fn killed_between_commit_and_its_answer() {
    dalp_tests::run(async {
        // The first commits are those of taking the chain over and of reading its state.
        for n in [1, 3, 6] {
            killed_at(Moment::CommitUnanswered(n)).await;
        }
    });
}

#[test]
fn killed_between_two_batches() {
    dalp_tests::run(async {
        for n in [3, 4, 7] {
            killed_at(Moment::BetweenBatches(n)).await;
        }
    });
}

#[test]
fn killed_at_twenty_random_moments_of_a_slow_load() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let proxy = Proxy::start(socket().await, Moment::Never, Arc::new(|| {})).await;
        proxy.slow_down(Duration::from_millis(3));
        let site = through(&database, &anvil, &proxy);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let client = database.superuser().await;
        let mut mid_load = 0;
        for kill in 0..20 {
            let mut running: Running = site.spawn();
            tokio::time::sleep(Duration::from_millis(rng.random_range(20..300))).await;
            running.kill();
            let behind = "SELECT coalesce((SELECT tail_number FROM dalp_indexed.chain_state), -1)";
            let tail: i64 = client.query_one(behind, &[]).await.unwrap().get(0);
            let head = head(anvil.rpc()).await as i64;
            mid_load += i32::from(tail < head);
            // Never let it run out of work.
            for seed in 0..6 {
                burst(anvil.rpc(), &deployed, 10, 1_000 * (kill + 1) + seed).await;
            }
        }
        assert!(mid_load >= 10, "only {mid_load} of 20 kills fell into the load; seed {seed}");
        finish(&database, &anvil).await;
    });
}

#[test]
fn a_connection_lost_during_commit_is_resolved_from_the_state_row() {
    dalp_tests::run(async {
        for n in [3, 4, 5] {
            let (database, anvil) = (stage().await.database().await, chain().await);
            let proxy = Proxy::start(socket().await, Moment::CommitUnanswered(n), Arc::new(|| {})).await;
            let service = Service::start(&through(&database, &anvil, &proxy).config()).await.unwrap();
            caught_up(&database, &anvil).await;
            assert!(proxy.struck());
            let client = database.superuser().await;
            assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
            service.stop().await;
        }
    });
}

#[test]
fn backends_that_are_terminated_cost_a_retry() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let site = Site::new(&database, &anvil.http_url()).with("range_blocks = 1").with("max_range_blocks = 1");
        let mut service = Service::start(&site.config()).await.unwrap();
        let client = database.superuser().await;
        let terminated = Mutex::new(0);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            *terminated.lock().unwrap() += client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        }
        assert!(*terminated.lock().unwrap() > 0);
        tokio::select! {
            error = service.failed() => panic!("{error}"),
            () = caught_up(&database, &anvil) => {}
        }
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}
