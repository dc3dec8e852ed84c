//! Proof: new blocks by their receipts, suspicion that receipts settle, and the findings and repairs of `verify` and `repair`.

mod liar;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::B256;
use dalp_fixtures::{Anvil, AnvilOptions, Deployed, Rpc, deploy};
use dalp_indexer::service::Service;
use dalp_indexer::store::Store;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, anvil_with, head, stage, until};
use dalp_tests::truth::{assert_exact, full_verify, on_chain, stored};
use serde_json::{Value, json};
use tokio_postgres::Client;

use self::liar::{Liar, Lie};
use crate::{burst, caught_up, waits_for};

/// Blocks of each level, by the coverage.
async fn levels(client: &Client) -> BTreeMap<String, i64> {
    let sql = "SELECT level, sum(to_block - from_block + 1)::int8 FROM dalp_indexed.coverage GROUP BY level";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The rows of the coverage: first block, last block, level.
async fn coverage(client: &Client) -> Vec<(i64, i64, String)> {
    let sql = "SELECT from_block, to_block, level FROM dalp_indexed.coverage ORDER BY source_id, from_block";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// A block with transactions of each kind: legacy, with an access list, with a fee market, one that creates a contract,
/// and one that fails.
async fn mixed_block(rpc: &Rpc, deployed: &Deployed) {
    rpc.set_automine(false).await.unwrap();
    let (from, to) = (deployed.agents[0], deployed.burst);
    let call = "0x9b5a2f9c";
    let access = json!([{ "address": to, "storageKeys": [B256::ZERO] }]);
    let kinds = [
        json!({ "from": from, "to": from, "value": "0x1", "gas": "0x5208", "gasPrice": "0x77359400" }),
        json!({ "from": from, "to": to, "gas": "0x186a0", "gasPrice": "0x77359400", "accessList": access, "data": call }),
        json!({ "from": from, "to": from, "gas": "0x5208", "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1" }),
        // PUSH1 0 PUSH1 0 RETURN: an empty contract.
        json!({ "from": from, "gas": "0x186a0", "data": "0x60006000f3" }),
        json!({ "from": from, "to": deployed.tokens[0], "gas": "0x186a0", "data": "0xdeadbeef" }),
    ];
    for transaction in kinds {
        let _: B256 = rpc.call("eth_sendTransaction", json!([transaction])).await.unwrap();
    }
    rpc.mine(1, 1).await.unwrap();
    rpc.set_automine(true).await.unwrap();
}

#[test]
fn new_blocks_are_proved_by_their_receipts() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        mixed_block(anvil.rpc(), &deployed).await;
        let mixed: Vec<Value> =
            anvil.rpc().call("eth_getBlockReceipts", json!([format!("{:#x}", head(anvil.rpc()).await)])).await.unwrap();
        let kinds: Vec<_> =
            mixed.iter().map(|r| (r["type"].as_str().unwrap(), r["status"].as_str().unwrap())).collect();
        for kind in [("0x0", "0x1"), ("0x1", "0x0"), ("0x2", "0x1"), ("0x2", "0x0")] {
            assert!(kinds.contains(&kind), "no transaction like {kind:?} in {kinds:?}");
        }
        burst(anvil.rpc(), &deployed, 200, 1).await;
        let site = Site::new(&database, &anvil.http_url());
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        // The head itself, in one round trip.
        mixed_block(anvil.rpc(), &deployed).await;
        caught_up(&database, &anvil).await;
        burst(anvil.rpc(), &deployed, 3, 2).await;
        caught_up(&database, &anvil).await;
        anvil.rpc().mine(3, 1).await.unwrap();
        caught_up(&database, &anvil).await;
        let status = service.status();
        until("the status to say so", || async { status.borrow()[0].verification == "receipts" }).await;
        service.stop().await;
        let (client, last) = (database.superuser().await, head(anvil.rpc()).await);
        assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
        assert_eq!(levels(&client).await, BTreeMap::from([("receipts".into(), last as i64 + 1)]));
        full_verify(&site);
    });
}

