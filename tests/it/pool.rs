//! Several nodes for one chain: one dies, one serves another chain, one comes up late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{Anvil, AnvilOptions, Deployed, FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{PATIENCE, anvil_with, head, stage, until};
use dalp_tests::truth::assert_exact;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{burst, caught_up};

/// Two nodes of one chain: the same genesis, and the same transactions at the same times, block by block.
async fn twins() -> (Anvil, Anvil, Deployed) {
    let options = || AnvilOptions { genesis_timestamp: Some(1_700_000_000), ..AnvilOptions::default() };
    let (first, second) = (anvil_with(options()).await, anvil_with(options()).await);
    let mut deployed = None;
    for twin in [&first, &second] {
        // Blocks without transactions of their own follow the clock; these follow each other.
        twin.rpc().call::<serde_json::Value>("anvil_setBlockTimestampInterval", serde_json::json!([1])).await.unwrap();
        deployed = Some(deploy(twin.rpc()).await.unwrap());
    }
    (first, second, deployed.unwrap())
}

async fn both(first: &Anvil, second: &Anvil, deployed: &Deployed, n: u64, seed: u64) {
    burst(first.rpc(), deployed, n, seed).await;
    burst(second.rpc(), deployed, n, seed).await;
}

async fn same(first: &Anvil, second: &Anvil) {
    let number = head(first.rpc()).await;
    let hash = |anvil: &Anvil| {
        let rpc = anvil.rpc().clone();
        async move { rpc.block_hash(number).await.unwrap() }
    };
    assert_eq!(hash(first).await, hash(second).await, "the twins are one chain");
}

#[test]
fn the_death_of_a_node_costs_nothing_when_another_serves_the_chain() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let (first, second, deployed) = twins().await;
        for seed in 0..20 {
            both(&first, &second, &deployed, 5, seed).await;
        }
        same(&first, &second).await;
        let mut site = Site::new(&database, &first.http_url());
        site.rpc_urls.push(second.http_url());
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &first).await;
        first.stop(PATIENCE).await.unwrap();
        for seed in 20..40 {
            burst(second.rpc(), &deployed, 5, seed).await;
        }
        caught_up(&database, &second).await;
        let status = service.status();
        until("the dead node to rest", || async { status.borrow()[0].nodes[0].state == "resting" }).await;
        until("ready", || async { status.borrow()[0].ready }).await;
        let nodes = status.borrow()[0].nodes.clone();
        assert_eq!(nodes[1].state, "up");
        assert!(nodes[0].last_error.as_deref().is_some_and(|why| why.contains("refused")), "{nodes:?}");
        let client = database.superuser().await;
        assert_exact(&client, second.rpc(), 31_337, 0, head(second.rpc()).await).await;
        let state = "SELECT state FROM dalp_indexed.node WHERE name = $1";
        until("the table to say so", || async {
            let row = client.query_opt(state, &[&nodes[0].name]).await.unwrap();
            row.is_some_and(|row| row.get::<_, &str>(0) == "resting")
        })
        .await;
        service.stop().await;
    });
}

#[test]
fn a_node_of_another_chain_is_refused_and_its_heads_are_not_used() {
    dalp_tests::run(async {
        let (database, right) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let options = AnvilOptions { genesis_timestamp: Some(1_600_000_000), ..AnvilOptions::default() };
        let wrong = anvil_with(options).await;
        let deployed = deploy(right.rpc()).await.unwrap();
        // Its head is far above.
        wrong.rpc().mine(200, 1).await.unwrap();
        let mut site = Site::new(&database, &right.http_url());
        site.rpc_urls.push(wrong.http_url());
        let site = site.with(&format!("ws_urls = [{:?}, {:?}]", wrong.ws_url(), right.ws_url()));
        let mut running = site.spawn();
        for seed in 0..10 {
            burst(right.rpc(), &deployed, 5, seed).await;
        }
        caught_up(&database, &right).await;
        until("the socket to be refused", || async { running.log().contains("its heads are ignored") }).await;
        burst(right.rpc(), &deployed, 5, 99).await;
        caught_up(&database, &right).await;
        let client = database.superuser().await;
        assert_exact(&client, right.rpc(), 31_337, 0, head(right.rpc()).await).await;
        until("the table to say so", || async {
            let sql = "SELECT count(*) FROM dalp_indexed.node WHERE state = 'refused' AND last_error LIKE '%it serves chain%'";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        let output = site.call(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("refused") && text.contains(&right.http_url()), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&site.call(&["status", "--json"]).stdout).unwrap();
        assert_eq!(json["chains"][0]["nodes"].as_array().map(Vec::len), Some(2), "{json}");
        assert!(running.stop().await.success(), "{}", running.log());
        assert_named(&running.log(), &wrong);
    });
}

/// Each line about a chain names the chain, and each line about a node names the node.
fn assert_named(log: &str, wrong: &Anvil) {
    let check = |what: &str, name: &str| {
        let about: Vec<&str> = log.lines().filter(|line| line.contains(what)).collect();
        assert!(!about.is_empty() && about.iter().all(|line| line.contains(name)), "{what}: {name}\n{log}");
    };
    for module in ["nodes", "service::tenure"] {
        check(&format!(" dalp_indexer::{module}"), "chain{chain=\"it\"}");
    }
    check("nodes::node: refused", &format!(":node{{node={:?}}}", wrong.http_url()));
    check("its heads are ignored", &format!(":node{{node={:?}}}", wrong.ws_url()));
}

#[test]
fn limits_are_remembered_over_a_restart() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 5, 1).await;
        let site = Site::new(&database, &anvil.http_url());
        let client = database.superuser().await;
        let sql = "INSERT INTO dalp_indexed.node (chain_id, name, max_blocks, max_batch, refused_methods) \
                   VALUES (31337, $1, 77, 2, '{eth_getBlockReceipts}')";
        client.execute(sql, &[&anvil.http_url()]).await.unwrap();
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let status = service.status();
        until("the node's report", || async { !status.borrow()[0].nodes.is_empty() }).await;
        let node = status.borrow()[0].nodes[0].clone();
        assert_eq!((node.max_blocks, node.max_batch), (Some(77), Some(2)));
        assert_eq!(node.refused_methods, ["eth_getBlockReceipts"]);
        service.stop().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
    });
}

