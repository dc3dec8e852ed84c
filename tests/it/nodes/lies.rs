//! Answers that are not true. At the tip, where everything is proved, none gets through; in history none that what came back
//! contradicts.

use dalp_fixtures::Deployed;
use dalp_fixtures::faulty::{Fault, Rule};

use super::{Case, Meanwhile, check_history, check_tip};

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
        [late, blank].into_iter().chain(beside).collect()
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
