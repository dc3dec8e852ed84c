//! Killed, cut off, or in doubt: afterwards every log is stored, once.

use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dalp_fixtures::{Anvil, Settings, deploy};
use dalp_indexer::service::Service;
use dalp_tests::cut::Cut;
use dalp_tests::indexer::{Running, Site};
use dalp_tests::proxy::{Moment, Proxy, Then, Upstream, Work};
use dalp_tests::stage::{ADMIN, Database, OwnServer, READER, WRITER, anvil, head, stage, until};
use dalp_tests::truth::{assert_exact, full_verify};
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};
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

/// In ranges of at most three blocks.
fn small(site: &Site) -> Site {
    site.clone().with("range_blocks = 3").with("max_range_blocks = 3")
}

/// A site whose writes go through the proxy.
fn through(site: &Site, database: &Database, proxy: &Proxy) -> Site {
    Site { url: format!("postgres://{WRITER}@127.0.0.1:{}/{}", proxy.port, database.name), ..site.clone() }
}

/// A process of `site` behind its own proxy to the database; the proxy kills it at `moment`.
async fn doomed(site: &Site, database: &Database, upstream: Upstream, moment: Moment) -> (Running, Proxy) {
    let pid: Arc<OnceLock<Pid>> = Arc::default();
    let known = pid.clone();
    // The proxy may meet the process before its id is known here.
    let strike = Arc::new(move || kill_process(*known.wait(), Signal::KILL).expect("it is killed"));
    let proxy = Proxy::before(upstream, moment, strike).await;
    let url = format!("postgres://{WRITER}@127.0.0.1:{}/{}", proxy.port, database.name);
    let running = Site { url, ..site.clone() }.spawn();
    let its = i32::try_from(running.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    pid.set(its).expect("it is set once");
    (running, proxy)
}

/// Runs the indexer into a kill at `moment`, then without a proxy to the end, and compares.
async fn killed_at(moment: Moment) {
    let (database, anvil) = (stage().await.database().await, chain().await);
    let site = Site::new(&database, &anvil.http_url());
    let (mut running, proxy) = doomed(&small(&site), &database, Upstream::Unix(socket().await), moment).await;
    assert!(running.was_killed().await, "{moment:?}: {}", running.log());
    assert!(proxy.struck(), "{moment:?} came");
    finish(&database, &anvil, &site).await;
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
        // The first commits belong to the takeover of the chain and to the read of its state.
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

/// The dead process renews nothing: a standby's wait ends at once.
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

/// One process, and its remains after its kill.
#[derive(Debug)]
struct Kill {
    moment: Moment,
    /// Transactions of its own that moved the chain's epoch and were answered.
    writes: u64,
    /// The tail before it and after it; none before the first block.
    tails: [Option<u64>; 2],
    /// The node's head.
    head: u64,
    /// Blocks that are stored, before it and after it.
    covered: [i64; 2],
    /// Blocks that are missing below the tail.
    gap: i64,
}

impl Kill {
    /// The work that the kill waited for was done by this very process.
    fn came_at_work(&self) -> bool {
        match self.moment {
            Moment::After(Work::Writes(times), _) => times > 0 && self.writes >= times,
            // The proxy struck after it, and it had seen no other process.
            Moment::After(Work::Statements(..), _) => true,
            _ => false,
        }
    }
}

/// Stored blocks, and missing ones.
async fn progress(client: &Client) -> (i64, i64) {
    let sql = "SELECT (SELECT COALESCE(sum(to_block - from_block + 1), 0)::int8 FROM dalp_indexed.coverage), \
               (SELECT COALESCE(sum(gap_blocks), 0)::int8 FROM dalp_indexed.progress)";
    let row = client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Kills of each test of random ones.
fn kills() -> u64 {
    tries(20, 200)
}

/// Runs the indexer of `site` repeatedly; `moments` gives the moment of the n-th kill. `meanwhile` changes the chain until then,
/// and before that until there is `work` for a process at the stored tail. All depends on progress, never on the clock: a slow
/// machine is killed at the same moments. Then lets it finish, and compares.
async fn killed_at_random(
    (database, anvil, site, upstream): (&Database, &Anvil, &Site, Upstream),
    (rng, work): (&mut StdRng, impl AsyncFn(u64) -> bool),
    mut moments: impl FnMut(&mut StdRng, u64) -> Moment,
    mut meanwhile: impl AsyncFnMut(&mut StdRng),
) -> Vec<Kill> {
    let (client, mut seen, mut tail) = (database.superuser().await, Vec::new(), None);
    let (mut covered, _) = progress(&client).await;
    for number in 0..kills() {
        while !work(tail.unwrap_or(0)).await {
            meanwhile(rng).await;
        }
        let moment = moments(rng, number);
        let (mut running, proxy) = doomed(site, database, upstream.clone(), moment).await;
        let killed = {
            let mut end = pin!(running.was_killed());
            loop {
                tokio::select! {
                    killed = &mut end => break killed,
                    () = meanwhile(rng) => {}
                }
            }
        };
        assert!(killed && proxy.struck(), "{moment:?} of process {number}: {}", running.log());
        let writes = proxy.writes();
        // Its connections go with it, and their contents.
        drop(proxy);
        lapse(&client).await;
        let (tails, last) = ([tail, agree(&client).await], head(anvil.rpc()).await);
        let (now, gap) = progress(&client).await;
        let kill = Kill { moment, writes, tails, head: last, covered: [covered, now], gap };
        println!("{kill:?}");
        (tail, covered) = (tails[1], now);
        seen.push(kill);
    }
    // Not through a proxy, and as fast as it can.
    finish(database, anvil, &site.clone().with("max_range_blocks = 100").with("range_blocks = 100")).await;
    seen
}

/// About as many messages as an indexer sends until it has written first.
const START_UP: u64 = 130;
/// Twice as many as it sends for a write.
const A_WRITE: u64 = 100;

/// Every fourth process is killed at any message of its start; the others after some of their writes, at any message of the
/// next ones. `writes`: how many come before.
fn any_moment(rng: &mut StdRng, number: u64, writes: RangeInclusive<u64>) -> Moment {
    match number % 4 {
        0 => Moment::After(Work::Writes(0), rng.random_range(1..=START_UP)),
        _ => Moment::After(Work::Writes(rng.random_range(writes)), rng.random_range(1..=A_WRITE)),
    }
}

/// Kills that came after writes, which must be all that were to.
fn at_work(kills: &[Kill]) -> Vec<&Kill> {
    let at_work: Vec<_> = kills.iter().filter(|kill| kill.came_at_work()).collect();
    assert!(at_work.len() as u64 >= self::kills() / 4 * 3, "only {} kills fell into the work", at_work.len());
    at_work
}

/// Blocks of a load that wait for each process: more than it lives to write, three at a time.
const AHEAD: u64 = 40;

#[test]
fn killed_at_random_moments_of_a_load() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = small(&Site::new(&database, &anvil.http_url()));
        let at = (&database, &anvil, &site, Upstream::Unix(socket().await));
        let client = database.superuser().await;
        let kills = killed_at_random(
            at,
            (&mut rng("load"), async |tail| head(anvil.rpc()).await >= tail + AHEAD),
            |rng, number| any_moment(rng, number, 1..=4),
            async |rng| {
                let (covered, _) = progress(&client).await;
                // The rest is left to the next process: it would take the machine from this one.
                if head(anvil.rpc()).await > covered as u64 + 2 * AHEAD {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                } else {
                    burst(anvil.rpc(), &deployed, 10, rng.random_range(0..1_000_000)).await;
                }
            },
        )
        .await;
        for kill in at_work(&kills) {
            assert!(kill.tails[1] > kill.tails[0], "it wrote, and the tail did not move: {kill:?}");
            assert!(kill.tails[1] < Some(kill.head), "the load was over: {kill:?}");
        }
    });
}

