//! Rows that are wrong, planted one by one: `verify` names each, and `repair` mends it.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy::primitives::{Address, B256};
use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{Anvil, AnvilOptions, Deployed, FaultyNode, deploy};
use dalp_indexer::chain::block::{BlockRange, BlockRef};
use dalp_indexer::chain::level::Level;
use dalp_indexer::service::{Service, join};
use dalp_indexer::store::repair::Replacement;
use dalp_indexer::store::{Store, StoreError};
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, anvil_with, head, stage};
use dalp_tests::truth::{assert_exact, full_verify, on_chain, stored_in};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::{burst, caught_up, emit, transfer};

const DAY: u64 = 24 * 3600;

/// Every possible fault of one block's rows: its name, its visible sign, and the statement that plants it. `$1` is the block,
/// `$2` a time whose leaf exists and which is another block's.
const WRONGS: &[(&str, &str, &str)] = &[
    (
        "logs",
        "missing",
        "DELETE FROM dalp_indexed.logs WHERE block_number = $1 AND log_index = 1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "missing",
        "WITH t AS (DELETE FROM dalp_indexed.erc20_transfer WHERE block_number = $1) DELETE FROM dalp_indexed.logs WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered tx_index",
        "UPDATE dalp_indexed.logs SET tx_index = tx_index + 1 WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered block_hash",
        "UPDATE dalp_indexed.logs SET block_hash = tx_hash WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered tx_hash",
        "UPDATE dalp_indexed.logs SET tx_hash = block_hash WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered address",
        "UPDATE dalp_indexed.logs SET address = '\\xaa' WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered topic0",
        "UPDATE dalp_indexed.logs SET topic0 = NULL WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered topic1",
        "UPDATE dalp_indexed.logs SET topic1 = topic2 WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered topic2",
        "UPDATE dalp_indexed.logs SET topic2 = topic0 WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered topic3",
        "UPDATE dalp_indexed.logs SET topic3 = topic0 WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "logs",
        "altered data",
        "UPDATE dalp_indexed.logs SET data = set_bit(data, 3, 1 - get_bit(data, 3)) WHERE block_number = $1 AND log_index = 2 AND $2::timestamptz IS NOT NULL",
    ),
    ("logs", "moved", "UPDATE dalp_indexed.logs SET block_time = $2 WHERE block_number = $1 AND log_index = 0"),
    (
        "logs",
        "extra",
        "INSERT INTO dalp_indexed.logs SELECT chain_id, $2, block_number, log_index, tx_index, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data FROM dalp_indexed.logs WHERE block_number = $1 AND log_index = 0",
    ),
    (
        "logs",
        "extra",
        "INSERT INTO dalp_indexed.logs SELECT chain_id, block_time, block_number, 77, tx_index, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data FROM dalp_indexed.logs WHERE block_number = $1 AND log_index = 0 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "missing",
        "DELETE FROM dalp_indexed.erc20_transfer WHERE block_number = $1 AND log_index = 1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "altered token",
        "UPDATE dalp_indexed.erc20_transfer SET token = '\\xaa' WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "altered from_address",
        "UPDATE dalp_indexed.erc20_transfer SET from_address = token WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "altered to_address",
        "UPDATE dalp_indexed.erc20_transfer SET to_address = token WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "altered value",
        "UPDATE dalp_indexed.erc20_transfer SET value = value + 1 WHERE block_number = $1 AND log_index = 2 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "altered tx_hash",
        "UPDATE dalp_indexed.erc20_transfer SET tx_hash = '\\x00' WHERE block_number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "erc20_transfer",
        "moved",
        "UPDATE dalp_indexed.erc20_transfer SET block_time = $2 WHERE block_number = $1 AND log_index = 0",
    ),
    (
        "erc20_transfer",
        "extra",
        "INSERT INTO dalp_indexed.erc20_transfer SELECT chain_id, block_time, block_number, 77, token, from_address, to_address, value, tx_hash FROM dalp_indexed.erc20_transfer WHERE block_number = $1 AND log_index = 0 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "quarantine",
        "extra",
        "INSERT INTO dalp_indexed.quarantine SELECT chain_id, block_number, log_index, block_time, 'erc20_transfer', 'no' FROM dalp_indexed.logs WHERE block_number = $1 AND log_index = 0 AND $2::timestamptz IS NOT NULL",
    ),
    (
        "blocks",
        "altered hash",
        "UPDATE dalp_indexed.blocks SET hash = parent_hash WHERE number = $1 AND $2::timestamptz IS NOT NULL",
    ),
    ("blocks", "moved", "UPDATE dalp_indexed.blocks SET time = $2 WHERE number = $1"),
    ("blocks", "missing", "DELETE FROM dalp_indexed.blocks WHERE number = $1 AND $2::timestamptz IS NOT NULL"),
];

