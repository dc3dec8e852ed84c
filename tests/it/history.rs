//! History beside the head: jumps, gaps, changed filters, the remains of reorgs, and removals by an operator.

use alloy::primitives::B256;
use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{Anvil, AnvilOptions, Deployed, FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_indexer::status::ChainStatus;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, anvil_with, head, stage, until};
use dalp_tests::truth::{Row, assert_exact, on_chain, stored};
use tokio_postgres::Client;

use crate::{burst, caught_up, emit, waits_for};

/// A chain with logs here and there over some two thousand blocks.
async fn long_chain(anvil: &Anvil) -> Deployed {
    let deployed = deploy(anvil.rpc()).await.unwrap();
    for seed in 0..20 {
        burst(anvil.rpc(), &deployed, 5, seed).await;
        anvil.rpc().mine(100, 12).await.unwrap();
    }
    deployed
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
}

/// Waits until nothing is missing below the tail.
pub async fn no_gaps(client: &Client) {
    until("the gaps to be filled", || async {
        client
            .query_opt("SELECT FROM dalp_indexed.progress WHERE gap_blocks = 0 AND complete_to = tail_number", &[])
            .await
            .unwrap()
            .is_some()
    })
    .await;
}

fn site(database: &Database, anvil: &Anvil) -> Site {
    Site::new(database, &anvil.http_url())
        .with("finality = \"depth:3\"")
        .with("range_blocks = 20")
        .with("max_range_blocks = 50")
}

#[test]
fn the_head_is_live_before_history_is_complete_and_a_kill_in_between_costs_nothing() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = long_chain(&anvil).await;
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        for order in ["newest", "oldest"] {
            let mut site = site(&database, &anvil).with(&format!("backfill_order = {order:?}"));
            site.rpc_urls = vec![node.url()];
            // Some of history comes, and the rest not before the node behaves.
            let site = site.with("request_timeout = \"10m\"");
            node.inject(Rule::new(Fault::Hang).on("eth_getLogs").blocks(0, 1_000).skip(3));
            let client = database.superuser().await;
            for _ in 0..2 {
                let mut running = site.spawn();
                caught_up(&database, &anvil).await;
                running.kill();
            }
            let gap: i64 = one(&client, "SELECT gap_blocks FROM dalp_indexed.progress").await;
            assert!(gap > 0, "history waits, and the tail did not wait for it");
            node.behave();
            let service = Service::start(&site.config()).await.unwrap();
            burst(anvil.rpc(), &deployed, 5, 1_000).await;
            caught_up(&database, &anvil).await;
            no_gaps(&client).await;
            let status = service.status();
            until("ready", || async { status.borrow()[0].ready }).await;
            assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
            service.stop().await;
            let output = site.call(&["reindex", "--from", "0", "--yes"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(one::<i64>(&client, "SELECT count(*) FROM dalp_indexed.logs").await, 0);
        }
    });
}

/// The chain's status when it is ready for the first time.
async fn first_ready(service: &Service) -> ChainStatus {
    let mut told = service.status();
    loop {
        let chain = told.borrow_and_update()[0].clone();
        if chain.ready {
            return chain;
        }
        told.changed().await.expect("it goes on");
    }
}

/// At the first start and after an outage the tail is at the head at once, while the read of the missing ranges is delayed.
#[test]
fn a_chain_is_not_ready_before_it_is_known_what_is_missing() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let mut site = site(&database, &anvil).with("start_block = 1").with("request_timeout = \"3s\"");
        site.rpc_urls = vec![node.url()];
        let client = database.superuser().await;
        for missing in ["1", "(SELECT tail_number + 1 FROM dalp_indexed.progress)"] {
            burst(anvil.rpc(), &deployed, 5, 1).await;
            anvil.rpc().mine(1_200, 1).await.unwrap();
            let first = u64::try_from(one::<i64>(&client, &format!("SELECT {missing}::int8")).await).unwrap();
            let lowest = Rule::new(Fault::Hang).on("eth_getBlockByNumber").blocks(first, first).times(1);
            let lowest = node.inject(lowest);
            let service = Service::start(&site.config()).await.unwrap();
            let ready = async {
                let ready = first_ready(&service).await;
                (ready, one::<i64>(&client, "SELECT gap_blocks FROM dalp_indexed.progress").await)
            };
            let ((ready, gap), ()) = tokio::join!(ready, caught_up(&database, &anvil));
            assert_eq!((gap, ready.gap_blocks, ready.complete_to), (0, 0, ready.tail), "{ready:?}");
            assert_eq!(lowest.count(), 1, "it was held up");
            service.stop().await;
        }
    });
}

