//! Killed, cut off, or in doubt: afterwards every log is stored, once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dalp_fixtures::{Anvil, Settings, deploy};
use dalp_indexer::service::Service;
use dalp_tests::cut::Cut;
use dalp_tests::indexer::{Running, Site};
use dalp_tests::proxy::{Moment, Proxy};
use dalp_tests::stage::{ADMIN, Database, OwnServer, READER, WRITER, anvil, head, stage, until};
use dalp_tests::truth::{assert_exact, full_verify};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_postgres::Client;

use crate::history::no_gaps;
use crate::{burst, caught_up, rng, socket, tries};

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
    finish(&database, &anvil, &Site::new(&database, &anvil.http_url())).await;
}

/// Starts the indexer once more and lets it end its work: then the rows are the chain's by our own comparison and by that
/// of `verify`.
async fn finish(database: &Database, anvil: &Anvil, site: &Site) {
    lapse(&database.superuser().await).await;
    let mut running = site.spawn();
    caught_up(database, anvil).await;
    let client = database.superuser().await;
    no_gaps(&client).await;
    full_verify(site);
    assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
    assert!(running.stop().await.success(), "{}", running.log());
}

#[test]
fn killed_in_the_middle_of_a_copy() {
    dalp_tests::run(async {
        // The n-th COPY may be of logs or transfers.
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

/// The dead renew no more: what a standby would wait for is over at once.
async fn lapse(client: &Client) {
    client.execute("UPDATE dalp_indexed.lease SET expires_at = '-infinity'", &[]).await.unwrap();
}

/// In one snapshot: nothing is stored above the tail or outside the coverage, and the tail's block is stored. Answers the
/// tail.
async fn agree(client: &Client) -> Option<u64> {
    let sql = "SELECT tail_number, tail_hash IS NULL, \
                 NOT EXISTS (SELECT FROM dalp_indexed.logs WHERE block_number > tail_number) \
                 AND NOT EXISTS (SELECT FROM dalp_indexed.erc20_transfer WHERE block_number > tail_number) \
                 AND NOT EXISTS (SELECT FROM dalp_indexed.blocks WHERE number > tail_number), \
                 NOT EXISTS (SELECT FROM dalp_indexed.coverage WHERE to_block > tail_number) \
                 AND NOT EXISTS (SELECT FROM dalp_indexed.logs l WHERE NOT EXISTS \
                   (SELECT FROM dalp_indexed.coverage c WHERE l.block_number BETWEEN c.from_block AND c.to_block)), \
                 (SELECT hash FROM dalp_indexed.blocks WHERE number = tail_number) IS NOT DISTINCT FROM tail_hash \
               FROM dalp_indexed.chain_state";
    let row = client.query_opt(sql, &[]).await.unwrap()?;
    let agreed: [bool; 3] = std::array::from_fn(|i| row.get(i + 2));
    assert_eq!(agreed, [true; 3], "rows, coverage and state row at tail {}", row.get::<_, i64>(0));
    (!row.get::<_, bool>(1)).then(|| row.get::<_, i64>(0) as u64)
}

/// Kills the process again and again, each time after as many milliseconds as `rng` takes from `alive`; `meanwhile`
/// happens to the chain until then. Answers how many kills came before the head was reached, and all that was logged.
async fn killed_at_random(
    (database, anvil, site): (&Database, &Anvil, &Site),
    (rng, alive): (&mut StdRng, std::ops::Range<u64>),
    mut meanwhile: impl AsyncFnMut(&mut StdRng),
) -> (u64, String) {
    let (client, mut behind, mut log) = (database.superuser().await, 0, String::new());
    for _ in 0..tries(20, 200) {
        let mut running: Running = site.spawn();
        let killed = tokio::time::sleep(Duration::from_millis(rng.random_range(alive.clone())));
        tokio::pin!(killed);
        loop {
            tokio::select! {
                () = &mut killed => break,
                () = meanwhile(rng) => {}
            }
        }
        running.kill();
        lapse(&client).await;
        let last = head(anvil.rpc()).await;
        behind += u64::from(agree(&client).await.is_none_or(|tail| tail < last));
        log += &running.log();
    }
    // Not through the proxy, and as fast as it can.
    let last = Site { url: database.url(WRITER), ..site.clone() };
    finish(database, anvil, &last.with("max_range_blocks = 100").with("range_blocks = 100")).await;
    (behind, log)
}

#[test]
fn killed_at_random_moments_of_a_slow_load() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let proxy = Proxy::start(socket().await, Moment::Never, Arc::new(|| {})).await;
        proxy.slow_down(Duration::from_millis(3));
        let site = through(&database, &anvil, &proxy);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let (mut rng, at) = (rng("slow load"), (&database, &anvil, &site));
        // Never let it run out of work.
        let (behind, _) = killed_at_random(at, (&mut rng, 20..300), async |rng| {
            burst(anvil.rpc(), &deployed, 10, rng.random_range(0..1_000_000)).await;
        })
        .await;
        assert!(behind >= tries(10, 100), "only {behind} kills fell into the load");
    });
}

