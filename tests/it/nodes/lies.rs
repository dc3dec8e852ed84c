//! False answers. At the tip, where every block is proved, none is stored; in history none that contradicts the other answers.

use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{Deployed, FaultyNode};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{stage, until};

use super::{Case, Meanwhile, check_history, check_tip, exact, history};

/// Told of logs by `eth_getLogs` and by receipts alike.
fn lies() -> Vec<(&'static str, Fault)> {
    vec![
        ("no logs", Fault::LogsEmpty),
        ("a log dropped", Fault::LogDropped),
        ("a log repeated", Fault::LogRepeated),
        ("logs out of order", Fault::LogsReversed),
        ("a log of another fork", Fault::LogOfOtherFork),
        ("logs of another fork", Fault::BlockOfOtherFork),
        ("a log marked removed", Fault::LogRemoved),
        ("a log of the next block", Fault::LogMoved { by: 1 }),
        ("a log of the block below", Fault::LogMoved { by: -1 }),
        ("a log far away", Fault::LogMoved { by: 1_000_000 }),
        ("altered data", Fault::LogDataAltered),
        ("an altered topic", Fault::LogTopicAltered),
    ]
}

/// Strange, and true all the same.
fn oddities() -> Vec<(&'static str, Fault)> {
    vec![
        ("no block time in logs", Fault::LogTimeMissing),
        ("a block time out of bounds", Fault::LogTimeWrong { by: 1_000_000_000 }),
        ("a block time a little off", Fault::LogTimeWrong { by: 1 }),
        ("mixed case", Fault::HexMixedCase),
    ]
}

fn filtered(deployed: &Deployed, case: Case) -> Case {
    let mut case = case.with(format!("addresses = [\"{}\"]", deployed.burst));
    case.name.push_str(", filtered");
    case
}

#[test]
fn no_lie_about_the_newest_blocks_is_stored() {
    let alone = |(name, fault)| Case::new(name, Meanwhile::True, vec![Rule::new(fault)]);
    dalp_tests::run(check_tip(|_| lies().into_iter().map(alone).collect()));
}

#[test]
fn no_header_that_is_not_its_hash_is_believed() {
    let case = |name, faults: Vec<Fault>| Case::new(name, Meanwhile::True, faults.into_iter().map(Rule::new).collect());
    dalp_tests::run(check_tip(|_| {
        let late = case("another time", vec![Fault::HeaderTimeWrong { by: 1 }]);
        let blank = case("no logs by an empty bloom", vec![Fault::HeaderBloomEmpty, Fault::LogsEmpty]);
        let beside = [late.clone(), blank.clone()].map(Case::beside_an_honest_node);
        // Where nothing proves headers, a time that no chain has is refused all the same.
        let absurd = case("a time in milliseconds", vec![Fault::HeaderTimeWrong { by: 1_700_000_000_000 }]);
        let absurd = absurd.with("verify = \"linked\"").beside_an_honest_node();
        [late, blank, absurd].into_iter().chain(beside).collect()
    }));
}

#[test]
fn an_honest_node_is_believed_and_a_liar_is_not() {
    let beside = |(name, fault)| Case::new(name, Meanwhile::Stored, vec![Rule::new(fault)]).beside_an_honest_node();
    dalp_tests::run(check_tip(|_| lies().into_iter().map(beside).collect()));
}

#[test]
fn no_lie_in_a_filtered_answer_is_stored() {
    dalp_tests::run(check_tip(|deployed| {
        let alone = |(name, fault)| Case::new(name, Meanwhile::True, vec![Rule::new(fault)]);
        lies().into_iter().map(alone).map(|case| filtered(deployed, case)).collect()
    }));
}

#[test]
fn what_is_odd_and_true_is_stored() {
    dalp_tests::run(async {
        let odd = |(name, fault)| Case::new(name, Meanwhile::Stored, vec![Rule::new(fault).on("eth_getLogs")]);
        let mut history: Vec<Case> = oddities().into_iter().map(odd).collect();
        // Taken or refused, but never guessed at.
        let bare = Rule::new(Fault::HexBare).on("eth_getLogs");
        history.push(Case::new("no 0x", Meanwhile::True, vec![bare.times(2)]));
        check_history(history).await;
        let odd = |(name, fault)| Case::new(name, Meanwhile::Stored, vec![Rule::new(fault)]);
        check_tip(|_| oddities().into_iter().map(odd).collect()).await;
    });
}

