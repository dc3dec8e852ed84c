//! The replaying node is a chain like any other: rows of the benchmarks are compared with its own answers, and proved.

use std::net::SocketAddr;

use dalp_fixtures::{ReplayNode, ReplayPlan, Rpc};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{stage, until};
use dalp_tests::truth::{assert_exact, full_verify};

use crate::history::no_gaps;

#[test]
fn a_replayed_chain_is_indexed_exactly_and_proved_by_its_receipts() {
    dalp_tests::run(async {
        let plan = ReplayPlan { every: 3, ..ReplayPlan::dense(24_000, 300) };
        let (head, transfers) = (plan.head, plan.transfers());
        let node = ReplayNode::listen(plan, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let database = stage().await.database().await;
        let site = Site::new(&database, &node.url()).with("finality = \"tag\"");
        let client = database.superuser().await;
        let service = Service::start(&site.config()).await.unwrap();
        let tail = "SELECT FROM dalp_indexed.chain_state WHERE tail_number = 300";
        until("the head", || async { client.query_opt(tail, &[]).await.unwrap().is_some() }).await;
        no_gaps(&client).await;
        service.stop().await;
        let stored = assert_exact(&client, &Rpc::new(&node.url()).unwrap(), 31_337, 0, head).await;
        assert_eq!(stored as u64, transfers);
        full_verify(&site);
        let proved = "SELECT FROM dalp_indexed.coverage WHERE level = 'receipts' AND to_block = 300";
        assert!(client.query_opt(proved, &[]).await.unwrap().is_some(), "blocks near the head are proved");
    });
}
