//! One URL, several nodes behind it: some lag, some are on another fork, one is of another chain.

use std::collections::BTreeSet;

use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{Anvil, AnvilOptions, FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{Database, anvil, anvil_with, head, stage, until};
use dalp_tests::truth::{Row, on_chain, stored};

use super::{CHAIN, exact};
use crate::{burst, caught_up, waits_for};

/// How far behind the lagging node is.
const BEHIND: u64 = 2;

/// Follows a chain through a load balancer over a current node and a lagging one. `to_the_tip`: the newest blocks are available
/// after retries; otherwise only the blocks that both nodes have.
async fn check_lagging(route: Rule, to_the_tip: bool) {
    let (database, anvil) = (stage().await.database().await, anvil().await);
    let deployed = deploy(anvil.rpc()).await.unwrap();
    let behind = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
    let lag = behind.inject(Rule::new(Fault::Lag { blocks: BEHIND }));
    let balancer = FaultyNode::start(&[anvil.http_url(), behind.url()]).await.unwrap();
    let turns = balancer.inject(route);
    let site = Site::new(&database, &balancer.url()).with("finality = \"depth:64\"");
    let service = Service::start(&site.config()).await.unwrap();
    let client = database.superuser().await;
    let mut before = Vec::new();
    for seed in 0..20 {
        burst(anvil.rpc(), &deployed, 2, seed).await;
        let now = stored(&client, CHAIN, 0, head(anvil.rpc()).await).await;
        assert!(before.iter().all(|row| now.binary_search(row).is_ok()), "rows were removed");
        before = now;
    }
    let last = head(anvil.rpc()).await - if to_the_tip { 0 } else { BEHIND };
    let status = service.status();
    until("the blocks that can be had", || async { status.borrow()[0].tail >= Some(last) }).await;
    assert!(lag.count() > 0 && turns.count() > 0, "it did lag, and there were turns");
    lag.off();
    exact(&service, &database, &anvil, 0).await;
    let removed: i64 = client.query_one("SELECT count(*) FROM dalp_indexed.reorg", &[]).await.unwrap().get(0);
    assert_eq!(removed, 0, "a node that lags is no reorg");
    service.stop().await;
}

#[test]
fn a_balancer_that_meets_a_lagging_node_at_random_is_asked_again() {
    dalp_tests::run(check_lagging(Rule::new(Fault::Balance).probability(0.5), true));
}

#[test]
fn a_balancer_that_meets_a_lagging_node_in_turn_gives_what_all_nodes_have() {
    dalp_tests::run(check_lagging(Rule::new(Fault::Balance), false));
}

#[test]
fn a_balancer_that_takes_batches_apart_gives_what_all_nodes_have() {
    dalp_tests::run(check_lagging(Rule::new(Fault::Scatter), false));
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

/// Of two forks of the same height the indexer follows `fork`. First without a new block: it notices by itself that its tail is on the
/// other fork. Then with one: a comparison that the other fork answered may still take the tail back, but not after the new block.
async fn followed(service: &Service, database: &Database, fork: &Anvil) {
    caught_up(database, fork).await;
    fork.rpc().mine(1, 1).await.unwrap();
    exact(service, database, fork, 0).await;
}

async fn check_forks(route: Fault) {
    let (database, [one, other]) = (stage().await.database().await, forks().await);
    let balancer = FaultyNode::start(&[one.http_url(), other.http_url()]).await.unwrap();
    let turns = balancer.inject(Rule::new(route));
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
        assert!(of_one, "rows of both forks at once: {rows:?}");
        turns.count() > 40
    })
    .await;
    turns.off();
    followed(&service, &database, &one).await;
    service.stop().await;
}

#[test]
fn a_balancer_over_two_forks_never_mixes_them() {
    dalp_tests::run(check_forks(Fault::Balance));
}

#[test]
fn a_balancer_that_takes_batches_apart_over_two_forks_never_mixes_them() {
    dalp_tests::run(check_forks(Fault::Scatter));
}

#[test]
fn a_fork_of_the_same_height_is_followed_though_an_answer_came_from_the_other_one() {
    dalp_tests::run(async {
        let (database, [one, other]) = (stage().await.database().await, forks().await);
        let balancer = FaultyNode::start(&[one.http_url(), other.http_url()]).await.unwrap();
        let service = Service::start(&Site::new(&database, &balancer.url()).config()).await.unwrap();
        exact(&service, &database, &one, 0).await;
        // The head of one fork, compared with the other fork's answer, looks like a temporary error.
        let turns = balancer.inject(Rule::new(Fault::Balance));
        until("both forks to be met", || async { turns.count() > 20 }).await;
        turns.off();
        balancer.inject(Rule::new(Fault::Route { upstream: 1 }));
        followed(&service, &database, &other).await;
        service.stop().await;
    });
}

#[test]
fn a_node_of_another_chain_is_left_out() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let stranger = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let rule = stranger.inject(Rule::new(Fault::ChainId { id: 1 }));
        let of_chain = stranger.inject(Rule::new(Fault::Delay { ms: 0 }).on("eth_chainId"));
        // It is no use for anything else either.
        let mut site = Site::new(&database, &stranger.url());
        site.rpc_urls.push(anvil.http_url());
        let service = Service::start(&site.config()).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(rule.count() > 0, "it was asked for its chain");
        for seed in 0..5 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
        }
        exact(&service, &database, &anvil, 0).await;
        service.stop().await;
        // How often, depends on how long this took.
        until("nothing to be asked of a node of another chain but its chain", || async {
            stranger.requests() == of_chain.matched()
        })
        .await;
    });
}

#[test]
fn a_devnet_that_started_anew_under_a_running_indexer_is_asked_for_nothing_and_unwinds_nothing() {
    dalp_tests::run(async {
        let (database, first, anew) = (stage().await.database().await, anvil().await, anvil_of(999).await);
        let deployed = deploy(first.rpc()).await.unwrap();
        let front = FaultyNode::start(&[first.http_url(), anew.http_url()]).await.unwrap();
        let service = Service::start(&Site::new(&database, &front.url()).config()).await.unwrap();
        for seed in 0..5 {
            burst(first.rpc(), &deployed, 2, seed).await;
        }
        exact(&service, &database, &first, 0).await;
        let other = front.inject(Rule::new(Fault::Route { upstream: 1 }));
        waits_for(&service, "refused: it serves chain 999").await;
        burst(first.rpc(), &deployed, 2, 77).await;
        let asked = front.inject(Rule::new(Fault::Delay { ms: 0 }).on("eth_getLogs"));
        let chain = front.inject(Rule::new(Fault::Delay { ms: 0 }).on("eth_chainId"));
        until("the node to be asked for its chain again", || async { chain.matched() > 0 }).await;
        assert_eq!(asked.matched(), 0, "a refused node is asked for nothing else");
        let reorgs: i64 =
            database.superuser().await.query_one("SELECT count(*) FROM dalp_indexed.reorg", &[]).await.unwrap().get(0);
        assert_eq!(reorgs, 0, "nothing was unwound for it");
        other.off();
        exact(&service, &database, &first, 0).await;
        service.stop().await;
    });
}

async fn anvil_of(chain_id: u64) -> Anvil {
    let anvil = anvil_with(AnvilOptions { chain_id, ..AnvilOptions::default() }).await;
    anvil.rpc().mine(20, 1).await.unwrap();
    anvil
}
