//! The built-in kinds: every event of theirs, emitted by a compiled contract and stored, is compared with the values that ethers decodes
//! from the node's logs by the compiler's ABI.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, Bytes, U256, keccak256};
use dalp_fixtures::{Rpc, deploy};
use dalp_indexer::events::catalogue::kinds;
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, stage, until};
use dalp_tests::traffic::caught_up;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::emit;
use crate::ethers::{Emitter, Form, form, indexed};

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

#[test]
fn every_event_of_the_built_in_kinds_is_stored_as_ethers_decodes_it() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let emitters = emitters(anvil.rpc()).await;
        emit_all(anvil.rpc(), &emitters).await;
        let compared = indexed(&database, &anvil, sections(&emitters), &emitters).await;
        let all = forms_of_kinds();
        let rows: usize = compared.values().map(|of| of.rows).sum();
        assert_eq!(rows, ROUNDS * all.len(), "run fixtures/contracts/build.sh after a change of a built-in kind");
        let forms: BTreeSet<Form> = compared.into_values().flat_map(|of| of.forms).collect();
        assert_eq!(forms, all.into_iter().collect(), "every form of every event is emitted");
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
    emitters.iter().enumerate().map(section).collect()
}

/// Each kind with the types of its events, and which of them are indexed.
fn forms_of_kinds() -> Vec<Form> {
    kinds().iter().flat_map(|kind| kind.abi().events.into_iter().map(|event| form(kind.name, event))).collect()
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