/// Leaves, and B-tree indexes of all of them beside their keys.
const LEAVES_AND_INDEXES: &str = "SELECT count(DISTINCT leaf.relid), count(*) FILTER (WHERE indisvalid AND NOT indisprimary) \
    FROM (SELECT relid FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf UNION ALL \
          SELECT relid FROM pg_partition_tree('dalp_indexed.erc20_transfer') WHERE isleaf) AS leaf \
    JOIN pg_index ON indrelid = leaf.relid JOIN pg_class AS index ON index.oid = indexrelid \
    JOIN pg_am ON pg_am.oid = index.relam WHERE amname = 'btree'";

fn builders(call: &str) -> String {
    let [one, other] = dalp_partitions::INDEXER_KEYS;
    format!("SELECT {call}({one}), {call}({other})")
}

#[test]
fn leaves_of_history_are_loaded_bare_and_served_when_they_have_their_indexes() {
    dalp_tests::run(async {
        let past = u64::try_from(chrono::Utc::now().timestamp()).unwrap() - 30 * 86_400;
        let options = AnvilOptions { genesis_timestamp: Some(past), ..AnvilOptions::default() };
        let (database, anvil) = (stage().await.database().await, anvil_with(options).await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..20 {
            burst(anvil.rpc(), &deployed, 5, seed).await;
            anvil.rpc().mine(100, 900).await.unwrap();
        }
        let mut site = site(&database, &anvil);
        site.more.push_str("[indexes]\nlogs = [\"tx_hash\"]\nerc20_transfer = [\"token+block_time\", \"tx_hash\"]");
        let client = database.superuser().await;
        // The holders of these locks build indexes: they wait, for any time of the other steps.
        client.batch_execute(&builders("pg_advisory_lock")).await.unwrap();
        let mut running = site.spawn();
        caught_up(&database, &anvil).await;
        no_gaps(&client).await;
        running.kill();
        client.batch_execute(&builders("pg_advisory_unlock")).await.unwrap();
        let row = client.query_one(LEAVES_AND_INDEXES, &[]).await.unwrap();
        let (leaves, indexes): (i64, i64) = (row.get(0), row.get(1));
        assert!(
            leaves >= 40 && indexes < leaves * 3 / 2,
            "{indexes} indexes of {leaves} leaves were kept while loading"
        );

        let service = Service::start(&site.config()).await.unwrap();
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        let row = client.query_one(LEAVES_AND_INDEXES, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (leaves, leaves * 3 / 2), "each has its own");
        assert_eq!(status.borrow()[0].bare_leaves, 0);
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

/// A young chain: all of its rows are in the leaf that the head uses.
#[test]
fn the_leaf_of_the_head_is_loaded_bare_too_and_gets_its_indexes_in_use() {
    dalp_tests::run(async {
        let noon = chrono::Utc::now().timestamp() / 86_400 * 86_400 - 43_200;
        let options = AnvilOptions { genesis_timestamp: u64::try_from(noon).ok(), ..AnvilOptions::default() };
        let anvil = anvil_with(options).await;
        let deployed = long_chain(&anvil).await;
        // The holders of these locks build indexes.
        let with_rows = format!("{LEAVES_AND_INDEXES} AND pg_relation_size(leaf.relid) > 0");
        // Both lanes: history beside the head, and all blocks in order up to it.
        for finality in ["depth:3", "never"] {
            let database = stage().await.database().await;
            let client = database.superuser().await;
            client.batch_execute(&builders("pg_advisory_lock")).await.unwrap();
            let site = site(&database, &anvil).with(&format!("finality = {finality:?}"));
            let service = Service::start(&site.config()).await.unwrap();
            let status = service.status();
            caught_up(&database, &anvil).await;
            no_gaps(&client).await;
            let loaded = client.query_one(&with_rows, &[]).await.unwrap();
            assert_eq!((loaded.get::<_, i64>(0), loaded.get::<_, i64>(1)), (2, 0), "{finality}: loaded into indexes");
            assert!(!status.borrow()[0].ready, "{finality}: its rows are slow to find");

            client.batch_execute(&builders("pg_advisory_unlock")).await.unwrap();
            until("ready", || async { status.borrow()[0].ready }).await;
            burst(anvil.rpc(), &deployed, 5, 77).await;
            caught_up(&database, &anvil).await;
            let served = client.query_one(&with_rows, &[]).await.unwrap();
            assert_eq!((served.get::<_, i64>(0), served.get::<_, i64>(1)), (2, 5), "{finality}");
            assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
            service.stop().await;
        }
    });
}

/// B-tree indexes of the leaves of a day, beside their keys.
fn indexes_of_day(day: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid JOIN pg_am ON pg_am.oid = index.relam \
         JOIN pg_class AS leaf ON leaf.oid = indrelid \
         WHERE leaf.relname ~ '_{day}$' AND amname = 'btree' AND indisvalid AND NOT indisprimary"
    )
}

/// The leaves of the days ahead stand empty, with their indexes, when the chain stops for a day.
#[test]
fn the_leaves_of_an_outage_are_loaded_bare_although_they_had_indexes() {
    dalp_tests::run(async {
        let past = u64::try_from(chrono::Utc::now().timestamp()).unwrap() / 86_400 * 86_400 - 3 * 86_400;
        let options = AnvilOptions { genesis_timestamp: Some(past), ..AnvilOptions::default() };
        let (database, anvil) = (stage().await.database().await, anvil_with(options).await);
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let mut site = site(&database, &anvil);
        site.rpc_urls = vec![node.url()];
        let client = database.superuser().await;
        let day = chrono::DateTime::from_timestamp(i64::try_from(past).unwrap() + 2 * 86_400, 0).unwrap();
        let indexes = indexes_of_day(&day.format("%Y%m%d").to_string());
        burst(anvil.rpc(), &deployed, 5, 1).await;
        let service = Service::start(&site.config()).await.unwrap();
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        until("leaves ahead", || async { one::<i64>(&client, &indexes).await == 5 }).await;
        service.stop().await;

        anvil.rpc().mine(2, 86_400).await.unwrap();
        let deployed = deploy(anvil.rpc()).await.unwrap();
        anvil.rpc().mine(200, 10).await.unwrap();
        burst(anvil.rpc(), &deployed, 5, 2).await;
        // Logs come when the leaf is bare.
        node.inject(Rule::new(Fault::Hang).on("eth_getLogs"));
        let site = site.with("request_timeout = \"10m\"");
        let service = Service::start(&site.config()).await.unwrap();
        until("the leaf to be bare", || async { one::<i64>(&client, &indexes).await == 0 }).await;
        node.behave();
        service.stop().await;
        let service = Service::start(&site.config()).await.unwrap();
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        assert_eq!(one::<i64>(&client, &indexes).await, 5, "they were built again");
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn after_an_outage_the_tail_jumps_and_what_was_orphaned_meanwhile_goes() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..10 {
            burst(anvil.rpc(), &deployed, 5, seed).await;
        }
        let site = site(&database, &anvil);
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        // The newest stored blocks become orphans while no indexer runs.
        anvil.rpc().reorg(2).await.unwrap();
        let deployed_again = long_chain(&anvil).await;
        let service = Service::start(&site.config()).await.unwrap();
        let first_ready = first_ready(&service);
        let working = async {
            burst(anvil.rpc(), &deployed_again, 5, 77).await;
            caught_up(&database, &anvil).await;
        };
        let (ready, ()) = tokio::join!(first_ready, working);
        assert_eq!((ready.gap_blocks, ready.complete_to), (0, ready.tail), "ready before it is known what is missing");
        let client = database.superuser().await;
        no_gaps(&client).await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        let orphans: i64 = one(&client, "SELECT sum(logs)::int8 FROM dalp_indexed.reorg").await;
        assert!(orphans > 0, "the reorg was seen");
        service.stop().await;
    });
}

async fn selected(anvil: &Anvil, last: u64, select: impl Fn(&Row) -> bool) -> Vec<Row> {
    on_chain(anvil.rpc(), 0, last).await.into_iter().filter(select).collect()
}

#[test]
fn a_changed_filter_gets_its_history_beside_the_head_and_stores_nothing_twice() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let (one_topic, other) = (B256::repeat_byte(0x41), B256::repeat_byte(0x42));
        for seed in 0..30 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
            emit(anvil.rpc(), &deployed, &[one_topic], &[1]).await;
            emit(anvil.rpc(), &deployed, &[other], &[2]).await;
        }
        let topics = |topics: &[B256]| {
            let topics: Vec<_> = topics.iter().map(|topic| format!("\"{topic}\"")).collect();
            site(&database, &anvil).with(&format!("topics = [{}]", topics.join(", ")))
        };
        let client = database.superuser().await;
        // Wider, wider still, then narrower: the last needs nothing fetched.
        let everything = site(&database, &anvil);
        for (site, wanted) in [
            (topics(&[one_topic]), Some(vec![one_topic])),
            (topics(&[one_topic, other]), Some(vec![one_topic, other])),
            (everything, None),
        ] {
            let service = Service::start(&site.config()).await.unwrap();
            emit(anvil.rpc(), &deployed, &[other], &[3]).await;
            anvil.rpc().mine(4, 1).await.unwrap();
            caught_up(&database, &anvil).await;
            no_gaps(&client).await;
            let last = head(anvil.rpc()).await;
            let select = |row: &Row| {
                wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|topic| row.0[7] == topic.to_string()))
            };
            assert_eq!(stored(&client, 31_337, 0, last).await, selected(&anvil, last, select).await, "{wanted:?}");
            service.stop().await;
        }
        let before: i64 = one(&client, "SELECT count(*) FROM dalp_indexed.logs").await;
        let service = Service::start(&topics(&[other]).config()).await.unwrap();
        let gap: i64 = one(&client, "SELECT gap_blocks FROM dalp_indexed.progress").await;
        assert_eq!(gap, 0, "a wider source's coverage is a narrower one's, at once");
        service.stop().await;
        assert_eq!(one::<i64>(&client, "SELECT count(*) FROM dalp_indexed.logs").await, before);
    });
}