#[test]
fn killed_at_random_moments_of_history() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..40 {
            burst(anvil.rpc(), &deployed, 10, seed).await;
            anvil.rpc().mine(40, 12).await.unwrap();
        }
        let proxy = Proxy::start(socket().await, Moment::Never, Arc::new(|| {})).await;
        proxy.slow_down(Duration::from_millis(2));
        let site = through(&database, &anvil, &proxy).with("finality = \"depth:3\"");
        let (mut rng, at) = (rng("history"), (&database, &anvil, &site));
        let client = database.superuser().await;
        let mut gaps = 0;
        killed_at_random(at, (&mut rng, 300..700), async |_| {
            let sql = "SELECT gap_blocks > 0 FROM dalp_indexed.progress";
            let gap = client.query_opt(sql, &[]).await.unwrap().is_some_and(|row| row.get(0));
            gaps += u64::from(gap);
            tokio::time::sleep(Duration::from_millis(50)).await;
        })
        .await;
        assert!(gaps > 0, "history was complete before the first kill");
    });
}

#[test]
fn killed_at_random_moments_at_the_head() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let (mut rng, at) = (rng("head"), (&database, &anvil, &site));
        killed_at_random(at, (&mut rng, 100..600), async |rng| {
            burst(anvil.rpc(), &deployed, 3, rng.random_range(0..1_000_000)).await;
        })
        .await;
    });
}

#[test]
fn killed_at_random_moments_while_the_chain_reorganises() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let (mut rng, at) = (rng("reorgs"), (&database, &anvil, &site));
        let (_, log) = killed_at_random(at, (&mut rng, 200..900), async |rng| {
            burst(anvil.rpc(), &deployed, 3, rng.random_range(0..1_000_000)).await;
            // Now stored before it goes, now not.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
            anvil.rpc().reorg(rng.random_range(1..8)).await.unwrap();
        })
        .await;
        let unwound = log.matches("reorg: unwinding").count() as u64;
        assert!(unwound >= tries(3, 30), "only {unwound} unwinds in all");
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

/// A server of the test's own, which is indexed into while things happen to it.
async fn surviving(settings: Settings, mut happens: impl AsyncFnMut(&mut OwnServer)) {
    let (mut server, anvil) = (OwnServer::start(settings).await, chain().await);
    let deployed = deploy(anvil.rpc()).await.unwrap();
    let site = Site {
        url: server.url(WRITER),
        admin_url: server.url(ADMIN),
        reader_url: server.url(READER),
        ..Site::new(&stage().await.database().await, &anvil.http_url())
    };
    // Where commits are not waited for, the logins' rights are not to be lost with them.
    server.superuser().await.unwrap().batch_execute("CHECKPOINT").await.unwrap();
    let mut service =
        Service::start(&site.with("range_blocks = 1").with("max_range_blocks = 1").config()).await.unwrap();
    for seed in 0..tries(5, 25) {
        tokio::select! {
            error = service.failed() => panic!("{error}"),
            () = happens(&mut server) => {}
        }
        for block in 0..5 {
            burst(anvil.rpc(), &deployed, 10, 100 * seed + block).await;
        }
    }
    let last = head(anvil.rpc()).await;
    let all = until("the tail to reach the head", || async {
        let Some(client) = server.superuser().await else { return false };
        let tail = client.query_one("SELECT tail_number FROM dalp_indexed.chain_state", &[]).await;
        tail.is_ok_and(|row| row.get::<_, i64>(0) == last as i64)
    });
    tokio::select! {
        error = service.failed() => panic!("{error}"),
        () = all => {}
    }
    let client = server.superuser().await.unwrap();
    assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
    service.stop().await;
}

/// The server then ends all sessions and recovers from its log.
#[test]
fn a_backend_that_is_killed_takes_the_server_through_recovery() {
    // What was committed and answered stays, or (second) may be lost with the server's memory: together with its rows.
    for synchronous in ["on", "off"] {
        let settings = Settings::throwaway().with("synchronous_commit", synchronous);
        dalp_tests::run(surviving(settings, async |server| {
            let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY xact_start NULLS LAST LIMIT 1";
            until("a writer's backend", || async {
                let Some(client) = server.superuser().await else { return false };
                let Ok(Some(row)) = client.query_opt(sql, &[&WRITER]).await else { return false };
                let pid = rustix::process::Pid::from_raw(row.get(0)).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
            })
            .await;
        }));
    }
}

#[test]
fn a_server_that_is_stopped_at_once_and_restarted_costs_a_retry() {
    dalp_tests::run(surviving(Settings::throwaway(), async |server| server.stop_at_once_and_restart().await));
}

#[test]
fn answers_that_break_off_in_the_middle_are_asked_for_again() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let cut = Cut::start(anvil.port(), rng("answers")).await;
        let site = Site::new(&database, &format!("http://127.0.0.1:{}", cut.port));
        let mut service = Service::start(&site.with("range_blocks = 5").config()).await.unwrap();
        cut.cut_after(20_000);
        let wanted = tries(20, 200);
        let mut seed = 0;
        while cut.cuts() < wanted {
            burst(anvil.rpc(), &deployed, 10, seed).await;
            seed += 1;
        }
        cut.cut_after(0);
        tokio::select! {
            error = service.failed() => panic!("{error}"),
            () = caught_up(&database, &anvil) => {}
        }
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}
