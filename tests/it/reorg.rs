//! Reorganised chains: orphaned rows go, new ones come, and nothing final is touched.

use dalp_fixtures::deploy;
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, head, stage};
use dalp_tests::truth::assert_exact;

use crate::{burst, caught_up, heard_of, waits_for};

#[test]
fn a_reorg_of_equal_length_and_a_rollback_end_with_the_nodes_chain() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let service = Service::start(&Site::new(&database, &anvil.http_url()).config()).await.unwrap();
        let client = database.superuser().await;
        for seed in 0..10 {
            burst(anvil.rpc(), &deployed, 3, seed).await;
        }
        caught_up(&database, &anvil).await;
        for depth in [1, 3, 7] {
            let before = anvil.rpc().block_hash(head(anvil.rpc()).await).await.unwrap();
            anvil.rpc().reorg(depth).await.unwrap();
            assert_ne!(
                before,
                anvil.rpc().block_hash(head(anvil.rpc()).await).await.unwrap(),
                "the node did reorganise"
            );
            caught_up(&database, &anvil).await;
            assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        }
        burst(anvil.rpc(), &deployed, 3, 77).await;
        caught_up(&database, &anvil).await;
        anvil.rpc().rollback(4).await.unwrap();
        caught_up(&database, &anvil).await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        burst(anvil.rpc(), &deployed, 2, 5).await;
        caught_up(&database, &anvil).await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn a_reorg_behind_our_back_is_found_after_a_restart_even_in_backfilled_ranges() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        for seed in 0..50 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
        }
        anvil.rpc().mine(100, 1).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        anvil.rpc().reorg(120).await.unwrap();
        burst(anvil.rpc(), &deployed, 2, 1000).await;
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn orphans_in_another_leaf_than_their_successors_go_too() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 2, 1).await;
        let service = Service::start(&Site::new(&database, &anvil.http_url()).config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let below = head(anvil.rpc()).await;
        // The orphaned blocks lie three days ahead, their successors one second.
        anvil.rpc().mine(1, 3 * 24 * 3600).await.unwrap();
        burst(anvil.rpc(), &deployed, 4, 2).await;
        caught_up(&database, &anvil).await;
        anvil.rpc().rollback(head(anvil.rpc()).await - below).await.unwrap();
        burst(anvil.rpc(), &deployed, 5, 3).await;
        burst(anvil.rpc(), &deployed, 5, 4).await;
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}

#[test]
fn below_finalized_the_chain_stops_and_nothing_is_removed() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("finality = \"depth:3\"");
        let service = Service::start(&site.config()).await.unwrap();
        for seed in 0..12 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
        }
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        let count = || async {
            client.query_one("SELECT count(*) FROM dalp_indexed.logs", &[]).await.unwrap().get::<_, i64>(0)
        };
        anvil.rpc().reorg(2).await.unwrap();
        caught_up(&database, &anvil).await;
        let before = count().await;
        anvil.rpc().reorg(8).await.unwrap();
        waits_for(&service, "below finalized block").await;
        waits_for(&service, "finality = \"never\"").await;
        // The next block is no reason to go on.
        anvil.rpc().mine(1, 1).await.unwrap();
        heard_of(&client, head(anvil.rpc()).await).await;
        assert_eq!(count().await, before);
        service.stop().await;
    });
}

#[test]
fn a_chain_whose_finality_is_never_now_leaves_what_was_final_to_its_operator() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let site = Site::new(&database, &anvil.http_url());
        let service = Service::start(&site.clone().with("finality = \"depth:2\"").config()).await.unwrap();
        for seed in 0..8 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
        }
        caught_up(&database, &anvil).await;
        service.stop().await;
        anvil.rpc().reorg(6).await.unwrap();
        anvil.rpc().mine(9, 1).await.unwrap();
        let client = database.superuser().await;
        let count = "SELECT count(*) FROM dalp_indexed.logs";
        let before: i64 = client.query_one(count, &[]).await.unwrap().get(0);
        let service = Service::start(&site.config()).await.unwrap();
        waits_for(&service, "reindex --from").await;
        assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), before);
        service.stop().await;
    });
}
