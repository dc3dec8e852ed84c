//! Nodes that misbehave, over real sockets.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use alloy::primitives::B256;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::chain::source::Source;
use crate::config::Config;
use crate::nodes::Nodes;

type Handler = dyn Fn(&Value) -> String + Send + Sync;

/// An HTTP server that answers each parsed request with the text from `handler`, and keeps the requests.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(handler: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        Self::start_at(TcpListener::bind("127.0.0.1:0").await.unwrap(), handler)
    }

    fn start_at(listener: TcpListener, handler: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (requests, handler): (_, Arc<Handler>) = (asked.clone(), Arc::new(handler));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone(), requests.clone()));
            }
        });
        Self { url, asked, task }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }

    /// The methods of each request.
    fn methods(&self) -> Vec<String> {
        let methods = |request: &Value| {
            calls(request).iter().map(|call| call["method"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("+")
        };
        self.asked().iter().map(methods).collect()
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, requests: Arc<Mutex<Vec<Value>>>) {
    let mut bytes = Vec::new();
    let body = loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break serde_json::from_str::<Value>(body).unwrap();
        }
    };
    requests.lock().unwrap().push(body.clone());
    stream.write_all(handler(&body).as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

fn calls(request: &Value) -> Vec<Value> {
    request.as_array().cloned().unwrap_or_else(|| vec![request.clone()])
}

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

fn ok(body: &Value) -> String {
    http("200 OK", "", &body.to_string())
}

fn error(code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } })
}

/// Answers every call with the name of its method, last first.
fn well(request: &Value) -> String {
    answered(request, &|call| call["method"].clone())
}

fn answered(request: &Value, result: &dyn Fn(&Value) -> Value) -> String {
    let answer = |call: &Value| json!({ "jsonrpc": "2.0", "id": call["id"], "result": result(call) });
    ok(&match request {
        Value::Array(calls) => calls.iter().rev().map(answer).collect(),
        one => answer(one),
    })
}

/// A node of chain 1 with its head at that number, a minute a block.
fn chain_at(head: Arc<AtomicU64>) -> impl Fn(&Value) -> String + Send + Sync + 'static {
    move |request| {
        let head = head.load(Ordering::SeqCst);
        answered(request, &|call| match (call["method"].as_str(), call["params"][0].as_str()) {
            (Some("eth_chainId"), _) => json!("0x1"),
            (_, Some("0x0")) => header(0, 1),
            _ => json!({ "number": format!("{head:#x}"), "hash": B256::repeat_byte(9), "parentHash": B256::ZERO,
                         "timestamp": format!("{:#x}", head * 60) }),
        })
    }
}

/// A node of chain 1 whose genesis hash repeats `genesis`, with its head at 9.
fn chain(genesis: u8) -> impl Fn(&Value) -> String + Send + Sync + 'static {
    move |request| {
        answered(request, &|call| match (call["method"].as_str(), call["params"][0].as_str()) {
            (Some("eth_chainId"), _) => json!("0x1"),
            (_, Some("0x0")) => header(0, genesis),
            _ => header(9, 9),
        })
    }
}

fn header(number: u64, hash: u8) -> Value {
    json!({ "number": format!("{number:#x}"), "hash": B256::repeat_byte(hash), "parentHash": B256::ZERO, "timestamp": "0x5" })
}

fn configured(urls: &[&str]) -> Chain {
    let env = [
        ("DALP_DATABASE__URL", "postgres://h/d".to_owned()),
        ("DALP_CHAINS__C__CHAIN_ID", "1".to_owned()),
        ("DALP_CHAINS__C__RPC_URLS", urls.join(",")),
        ("DALP_CHAINS__C__FINALITY", "never".to_owned()),
        ("DALP_CHAINS__C__REQUEST_TIMEOUT", "5s".to_owned()),
    ];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value));
    Config::load(None, env).unwrap().chains.remove(0)
}

