//! Requests that fail: throttled, refused by a gateway, cut, stalled, garbled. Nothing of it says anything about the chain.

use dalp_fixtures::faulty::{Fault, RetryAfter, Rule};
use dalp_fixtures::{FaultyNode, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{anvil, head, stage, until};
use dalp_tests::truth::assert_exact;

use super::{Case, Meanwhile, check_history, check_tip};
use crate::{burst, caught_up};

fn status(status: u16, retry_after: Option<RetryAfter>, html: bool) -> Fault {
    Fault::Status { status, retry_after, html }
}

fn failures() -> Vec<(&'static str, Fault)> {
    vec![
        ("429", status(429, None, false)),
        ("429 with seconds", status(429, Some(RetryAfter::Seconds(1)), false)),
        ("429 with a date", status(429, Some(RetryAfter::Date(1)), false)),
        ("500", status(500, None, false)),
        ("502 with a page", status(502, None, true)),
        ("503 with seconds", status(503, Some(RetryAfter::Seconds(1)), false)),
        ("reset in mid-body", Fault::Reset),
        ("no answer", Fault::Hang),
        ("truncated JSON", Fault::Truncated),
        ("malformed JSON", Fault::Malformed),
        ("a page with 200", Fault::Html),
        ("a wrong id", Fault::WrongId),
        ("a rate limit in words", refused(-32_005, "daily request count exceeded, request rate limited")),
        ("a rate limit by code", refused(429, "Your app has exceeded its compute units per second capacity")),
        ("an internal error", refused(-32_603, "internal error")),
    ]
}

/// The fault of calls for an announced block; heads are announced correctly.
fn of_blocks(fault: Fault) -> Rule {
    ["eth_getLogs", "eth_getBlockReceipts", "eth_getBlockByHash"].into_iter().fold(Rule::new(fault), Rule::on)
}

fn refused(code: i64, message: &str) -> Fault {
    Fault::Refused { code, message: message.to_owned() }
}

#[test]
fn a_node_that_fails_in_history_costs_time_only() {
    let alone = |(name, fault)| {
        // Three times in a row, from the very first call; then it gets through.
        Case::new(name, Meanwhile::Stored, vec![Rule::new(fault).on("eth_getLogs").times(3)])
    };
    dalp_tests::run(check_history(failures().into_iter().map(alone).collect()));
}

#[test]
fn a_node_that_fails_at_the_tip_loses_nothing() {
    let alone = |(name, fault)| Case::new(name, Meanwhile::True, vec![Rule::new(fault)]);
    dalp_tests::run(check_tip(|_| failures().into_iter().map(alone).collect()));
}

#[test]
fn a_node_that_announces_blocks_and_does_not_give_them_loses_nothing() {
    let data =
        |rule: Rule| ["eth_getLogs", "eth_getBlockReceipts", "eth_getBlockByHash"].into_iter().fold(rule, Rule::on);
    let alone = |(name, fault)| Case::new(name, Meanwhile::True, vec![data(Rule::new(fault))]);
    dalp_tests::run(check_tip(|_| failures().into_iter().map(alone).collect()));
}

#[test]
fn a_node_that_fails_is_passed_over_for_one_that_works() {
    let beside = |(name, fault)| Case::new(name, Meanwhile::Stored, vec![Rule::new(fault)]).beside_an_honest_node();
    dalp_tests::run(check_tip(|_| failures().into_iter().map(beside).collect()));
}

#[test]
fn answers_of_a_batch_are_matched_by_id_and_counted() {
    let case = |name, meanwhile, fault| Case::new(name, meanwhile, vec![Rule::new(fault).on("eth_getLogs")]);
    dalp_tests::run(check_history(vec![
        case("out of order", Meanwhile::Stored, Fault::BatchReordered),
        case("one is missing", Meanwhile::True, Fault::BatchItemMissing),
        case("one comes twice", Meanwhile::True, Fault::BatchItemRepeated),
        case("one is an error", Meanwhile::True, Fault::BatchItemFailed),
        case("one error for all", Meanwhile::True, Fault::BatchFailed),
    ]));
}

#[test]
fn slow_answers_are_waited_for() {
    let slow = Case::new("100 ms each", Meanwhile::Stored, vec![Rule::new(Fault::Delay { ms: 100 })]);
    dalp_tests::run(check_history(vec![slow]));
}

#[test]
fn a_throttled_node_is_left_alone_for_as_long_as_it_said() {
    dalp_tests::run(async {
        for after in [RetryAfter::Seconds(2), RetryAfter::Date(3)] {
            let (database, anvil) = (stage().await.database().await, anvil().await);
            let deployed = deploy(anvil.rpc()).await.unwrap();
            let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
            let service = Service::start(&Site::new(&database, &node.url()).config()).await.unwrap();
            caught_up(&database, &anvil).await;
            // A client that returns too early is refused again. A date has whole seconds: three ahead are at least two.
            let rule = node.inject(of_blocks(status(429, Some(after), false)).lasting(2_000));
            burst(anvil.rpc(), &deployed, 2, 1).await;
            caught_up(&database, &anvil).await;
            assert_eq!(rule.count(), 1, "{after:?}: it was refused once, and came back when it might");
            let client = database.superuser().await;
            assert_exact(&client, anvil.rpc(), super::CHAIN, 0, head(anvil.rpc()).await).await;
            service.stop().await;
        }
    });
}

#[test]
fn a_throttled_node_is_not_asked_while_another_one_answers() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let (throttled, honest) = (
            FaultyNode::start(&[anvil.http_url()]).await.unwrap(),
            FaultyNode::start(&[anvil.http_url()]).await.unwrap(),
        );
        honest.inject(Rule::new(Fault::Delay { ms: 40 }));
        let mut site = Site::new(&database, &throttled.url());
        site.rpc_urls.push(honest.url());
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let before = throttled.requests();
        let rule = throttled.inject(Rule::new(status(429, Some(RetryAfter::Seconds(60)), false)));
        for seed in 0..10 {
            burst(anvil.rpc(), &deployed, 2, seed).await;
            caught_up(&database, &anvil).await;
        }
        until("it to be asked and throttle", || async { rule.count() >= 1 }).await;
        let asked = throttled.requests() - before;
        assert!(asked <= 8, "asked {asked} times in spite of its Retry-After: once for each call under way is enough");
        service.stop().await;
    });
}
