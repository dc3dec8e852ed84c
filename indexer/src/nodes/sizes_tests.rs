//! A node's limits are learned from its answers: blocks, addresses, calls.

use super::*;
use crate::chain::filter::Filter;
use crate::chain::source::Source;

#[tokio::test]
async fn a_limit_of_blocks_is_learned_under_any_status() {
    let words = "eth_getLogs is limited to a 10,000 range";
    for status in ["200 OK", "400 Bad Request", "413 Payload Too Large"] {
        let body = error(-32614, words).to_string();
        let server = Server::start(move |_| http(status, "", &body)).await;
        let node = node(&server);
        let refusal = node.batch_of(logs_of(50_000)).await.unwrap_err();
        assert!(matches!(refusal, NodeError::TooLarge { hint: Some(10_000), .. }), "{status}: {refusal:?}");
        assert_eq!((node.max_blocks(), node.report().failures), (Some(10_000), 0));
    }
}

/// Refuses every request for the logs of more than `limit` blocks with `refusal`, and answers all others.
fn refuses_wide(limit: u64, refusal: String) -> impl Fn(&Value) -> String + Send + Sync + 'static {
    move |request| {
        let number = |call: &Value, name: &str| {
            u64::from_str_radix(call["params"][0][name].as_str()?.trim_start_matches("0x"), 16).ok()
        };
        let width = |call: &Value| Some(number(call, "toBlock")? + 1 - number(call, "fromBlock")?);
        match calls(request).iter().filter_map(width).max() {
            Some(width) if width > limit => refusal.clone(),
            _ => answered(request, &|_| json!([])),
        }
    }
}

