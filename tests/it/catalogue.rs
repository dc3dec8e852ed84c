//! The built-in kinds: every event of theirs, emitted by a compiled contract and stored, is compared with the values that ethers decodes
//! from the node's logs by the compiler's ABI.

mod expected;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::process::Stdio;

use alloy::primitives::{Address, Bytes, U256, keccak256};
use dalp_fixtures::tools::{ethers, say_stderr};
use dalp_fixtures::{Anvil, Rpc, deploy};
use dalp_indexer::events::abi::Event;
use dalp_indexer::events::catalogue::{Kind, kinds};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, stage, until};
use dalp_tests::traffic::caught_up;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_postgres::Client;

use self::expected::Decoded;
use crate::emit;

/// The contracts: each emits the events of a kind.
const CATALOGUE: &str = include_str!("../../fixtures/contracts/out/Catalogue.json");
/// The largest values, the smallest, and others.
const ROUNDS: usize = 3;

#[derive(Deserialize)]
struct Artefact {
    contracts: BTreeMap<String, Contract>,
}

#[derive(Deserialize)]
struct Contract {
    abi: Value,
    bytecode: Bytes,
}

/// A contract on the chain.
struct Emitter {
    kind: String,
    address: Address,
    abi: Value,
}

/// A stored row, without its time.
struct Row {
    table: String,
    seconds: i64,
    columns: BTreeMap<String, Option<String>>,
}

/// The place of a log: block and index.
type Place = (u64, u64);

#[test]
fn every_event_of_the_built_in_kinds_is_stored_as_ethers_decodes_it() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let emitters = emitters(anvil.rpc()).await;
        emit_all(anvil.rpc(), &emitters).await;
        let site = Site { more: sections(&emitters), ..Site::new(&database, &anvil.http_url()) };
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;

        let client = database.superuser().await;
        let refused = client.query_one("SELECT count(*), min(reason) FROM dalp_indexed.quarantine", &[]).await.unwrap();
        assert_eq!(refused.get::<_, i64>(0), 0, "{:?}", refused.get::<_, Option<String>>(1));
        let logs = logs(&anvil).await;
        let decoded = by_ethers(&emitters, &logs).await;
        compare(&client, &emitters, &logs, &decoded).await;
    });
}

/// Deploys each contract.
async fn emitters(rpc: &Rpc) -> Vec<Emitter> {
    let artefact: Artefact = serde_json::from_str(CATALOGUE).unwrap();
    let mut emitters = Vec::new();
    for (name, contract) in artefact.contracts {
        let receipt = send(rpc, None, &contract.bytecode).await;
        let address = serde_json::from_value(receipt["contractAddress"].clone()).unwrap();
        // `KIND__2` has further forms of the kind's events.
        let kind = name.split("__").next().unwrap().to_owned();
        emitters.push(Emitter { kind, address, abi: contract.abi });
    }
    emitters
}

async fn emit_all(rpc: &Rpc, emitters: &[Emitter]) {
    for emitter in emitters {
        for round in 0..ROUNDS {
            let call = [&keccak256("emitAll(uint256)")[..4], &U256::from(round).to_be_bytes::<32>()].concat();
            send(rpc, Some(emitter.address), &call.into()).await;
        }
    }
}

/// The receipt of a transaction, which must succeed.
async fn send(rpc: &Rpc, to: Option<Address>, input: &Bytes) -> Value {
    let from = rpc.accounts().await.unwrap()[0];
    let transaction = json!([{ "from": from, "to": to, "input": input, "gas": "0x1c9c380" }]);
    let hash: Value = rpc.call("eth_sendTransaction", transaction).await.unwrap();
    until("the transaction to be mined", || async {
        let found: Value = rpc.call("eth_getTransactionReceipt", json!([hash])).await.unwrap();
        !found.is_null()
    })
    .await;
    let receipt: Value = rpc.call("eth_getTransactionReceipt", json!([hash])).await.unwrap();
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    receipt
}

fn sections(emitters: &[Emitter]) -> String {
    let section = |(at, emitter): (usize, &Emitter)| {
        let Emitter { kind, address, .. } = emitter;
        format!("[contracts.c{at}]\nkind = \"{kind}\"\naddresses = [\"{address:?}\"]\n")
    };
    // Leaves ahead of the head are of no use to this chain, and there are hundreds of tables.
    emitters.iter().enumerate().map(section).chain(["[partitions]\ncreate = false\n".to_owned()]).collect()
}

/// All logs of the chain.
async fn logs(anvil: &Anvil) -> Vec<Value> {
    anvil.rpc().call("eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": "latest" }])).await.unwrap()
}