/// A path to a node that can fall silent: connections stay open, and no answer returns.
struct Tunnel {
    port: u16,
    silent: Arc<AtomicBool>,
    /// Pushes that came through, by connection.
    pushes: Arc<[AtomicUsize; 8]>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnel {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (silent, pushes): (Arc<AtomicBool>, Arc<[AtomicUsize; 8]>) = Default::default();
        let (own, flag, counts) = (listener.local_addr().unwrap().port(), silent.clone(), pushes.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for at in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut up, mut down) = (client.into_split(), server.into_split());
                let (flag, counts) = (flag.clone(), counts.clone());
                // The flag silences the connections at the time of its rise, and lets the next one through.
                connections.spawn(async move { tokio::io::copy(&mut up.0, &mut down.1).await });
                connections.spawn(async move {
                    let mut bytes = vec![0; 64 * 1024];
                    let mut silenced = false;
                    loop {
                        let read = down.0.read(&mut bytes).await?;
                        if read == 0 {
                            return Ok(0);
                        }
                        silenced |= at == 0 && flag.load(Ordering::SeqCst);
                        if !silenced {
                            let pushes = bytes[..read].windows(16).filter(|text| text == b"eth_subscription").count();
                            counts[at].fetch_add(pushes, Ordering::SeqCst);
                            up.1.write_all(&bytes[..read]).await?;
                        }
                    }
                });
            }
        });
        Self { port: own, silent, pushes, task }
    }

    fn pushes(&self, connection: usize) -> usize {
        self.pushes[connection].load(Ordering::SeqCst)
    }
}

#[test]
fn a_socket_that_died_silently_is_replaced() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let tunnel = Tunnel::to(anvil.port()).await;
        let url = format!("ws_urls = [\"ws://127.0.0.1:{}\"]", tunnel.port);
        let mut running = Site::new(&database, &anvil.http_url()).with(&url).spawn();
        // A quiet chain is no reason to give up a socket.
        until("a pushed head", || async {
            burst(anvil.rpc(), &deployed, 1, 1).await;
            tunnel.pushes(0) > 0
        })
        .await;
        tunnel.silent.store(true, Ordering::SeqCst);
        burst(anvil.rpc(), &deployed, 3, 2).await;
        caught_up(&database, &anvil).await;
        until("the socket to be given up", || async { running.log().contains("while polls see newer heads") }).await;
        until("a head by the next one", || async {
            burst(anvil.rpc(), &deployed, 1, 3).await;
            tunnel.pushes(1) > 0
        })
        .await;
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        assert!(running.stop().await.success(), "{}", running.log());
    });
}

/// A chain without a reachable node, one whose node fails at the start, and characters that no text of a database holds.
#[test]
fn a_chain_that_cannot_begin_is_begun_anew_and_keeps_no_other_waiting() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 5, 1).await;
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let failing = node.inject(Rule::new(Fault::Status { status: 500, retry_after: None, html: false }).times(5));
        let mut site = Site::new(&database, &node.url());
        site.more = "[chains.absent]\nchain_id = 7\nrpc_urls = [\"http://127.0.0.1:9\"]\n".into();
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        assert_eq!(failing.count(), 5);
        let status = service.status();
        let of = |name: &str| status.borrow().iter().find(|chain| chain.name == name).cloned().unwrap();
        until("it to restart", || async { of("absent").stops >= 2 }).await;
        let absent = of("absent");
        assert!(absent.waits_for.contains("a new start") && absent.waits_for.contains("rpc_urls"), "{absent:?}");
        assert!(!absent.ready);
        until("the other to be ready", || async { of("it").ready }).await;
        // A node's message is stored in the database, with any characters.
        let words = Fault::Refused { code: -32_603, message: "upstream: a\0b".into() };
        node.inject(Rule::new(words));
        let client = database.superuser().await;
        burst(anvil.rpc(), &deployed, 5, 2).await;
        let sql = "SELECT FROM dalp_indexed.chain_status JOIN dalp_indexed.node USING (chain_id) \
                   WHERE chain_id = 31337 AND waits_for LIKE '%upstream: a b%' AND last_error LIKE '%upstream: a b%'";
        until("the heartbeat to tell", || async { !client.query(sql, &[]).await.unwrap().is_empty() }).await;
        node.behave();
        caught_up(&database, &anvil).await;
        assert_exact(&client, anvil.rpc(), 31_337, 0, head(anvil.rpc()).await).await;
        service.stop().await;
    });
}