/// Missing blocks that are more history than one process lives to write, and how far behind the tail jumps, which makes more of it.
const HISTORY: u64 = 300;
const FAR_BEHIND: u64 = 1_100;

#[test]
fn killed_at_random_moments_of_history() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..40 {
            burst(anvil.rpc(), &deployed, 10, seed).await;
            anvil.rpc().mine(40, 12).await.unwrap();
        }
        let site = small(&Site::new(&database, &anvil.http_url())).with("finality = \"depth:3\"");
        let at = (&database, &anvil, &site, Upstream::Unix(socket().await));
        let client = database.superuser().await;
        let kills = killed_at_random(
            at,
            // The missing part, or the tail's jump, is more history than a process lives to write.
            (&mut rng("history"), async |tail| {
                progress(&client).await.1 as u64 >= HISTORY || head(anvil.rpc()).await > tail + FAR_BEHIND + HISTORY
            }),
            // A write may be a jump of the tail, at most two in one life: the others add blocks.
            |rng, number| any_moment(rng, number, 3..=6),
            async |_| {
                if (progress(&client).await.1 as u64) < HISTORY {
                    // A few at a time: Anvil mines ever more slowly, and its requests end with the killed process.
                    anvil.rpc().mine(20, 12).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
        )
        .await;
        for kill in at_work(&kills) {
            assert!(kill.covered[1] > kill.covered[0], "it wrote, and nothing came to what is stored: {kill:?}");
            // A tail that is far behind jumps next: the jump leaves the gap to come.
            let is_ahead = kill.head > kill.tails[1].unwrap_or(0) + FAR_BEHIND;
            assert!(kill.gap > 0 || is_ahead, "history was complete: {kill:?}");
        }
        let (all, in_gaps) = (at_work(&kills).len(), at_work(&kills).iter().filter(|kill| kill.gap > 0).count());
        assert!(in_gaps * 10 >= all * 9, "{in_gaps} of {all} were struck while a gap was open");
    });
}