#[test]
fn what_contradicts_itself_in_history_is_not_stored() {
    let told = [
        Fault::LogRepeated,
        Fault::LogsReversed,
        Fault::LogOfOtherFork,
        Fault::LogRemoved,
        Fault::LogMoved { by: 1 },
        Fault::LogMoved { by: -1 },
        Fault::LogMoved { by: 1_000_000 },
    ];
    let case = |fault: Fault| {
        let name = format!("{fault:?}");
        Case::new(&name, Meanwhile::True, vec![Rule::new(fault).on("eth_getLogs")])
    };
    let alone: Vec<Case> = told.into_iter().map(case).collect();
    let beside = alone.iter().cloned().map(Case::beside_an_honest_node);
    dalp_tests::run(check_history(alone.iter().cloned().chain(beside).collect()));
}

#[test]
fn a_node_that_was_caught_is_asked_for_proofs_alone_until_it_is_right_again() {
    dalp_tests::run(async {
        let anvil = history().await;
        for honest in [true, false] {
            let (database, liar) =
                (stage().await.database().await, FaultyNode::start(&[anvil.http_url()]).await.unwrap());
            let lie = liar.inject(Rule::new(Fault::LogDropped).on("eth_getLogs"));
            let mut site = Site::new(&database, &liar.url());
            site.rpc_urls.extend(honest.then(|| anvil.http_url()));
            let service = Service::start(&site.config()).await.unwrap();
            exact(&service, &database, &anvil, 0).await;
            let status = service.status();
            let state = || status.borrow()[0].nodes[0].state.clone();
            until("the node to be told as caught", || async { state() == "caught" }).await;
            let said = status.borrow()[0].nodes[0].last_error.clone().unwrap_or_default();
            assert!(said.contains("its logs of block"), "{said}");
            lie.off();
            until("the node to have proved itself", || async { state() == "up" }).await;
            service.stop().await;
        }
    });
}

#[test]
fn receipts_that_fail_at_first_are_tried_again() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, history().await);
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let refused = ["eth_getBlockReceipts", "eth_getTransactionReceipt"].map(|method| {
            node.inject(Rule::new(Fault::Refused { code: -32_000, message: "not now".into() }).on(method))
        });
        let service = Service::start(&Site::new(&database, &node.url()).config()).await.unwrap();
        let status = service.status();
        let level = || status.borrow()[0].verification.clone();
        until("the level to be told as bloom", || async { level().contains("not now") }).await;
        refused.iter().for_each(|rule| rule.off());
        until("receipts to be tried again", || async {
            anvil.rpc().mine(1, 1).await.unwrap();
            level() == "receipts"
        })
        .await;
        exact(&service, &database, &anvil, 0).await;
        service.stop().await;
    });
}

#[test]
fn a_chain_whose_blooms_are_empty_is_indexed_at_a_level_that_says_so() {
    dalp_tests::run(async {
        let anvil = history().await;
        for verify in ["auto", "bloom", "returned"] {
            let (database, node) =
                (stage().await.database().await, FaultyNode::start(&[anvil.http_url()]).await.unwrap());
            node.inject(Rule::new(Fault::HeaderBloomEmpty));
            let site = Site::new(&database, &node.url()).with(&format!("verify = \"{verify}\""));
            let service = Service::start(&site.config()).await.unwrap();
            exact(&service, &database, &anvil, 0).await;
            let client = database.superuser().await;
            let sql = "SELECT count(*) FROM dalp_indexed.coverage c WHERE level NOT IN ('returned', 'linked') AND EXISTS \
                       (SELECT FROM dalp_indexed.logs WHERE block_number BETWEEN c.from_block AND c.to_block)";
            let stronger: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
            // A block without logs agrees with an empty bloom.
            assert!(verify == "bloom" || stronger == 0, "{verify}: {stronger} ranges are called bloom");
            service.stop().await;
        }
    });
}