/// Indexes the chain behind a liar, and answers the process's log at the end.
async fn beside(lie: Lie, setting: &str, filtered: bool, blocks: u64) -> (Database, Anvil, String, u64) {
    let (database, anvil) = (stage().await.database().await, anvil().await);
    let deployed = deploy(anvil.rpc()).await.unwrap();
    for seed in 0..blocks {
        burst(anvil.rpc(), &deployed, 4, seed).await;
    }
    let liar = Liar::start(anvil.http_url(), lie).await;
    let mut site = Site::new(&database, &liar.url()).with(&format!("verify = \"{setting}\""));
    if filtered {
        site = site.with(&format!("addresses = [\"{}\"]", deployed.burst));
    }
    let mut running = site.spawn();
    caught_up(&database, &anvil).await;
    for seed in 0..3 {
        burst(anvil.rpc(), &deployed, 4, 100 + seed).await;
    }
    caught_up(&database, &anvil).await;
    assert!(running.stop().await.success(), "{}", running.log());
    let client = database.superuser().await;
    let last = head(anvil.rpc()).await;
    if filtered {
        let sql = "SELECT count(*) FROM dalp_indexed.logs WHERE address = $1";
        let stored: i64 = client.query_one(sql, &[&deployed.burst.as_slice()]).await.unwrap().get(0);
        let all = on_chain(anvil.rpc(), 0, last).await;
        let address = deployed.burst.to_string().to_lowercase();
        assert_eq!(stored as usize, all.iter().filter(|row| row.0[6] == address).count());
    } else {
        assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
    }
    let log = running.log();
    assert!(!log.contains("not to be trusted") || log.contains(&liar.url()), "the node is named: {log}");
    (database, anvil, log, liar.told())
}

#[test]
fn logs_that_a_node_leaves_out_or_forges_are_taken_from_the_receipts() {
    dalp_tests::run(async {
        // With a filter, blooms prove only blocks near the head.
        for (lie, filtered, blocks) in [
            (liar::no_logs as Lie, false, 45),
            (liar::no_logs, true, 10),
            (liar::one_log_less, false, 45),
            (liar::another_emitter, false, 45),
            (liar::another_emitter, true, 45),
        ] {
            let (_database, _anvil, log, told) = beside(lie, "bloom", filtered, blocks).await;
            assert!(told > 0 && log.contains("eth_getLogs is not to be trusted"), "{told} lies: {log}");
            assert!(blocks == 10 || log.contains("receipts decide"), "{log}");
        }
    });
}

#[test]
fn a_sample_of_history_is_proved_and_a_wrong_one_refuses_its_range() {
    dalp_tests::run(async {
        // The blooms of a range's inner blocks are unknown: only the sample can show it.
        let (_database, _anvil, log, told) = beside(liar::half_the_logs, "auto", true, 45).await;
        assert!(told > 0 && log.contains("its logs do not match the receipts of the block"), "{log}");
        assert!(log.contains("receipts decide"), "{log}");
    });
}

#[test]
fn receipts_that_do_not_fit_their_header_are_refused() {
    dalp_tests::run(async {
        for lie in [liar::forged_receipts as Lie, liar::receipts_with_a_log_less] {
            let (database, anvil) = (stage().await.database().await, anvil().await);
            let deployed = deploy(anvil.rpc()).await.unwrap();
            let liar = Liar::start(anvil.http_url(), lie).await;
            liar.repent();
            let mut site = Site::new(&database, &liar.url()).with("verify = \"receipts\"");
            let service = Service::start(&site.config()).await.unwrap();
            burst(anvil.rpc(), &deployed, 3, 1).await;
            caught_up(&database, &anvil).await;
            let (client, honest) = (database.superuser().await, head(anvil.rpc()).await);
            liar.relapse();
            burst(anvil.rpc(), &deployed, 3, 2).await;
            waits_for(&service, "refused receipts that do not match the block").await;
            // It asks again and again, and takes it no time.
            let told = liar.told();
            until("the liar to be asked again", || async { liar.told() >= told + 2 }).await;
            let tail = "SELECT tail_number FROM dalp_indexed.chain_state";
            let tail: i64 = client.query_one(tail, &[]).await.unwrap().get(0);
            assert_eq!(tail as u64, honest, "the forged block was taken");
            liar.repent();
            caught_up(&database, &anvil).await;
            service.stop().await;
            // With an honest node beside the liar nothing waits.
            liar.relapse();
            site.rpc_urls.push(anvil.http_url());
            let service = Service::start(&site.config()).await.unwrap();
            burst(anvil.rpc(), &deployed, 3, 3).await;
            caught_up(&database, &anvil).await;
            service.stop().await;
            let last = head(anvil.rpc()).await;
            assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
            assert_eq!(levels(&client).await, BTreeMap::from([("receipts".into(), last as i64 + 1)]));
        }
    });
}