/// `verify` and `repair` find no difference, and say that they did not compare everything.
fn finds_nothing_of_what_it_compares(site: &Site) {
    for command in ["verify", "repair"] {
        let output = site.call(&[command]);
        let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("no difference"), "{command}: {told}");
        let waits = "are not stored by its present filter";
        assert!(output.status.code() == Some(1) && error.contains(waits), "{command}: {error}");
    }
}

#[test]
fn rows_of_the_filter_before_are_neither_extra_nor_repaired_away() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let (before, added) = (B256::repeat_byte(0x41), B256::repeat_byte(0x42));
        let site = |topics: &[B256]| {
            let topics: Vec<_> = topics.iter().map(|topic| format!("\"{topic}\"")).collect();
            let site = site(&database, &anvil).with("finality = \"depth:64\"");
            site.with(&format!("topics = [{}]", topics.join(", ")))
        };
        let service = Service::start(&site(&[before]).config()).await.unwrap();
        for _ in 0..40 {
            emit(anvil.rpc(), &deployed, &[before], &[1]).await;
            emit(anvil.rpc(), &deployed, &[added], &[2]).await;
        }
        caught_up(&database, &anvil).await;
        service.stop().await;
        let client = database.superuser().await;
        let count = || one::<i64>(&client, "SELECT count(*) FROM dalp_indexed.logs");
        // The new source covers new final blocks, and the rest belongs to the old one alone.
        let wider = site(&[before, added]);
        let service = Service::start(&wider.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        // History ends with the highest stored final block: for blocks that arrived as a range, those without logs are not
        // stored.
        let settled =
            format!("SELECT max(number) FROM dalp_indexed.blocks WHERE number <= {}", head(anvil.rpc()).await - 64);
        let settled = one::<Option<i64>>(&client, &settled).await;
        until("what is final to be fetched", || async {
            one::<Option<i64>>(&client, "SELECT complete_to FROM dalp_indexed.progress").await >= settled
        })
        .await;
        let rows = count().await;
        assert!(one::<i64>(&client, "SELECT gap_blocks FROM dalp_indexed.progress").await > 0, "the rest waits");
        finds_nothing_of_what_it_compares(&wider);
        assert_eq!(count().await, rows, "rows went that the source before vouches for");
        // A wrong row there is found and mended all the same; a row without any source is removed.
        let last = head(anvil.rpc()).await;
        let of_before = |row: &Row| row.0[7] == before.to_string();
        let broken =
            "DELETE FROM dalp_indexed.logs WHERE block_number = (SELECT max(block_number) FROM dalp_indexed.logs)";
        assert_eq!(client.execute(broken, &[]).await.unwrap(), 1);
        let output = wider.call(&["repair"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("repaired 1 blocks"), "{output:?}");
        let known = stored(&client, 31_337, 0, last).await;
        let known: Vec<&Row> = known.iter().filter(|row| of_before(row)).collect();
        assert_eq!(known, selected(&anvil, last, of_before).await.iter().collect::<Vec<_>>());
        anvil.rpc().mine(80, 1).await.unwrap();
        caught_up(&database, &anvil).await;
        no_gaps(&client).await;
        let both = |row: &Row| [before, added].iter().any(|topic| row.0[7] == topic.to_string());
        assert_eq!(stored(&client, 31_337, 0, last).await, selected(&anvil, last, both).await);
        let output = wider.call(&["verify"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        service.stop().await;
    });
}

#[test]
fn orphaned_logs_are_kept_with_the_fork_point_and_the_epoch_moves() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..8 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        let service = Service::start(&Site::new(&database, &anvil.http_url()).config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        let (depth, tail) = (4, head(anvil.rpc()).await);
        let doomed = stored(&client, 31_337, tail - depth + 1, tail).await;
        let epoch: i64 = one(&client, "SELECT epoch FROM dalp_indexed.chain_state").await;
        anvil.rpc().reorg(depth).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        let sql = "SELECT fork_number, tail_number, blocks, logs, epoch, \
                   fork_hash = (SELECT hash FROM dalp_indexed.blocks b WHERE b.number = fork_number) FROM dalp_indexed.reorg";
        let row = client.query_one(sql, &[]).await.unwrap();
        let numbers: Vec<i64> = (0..4).map(|at| row.get(at)).collect();
        assert_eq!(numbers, [(tail - depth) as i64, tail as i64, depth as i64, doomed.len() as i64]);
        assert!(row.get::<_, i64>(4) > epoch && row.get::<_, bool>(5));
        let sql = "SELECT string_agg(encode(block_hash, 'hex'), ',' ORDER BY block_number, log_index) FROM dalp_indexed.orphaned_log";
        let kept: String = one(&client, sql).await;
        let hashes: Vec<_> = doomed.iter().map(|row| row.0[4].trim_start_matches("0x").to_owned()).collect();
        assert_eq!(kept, hashes.join(","));
        // The record is the writer's to add to, not to change.
        let writer = database.client(dalp_tests::stage::WRITER).await;
        assert!(writer.execute("DELETE FROM dalp_indexed.orphaned_log", &[]).await.is_err());
    });
}

