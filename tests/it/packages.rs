//! The contracts that others publish as npm packages: their ABIs make tables, and every event of theirs is stored as ethers decodes it, with
//! random values that ethers encoded. Nothing of the packages is in this repository: npm installs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use alloy::primitives::{Address, B256, Bytes};
use alloy::sol_types::SolCall;
use dalp_fixtures::contracts::Burst;
use dalp_fixtures::tools::{abis, say_stderr};
use dalp_fixtures::{Anvil, deploy};
use dalp_indexer::events::abi::Abi;
use dalp_tests::stage::{anvil, stage};
use rand::RngExt;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::ethers::{Compared, Emitter, Form, form, indexed, random_logs};
use crate::{is_long, plant, rng};

const ROUNDS: usize = 3;
/// The gas of a transaction with one log; a block has room for thirty.
const GAS: u64 = 1_000_000;
const LOGS_OF_BLOCK: usize = 30;

/// The numbers of a package in its pinned version.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    /// The artefacts with events.
    artefacts: usize,
    /// The forms of events: each signature with each number of topics.
    events: usize,
    /// One table for all forms of an event with equal columns.
    tables: usize,
    /// Artefacts and events that cannot be read, or not be told apart from earlier ones.
    left_out: usize,
}

const PACKAGES: &[(&str, Counts)] = &[
    ("@uniswap/v3-core", Counts { artefacts: 6, events: 14, tables: 14, left_out: 0 }),
    ("@openzeppelin/contracts", Counts { artefacts: 129, events: 113, tables: 113, left_out: 0 }),
    ("@tokenysolutions/t-rex", Counts { artefacts: 95, events: 127, tables: 126, left_out: 0 }),
    ("@onchain-id/solidity", Counts { artefacts: 14, events: 27, tables: 27, left_out: 0 }),
    ("@uniswap/v2-core", Counts { artefacts: 8, events: 7, tables: 7, left_out: 0 }),
    ("@safe-global/safe-contracts", Counts { artefacts: 15, events: 24, tables: 24, left_out: 0 }),
    ("@account-abstraction/contracts", Counts { artefacts: 8, events: 18, tables: 18, left_out: 0 }),
];

/// The artefacts of a package, and the events in them.
#[derive(Default)]
struct Package {
    kind: String,
    files: Vec<PathBuf>,
    abi: Abi,
    /// The events of all files, for ethers.
    items: Vec<Value>,
    left_out: Vec<String>,
}

/// The gate reads the first package, whose integers have the most types; a long run reads all.
#[test]
fn every_event_of_published_packages_is_stored_as_ethers_decodes_it() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let modules = abis(say_stderr).await.unwrap();
        let named = if is_long() { PACKAGES } else { &PACKAGES[..1] };
        let packages: Vec<Package> = named.iter().map(|(name, _)| Package::read(&modules, name)).collect();
        let emitters = emitters(&anvil, &packages).await;
        let logs = random_logs(&emitters, ROUNDS, rng("packages").random()).await;
        let emitted = logs.len();
        emit_in_blocks(&anvil, logs).await;
        let compared = indexed(&database, &anvil, sections(&packages, &emitters), &emitters).await;

        let client = database.superuser().await;
        println!("PostgreSQL {}", client.query_one("SHOW server_version", &[]).await.unwrap().get::<_, &str>(0));
        let mut counted = Vec::new();
        for package in &packages {
            let tables = tables(&client, &package.kind).await;
            counted.push(package.judge(tables, &compared[&package.kind]));
        }
        assert!(counted.iter().eq(named.iter().map(|(_, counts)| counts)), "{counted:#?}");
        let rows: usize = compared.values().map(|of| of.rows).sum();
        let events: usize = counted.iter().map(|counts| counts.events).sum();
        assert_eq!((rows, emitted), (ROUNDS * events, ROUNDS * events));
        println!("{rows} rows of {events} events are as ethers decodes them");
    });
}