#[test]
fn a_chain_that_receipts_do_not_prove_is_indexed_by_blooms() {
    dalp_tests::run(async {
        let cases = [(liar::odd_headers as Lie, "auto"), (liar::odd_headers, "receipts"), (liar::no_receipts, "auto")];
        for (lie, setting) in cases {
            let (database, anvil) = (stage().await.database().await, anvil().await);
            let deployed = deploy(anvil.rpc()).await.unwrap();
            burst(anvil.rpc(), &deployed, 3, 1).await;
            let liar = Liar::start(anvil.http_url(), lie).await;
            let site = Site::new(&database, &liar.url()).with(&format!("verify = \"{setting}\""));
            let mut running = site.spawn();
            caught_up(&database, &anvil).await;
            burst(anvil.rpc(), &deployed, 3, 2).await;
            caught_up(&database, &anvil).await;
            assert!(running.stop().await.success(), "{}", running.log());
            assert!(running.log().contains("receipts do not prove the blocks of this chain:"), "{}", running.log());
            let (client, last) = (database.superuser().await, head(anvil.rpc()).await);
            assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
            assert_eq!(levels(&client).await, BTreeMap::from([("bloom".into(), last as i64 + 1)]));
            full_verify(&site);
        }
    });
}

#[test]
fn logs_that_no_root_and_no_bloom_commit_to_are_indexed_at_a_level_that_says_so() {
    dalp_tests::run(async {
        for setting in ["auto", "bloom", "returned"] {
            let (database, anvil) = (stage().await.database().await, anvil().await);
            let deployed = deploy(anvil.rpc()).await.unwrap();
            for seed in 0..45 {
                burst(anvil.rpc(), &deployed, 3, seed).await;
            }
            let chain = Liar::start(anvil.http_url(), liar::system_logs).await;
            let site = Site::new(&database, &chain.url()).with(&format!("verify = \"{setting}\""));
            let service = Service::start(&site.config()).await.unwrap();
            caught_up(&database, &anvil).await;
            for seed in 0..20 {
                burst(anvil.rpc(), &deployed, 3, 100 + seed).await;
            }
            caught_up(&database, &anvil).await;
            service.stop().await;
            let (client, last) = (database.superuser().await, head(anvil.rpc()).await);
            let rows = stored(&client, 31_337, 0, last).await;
            let (own, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.0[6] == liar::SYSTEM);
            let known = on_chain(anvil.rpc(), 0, last).await;
            assert_eq!(others, known, "{setting}");
            let blocks: BTreeSet<u64> =
                known.iter().map(|row| row.0[0].parse().unwrap()).filter(|n| n % 16 == 0).collect();
            assert_eq!(own.len(), blocks.len(), "{setting}: one in each sixteenth block with logs");
            let sql = "SELECT count(*) FROM dalp_indexed.coverage AS c JOIN dalp_indexed.logs AS l \
                         ON l.chain_id = c.chain_id AND l.block_number BETWEEN c.from_block AND c.to_block \
                       WHERE l.address = decode($1, 'hex') AND c.level IN ('bloom', 'receipts')";
            let claimed: i64 = client.query_one(sql, &[&&liar::SYSTEM[2..]]).await.unwrap().get(0);
            assert_eq!(claimed, 0, "{setting}: no more is said than is proved");
        }
    });
}

#[test]
fn an_odd_block_of_a_chain_that_is_proved_otherwise_is_taken_at_the_next_level() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 3, 1).await;
        let liar = Liar::start(anvil.http_url(), liar::odd_receipts).await;
        let site = Site::new(&database, &liar.url());
        let mut running = site.spawn();
        caught_up(&database, &anvil).await;
        mixed_block(anvil.rpc(), &deployed).await;
        caught_up(&database, &anvil).await;
        burst(anvil.rpc(), &deployed, 3, 2).await;
        caught_up(&database, &anvil).await;
        assert!(running.stop().await.success(), "{}", running.log());
        assert!(running.log().contains("accepted without this proof"), "{}", running.log());
        let (client, last) = (database.superuser().await, head(anvil.rpc()).await);
        assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
        let expected = BTreeMap::from([("bloom".into(), 1), ("receipts".into(), last as i64)]);
        assert_eq!(levels(&client).await, expected);
    });
}