/// The ranges in which a report has a difference.
fn found(report: &Value, table: &str, kind: &str) -> Vec<(u64, u64)> {
    let all = report["chains"][0]["differences"].as_array().cloned().unwrap_or_default();
    let of = all.iter().filter(|difference| difference["table"] == table && difference["kind"] == kind);
    of.flat_map(|difference| serde_json::from_value::<Vec<(u64, u64)>>(difference["blocks"].clone()).unwrap()).collect()
}

/// The place of every row of other blocks: a row that was written again has another place.
async fn places(client: &Client, but: &[i64]) -> Vec<(String, String, i64)> {
    let sql = "SELECT tableoid::regclass::text, ctid::text, block_number FROM dalp_indexed.logs WHERE block_number <> ALL ($1) \
               UNION ALL SELECT tableoid::regclass::text, ctid::text, block_number FROM dalp_indexed.erc20_transfer WHERE block_number <> ALL ($1) \
               UNION ALL SELECT 'blocks', ctid::text, number FROM dalp_indexed.blocks WHERE number <> ALL ($1) ORDER BY 1, 2, 3";
    client.query(sql, &[&but]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A chain over several days with a block for each wrong, the first of them at block `.1`, and some between.
async fn chain_with_days(anvil: &Anvil) -> (Deployed, u64) {
    let deployed = deploy(anvil.rpc()).await.unwrap();
    let now = now();
    anvil.rpc().set_next_block_timestamp(now - 9 * DAY).await.unwrap();
    burst(anvil.rpc(), &deployed, 3, 1).await;
    anvil.rpc().set_next_block_timestamp(now - 3 * DAY).await.unwrap();
    let first = head(anvil.rpc()).await + 1;
    for seed in 0..2 * WRONGS.len() as u64 {
        burst(anvil.rpc(), &deployed, 5, 10 + seed).await;
    }
    (deployed, first)
}

/// Through a counting proxy: beside a full verification, a repair costs only the receipts of its own blocks, each of them once. How often
/// the head is asked for depends on the time, and does not count.
async fn repair_costs_its_blocks(database: &Database, anvil: &Anvil, blocks: u64) {
    let door = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
    let counted = Site::new(database, &door.url()).with("range_blocks = 10");
    let receipts = door.inject(Rule::new(Fault::Delay { ms: 0 }).on("eth_getBlockReceipts"));
    assert_eq!(counted.call(&["verify"]).status.code(), Some(1));
    let look = receipts.matched();
    let output = counted.call(&["repair"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let repaired = receipts.matched() - look;
    assert!(look > 0 && repaired <= look + blocks, "{repaired} receipts for {blocks} blocks, a look alone is {look}");
}

/// A log in a block that no table has a partition for.
async fn emit_out_of_time(anvil: &Anvil, deployed: &Deployed) {
    anvil.rpc().set_next_block_timestamp(now() + 101 * 365 * DAY).await.unwrap();
    let event = transfer(Address::repeat_byte(1), Address::repeat_byte(2));
    emit(anvil.rpc(), deployed, &event, &[7; 32]).await;
}

async fn what_is_out_of_time_is_kept_and_told(site: &Site, anvil: &Anvil, client: &Client) {
    let last = head(anvil.rpc()).await;
    let kept = stored_in("quarantine", client, 31_337, last, last).await;
    assert_eq!(kept, on_chain(anvil.rpc(), last, last).await);
    let output = site.call(&["verify"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let sentence = format!(
        "1 logs are only in dalp_indexed.quarantine: the times of their blocks are more than 100 years ahead ({last})"
    );
    assert!(output.status.success() && said.contains(&sentence), "{said}");
}

fn no_other_is_named(report: &Value, broken: &[i64]) {
    let all = report["chains"][0]["differences"].as_array().unwrap().iter();
    let ranges = all.flat_map(|d| serde_json::from_value::<Vec<(i64, i64)>>(d["blocks"].clone()).unwrap());
    let innocent: Vec<_> = ranges.filter(|r| (r.0..=r.1).any(|number| !broken.contains(&number))).collect();
    assert!(innocent.is_empty(), "blocks that are right are not named: {innocent:?}");
}

/// The quarantine's row of one block is removed, and another block, which is empty, gets a log.
async fn plant_more(client: &Client, malformed: i64, empty: i64) {
    client.execute("DELETE FROM dalp_indexed.quarantine WHERE block_number = $1", &[&malformed]).await.unwrap();
    let invent = "INSERT INTO dalp_indexed.logs SELECT b.chain_id, b.time, b.number, 0, 0, b.hash, l.tx_hash, address, topic0, topic1, topic2, topic3, data \
                  FROM dalp_indexed.blocks b, (SELECT * FROM dalp_indexed.logs LIMIT 1) l WHERE b.number = $1";
    assert_eq!(client.execute(invent, &[&empty]).await.unwrap(), 1);
}

#[test]
fn every_planted_wrong_is_named_and_mended_and_nothing_else_is_touched() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let anvil = anvil_with(AnvilOptions { genesis_timestamp: Some(1_000), ..AnvilOptions::default() }).await;
        let (deployed, first) = chain_with_days(&anvil).await;
        // A malformed transfer, whose quarantine row will be removed, and an empty block, which will get an invented log.
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        emit(anvil.rpc(), &deployed, &transfer(a, b), &[1; 31]).await;
        let malformed = head(anvil.rpc()).await as i64;
        anvil.rpc().mine(1, 1).await.unwrap();
        let empty = malformed + 1;
        burst(anvil.rpc(), &deployed, 3, 999).await;
        let site = Site::new(&database, &anvil.http_url()).with("range_blocks = 10");
        let mut running = site.spawn();
        caught_up(&database, &anvil).await;
        full_verify(&site);
        let client = database.superuser().await;
        let other = "SELECT time FROM dalp_indexed.blocks WHERE number = $1";
        let other: chrono::DateTime<chrono::Utc> =
            client.query_one(other, &[&(first as i64 - 1)]).await.unwrap().get(0);
        let block = |at: usize| first as i64 + 2 * at as i64;
        let mut broken: Vec<i64> = (0..WRONGS.len()).map(block).collect();
        broken.extend([malformed, empty]);
        for (at, (table, kind, sql)) in WRONGS.iter().enumerate() {
            let rows = client.execute(*sql, &[&block(at), &other]).await.unwrap();
            assert!(rows > 0, "{table} {kind} was not planted");
        }
        plant_more(&client, malformed, empty).await;
        let before = places(&client, &broken).await;
        let output = site.call(&["verify", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let named = |table, kind, number: i64| {
            let ranges = found(&report, table, kind);
            assert!(ranges.iter().any(|r| (r.0..=r.1).contains(&(number as u64))), "{table} {kind} {number}: {report}");
        };
        for (at, (table, kind, _)) in WRONGS.iter().enumerate() {
            named(table, kind, block(at));
        }
        named("quarantine", "missing", malformed);
        named("logs", "extra", empty);
        no_other_is_named(&report, &broken);

        let dry = site.call(&["repair", "--dry-run"]);
        assert!(dry.status.success() && String::from_utf8_lossy(&dry.stdout).contains("altered value"));
        assert_eq!(site.call(&["verify"]).status.code(), Some(1), "a dry run changes nothing");
        repair_costs_its_blocks(&database, &anvil, broken.len() as u64).await;
        full_verify(&site);
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        assert_eq!(before, places(&client, &broken).await, "rows of other blocks were touched");
        // The writer beside it continues.
        burst(anvil.rpc(), &deployed, 3, 1000).await;
        caught_up(&database, &anvil).await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        emit_out_of_time(&anvil, &deployed).await;
        caught_up(&database, &anvil).await;
        what_is_out_of_time_is_kept_and_told(&site, &anvil, &client).await;
        assert!(running.stop().await.success(), "{}", running.log());
    });
}

#[test]
fn a_repair_commits_only_under_the_writers_token_and_on_its_chain() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..10 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        let site = Site::new(&database, &anvil.http_url());
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        let (config, client) = (site.config(), database.superuser().await);
        let store = Store::open(&config).await.unwrap();
        let (_, source, overtaken) = join(&config.chains[0], &store).await.unwrap();
        store.seize(31_337).await.unwrap();
        let (nodes, _, claim) = join(&config.chains[0], &store).await.unwrap();
        assert_ne!(claim.token, overtaken.token);
        let tail = head(anvil.rpc()).await;
        let hash = anvil.rpc().block_hash(tail).await.unwrap().unwrap();
        let anchor = BlockRef { number: tail, hash };
        let broken = BlockRange { first: tail - 3, last: tail - 2 };
        client
            .execute("DELETE FROM dalp_indexed.logs WHERE block_number = $1", &[&(broken.first as i64)])
            .await
            .unwrap();
        burst(anvil.rpc(), &deployed, 3, 77).await;
        store.learn_contracts(&claim).await.unwrap();
        let batch = store.sort(31_337, nodes.range_to(&source, broken, Level::Receipts).await.unwrap());
        let above = BlockRange { first: tail, last: tail + 1 };
        let above = store.sort(31_337, nodes.range_to(&source, above, Level::Receipts).await.unwrap());
        let state = || async {
            let sql = "SELECT epoch, (SELECT count(*) FROM dalp_indexed.logs) FROM dalp_indexed.chain_state";
            let row = client.query_one(sql, &[]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1))
        };
        let before = state().await;
        let orphan = BlockRef { hash: B256::repeat_byte(1), ..anchor };
        for (claim, batch, anchor) in [(&claim, &batch, orphan), (&overtaken, &batch, anchor), (&claim, &above, anchor)]
        {
            let refused = store.repair(claim, Replacement::Batch(batch), &[], anchor).await;
            assert_eq!(refused, Err(StoreError::TailMoved { chain_id: 31_337 }));
            let raised = store.raise(claim, &source, batch.range(), Level::Receipts, anchor).await;
            assert_eq!(raised, Err(StoreError::TailMoved { chain_id: 31_337 }));
            assert_eq!(state().await, before, "a refused repair leaves everything as it was");
        }
        let covered = store.repair(&claim, Replacement::Nothing(broken), &[], anchor).await;
        assert_eq!(covered, Err(StoreError::TailMoved { chain_id: 31_337 }), "a source vouches for it by now");
        assert_eq!(state().await, before);
        store.repair(&claim, Replacement::Batch(&batch), &[], anchor).await.unwrap();
        assert_eq!(state().await, (before.0 + 1, before.1 + 3));
        assert_exact(&client, anvil.rpc(), 31_337, 0, tail).await;
        // A reorg since the last run of the indexer: a repair cannot mend it.
        anvil.rpc().reorg(5).await.unwrap();
        let refused = site.call(&["repair"]);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && error.contains("does not have the stored tail"), "{error}");
        assert_eq!(state().await, (before.0 + 1, before.1 + 3));
    });
}

#[test]
fn rows_of_blocks_that_are_not_covered_are_extra_and_go() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..10 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        let site = Site::new(&database, &anvil.http_url()).with("start_block = 8");
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        let client = database.superuser().await;
        let stray = "INSERT INTO dalp_indexed.logs SELECT chain_id, block_time, 5, 0, 0, block_hash, tx_hash, address, topic0, topic1, topic2, topic3, data \
                     FROM dalp_indexed.logs LIMIT 1";
        assert_eq!(client.execute(stray, &[]).await.unwrap(), 1);
        full_verify(&site);
        let output = site.call(&["verify", "--from", "0", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert_eq!(found(&report, "logs", "extra"), [(5, 5)]);
        assert_eq!(report["chains"][0]["gaps"], json!([[0, 7]]));
        assert!(site.call(&["repair", "--from", "0", "--to", "7"]).status.code() == Some(0));
        assert!(site.call(&["verify", "--from", "0"]).status.success());
        assert_exact(&client, anvil.rpc(), 31_337, 8, head(anvil.rpc()).await).await;
    });
}