async fn by_ethers(emitters: &[Emitter], logs: &[Value]) -> Vec<Decoded> {
    let contracts: HashMap<String, &Value> =
        emitters.iter().map(|emitter| (format!("{:?}", emitter.address), &emitter.abi)).collect();
    let mut command = tokio::process::Command::new("node");
    command.args(["--input-type=module", "-e", include_str!("catalogue/decode.mjs")]);
    // Packages are searched from here.
    command.current_dir(ethers(say_stderr).await.unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = command.spawn().unwrap();
    let input = json!({ "contracts": contracts, "logs": logs }).to_string();
    let mut stdin = node.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = node.wait_with_output().await.unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn compare(client: &Client, emitters: &[Emitter], logs: &[Value], decoded: &[Decoded]) {
    let kinds_of: HashMap<String, &str> =
        emitters.iter().map(|emitter| (format!("{:?}", emitter.address), emitter.kind.as_str())).collect();
    let reserved = reserved(client).await;
    let mut rows = rows(client).await;
    let (mut forms, mut compared) = (BTreeSet::new(), 0);
    for (log, decoded) in logs.iter().zip(decoded) {
        let (emitter, place) = (log["address"].as_str().unwrap(), place(log));
        let kind = kinds_of[emitter];
        let Some(row) = rows.remove(&place) else { panic!("{log} has no row: {decoded:?}") };
        let expected = whole(log, decoded, &reserved);
        assert_eq!(of_json(&row.columns, decoded), expected, "{} {decoded:?}", row.table);
        assert_eq!(row.seconds, number(&log["blockTimestamp"]).cast_signed(), "{} {log}", row.table);
        // A long name, and that of another version, ends with digits of a hash.
        let table = decoded.table(kind);
        assert!(row.table.starts_with(&table[..table.len().min(45)]), "{} holds {decoded:?}", row.table);
        let (event, indexed) = decoded.form();
        forms.insert((kind.to_owned(), event, indexed));
        compared += 1;
    }
    assert!(rows.is_empty(), "{} rows have no log", rows.len());
    let all = forms_of_kinds();
    assert_eq!(compared, ROUNDS * all.len(), "run fixtures/contracts/build.sh after a change of a built-in kind");
    assert_eq!(forms, all.into_iter().collect(), "every form of every event is emitted");
}

/// Each kind with the types of its events, and which of them are indexed.
fn forms_of_kinds() -> Vec<(String, String, Vec<bool>)> {
    let form = |kind: &Kind, event: Event| {
        (kind.name.to_owned(), event.signature, event.params.iter().map(|param| param.indexed).collect())
    };
    kinds().iter().flat_map(|kind| kind.abi().events.into_iter().map(move |event| form(kind, event))).collect()
}

fn number(hex: &Value) -> u64 {
    u64::from_str_radix(hex.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn place(log: &Value) -> Place {
    (number(&log["blockNumber"]), number(&log["logIndex"]))
}

/// All columns of a log's row but the time.
fn whole(log: &Value, decoded: &Decoded, reserved: &HashSet<String>) -> BTreeMap<String, Option<String>> {
    let bytes = |of: &Value| format!("\\x{}", of.as_str().unwrap().trim_start_matches("0x"));
    let (block, log_index) = place(log);
    let mut columns = decoded.columns(reserved);
    for (name, value) in [
        ("chain_id", "31337".to_owned()),
        ("block_number", block.to_string()),
        ("log_index", log_index.to_string()),
        ("address", bytes(&log["address"])),
        ("tx_hash", bytes(&log["transactionHash"])),
    ] {
        assert_eq!(columns.insert(name.to_owned(), Some(value)), None, "{name}");
    }
    columns
}

/// The columns with lists in one form: PostgreSQL writes JSON with spaces.
fn of_json(columns: &BTreeMap<String, Option<String>>, decoded: &Decoded) -> BTreeMap<String, Option<String>> {
    let has_lists = decoded.columns.iter().any(|column| column.ty.ends_with("[]"));
    let same = |(name, value): (&String, &Option<String>)| {
        let list = value.as_deref().filter(|text| has_lists && text.starts_with('['));
        let list = list.and_then(|text| serde_json::from_str::<Value>(text).ok());
        (name.clone(), list.map_or_else(|| value.clone(), |list| Some(list.to_string())))
    };
    columns.iter().map(same).collect()
}

/// The words that PostgreSQL reserves.
async fn reserved(client: &Client) -> HashSet<String> {
    let rows = client.query("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The rows of all tables of kinds, by place: a log has a row in one table.
async fn rows(client: &Client) -> HashMap<Place, Row> {
    let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'p' AND NOT relispartition AND relnamespace = 'dalp_indexed'::regnamespace \
                  AND relname NOT IN ('logs', 'erc20_transfer')";
    let mut all = HashMap::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        // As texts: a JSON number would lose digits.
        let sql = format!(
            "SELECT extract(epoch FROM block_time)::int8, (SELECT json_object_agg(key, value) FROM json_each_text(row_to_json(t)))::text \
             FROM dalp_indexed.{table} AS t"
        );
        for row in client.query(&sql, &[]).await.unwrap() {
            let mut columns: BTreeMap<String, Option<String>> = serde_json::from_str(row.get(1)).unwrap();
            columns.remove("block_time");
            let of = |name: &str| columns[name].as_deref().unwrap().parse().unwrap();
            let place = (of("block_number"), of("log_index"));
            let row = Row { table: table.clone(), seconds: row.get(0), columns };
            if let Some(other) = all.insert(place, row) {
                panic!("the log {place:?} has a row in {table} and in {}", other.table);
            }
        }
    }
    all
}

/// A contract may stand in two sections: its logs have rows of both kinds.
#[test]
fn a_contract_of_two_kinds_has_rows_in_the_tables_of_both() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let topics = ["OwnershipTransferred(address,address)", "from", "to"].map(keccak256);
        let account = |topic: usize| Address::from_word(topics[topic]).into_word();
        emit(anvil.rpc(), &deployed, &[topics[0], account(1), account(2)], &[]).await;
        let emitters = ["airdrop", "ownable"].map(|kind| Emitter {
            kind: kind.to_owned(),
            address: deployed.burst,
            abi: Value::Null,
        });
        let site = Site { more: sections(&emitters), ..Site::new(&database, &anvil.http_url()) };
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;
        let client = database.superuser().await;
        for kind in ["airdrop", "ownable"] {
            let sql = format!("SELECT previous_owner FROM dalp_indexed.{kind}_ownership_transferred");
            let owners: Vec<Vec<u8>> = client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
            assert_eq!(owners, [Address::from_word(topics[1]).to_vec()], "{kind}");
        }
    });
}