#[test]
fn killed_at_random_moments_at_the_head() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let at = (&database, &anvil, &site, Upstream::of(&database.url(WRITER)));
        let kills = killed_at_random(
            at,
            (&mut rng("head"), async |_| true),
            |rng, number| any_moment(rng, number, 1..=4),
            async |rng| burst(anvil.rpc(), &deployed, 3, rng.random_range(0..1_000_000)).await,
        )
        .await;
        for kill in at_work(&kills) {
            assert!(kill.tails[1] > kill.tails[0], "it wrote, and no block came: {kill:?}");
        }
    });
}

#[test]
fn killed_at_random_moments_while_the_chain_reorganises() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, chain().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let at = (&database, &anvil, &site, Upstream::of(&database.url(WRITER)));
        let kills = killed_at_random(
            at,
            (&mut rng("reorgs"), async |_| true),
            // Half of them at any message of an unwind and of the later steps.
            |rng, number| match number % 2 {
                0 => {
                    let unwinds = Work::Statements(rng.random_range(1..=2), "INSERT INTO dalp_indexed.orphaned_log");
                    Moment::After(unwinds, rng.random_range(1..=A_WRITE))
                }
                _ => any_moment(rng, number / 2, 1..=4),
            },
            async |rng| {
                burst(anvil.rpc(), &deployed, 3, rng.random_range(0..1_000_000)).await;
                // Sometimes stored before its end, sometimes not.
                if rng.random_bool(0.5) {
                    caught_up(&database, &anvil).await;
                }
                anvil.rpc().reorg(rng.random_range(1..8)).await.unwrap();
            },
        )
        .await;
        at_work(&kills);
        let client = database.superuser().await;
        let unwound: i64 = client.query_one("SELECT count(*) FROM dalp_indexed.reorg", &[]).await.unwrap().get(0);
        assert!(unwound > 0, "no unwind came to its end");
    });
}

#[test]
fn a_connection_lost_during_commit_is_resolved_from_the_state_row() {
    dalp_tests::run(async {
        for n in [3, 4, 5] {
            let (database, anvil) = (stage().await.database().await, chain().await);
            let proxy = Proxy::start(socket().await, Moment::CommitUnanswered(n), Arc::new(|| {})).await;
            let site = small(&Site::new(&database, &anvil.http_url()));
            let service = Service::start(&through(&site, &database, &proxy).config()).await.unwrap();
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
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let upstream = Upstream::of(&database.url(WRITER));
        let proxy = Proxy::before(upstream, Moment::Never, Arc::new(|| {})).await;
        let site = Site::new(&database, &anvil.http_url()).with("range_blocks = 1").with("max_range_blocks = 1");
        let mut service = Service::start(&through(&site, &database, &proxy).config()).await.unwrap();
        let (client, mut rng, mut in_use) = (database.superuser().await, rng("terminated"), 0);
        for seed in 0..tries(10, 100) {
            // At any message of a write, which waits there until all backends are gone.
            let moment = Moment::After(Work::Writes(rng.random_range(1..=2)), rng.random_range(1..=A_WRITE));
            proxy.strike_at(moment, Then::Wait, Arc::new(|| {}));
            let moment = until("the moment", || async {
                burst(anvil.rpc(), &deployed, 10, 100 + seed).await;
                proxy.struck()
            });
            tokio::select! {
                error = service.failed() => panic!("{error}"),
                () = moment => {}
            }
            let sql = "SELECT count(*) FILTER (WHERE xact_start IS NOT NULL), count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            let row = client.query_one(sql, &[]).await.unwrap();
            assert!(row.get::<_, i64>(1) > 0, "nobody was connected");
            in_use += row.get::<_, i64>(0);
            proxy.go_on();
        }
        assert!(in_use > 0, "no transaction was open");
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
    // A committed and answered row stays, or (second) may be lost with the server's memory: together with its state row.
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
