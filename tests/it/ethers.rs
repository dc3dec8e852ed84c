//! Stored rows beside the values that ethers decodes from the node's logs: a decoder that is not ours. ethers encodes random values, too.

mod expected;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::process::Stdio;

use alloy::primitives::{Address, B256, Bytes};
use dalp_fixtures::Anvil;
use dalp_fixtures::tools::{ethers, say_stderr};
use dalp_indexer::events::abi::Event;
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::Database;
use dalp_tests::traffic::caught_up;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_postgres::Client;

use self::expected::Decoded;

const DECODE: &str = concat!(include_str!("ethers/forms.mjs"), include_str!("ethers/decode.mjs"));
const ENCODE: &str = concat!(include_str!("ethers/forms.mjs"), include_str!("ethers/encode.mjs"));

/// A contract on the chain.
pub struct Emitter {
    pub kind: String,
    pub address: Address,
    /// The ABI that ethers reads.
    pub abi: Value,
}

/// A stored row, without its time.
struct Row {
    table: String,
    seconds: i64,
    columns: BTreeMap<String, Option<String>>,
}

/// The place of a log: block and index.
type Place = (u64, u64);

/// A form of an event: its kind, its name and types, and which of its parameters are indexed.
pub type Form = (String, String, Vec<bool>);

/// The form of an event of this kind.
pub fn form(kind: &str, event: Event) -> Form {
    (kind.to_owned(), event.signature, event.params.iter().map(|param| param.indexed).collect())
}

/// The logs of a kind that were compared with their rows.
#[derive(Default)]
pub struct Compared {
    /// The forms of events among them.
    pub forms: BTreeSet<Form>,
    /// The tables of their rows.
    pub tables: BTreeSet<String>,
    pub rows: usize,
    /// The columns of all rows.
    pub values: usize,
}

/// Indexes the chain with these sections, and compares each log with its row, by kind.
pub async fn indexed(
    database: &Database,
    anvil: &Anvil,
    sections: String,
    emitters: &[Emitter],
) -> BTreeMap<String, Compared> {
    // Leaves ahead of the head are of no use to this chain, and there are hundreds of tables.
    let more = format!("{sections}[partitions]\ncreate = false\n");
    let site = Site { more, ..Site::new(database, &anvil.http_url()) };
    let service = Service::start(&site.config()).await.unwrap();
    caught_up(database, anvil).await;
    service.stop().await;

    let client = database.superuser().await;
    let refused = client.query_one("SELECT count(*), min(reason) FROM dalp_indexed.quarantine", &[]).await.unwrap();
    assert_eq!(refused.get::<_, i64>(0), 0, "{:?}", refused.get::<_, Option<String>>(1));
    let logs: Vec<Value> =
        anvil.rpc().call("eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": "latest" }])).await.unwrap();
    let decoded: Vec<Decoded> = run(DECODE, json!({ "contracts": abis(emitters), "logs": logs })).await;
    assert_eq!(logs.len(), decoded.len());
    compare(&client, emitters, &logs, &decoded).await
}

/// Logs with random values: each form of each event once in a round.
pub async fn random_logs(emitters: &[Emitter], rounds: usize, seed: u64) -> Vec<(Address, Vec<B256>, Bytes)> {
    run(ENCODE, json!({ "contracts": abis(emitters), "rounds": rounds, "seed": seed.to_string() })).await
}

fn abis(emitters: &[Emitter]) -> HashMap<String, &Value> {
    emitters.iter().map(|emitter| (format!("{:?}", emitter.address), &emitter.abi)).collect()
}

/// The answer of a script that uses ethers.
async fn run<T: DeserializeOwned>(script: &str, input: Value) -> T {
    let mut command = tokio::process::Command::new("node");
    command.args(["--input-type=module", "-e", script]);
    // Packages are searched from here.
    command.current_dir(ethers(say_stderr).await.unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = command.spawn().unwrap();
    let mut stdin = node.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = node.wait_with_output().await.unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn compare(
    client: &Client,
    emitters: &[Emitter],
    logs: &[Value],
    decoded: &[Decoded],
) -> BTreeMap<String, Compared> {
    let kinds_of: HashMap<String, &str> =
        emitters.iter().map(|emitter| (format!("{:?}", emitter.address), emitter.kind.as_str())).collect();
    let reserved = reserved(client).await;
    let mut rows = rows(client).await;
    let mut all: BTreeMap<String, Compared> = BTreeMap::new();
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
        let compared = all.entry(kind.to_owned()).or_default();
        let (event, indexed) = decoded.form();
        compared.forms.insert((kind.to_owned(), event, indexed));
        compared.tables.insert(row.table);
        compared.rows += 1;
        compared.values += expected.len();
    }
    assert!(rows.is_empty(), "{} rows have no log", rows.len());
    all
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
