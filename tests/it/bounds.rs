//! Memory stays within bounds for any answer of a node: large logs, one large block, dense history. The kernel's peak of the
//! process is asserted.

use alloy::primitives::{B256, Bytes, U64, U256};
use alloy::sol_types::SolCall;
use dalp_fixtures::contracts::Burst;
use dalp_fixtures::{Anvil, AnvilOptions, Deployed, deploy};
use dalp_tests::indexer::{Running, Site};
use dalp_tests::stage::{Database, anvil_with, head, stage, until};
use dalp_tests::truth::assert_exact;
use serde_json::json;

use crate::caught_up;

/// Bytes that the process may ever hold.
const BOUND: u64 = 200_000_000;

/// A node whose blocks hold all sent transactions.
async fn roomy() -> Anvil {
    let extra = ["--gas-limit", "1000000000"].map(Into::into).to_vec();
    anvil_with(AnvilOptions { extra, ..AnvilOptions::default() }).await
}

/// Mines blocks, each with these calls as its transactions.
async fn mine<C: SolCall>(anvil: &Anvil, deployed: &Deployed, blocks: u64, calls: &[C]) {
    let (rpc, from) = (anvil.rpc(), deployed.agents[0]);
    rpc.set_automine(false).await.unwrap();
    let nonce: U64 = rpc.call("eth_getTransactionCount", json!([from, "latest"])).await.unwrap();
    let mut nonce = nonce.to::<u64>();
    for _ in 0..blocks {
        for call in calls {
            let data = Bytes::from(call.abi_encode());
            let transaction = json!({ "from": from, "to": deployed.burst, "input": data, "gas": "0xe00000",
                                      "nonce": format!("{nonce:#x}") });
            let _: B256 = rpc.call("eth_sendTransaction", json!([transaction])).await.unwrap();
            nonce += 1;
        }
        rpc.mine(1, 1).await.unwrap();
    }
    rpc.set_automine(true).await.unwrap();
}

/// One log with 100 kB of data.
fn large() -> Burst::emitRawCall {
    Burst::emitRawCall { topics: vec![B256::repeat_byte(7)], data: vec![0; 100_000].into() }
}

/// The peak memory of the process, in bytes.
fn peak(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts it");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Indexes the whole chain in a separate process; its rows are exact and its memory was within the bound.
async fn stays_within(site: Site, database: &Database, anvil: &Anvil, logs: usize) {
    let mut running = site.spawn();
    caught_up(database, anvil).await;
    let client = database.superuser().await;
    let whole = "SELECT FROM dalp_indexed.progress WHERE gap_blocks = 0 AND complete_to = tail_number";
    until("the gaps to be filled", || async { client.query_opt(whole, &[]).await.unwrap().is_some() }).await;
    let (peak, log) = (peak(&running), running.log());
    println!("peak: {} MiB", peak >> 20);
    assert!(running.stop().await.success(), "{log}");
    let stored = assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
    assert!(stored >= logs, "{stored} logs, of {logs}");
    assert!(peak < BOUND, "{} MiB\n{log}", peak >> 20);
}

#[test]
fn hundreds_of_large_logs_pass_through_the_tail() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, roomy().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        mine(&anvil, &deployed, 400, &[large()]).await;
        let site = Site::new(&database, &anvil.http_url());
        stays_within(site, &database, &anvil, 400).await;
    });
}

#[test]
fn hundreds_of_large_logs_pass_through_history_with_many_workers() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, roomy().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        mine(&anvil, &deployed, 200, &[large(), large(), large(), large()]).await;
        anvil.rpc().mine(1_100, 1).await.unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("finality = \"depth:3\"").with("backfill_workers = 6");
        // Six answers of 27 MB would be under way at once.
        let site = site.with("range_blocks = 34").with("max_range_blocks = 34");
        stays_within(site, &database, &anvil, 800).await;
    });
}

#[test]
fn a_block_of_tens_of_thousands_of_logs_passes() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, roomy().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let calls: Vec<_> =
            (0..16).map(|seed| Burst::burstCall { n: U256::from(2_500), seed: U256::from(seed) }).collect();
        mine(&anvil, &deployed, 1, &calls).await;
        stays_within(Site::new(&database, &anvil.http_url()), &database, &anvil, 40_000).await;
    });
}

#[test]
fn dense_history_is_filled_by_many_workers() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, roomy().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        mine(&anvil, &deployed, 400, &[Burst::burstCall { n: U256::from(150), seed: U256::from(1) }]).await;
        anvil.rpc().mine(1_100, 1).await.unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("finality = \"depth:3\"").with("backfill_workers = 6");
        stays_within(site, &database, &anvil, 60_000).await;
    });
}