#[test]
fn a_node_without_block_receipts_is_asked_for_them_one_by_one() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        mixed_block(anvil.rpc(), &deployed).await;
        let liar = Liar::start(anvil.http_url(), liar::no_block_receipts).await;
        let site = Site::new(&database, &liar.url());
        let service = Service::start(&site.config()).await.unwrap();
        burst(anvil.rpc(), &deployed, 3, 2).await;
        caught_up(&database, &anvil).await;
        service.stop().await;
        let (client, last) = (database.superuser().await, head(anvil.rpc()).await);
        assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
        assert_eq!(levels(&client).await, BTreeMap::from([("receipts".into(), last as i64 + 1)]));
    });
}

#[test]
fn what_was_verified_is_recorded_and_never_lowered() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..20 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        anvil.rpc().mine(100, 1).await.unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("verify = \"returned\"");
        let mut running = site.spawn();
        caught_up(&database, &anvil).await;
        let (client, last) = (database.superuser().await, head(anvil.rpc()).await);
        assert!(levels(&client).await["returned"] > 50);
        let verified = |args: &[&str]| {
            let output = site.call(&[&["verify", "--json"], args].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let report = verified(&["--from", "10", "--to", "20", "--level", "receipts"]);
        assert_eq!(report["chains"][0]["differences"], json!([]));
        assert_eq!(levels(&client).await["receipts"], 11);
        verified(&["--from", "5", "--to", "15", "--level", "linked"]);
        assert_eq!(levels(&client).await["receipts"], 11, "a weaker proof changes nothing");
        assert_eq!(levels(&client).await["bloom"], 5 + 32.min(last as i64), "unfiltered and linked: blooms prove it");
        let before = levels(&client).await;
        // One row a block, as the tail commits them.
        let split = "WITH gone AS (DELETE FROM dalp_indexed.coverage RETURNING *) INSERT INTO dalp_indexed.coverage \
                     SELECT chain_id, source_id, n, n, level, committed_at FROM gone, generate_series(from_block, to_block) AS n";
        client.execute(split, &[]).await.unwrap();
        let store = Store::open(&site.config()).await.unwrap();
        store.compact_coverage(31_337).await.unwrap();
        let compact = coverage(&client).await;
        assert!(compact.len() < 10, "{compact:?}");
        assert_eq!(levels(&client).await, before, "the same blocks at the same levels");
        let touch = compact.windows(2).find(|pair| pair[0].2 == pair[1].2 && pair[0].1 + 1 == pair[1].0);
        assert_eq!(touch, None, "{compact:?}");
        store.compact_coverage(31_337).await.unwrap();
        assert_eq!(coverage(&client).await, compact, "what is compact stays as it is");
        assert_exact(&client, anvil.rpc(), 31_337, 0, last).await;
        verified(&[]);
        assert_eq!(levels(&client).await, BTreeMap::from([("receipts".into(), last as i64 + 1)]));
        assert!(running.stop().await.success(), "{}", running.log());
    });
}

/// It answers older blocks as if they were empty; only roots and blooms of their headers show it.
#[test]
fn blocks_that_an_anvil_forgot_are_not_taken_for_empty_ones() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let extra = ["--transaction-block-keeper", "12"].map(Into::into).to_vec();
        let anvil = anvil_with(AnvilOptions { extra, ..AnvilOptions::default() }).await;
        let site = Site::new(&database, &anvil.http_url());
        let service = Service::start(&site.config()).await.unwrap();
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..4 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
            caught_up(&database, &anvil).await;
        }
        let full = head(anvil.rpc()).await;
        let before = on_chain(anvil.rpc(), full, full).await;
        anvil.rpc().mine(30, 1).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        assert_eq!(on_chain(anvil.rpc(), full, full).await, [], "forgotten");
        let client = database.superuser().await;
        let block = full.to_string();
        for (level, why) in
            [("receipts", "It has no receipts of that block"), ("bloom", "logs bloom promises are missing")]
        {
            let output = site.call(&["repair", "--from", &block, "--to", &block, "--level", level]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && said.contains(why), "{level}: {said}");
            assert_eq!(stored(&client, 31_337, full, full).await, before, "{level}");
        }
    });
}
