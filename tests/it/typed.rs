//! Chains without raw logs: their typed rows equal those of a chain with raw logs, through reorgs, `verify` and `repair`.

use alloy::primitives::B256;
use dalp_fixtures::deploy;
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, stage, until};
use tokio_postgres::Client;

use crate::{burst, caught_up, emit};

const TRANSFERS: &str = "SELECT COALESCE(string_agg(t::text, ' ' ORDER BY block_number, log_index), '') \
                         FROM dalp_indexed.erc20_transfer AS t";

async fn transfers(client: &Client) -> String {
    client.query_one(TRANSFERS, &[]).await.unwrap().get(0)
}

async fn raw_logs(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM dalp_indexed.logs", &[]).await.unwrap().get(0)
}

async fn both_the_same(databases: [&Database; 2], anvil: &dalp_fixtures::Anvil) -> String {
    for database in databases {
        caught_up(database, anvil).await;
    }
    let (raw, typed) = (databases[0].superuser().await, databases[1].superuser().await);
    until("the same transfers in both", || async { transfers(&raw).await == transfers(&typed).await }).await;
    assert_eq!(raw_logs(&typed).await, 0);
    let leaves = "SELECT count(*) FROM pg_partition_tree('dalp_indexed.logs') WHERE isleaf";
    assert_eq!(typed.query_one(leaves, &[]).await.unwrap().get::<_, i64>(0), 0, "leaves that nothing goes into");
    transfers(&typed).await
}

#[test]
fn typed_rows_are_the_same_without_raw_logs() {
    dalp_tests::run(async {
        let (with, without, anvil) = (stage().await.database().await, stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..5 {
            burst(anvil.rpc(), &deployed, 20, seed).await;
            emit(anvil.rpc(), &deployed, &[B256::repeat_byte(0x41)], &[1]).await;
        }
        let typed = Site::new(&without, &anvil.http_url()).with("raw = false");
        let one = Service::start(&Site::new(&with, &anvil.http_url()).config()).await.unwrap();
        let other = Service::start(&typed.config()).await.unwrap();
        let before = both_the_same([&with, &without], &anvil).await;
        anvil.rpc().reorg(3).await.unwrap();
        burst(anvil.rpc(), &deployed, 3, 99).await;
        let after = both_the_same([&with, &without], &anvil).await;
        assert_ne!(before, after, "the reorg was seen");
        one.stop().await;
        other.stop().await;

        let client = without.superuser().await;
        let verified = |site: &Site| site.call(&["verify"]).status.success();
        assert!(verified(&typed));
        for spoil in [
            "UPDATE dalp_indexed.erc20_transfer SET value = value + 1 WHERE log_index = 2",
            "DELETE FROM dalp_indexed.erc20_transfer WHERE log_index = 1",
        ] {
            client.batch_execute(spoil).await.unwrap();
            assert!(!verified(&typed), "{spoil}");
            let repaired = typed.call(&["repair"]);
            assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stderr));
            assert!(verified(&typed) && transfers(&client).await == after);
        }
    });
}

#[test]
fn rows_with_and_without_raw_logs_do_not_mix() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 20, 1).await;
        let raw = Site::new(&database, &anvil.http_url());
        let service = Service::start(&raw.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        let typed = Site::new(&database, &anvil.http_url()).with("raw = false");
        let refused = Service::start(&typed.config()).await.err().expect("rows of both kinds").to_string();
        assert!(refused.contains("raw = true") && refused.contains("reindex --chain it --from 0"), "{refused}");
        let output = raw.call(&["reindex", "--from", "0", "--yes"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let service = Service::start(&typed.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert!(raw_logs(&client).await == 0 && !transfers(&client).await.is_empty());
        service.stop().await;
    });
}