impl Package {
    /// Reads each artefact with events, in the order of their paths.
    fn read(modules: &Path, name: &str) -> Self {
        let kind = name.trim_start_matches('@').replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
        let mut package = Self { kind, ..Self::default() };
        for path in artefacts(&modules.join(name)) {
            let text = fs::read_to_string(&path).unwrap();
            let Some(items) = events(&text) else { continue };
            match Abi::read(&text).and_then(|more| package.abi.clone().joined(more)) {
                Ok(abi) => {
                    package.abi = abi;
                    package.items.extend(items);
                    package.files.push(path);
                }
                Err(why) => package.left_out.push(format!("{}: {why}", path.display())),
            }
        }
        package.left_out.append(&mut package.abi.skipped);
        package
    }

    /// The numbers of this package, which has so many tables: each has rows. Each form of its events was compared in each round, and no other.
    fn judge(&self, tables: usize, compared: &Compared) -> Counts {
        let forms: Vec<Form> = self.abi.events.iter().map(|event| form(&self.kind, event.clone())).collect();
        let events = forms.len();
        println!(
            "{}: {} artefacts, {events} events in {tables} tables, {} rows with {} values, {} left out",
            self.kind,
            self.files.len(),
            compared.rows,
            compared.values,
            self.left_out.len()
        );
        for left_out in &self.left_out {
            println!("  left out: {left_out}");
        }
        assert_eq!((compared.tables.len(), compared.rows), (tables, ROUNDS * events), "{}", self.kind);
        assert_eq!(compared.forms, forms.into_iter().collect::<BTreeSet<_>>(), "every form of every event is stored");
        Counts { artefacts: self.files.len(), events, tables, left_out: self.left_out.len() }
    }
}

/// Every JSON file below a folder, by path.
fn artefacts(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "json") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The events of an artefact; nothing of a file without an ABI or without events.
fn events(text: &str) -> Option<Vec<Value>> {
    let artefact: Value = serde_json::from_str(text).unwrap();
    let items = artefact.get("abi")?.as_array()?.iter().filter(|item| item["type"] == "event").cloned();
    Some(items.collect::<Vec<_>>()).filter(|items| !items.is_empty())
}

/// For each package, a contract that emits any log.
async fn emitters(anvil: &Anvil, packages: &[Package]) -> Vec<Emitter> {
    let burst = deploy(anvil.rpc()).await.unwrap().burst;
    let mut emitters = Vec::new();
    for (at, package) in packages.iter().enumerate() {
        let address = Address::with_last_byte(0xa0 + at as u8);
        plant(anvil.rpc(), burst, address).await;
        emitters.push(Emitter { kind: package.kind.clone(), address, abi: package.items.clone().into() });
    }
    emitters
}

/// Emits the logs in their order, several in a block.
async fn emit_in_blocks(anvil: &Anvil, logs: Vec<(Address, Vec<B256>, Bytes)>) {
    let rpc = anvil.rpc();
    let from = rpc.accounts().await.unwrap()[0];
    rpc.set_automine(false).await.unwrap();
    let blocks = logs.len().div_ceil(LOGS_OF_BLOCK);
    for (to, topics, data) in logs {
        let input = Bytes::from(Burst::emitRawCall { topics, data }.abi_encode());
        let transaction = json!([{ "from": from, "to": to, "input": input, "gas": format!("{GAS:#x}") }]);
        let _: B256 = rpc.call("eth_sendTransaction", transaction).await.unwrap();
    }
    rpc.mine(blocks as u64, 1).await.unwrap();
}

fn sections(packages: &[Package], emitters: &[Emitter]) -> String {
    let section = |(package, emitter): (&Package, &Emitter)| {
        format!("[contracts.{}]\nabi = {:?}\naddresses = [\"{:?}\"]\n", package.kind, package.files, emitter.address)
    };
    packages.iter().zip(emitters).map(section).collect()
}

/// The number of a kind's tables.
async fn tables(client: &Client, kind: &str) -> usize {
    let sql = "SELECT count(*) FROM pg_class WHERE relkind = 'p' AND NOT relispartition AND starts_with(relname, $1)";
    client.query_one(sql, &[&format!("{kind}_")]).await.unwrap().get::<_, i64>(0) as usize
}