#[test]
fn a_chain_that_rewrote_final_blocks_goes_on_after_reindex() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("finality = \"depth:3\"");
        for seed in 0..12 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
        }
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        burst(anvil.rpc(), &deployed, 2, 13).await;
        caught_up(&database, &anvil).await;
        anvil.rpc().reorg(9).await.unwrap();
        waits_for(&service, "reindex --from").await;
        service.stop().await;
        let from = head(anvil.rpc()).await - 10;
        let dry = site.call(&["reindex", "--from", &from.to_string()]);
        assert!(dry.status.code() == Some(2) && String::from_utf8_lossy(&dry.stderr).contains("--yes"), "{dry:?}");
        let output = site.call(&["reindex", "--from", &from.to_string(), "--yes"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn another_genesis_is_refused_unless_the_operator_says_that_it_is_a_devnet() {
    dalp_tests::run(async {
        let (database, first) = (stage().await.database().await, anvil().await);
        let deployed = deploy(first.rpc()).await.unwrap();
        burst(first.rpc(), &deployed, 5, 1).await;
        let service = Service::start(&Site::new(&database, &first.http_url()).config()).await.unwrap();
        caught_up(&database, &first).await;
        service.stop().await;
        let genesis = AnvilOptions { genesis_timestamp: Some(1_700_000_000), ..AnvilOptions::default() };
        let second = anvil_with(genesis).await;
        let deployed = deploy(second.rpc()).await.unwrap();
        burst(second.rpc(), &deployed, 7, 2).await;
        let site = Site::new(&database, &second.http_url());
        let client = database.superuser().await;
        let before: i64 = one(&client, "SELECT count(*) FROM dalp_indexed.logs").await;
        let refusal = Service::start(&site.config()).await.err().expect("refused").to_string();
        assert!(refusal.contains("--reset-on-chain-change"), "{refusal}");
        assert_eq!(one::<i64>(&client, "SELECT count(*) FROM dalp_indexed.logs").await, before);
        let service = Service::start(&site.with("reset_on_chain_change = true").config()).await.unwrap();
        caught_up(&database, &second).await;
        assert_exact(&client, second.rpc(), 31_337, 0, head(second.rpc()).await).await;
        service.stop().await;
    });
}
