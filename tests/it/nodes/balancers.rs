//! One URL, several nodes behind it: some lag, some are on another fork, one is of another chain.

use std::collections::BTreeSet;

use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{Anvil, AnvilOptions, FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, anvil_with, head, stage, until};
use dalp_tests::truth::{Row, assert_exact, on_chain, stored};

use super::CHAIN;
use crate::{burst, caught_up};

#[test]
fn a_balancer_over_nodes_that_lag_makes_nothing_be_removed_or_lost() {
    dalp_tests::run(async {
        for route in [Fault::Balance, Fault::Scatter] {
            let (database, anvil) = (stage().await.database().await, anvil().await);
            let deployed = deploy(anvil.rpc()).await.unwrap();
            let behind = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
            let lag = behind.inject(Rule::new(Fault::Lag { blocks: 2 }));
            let balancer = FaultyNode::start(&[anvil.http_url(), behind.url()]).await.unwrap();
            let turns = balancer.inject(Rule::new(route.clone()));
            let site = Site::new(&database, &balancer.url()).with("finality = \"depth:64\"");
            let service = Service::start(&site.config()).await.unwrap();
            let client = database.superuser().await;
            let mut before = Vec::new();
            for seed in 0..20 {
                burst(anvil.rpc(), &deployed, 2, seed).await;
                let now = stored(&client, CHAIN, 0, head(anvil.rpc()).await).await;
                assert!(before.iter().all(|row| now.binary_search(row).is_ok()), "{route:?}: rows were removed");
                before = now;
            }
            caught_up(&database, &anvil).await;
            assert!(lag.count() > 0 && turns.count() > 0, "{route:?}");
            assert_exact(&client, anvil.rpc(), CHAIN, 0, head(anvil.rpc()).await).await;
            let removed: i64 = client.query_one("SELECT count(*) FROM dalp_indexed.reorg", &[]).await.unwrap().get(0);
            assert_eq!(removed, 0, "{route:?}: a node that lags is no reorg");
            service.stop().await;
        }
    });
}

/// Two nodes with the same first blocks, and others from there on.
async fn forks() -> [Anvil; 2] {
    const GENESIS: u64 = 1_767_225_600;
    let options = AnvilOptions { genesis_timestamp: Some(GENESIS), ..AnvilOptions::default() };
    let nodes = [anvil_with(options.clone()).await, anvil_with(options).await];
    for (at, node) in nodes.iter().enumerate() {
        for block in 1..5 {
            node.rpc().mine_at(GENESIS + 10 * block).await.unwrap();
        }
        node.rpc().mine_at(GENESIS + 1_000 + at as u64).await.unwrap();
        let deployed = deploy(node.rpc()).await.unwrap();
        for seed in 0..5 {
            burst(node.rpc(), &deployed, 2, 100 * at as u64 + seed).await;
        }
    }
    let (one, other) = (nodes[0].rpc(), nodes[1].rpc());
    assert_eq!(one.block_hash(4).await.unwrap(), other.block_hash(4).await.unwrap(), "one chain up to here");
    assert_ne!(one.block_hash(5).await.unwrap(), other.block_hash(5).await.unwrap(), "two from here on");
    nodes
}

#[test]
fn a_balancer_over_two_forks_never_mixes_them() {
    dalp_tests::run(async {
        for route in [Fault::Balance, Fault::Scatter] {
            let (database, [one, other]) = (stage().await.database().await, forks().await);
            let balancer = FaultyNode::start(&[one.http_url(), other.http_url()]).await.unwrap();
            let turns = balancer.inject(Rule::new(route.clone()));
            let service = Service::start(&Site::new(&database, &balancer.url()).config()).await.unwrap();
            let client = database.superuser().await;
            let last = head(one.rpc()).await.max(head(other.rpc()).await);
            let chains: Vec<BTreeSet<Row>> = vec![
                on_chain(one.rpc(), 0, last).await.into_iter().collect(),
                on_chain(other.rpc(), 0, last).await.into_iter().collect(),
            ];
            until("both forks to be met", || async {
                let rows = stored(&client, CHAIN, 0, last + 1).await;
                let of_one = chains.iter().any(|chain| rows.iter().all(|row| chain.contains(row)));
                assert!(of_one, "{route:?}: rows of both forks at once: {rows:?}");
                turns.count() > 40
            })
            .await;
            turns.off();
            caught_up(&database, &one).await;
            assert_exact(&client, one.rpc(), CHAIN, 0, head(one.rpc()).await).await;
            service.stop().await;
        }
    });
}

#[test]
fn a_node_of_another_chain_is_left_out() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let stranger = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let rule = stranger.inject(Rule::new(Fault::ChainId { id: 1 }));
        // It is no use for anything else either.
        let mut site = Site::new(&database, &stranger.url());
        site.rpc_urls.push(anvil.http_url());
        let service = Service::start(&site.config()).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(rule.count() > 0, "it was asked for its chain");
        let asked = stranger.requests();
        for seed in 0..5 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
        }
        caught_up(&database, &anvil).await;
        assert_exact(&database.superuser().await, anvil.rpc(), CHAIN, 0, head(anvil.rpc()).await).await;
        assert!(stranger.requests() <= asked + 2, "a node of another chain is asked for nothing but its chain");
        service.stop().await;
    });
}
