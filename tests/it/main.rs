//! All tests from outside, in one binary: it links once and its tests share slow servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod cancel;
mod catalogue;
mod commands;
mod compose;
mod contracts;
mod crash;
mod dataset;
mod dev;
mod devnets;
mod ethers;
mod factories;
mod fence;
mod history;
mod input;
mod lease;
mod nodes;
mod packages;
mod partitions;
mod pool;
mod pooler;
mod reasons;
mod reorg;
mod replay;
mod status;
mod sync;
mod tidy;
mod typed;
mod verify;
mod views;

use std::path::{Path, PathBuf};

use alloy::primitives::{Address, B256};
use dalp_fixtures::contracts::Burst;
use dalp_fixtures::{Deployed, Rpc};
use dalp_indexer::service::Service;
use dalp_tests::stage::{stage, until};
use dalp_tests::traffic::{burst, caught_up, send};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace's root")
}

/// The text of a file of the repository.
fn text(path: impl AsRef<Path>) -> String {
    let path: PathBuf = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether this is a long run (`DALP_TEST_LONG`).
fn is_long() -> bool {
    std::env::var_os("DALP_TEST_LONG").is_some()
}

/// The number of tries for an event that depends on chance: more in a long run.
fn tries(short: u64, long: u64) -> u64 {
    if is_long() { long } else { short }
}

/// Repeatable chance: `DALP_TEST_SEED` replays the seed that a failed test printed.
fn rng(test: &str) -> StdRng {
    let given = std::env::var("DALP_TEST_SEED").ok().map(|seed| seed.parse().expect("DALP_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(rand::random);
    println!("{test}: replay with DALP_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// The Unix socket of the shared server.
async fn socket() -> PathBuf {
    let cluster = &stage().await.cluster;
    cluster.socket_dir().join(format!(".s.PGSQL.{}", cluster.port()))
}

/// Emits any log.
async fn emit(rpc: &Rpc, deployed: &Deployed, topics: &[B256], data: &[u8]) {
    send(rpc, deployed, Burst::emitRawCall { topics: topics.to_vec(), data: data.to_vec().into() }).await;
}

/// Puts the code of one contract at another address.
async fn plant(rpc: &Rpc, of: Address, address: Address) {
    let code: Value = rpc.call("eth_getCode", json!([of, "latest"])).await.unwrap();
    let _: Value = rpc.call("anvil_setCode", json!([address, code])).await.unwrap();
}

/// A transfer's topics.
fn transfer(from: Address, to: Address) -> Vec<B256> {
    vec![dalp_indexer::events::TRANSFER, from.into_word(), to.into_word()]
}

/// Waits until the indexer has received block `number` and written its heartbeat since: it had the time for every reaction.
async fn heard_of(client: &Client, number: u64) {
    let sql = "SELECT FROM dalp_indexed.chain_status WHERE head_number >= $1";
    until("a heartbeat with the head", || async {
        client.query_opt(sql, &[&(number as i64)]).await.expect("the heartbeat is read").is_some()
    })
    .await;
}

/// Waits until a chain's status says that it waits for something like `what`.
async fn waits_for(service: &Service, what: &str) {
    let status = service.status();
    until(what, || async { status.borrow().iter().any(|chain| chain.waits_for.contains(what)) }).await;
}
