//! Nodes that answer less than requested: ranges, logs, bytes and batches are cut to size, under any wording.

use alloy::primitives::U64;
use dalp_fixtures::faulty::{Fault, Provider, Rule};
use dalp_fixtures::{FaultyNode, Rpc};
use serde_json::json;

use super::{Case, Meanwhile, check_history, history};

#[test]
fn ranges_are_split_in_the_words_of_every_provider() {
    let case = |words| {
        let rules =
            vec![Rule::new(Fault::RangeLimit { blocks: 40, words }), Rule::new(Fault::LogLimit { logs: 20, words })];
        Case::new(&format!("{words:?}"), Meanwhile::Stored, rules)
    };
    dalp_tests::run(check_history(Provider::ALL.into_iter().map(case).collect()));
}

#[test]
fn answers_over_a_nodes_own_limit_are_split() {
    let case = |words| {
        // The logs of 100 blocks are more than twice as much.
        let rule = Rule::new(Fault::SizeLimit { bytes: 30_000, words }).on("eth_getLogs").on("eth_getBlockReceipts");
        Case::new(&format!("{words:?}"), Meanwhile::Stored, vec![rule])
    };
    let words = [Provider::Geth, Provider::Reth, Provider::Alchemy, Provider::Quicknode, Provider::Ankr];
    dalp_tests::run(check_history(words.into_iter().map(case).collect()));
}

#[test]
fn batches_are_cut_to_what_a_node_takes() {
    let case = |calls, words| {
        let rule = Rule::new(Fault::BatchLimit { calls, words });
        Case::new(&format!("{calls} calls, {words:?}"), Meanwhile::Stored, vec![rule])
    };
    let words = [Provider::Geth, Provider::Reth, Provider::Besu, Provider::Drpc, Provider::Alchemy];
    dalp_tests::run(check_history(words.into_iter().flat_map(|words| [case(10, words), case(3, words)]).collect()));
}

#[test]
fn a_node_without_batches_is_asked_call_by_call() {
    let case = |words| {
        let rule = Rule::new(Fault::BatchLimit { calls: 0, words });
        Case::new(&format!("{words:?}"), Meanwhile::Stored, vec![rule])
    };
    dalp_tests::run(check_history([Provider::Geth, Provider::Besu, Provider::Nethermind].map(case).to_vec()));
}

#[test]
fn a_node_without_receipts_by_block_is_used_all_the_same() {
    let rule = Rule::new(Fault::NoMethod).on("eth_getBlockReceipts");
    dalp_tests::run(check_history(vec![Case::new("no receipts", Meanwhile::Stored, vec![rule])]));
}

#[test]
fn without_rules_a_faulty_node_is_as_good_as_the_node_behind_it() {
    dalp_tests::run(async {
        let anvil = history().await;
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let through = Rpc::new(&node.url()).unwrap();
        for number in [0_u64, 7, 50] {
            let number = U64::from(number);
            let calls = [
                ("eth_getBlockByNumber", json!([number, true])),
                ("eth_getLogs", json!([{ "fromBlock": number, "toBlock": "0x60" }])),
                ("eth_getBlockReceipts", json!([number])),
            ];
            assert_eq!(through.batch_all(&calls).await.unwrap(), anvil.rpc().batch_all(&calls).await.unwrap());
        }
        assert_eq!(through.block_number().await.unwrap(), anvil.rpc().block_number().await.unwrap());
        assert_eq!(node.requests(), 4);
    });
}