#[tokio::test]
async fn a_refusal_that_repeats_asks_for_fewer_blocks_whatever_its_words() {
    let forwarder = r#"{"error": "Internal server error. Forwarder error: 1000."}"#;
    let refusals = [
        (ok(&error(-32001, "Unable to complete request at this time.")), "Unable to complete"),
        (ok(&error(-32603, "Internal error")), "Internal error"),
        (ok(&error(-32000, "wide ranges are for an archive plan")), "archive plan"),
        (ok(&error(-32000, "the requested resource was not found")), "resource was not found"),
        (String::new(), "answered null"),
        (http("200 OK", "", forwarder), "Forwarder error: 1000"),
        (http("200 OK", "", "<html>busy</html>"), "busy"),
        (http("500 Internal Server Error", "", "no"), "HTTP 500: no"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n[{".into(), "was cut"),
    ];
    for (refusal, words) in refusals {
        let server = Server::start(move |request| match &refusal[..] {
            "" => refuses_wide(7, answered(request, &|_| Value::Null))(request),
            refusal => refuses_wide(7, refusal.to_owned())(request),
        })
        .await;
        let node = node(&server);
        let (mut width, mut told) = (100, String::new());
        while let Err(error) = node.batch_of(logs_of(width)).await {
            if let NodeError::TooLarge { hint, .. } = &error {
                told = error.to_string();
                width = hint.unwrap_or(width / 2).min(width / 2);
            }
            assert!(server.asked().len() < 100, "{error}");
        }
        assert!(width > 3 && told.contains(words) && told.contains("eth_getLogs of blocks 1-"), "{width}: {told}");
        // The limit is learned: a larger request is tried only from time to time.
        let before = server.asked().len();
        let mut refused = 0;
        for _ in 0..40 {
            refused += u32::from(node.batch_of(logs_of(node.max_blocks().unwrap_or(100).min(100))).await.is_err());
        }
        assert!(refused <= 4, "{words}: refused {refused} of {}", server.asked().len() - before);
        assert!(node.report().max_blocks.is_some());
    }
}

#[tokio::test]
async fn a_node_that_fails_whatever_it_is_asked_says_nothing_of_sizes() {
    let server = Server::start(|_| "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n[{".into()).await;
    let node = node(&server);
    for blocks in [2, 2, 2, 2, 1, 1] {
        assert!(matches!(node.batch_of(logs_of(blocks)).await.unwrap_err(), NodeError::Retry { .. }));
    }
    assert_eq!((node.report().state.as_str(), node.report().max_blocks), ("resting", None));
}

#[tokio::test]
async fn a_batch_that_is_refused_again_and_again_is_cut_whatever_the_words() {
    let server = Server::start(|request| match calls(request).len() {
        ..=2 => well(request),
        _ => http("500 Internal Server Error", "", "boom"),
    })
    .await;
    let node = node(&server);
    let mut tries = 0;
    while node.batch_of(three()).await.is_err() {
        tries += 1;
        assert!(tries < 5);
    }
    assert_eq!(node.report().max_batch, Some(1));
}

/// A log of block 2.
fn log_of(block: B256, address: &Value, index: usize) -> Value {
    json!({ "address": address, "topics": [], "data": "0x", "blockNumber": "0x2", "blockHash": block, "logIndex": format!("{index:#x}"),
            "transactionIndex": "0x0", "transactionHash": B256::ZERO, "removed": false })
}

#[tokio::test]
async fn logs_of_many_addresses_are_asked_for_in_parts() {
    let hash = |number: u64| B256::from(alloy::primitives::U256::from(number + 1));
    let log = move |address: &Value, index: usize| log_of(hash(2), address, index);
    for words in ["exceed max addresses or topics per search position", "no"] {
        let server = Server::start(move |request| {
            let too_long = |call: &&Value| call["params"][0]["address"].as_array().is_some_and(|list| list.len() > 1_000);
            if let Some(call) = calls(request).iter().find(too_long) {
                let mut refused = error(-32000, words);
                refused["id"] = call["id"].clone();
                return ok(&refused);
            }
            answered(request, &|call| match call["method"].as_str() {
                Some("eth_getLogs") => {
                    let wanted = call["params"][0]["address"].as_array().unwrap();
                    // Block 2 has a log of every second address, the last addresses first.
                    let last = |address: &Value| u64::from_str_radix(&address.as_str().unwrap()[34..], 16).unwrap();
                    let mut logs: Vec<Value> = wanted
                        .iter()
                        .filter(|address| last(address).is_multiple_of(2))
                        .map(|address| log(address, 2_000 - last(address) as usize))
                        .collect();
                    logs.reverse();
                    logs.into()
                }
                Some("eth_chainId") => json!("0x1"),
                _ => {
                    let number = call["params"][0].as_str().unwrap().trim_start_matches("0x");
                    let number = u64::from_str_radix(number, 16).unwrap();
                    json!({ "number": format!("{number:#x}"), "hash": hash(number), "parentHash": hash(number.wrapping_sub(1)),
                            "timestamp": "0x5" })
                }
            })
        })
        .await;
        let mut chain = configured(&[&server.url]);
        chain.verify = crate::chain::proof::Verify::To(crate::chain::level::Level::Returned);
        let addresses = (0..1_500_u64).map(|n| alloy::primitives::Address::left_padding_from(&n.to_be_bytes()));
        let source = Source::new(Filter { addresses: addresses.collect(), ..Filter::default() });
        let nodes = Nodes::new(&chain).unwrap();
        let mut range = BlockRange { first: 2, last: 5 };
        let mut tries = 0;
        let batch = loop {
            match nodes.range(&source, range).await {
                Ok(batch) => break batch,
                Err(NodeError::TooLarge { hint, .. }) => range.last = range.first + hint.unwrap_or(1) - 1,
                Err(_) => {}
            }
            tries += 1;
            assert!(tries < 20, "{words}");
        };
        assert_eq!(batch.logs().len(), 750, "{words}");
        let (max, failures) = (nodes.reports()[0].max_list, nodes.reports()[0].failures);
        assert_eq!((max, failures), (Some(750), 0), "{words}");
        let before = server.asked().len();
        nodes.range(&source, range).await.unwrap();
        assert_eq!(server.asked().len() - before, 1, "known by now: the parts in one batch");
    }
}
