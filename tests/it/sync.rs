//! The tables equal the chain: ranges, leaves, filters, hostile logs.

use alloy::primitives::{Address, B256};
use dalp_fixtures::{AnvilOptions, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, anvil_with, head, stage, until};
use dalp_tests::truth::assert_exact;

use crate::{burst, caught_up, emit, heard_of, transfer};

const DAY: u64 = 24 * 3600;

#[test]
fn history_and_head_are_stored_exactly_once() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..60 {
            burst(anvil.rpc(), &deployed, 5, seed).await;
        }
        let site = Site::new(&database, &anvil.http_url()).with(&format!("ws_urls = [{:?}]", anvil.ws_url()));
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        for seed in 60..80 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        anvil.rpc().mine(300, 1).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        let last = head(anvil.rpc()).await;
        let logs = assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
        assert!(logs >= 60 * 5 + 20 * 3, "{logs} logs");
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        service.stop().await;
        // A second start continues where the first stopped.
        burst(anvil.rpc(), &deployed, 7, 99).await;
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        assert_eq!(assert_exact(&client, anvil.rpc(), 31_337, 0, last + 1).await, logs + 7);
        service.stop().await;
    });
}

#[test]
fn rows_land_in_the_leaves_of_their_days_and_a_time_warp_makes_few() {
    dalp_tests::run(async {
        let stage = stage().await;
        let database = stage.database().await;
        // Block 0 and the following ones lie in the MINVALUE leaf, as on chains whose genesis has time 0.
        let anvil = anvil_with(AnvilOptions { genesis_timestamp: Some(1_000), ..AnvilOptions::default() }).await;
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 2, 1).await;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for days in [40, 39, 5, 1] {
            anvil.rpc().set_next_block_timestamp(now - days * DAY).await.unwrap();
            burst(anvil.rpc(), &deployed, 3, days).await;
        }
        // The year 2100.
        anvil.rpc().set_next_block_timestamp(4_102_444_800).await.unwrap();
        burst(anvil.rpc(), &deployed, 4, 1).await;
        let service = Service::start(&Site::new(&database, &anvil.http_url()).config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        let leaves = "SELECT tableoid::regclass::text, count(*), (max(block_time) AT TIME ZONE 'UTC')::date - (min(block_time) AT TIME ZONE 'UTC')::date \
                      FROM dalp_indexed.erc20_transfer GROUP BY 1 ORDER BY 1";
        let leaves = client.query(leaves, &[]).await.unwrap();
        assert_eq!(leaves.len(), 6, "one leaf for each day that has rows: {leaves:?}");
        assert!(leaves.iter().all(|leaf| leaf.get::<_, i32>(2) == 0), "a leaf is a day: {leaves:?}");
        let all = "SELECT count(*) FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf";
        let all: i64 = client.query_one(all, &[]).await.unwrap().get(0);
        assert!((6..20).contains(&all), "a warp of 75 years makes a few leaves, not thousands: {all}");
        service.stop().await;
    });
}

#[test]
fn no_log_that_a_contract_can_emit_stops_the_indexer() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let good = transfer(a, b);
        emit(anvil.rpc(), &deployed, &good, &[0xff; 32]).await;
        emit(anvil.rpc(), &deployed, &good, &[]).await;
        emit(anvil.rpc(), &deployed, &good, &[1; 31]).await;
        emit(anvil.rpc(), &deployed, &good, &[1; 64]).await;
        emit(anvil.rpc(), &deployed, &[good[0], B256::repeat_byte(9), good[2]], &[1; 32]).await;
        emit(anvil.rpc(), &deployed, &[good[0], good[1], good[2], B256::repeat_byte(7)], &[]).await;
        emit(anvil.rpc(), &deployed, &good[..1], &[3; 96]).await;
        emit(anvil.rpc(), &deployed, &[], &vec![5; 50_000]).await;
        let service = Service::start(&Site::new(&database, &anvil.http_url()).config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        let quarantined = "SELECT count(*) FROM dalp_indexed.quarantine q JOIN dalp_indexed.logs l USING (chain_id, block_number, log_index)";
        let quarantined: i64 = client.query_one(quarantined, &[]).await.unwrap().get(0);
        assert_eq!(quarantined, 4, "three wrong lengths and one dirty address, kept raw as well");
        let max = "SELECT max(value)::text FROM dalp_indexed.erc20_transfer WHERE token = $1";
        let max: String = client.query_one(max, &[&deployed.burst.as_slice()]).await.unwrap().get(0);
        assert_eq!(max, alloy::primitives::U256::MAX.to_string());
        service.stop().await;
    });
}

#[test]
fn only_watched_addresses_and_topics_are_stored() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let topic = B256::repeat_byte(0x42);
        for seed in 0..40 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
            emit(anvil.rpc(), &deployed, &[topic], &[]).await;
        }
        let site = Site::new(&database, &anvil.http_url())
            .with(&format!("addresses = [\"{}\"]", deployed.burst))
            .with(&format!("topics = [\"{topic}\"]"));
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        emit(anvil.rpc(), &deployed, &[topic], &[1]).await;
        caught_up(&database, &anvil).await;
        service.stop().await;
        let client = database.superuser().await;
        let sql = "SELECT count(*), count(*) FILTER (WHERE address = $1 AND topic0 = $2) FROM dalp_indexed.logs";
        let row = client.query_one(sql, &[&deployed.burst.as_slice(), &topic.as_slice()]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (41, 41));
        let levels = "SELECT count(*) FROM dalp_indexed.coverage WHERE level = 'bloom'";
        let levels: i64 = client.query_one(levels, &[]).await.unwrap().get(0);
        assert_eq!(levels, 0, "a filtered answer never counts as proved by blooms");
        // With finality "never" there is no history to fetch beside the head.
        let other = Site::new(&database, &anvil.http_url());
        let error = Service::start(&other.config()).await.err().expect("refused").to_string();
        assert!(error.contains("addresses and .topics") && error.contains("reindex"), "{error}");
    });
}

#[test]
fn a_dead_node_among_several_is_passed_over() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let mut site = Site::new(&database, &anvil.http_url());
        site.rpc_urls.insert(0, "http://127.0.0.1:9".into());
        let service = Service::start(&site.config()).await.unwrap();
        burst(anvil.rpc(), &deployed, 5, 1).await;
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn an_answer_over_the_limit_is_split() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..80 {
            burst(anvil.rpc(), &deployed, 40, seed).await;
        }
        // One block's logs take about 25 kB; the first range of 100 blocks is far over the limit.
        let site = Site::new(&database, &anvil.http_url()).with("max_response_bytes = 200000");
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn a_block_over_the_limit_stops_its_chain_and_says_so() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 500, 1).await;
        let site = Site::new(&database, &anvil.http_url()).with("max_response_bytes = 100000");
        let (client, large) = (database.superuser().await, head(anvil.rpc()).await);
        let service = Service::start(&site.config()).await.unwrap();
        crate::waits_for(&service, "raise `max_response_bytes`").await;
        // The next block is a reason to go on, if it knows one.
        burst(anvil.rpc(), &deployed, 1, 2).await;
        heard_of(&client, large + 1).await;
        let status = service.status().borrow()[0].clone();
        assert!(!status.ready && status.tail < Some(large), "{status:?}");
        assert!(status.waits_for.contains("raise `max_response_bytes`"), "{status:?}");
        let above = "SELECT count(*) FROM dalp_indexed.logs WHERE block_number >= $1";
        assert_eq!(client.query_one(above, &[&(large as i64)]).await.unwrap().get::<_, i64>(0), 0);
        service.stop().await;
    });
}
