//! A node that lies: it forwards everything to an honest one, and edits the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Edits the answer (with `result` or `error`) to one call, given its method and parameters. Answers whether it did.
pub type Lie = fn(&str, &Value, &mut Value) -> bool;

/// A running one. Dropping it closes its port.
pub struct Liar {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    honest: String,
    lie: Lie,
    lies: AtomicBool,
    told: AtomicU64,
    http: reqwest::Client,
}

impl Liar {
    /// Before the node at `honest`, lying from the start.
    pub async fn start(honest: String, lie: Lie) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let http = dalp_fixtures::rpc::client(Duration::from_secs(60)).expect("a client");
        let state = Arc::new(State { honest, lie, lies: AtomicBool::new(true), told: AtomicU64::new(0), http });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                connections.spawn(async move { while_open(client, &state).await });
            }
        });
        Self { port, state, task }
    }

    /// Its URL, which is also its name in messages.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lies no more.
    pub fn repent(&self) {
        self.state.lies.store(false, Ordering::SeqCst);
    }

    /// Lies again.
    pub fn relapse(&self) {
        self.state.lies.store(true, Ordering::SeqCst);
    }

    /// Answers edited so far.
    pub fn told(&self) -> u64 {
        self.state.told.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one connection until either side closes it.
async fn while_open(client: TcpStream, state: &State) -> Option<()> {
    let mut client = BufReader::new(client);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if client.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).await.ok()?;
        let question: Value = serde_json::from_slice(&body).ok()?;
        let answer = ask(state, question).await?.to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        client.get_mut().write_all(head.as_bytes()).await.ok()?;
        client.get_mut().write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn ask(state: &State, question: Value) -> Option<Value> {
    let request = state.http.post(&state.honest).header("content-type", "application/json").body(question.to_string());
    let mut answer: Value = serde_json::from_slice(&request.send().await.ok()?.bytes().await.ok()?).ok()?;
    let calls = question.as_array().cloned().unwrap_or_else(|| vec![question]);
    let one = |answer: &mut Value| {
        let call = calls.iter().find(|call| call["id"] == answer["id"]);
        let (method, params) =
            call.map(|call| (&call["method"], &call["params"])).unwrap_or((&Value::Null, &Value::Null));
        if state.lies.load(Ordering::SeqCst) && (state.lie)(method.as_str().unwrap_or_default(), params, answer) {
            state.told.fetch_add(1, Ordering::SeqCst);
        }
    };
    match &mut answer {
        Value::Array(answers) => answers.iter_mut().for_each(one),
        single => one(single),
    }
    Some(answer)
}

/// Every `eth_getLogs` is empty.
pub fn no_logs(method: &str, _: &Value, answer: &mut Value) -> bool {
    let some = method == "eth_getLogs" && answer["result"] != json!([]);
    if some {
        answer["result"] = json!([]);
    }
    some
}

/// Every `eth_getLogs` lacks its last log.
pub fn one_log_less(method: &str, _: &Value, answer: &mut Value) -> bool {
    method == "eth_getLogs" && answer["result"].as_array_mut().is_some_and(|logs| logs.pop().is_some())
}

/// Every `eth_getLogs` lacks the logs at odd places of their blocks.
pub fn half_the_logs(method: &str, _: &Value, answer: &mut Value) -> bool {
    let Some(logs) = answer["result"].as_array_mut().filter(|_| method == "eth_getLogs") else { return false };
    let all = logs.len();
    logs.retain(|log| log["logIndex"].as_str().is_some_and(|index| index.ends_with(['0', '2', '4', '6', '8'])));
    logs.len() < all
}

/// Every `eth_getLogs` looks as if another contract had emitted the first log.
pub fn another_emitter(method: &str, _: &Value, answer: &mut Value) -> bool {
    let Some(log) = answer.pointer_mut("/result/0").filter(|_| method == "eth_getLogs") else { return false };
    log["address"] = json!("0x00000000000000000000000000000000000000aa");
    true
}

/// The data of the first log of a receipt is other data of the same length.
pub fn forged_receipts(method: &str, _: &Value, answer: &mut Value) -> bool {
    let receipts = answer["result"].as_array_mut().filter(|_| method == "eth_getBlockReceipts");
    let log = receipts.and_then(|all| all.iter_mut().find_map(|receipt| receipt.pointer_mut("/logs/0")));
    let Some(log) = log else { return false };
    let length = log["data"].as_str().unwrap_or("0x").len() - 2;
    log["data"] = json!(format!("0x{}", "7".repeat(length)));
    true
}

/// Receipts leave out the last log, and say so nowhere else.
pub fn receipts_with_a_log_less(method: &str, _: &Value, answer: &mut Value) -> bool {
    let receipts = answer["result"].as_array_mut().filter(|_| method == "eth_getBlockReceipts");
    let logs = receipts.and_then(|all| all.last_mut()).and_then(|receipt| receipt["logs"].as_array_mut());
    logs.is_some_and(|logs| logs.pop().is_some())
}

/// The method that gives all receipts at once does not exist.
pub fn no_block_receipts(method: &str, _: &Value, answer: &mut Value) -> bool {
    let asked = method == "eth_getBlockReceipts";
    if asked {
        let error = json!({ "code": -32601, "message": "the method eth_getBlockReceipts does not exist" });
        *answer = json!({ "jsonrpc": "2.0", "id": answer["id"], "error": error });
    }
    asked
}

/// There are no receipts at all.
pub fn no_receipts(method: &str, _: &Value, answer: &mut Value) -> bool {
    let asked = method == "eth_getBlockReceipts" || method == "eth_getTransactionReceipt";
    if asked {
        let error = json!({ "code": -32601, "message": "method not found" });
        *answer = json!({ "jsonrpc": "2.0", "id": answer["id"], "error": error });
    }
    asked
}

/// The receipts of blocks with a legacy transaction have another root, like those of some chains' system transactions.
pub fn odd_receipts(method: &str, _: &Value, answer: &mut Value) -> bool {
    let receipts = answer["result"].as_array_mut().filter(|_| method == "eth_getBlockReceipts");
    let legacy = receipts.and_then(|all| all.iter_mut().find(|receipt| receipt["type"] == "0x0"));
    legacy.map(|receipt| receipt["cumulativeGasUsed"] = json!("0x1")).is_some()
}

/// Headers say something that their hashes do not commit to, as on chains with headers of their own.
pub fn odd_headers(_: &str, _: &Value, answer: &mut Value) -> bool {
    let header = answer.get_mut("result").filter(|result| result.get("extraData").is_some());
    header.map(|header| header["extraData"] = json!("0x0102")).is_some()
}

/// The chain's own logs, by no transaction that its roots and blooms commit to, in each sixteenth block that has others.
pub fn system_logs(method: &str, _: &Value, answer: &mut Value) -> bool {
    let result = &mut answer["result"];
    match (method, result.get("number").and_then(number)) {
        ("eth_getLogs", _) => {
            let Some(logs) = result.as_array_mut() else { return false };
            let before = logs.len();
            *logs = logs.chunk_by(|a, b| a["blockNumber"] == b["blockNumber"]).flat_map(with_system_log).collect();
            logs.len() > before
        }
        ("eth_getBlockReceipts", _) => {
            let Some(receipts) = result.as_array_mut() else { return false };
            let logs: Vec<Value> =
                receipts.iter().flat_map(|r| r["logs"].as_array().cloned().unwrap_or_default()).collect();
            let all = with_system_log(&logs);
            let Some(log) = all.last().filter(|_| all.len() > logs.len()) else { return false };
            let mut receipt = receipts[receipts.len() - 1].clone();
            receipt["transactionHash"] = log["transactionHash"].clone();
            receipt["transactionIndex"] = log["transactionIndex"].clone();
            receipt["logs"] = json!([log]);
            receipts.push(receipt);
            true
        }
        (_, Some(at)) if at % 16 == 0 && result["transactions"].as_array().is_some_and(|all| !all.is_empty()) => {
            result["transactions"].as_array_mut().map(|all| all.push(json!(system_transaction(at)))).is_some()
        }
        _ => false,
    }
}

/// Of which contract they are.
pub const SYSTEM: &str = "0x0000000000000000000000000000000000001001";

fn with_system_log(logs: &[Value]) -> Vec<Value> {
    let mut all = logs.to_vec();
    if let Some(last) = logs.last()
        && let Some(at) = number(&last["blockNumber"]).filter(|at| at % 16 == 0)
    {
        let next = |field: &str| json!(format!("{:#x}", number(&last[field]).unwrap_or_default() + 1));
        let mut log = last.clone();
        (log["address"], log["topics"], log["data"]) = (json!(SYSTEM), json!([system_transaction(7)]), json!("0x"));
        (log["logIndex"], log["transactionIndex"]) = (next("logIndex"), next("transactionIndex"));
        log["transactionHash"] = json!(system_transaction(at));
        all.push(log);
    }
    all
}

fn system_transaction(number: u64) -> String {
    format!("0x5e{number:062x}")
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}