fn node(server: &Server) -> Node {
    let chain = configured(&[&server.url]);
    Node::new(server.url.clone(), &chain.rpc_urls[0], &chain, Arc::default(), Budget::new(u64::MAX)).unwrap()
}

fn three() -> Vec<Call> {
    ["a", "b", "c"].map(|method| Call::new(method, json!([]))).into()
}

fn logs_of(blocks: u64) -> Vec<Call> {
    vec![Call::new("eth_getLogs", json!([{ "fromBlock": "0x1", "toBlock": format!("{blocks:#x}") }]))]
}

fn texts(answers: &[Answer]) -> Vec<&str> {
    answers.iter().map(|answer| answer.get()).collect()
}

/// The error of a node that answers three calls with `answer`.
async fn refused(answer: String) -> (NodeError, NodeReport) {
    let server = Server::start(move |_| answer.clone()).await;
    let node = node(&server);
    let error = node.batch_of(three()).await.unwrap_err();
    (error, node.report())
}

/// The first of three calls is refused, the others are answered.
fn error_of_call(first: u64, code: i64, message: &str) -> Value {
    let mut answers = vec![error(code, message)];
    answers[0]["id"] = json!(first);
    answers.extend([first + 1, first + 2].map(|id| json!({ "id": id, "result": 1 })));
    Value::Array(answers)
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_calls() {
    let server = Server::start(well).await;
    let node = node(&server);
    let answers = node.batch_of(three()).await.unwrap();
    assert_eq!(texts(&answers), [r#""a""#, r#""b""#, r#""c""#]);
    assert_eq!(server.methods(), ["a+b+c"]);
    assert_eq!((node.report().state.as_str(), node.report().failures), ("up", 0));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_that_says_so() {
    let gone = "<html><head><title>502 Bad Gateway</title></head></html>";
    let cases = [
        (http("200 OK", "", gone), "malformed answer"),
        (http("502 Bad Gateway", "", gone), "HTTP 502: <html>"),
        (http("200 OK", "", "[]"), "3 of 3 answers are missing"),
        (http("200 OK", "", r#"[{"id":1,"result":1},{"id":1,"result":1},{"id":2,"result":1}]"#), "two answers"),
        (http("200 OK", "", r#"[{"id":1,"result":1},{"id":2,"re"#), "the body ends after"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n[".into(), "the answer was cut after 1 bytes"),
        (
            http("307 Temporary Redirect", "location: https://elsewhere.example/key\r\n", ""),
            "https://elsewhere.example,",
        ),
        (http("401 Unauthorized", "", "no"), "check the key in its URL"),
        (ok(&error(-32601, "method not found")), "does not offer a"),
        (ok(&error(-32000, "missing trie node")), "does not keep history"),
    ];
    for (answer, words) in cases {
        let (error, report) = refused(answer.clone()).await;
        assert!(matches!(error, NodeError::Retry { after: None, .. }), "{answer}: {error:?}");
        assert!(error.to_string().contains(words), "{answer}: {error}");
        assert!(!error.to_string().contains("/key"), "{error}");
        // A missing method is reported as such, not as a failure.
        let told = report.last_error.unwrap_or_else(|| format!("does not offer {}", report.refused_methods.join(", ")));
        assert!(told.contains(words), "{answer}: {told}");
    }
}

#[tokio::test]
async fn a_node_without_batches_is_asked_one_by_one_from_then_on() {
    let server = Server::start(|request| match request {
        Value::Array(_) => ok(&error(-32600, "Invalid Request")),
        _ => well(request),
    })
    .await;
    let node = node(&server);
    for _ in 0..2 {
        assert_eq!(texts(&node.batch_of(three()).await.unwrap()), [r#""a""#, r#""b""#, r#""c""#]);
    }
    assert_eq!(server.methods(), ["a+b+c", "a", "b", "c", "a", "b", "c"]);
    assert_eq!((node.report().max_batch, node.report().failures), (Some(1), 0));
}

#[tokio::test]
async fn the_size_of_batches_is_learned() {
    let limited = |limit: usize, message: &'static str| {
        move |request: &Value| match calls(request).len() > limit {
            true => http("400 Bad Request", "", &json!([error(-32600, message)]).to_string()),
            false => well(request),
        }
    };
    let many = || (0..7).map(|_| Call::new("a", json!([]))).collect();
    let named = Server::start(limited(3, "Batch of more than 3 requests are not allowed on free tier")).await;
    let named_node = node(&named);
    assert_eq!(named_node.batch_of(many()).await.unwrap().len(), 7);
    assert_eq!(named.asked().iter().map(|request| calls(request).len()).collect::<Vec<_>>(), [7, 3, 3, 1]);
    let silent = Server::start(limited(2, "batch too large")).await;
    let silent_node = node(&silent);
    assert_eq!(silent_node.batch_of(many()).await.unwrap().len(), 7);
    assert_eq!(
        silent.asked().iter().map(|request| calls(request).len()).collect::<Vec<_>>(),
        [7, 3, 1, 1, 1, 1, 1, 1, 1]
    );
    // A later run begins with the limits of this one.
    let again = node(&named);
    again.remember(&named_node.report());
    assert_eq!(again.batch_of(many()).await.unwrap().len(), 7);
    assert_eq!(named.asked().len(), 4 + 3);
}

#[tokio::test]
async fn a_throttled_node_is_not_asked_before_its_time() {
    let server = Server::start(|_| http("429 Too Many Requests", "retry-after: 60\r\n", "slow down")).await;
    let node = node(&server);
    let mut left = Vec::new();
    for _ in 0..3 {
        let NodeError::Retry { after: Some(after), .. } = node.batch_of(three()).await.unwrap_err() else {
            panic!("it is to be asked later");
        };
        left.push(after);
    }
    // Its message, and the remaining part of it.
    assert!(left[0] == Duration::from_secs(60) && left.is_sorted_by(|before, after| before > after), "{left:?}");
    assert_eq!(server.asked().len(), 1);
    assert_eq!((node.report().state.as_str(), node.report().failures), ("resting", 0));
    let (error, _) = refused(http("503 Service Unavailable", "retry-after: 2\r\n", "")).await;
    assert!(matches!(error, NodeError::Retry { after: Some(_), .. }), "{error:?}");
    let (error, _) = refused(ok(&error_of_call(1, 429, "compute units per second"))).await;
    assert!(matches!(error, NodeError::Retry { after: Some(_), .. }), "{error:?}");
}

#[tokio::test]
async fn near_the_head_the_blocks_that_came_are_kept() {
    let hash = |number: u64| B256::from(alloy::primitives::U256::from(number));
    let server = Server::start(move |request| {
        let answer = |call: &Value| {
            let number = call["params"][0].as_str().and_then(|text| u64::from_str_radix(&text[2..], 16).ok());
            match number {
                None => json!({ "id": call["id"], "result": [] }),
                Some(4) => json!({ "id": call["id"], "error": { "code": -32_603, "message": "boom" } }),
                Some(number) => json!({ "id": call["id"], "result": {
                    "number": format!("{number:#x}"), "hash": hash(number), "parentHash": hash(number - 1), "timestamp": "0x5" } }),
            }
        };
        ok(&calls(request).iter().map(answer).collect())
    })
    .await;
    let mut chain = configured(&[&server.url]);
    chain.verify = crate::chain::proof::Verify::To(crate::chain::level::Level::Returned);
    let nodes = Nodes::new(&chain).unwrap();
    let batch = nodes.near_head(&Source::default(), BlockRange { first: 1, last: 8 }).await.unwrap();
    assert_eq!(batch.range(), BlockRange { first: 1, last: 3 });
    let error = nodes.near_head(&Source::default(), BlockRange { first: 4, last: 8 }).await.unwrap_err();
    assert!(error.to_string().contains("eth_getBlockByNumber of block 4"), "{error}");
}

#[tokio::test]
async fn a_devnet_is_known_by_its_name() {
    for (version, is_one) in
        [("anvil/v1.2.0", true), ("HardhatNetwork/3", true), ("Ganache/v7.9", true), ("Geth/v1.15", false)]
    {
        let server = Server::start(move |request| answered(request, &|_| json!(version))).await;
        let devnet = Nodes::new(&configured(&[&server.url])).unwrap().devnet().await;
        assert_eq!(devnet.as_deref(), is_one.then_some(version));
    }
    let server = Server::start(|_| ok(&error(-32601, "method not found"))).await;
    assert_eq!(Nodes::new(&configured(&[&server.url])).unwrap().devnet().await, None);
}

#[tokio::test]
async fn what_is_malformed_is_told_with_its_method_its_block_and_what_came() {
    let server = Server::start(well).await;
    let node = node(&server);
    let error = node.header(&Answer::Text("{}".into()), 7).unwrap_err().to_string();
    for words in ["eth_getBlockByNumber of block 7", "parentHash", "it answered {}"] {
        assert!(error.contains(words), "{error}");
    }
    let long = format!("[\"{}\"]", "x".repeat(5_000));
    let error = node.logs("blocks 1-9", Answer::Text(long)).unwrap_err().to_string();
    assert!(error.contains("eth_getLogs of blocks 1-9") && error.len() < 700, "{error}");
    let milliseconds =
        json!({ "number": "0x7", "hash": B256::ZERO, "parentHash": B256::ZERO, "timestamp": "0x18bcfe56800" });
    let error = node.header(&Answer::Text(milliseconds.to_string()), 7).unwrap_err().to_string();
    assert!(error.contains("no sane time") && error.contains("1700000000000"), "{error}");
}

#[tokio::test]
async fn requests_at_once_are_learned_from_throttles() {
    let (mut open, most) = (Vec::new(), Arc::new(AtomicU64::new(0)));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let chain = configured(&[&url]);
    let node = Arc::new(Node::new(url, &chain.rpc_urls[0], &chain, Arc::default(), Budget::new(u64::MAX)).unwrap());
    node.remember(&NodeReport { max_parallel: Some(2), ..NodeReport::default() });
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (node, most) = (node.clone(), most.clone());
        asking.spawn(async move {
            node.batch_of(logs_of(1)).await.ok();
            most.fetch_add(1, Ordering::SeqCst);
        });
    }
    // Two are under way, and the others wait until one of these ends.
    for _ in 0..2 {
        open.push(silent.accept().await.unwrap());
    }
    tokio::task::yield_now().await;
    assert_eq!(node.record.known().running, 2);
    drop(open.pop());
    let third = silent.accept().await.unwrap();
    assert_eq!((node.record.known().running, most.load(Ordering::SeqCst)), (2, 1));
    drop((third, open, asking));
}

#[tokio::test]
async fn the_level_is_known_though_memory_is_held_by_those_who_wait_for_it() {
    let (begun, mut probing) = tokio::sync::mpsc::unbounded_channel();
    let padding = "x".repeat(50_000);
    let server = Server::start(move |request| {
        begun.send(()).ok();
        answered(request, &|_| {
            json!({ "number": "0x63", "hash": B256::ZERO, "parentHash": B256::ZERO, "timestamp": "0x5", "padding": padding })
        })
    })
    .await;
    let mut chain = configured(&[&server.url]);
    chain.fetch_buffer_bytes = 1_000_000;
    let nodes = Arc::new(Nodes::new(&chain).unwrap());
    let (holds, held) = tokio::sync::oneshot::channel();
    let first = nodes.clone();
    let probe = tokio::spawn(async move {
        held.await.unwrap();
        first.pool.budget().question(first.best_level()).await
    });
    // It holds more than the limit, and then asks for the level while another task asks the node for it.
    let waits = nodes.pool.budget().question(async {
        nodes.pool.budget().held().take(2_000_000).await;
        holds.send(()).unwrap();
        probing.recv().await;
        nodes.best_level().await
    });
    assert_eq!(waits.await.unwrap(), probe.await.unwrap().unwrap());
}

#[tokio::test]
async fn an_error_of_the_finalized_tag_is_null_but_a_throttle_is_not() {
    for (code, message, is_null) in [(-39001, "Unknown block", true), (-32000, "finalized tag", true), (429, "", false)]
    {
        let body = error_of_call(1, code, message);
        let server = Server::start(move |_| ok(&body)).await;
        let mut asked = three();
        asked[0] = asked[0].clone().or_null();
        let answers = node(&server).batch_of(asked).await;
        assert_eq!(answers.is_ok_and(|answers| answers[0].get() == "null"), is_null, "{code}");
    }
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_and_never_called() {
    let (wrong, right) = (Server::start(chain(7)).await, Server::start(chain(1)).await);
    // The first that serves the configured chain id decides.
    let nodes = Nodes::new(&configured(&[&right.url, &wrong.url])).unwrap();
    assert_eq!(nodes.identity().await.unwrap().genesis, B256::repeat_byte(1));
    let states: Vec<String> = nodes.reports().into_iter().map(|report| report.state).collect();
    assert_eq!(states, ["up", "refused"]);
    assert!(nodes.reports()[1].last_error.as_deref().is_some_and(|why| why.contains("refused: it serves chain 1")));
    nodes.survey().await;
    drop(right);
    for _ in 0..5 {
        nodes.head().await.unwrap_err();
    }
    assert_eq!(wrong.asked().len(), 1, "even with nobody else left");
    assert_eq!(nodes.reports()[0].state, "resting");
}

#[tokio::test]
async fn a_node_that_turns_into_another_chain_is_asked_for_nothing_until_it_serves_ours_again() {
    let genesis = Arc::new(AtomicU64::new(1));
    let serves = genesis.clone();
    let server = Server::start(move |request| chain(serves.load(Ordering::SeqCst) as u8)(request)).await;
    let node = node(&server);
    node.expected.set(Identity { chain_id: 1, genesis: B256::repeat_byte(1) }).unwrap();
    let head = || node.batch([Call::new("eth_getBlockByNumber", json!(["latest", false]))]);
    head().await.unwrap();
    genesis.store(2, Ordering::SeqCst);
    node.check_anew().await.unwrap_err();
    let before = server.asked().len();
    for _ in 0..3 {
        let error = head().await.unwrap_err();
        assert!(error.to_string().contains("refused: it serves chain 1"), "{error}");
    }
    assert_eq!(server.asked().len(), before, "not asked at all");
    let later = || node.record.known().refused.as_mut().unwrap().at -= ASK_AGAIN;
    later();
    head().await.unwrap_err();
    assert_eq!(server.methods()[before..], ["eth_chainId+eth_getBlockByNumber"], "for its chain alone");
    genesis.store(1, Ordering::SeqCst);
    head().await.unwrap_err();
    later();
    head().await.unwrap();
    assert_eq!(node.standing(Instant::now()).0, Grade::Good);
}

#[tokio::test]
async fn a_node_that_was_away_is_checked_before_it_is_used() {
    let first = Server::start(chain(1)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let nodes = Nodes::new(&configured(&[&first.url, &format!("http://{address}")])).unwrap();
    nodes.identity().await.unwrap();
    nodes.head().await.unwrap();
    // It comes up, and serves another chain.
    let other = Server::start_at(TcpListener::bind(address).await.unwrap(), chain(2));
    nodes.survey().await;
    assert_eq!(other.methods(), ["eth_chainId+eth_getBlockByNumber"], "its chain, and no head");
    assert_eq!(nodes.reports()[1].state, "refused");
    nodes.survey().await;
    assert_eq!(other.asked().len(), 1, "refused for good");
}

#[tokio::test]
async fn calls_move_on_to_a_node_that_works_and_stay_there() {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = broken.clone();
    let first = Server::start(move |request| match seen.load(Ordering::SeqCst) {
        true => http("500 Internal Server Error", "", ""),
        false => chain(1)(request),
    })
    .await;
    let second = Server::start(chain(1)).await;
    let nodes = Nodes::new(&configured(&[&first.url, &second.url])).unwrap();
    nodes.identity().await.unwrap();
    nodes.head().await.unwrap();
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
    broken.store(true, Ordering::SeqCst);
    let error = nodes.head().await.unwrap_err();
    assert!(nodes.moves_on(&error), "the second works");
    nodes.head().await.unwrap();
    assert_eq!((first.asked().len(), second.asked().len()), (3, 2));
    broken.store(false, Ordering::SeqCst);
    nodes.survey().await;
    nodes.head().await.unwrap();
    assert_eq!(
        (first.asked().len(), second.asked().len()),
        (4, 3),
        "the first is known to be well again, and in reserve"
    );
    assert_eq!(nodes.reports()[0].failures, 0);
}

#[tokio::test]
async fn a_node_that_stays_behind_loses_the_calls() {
    let (stuck, moving) = (Arc::new(AtomicU64::new(100)), Arc::new(AtomicU64::new(100)));
    let first = Server::start(chain_at(stuck.clone())).await;
    let second = Server::start(chain_at(moving.clone())).await;
    let nodes = Nodes::new(&configured(&[&first.url, &second.url])).unwrap();
    nodes.identity().await.unwrap();
    moving.store(110, Ordering::SeqCst);
    nodes.survey().await;
    let mut heads = Vec::new();
    for _ in 0..5 {
        heads.push(nodes.head().await.unwrap().header.number);
    }
    assert_eq!(heads, [100, 100, 100, 110, 110]);
}

#[tokio::test]
async fn a_silent_node_does_not_hold_up_the_start() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let right = Server::start(chain(1)).await;
    let mut configured = configured(&[&url, &right.url]);
    configured.request_timeout = Duration::from_secs(600);
    let nodes = Nodes::new(&configured).unwrap();
    nodes.identity().await.unwrap();
    assert_eq!(nodes.head().await.unwrap().header.number, 9, "of the one that is known");
    assert_eq!(nodes.reports()[0].state, "unknown");
}

#[tokio::test]
async fn several_blocks_by_hash_say_nothing_of_ranges() {
    let server = Server::start(|request| match calls(request).len() {
        1 => answered(request, &|_| json!([])),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n[{".into(),
    })
    .await;
    let node = node(&server);
    let by_hash = || (0..2).map(|_| Call::new("eth_getLogs", json!([{ "blockHash": B256::ZERO }]))).collect::<Vec<_>>();
    assert!(matches!(node.batch_of(by_hash()).await.unwrap_err(), NodeError::Retry { .. }));
    assert_eq!(node.batch_of(by_hash()).await.unwrap().len(), 2, "one by one");
    assert_eq!((node.max_blocks(), node.report().max_batch), (None, Some(1)));
}

#[tokio::test]
async fn a_node_that_takes_batches_is_not_asked_one_by_one_for_a_refusal_without_a_word() {
    let refuses = Arc::new(AtomicBool::new(true));
    let now = refuses.clone();
    let server = Server::start(move |request| match now.load(Ordering::SeqCst) {
        true => ok(&error(-32_600, "invalid request")),
        false => well(request),
    })
    .await;
    let known = node(&server);
    refuses.store(false, Ordering::SeqCst);
    known.batch_of(three()).await.unwrap();
    refuses.store(true, Ordering::SeqCst);
    assert!(matches!(known.batch_of(three()).await.unwrap_err(), NodeError::Retry { .. }));
    refuses.store(false, Ordering::SeqCst);
    known.batch_of(three()).await.unwrap();
    assert_eq!((server.methods(), known.report().max_batch), (vec!["a+b+c".to_owned(); 3], None));
}

#[path = "follow_tests.rs"]
mod follow;
#[path = "sizes_tests.rs"]
mod sizes;
