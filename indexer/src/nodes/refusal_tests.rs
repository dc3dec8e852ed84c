//! Wordings of clients and hosted providers, from real answers.

use super::*;

const fn too_large(limit: Option<Limit>, suggested: Option<u64>) -> Refusal {
    Refusal::TooLarge { limit, suggested }
}

/// Each for a request of 100,000 blocks.
fn check(cases: &[(i64, &str, Refusal)]) {
    for (code, message, expected) in cases {
        assert_eq!(Refusal::of(*code, message, Some(100_000), 0), *expected, "{code}: {message}");
    }
}

#[test]
fn limits_in_blocks_are_read_from_their_words() {
    let blocks = |limit| too_large(Some(Limit::Blocks(limit)), None);
    check(&[
        (-32614, "eth_getLogs is limited to a 10,000 range", blocks(10_000)),
        (-32600, "eth_getLogs is limited to a 5 range", blocks(5)),
        (-32000, "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range", blocks(10_000)),
        (-32000, "eth_getLogs is limited to 0 - 10000 blocks range", blocks(10_000)),
        (-32000, "logs are limited to a 10000 block range", blocks(10_000)),
        (-32602, "range 1000000 exceeds limit of 10000", blocks(10_000)),
        (-32701, "exceed maximum block range: 50000", blocks(50_000)),
        (-32000, "query exceeds max block range 1000", blocks(1_000)),
        (-32000, "block range greater than 2000 max", blocks(2_000)),
        (-32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800", blocks(800)),
        (35, "ranges over 10000 blocks are not supported on freetier", blocks(10_000)),
        (-32000, "requested too many blocks from 0 to 99999, maximum is set to 2048", blocks(2_048)),
        (-32000, "Maximum allowed number of requested blocks is 3500", blocks(3_500)),
        (-32602, "block range too large (4000), maximum allowed is 2000 blocks", blocks(2_000)),
        (-32602, "exceeds the range allowed for your plan (100000 > 200)", blocks(200)),
        (-32602, "eth_getLogs block range too large, range: 100000, max: 1000", blocks(1_000)),
        (-32005, "block range too large, max range: 500", blocks(500)),
        (-32005, "Block range limit exceeded. max: 2000", blocks(2_000)),
        (
            -32000,
            "block range is larger than max block range, block range = 100000, max block range = 5000",
            blocks(5_000),
        ),
        (-32000, "block range is too wide (maximum 1024)", blocks(1_024)),
        (
            -32600,
            "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on your \
             parameters, this block range should work: [0x1, 0xa]. Upgrade to PAYG for expanded block range.",
            too_large(Some(Limit::Blocks(10)), Some(10)),
        ),
    ]);
}

#[test]
fn limits_of_results_and_of_bytes_are_no_limits_of_blocks() {
    check(&[
        (-32005, "query returned more than 10000 results", too_large(Some(Limit::Logs(10_000)), None)),
        (
            -32005,
            "query returned more than 10000 results. Try with this block range [0x10, 0x1f].",
            too_large(Some(Limit::Logs(10_000)), Some(16)),
        ),
        (
            -32602,
            "query exceeds max results 20000, retry with the range 100-599",
            too_large(Some(Limit::Logs(20_000)), Some(500)),
        ),
        (
            -32602,
            "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on \
             the response size, or you can request any block range with a cap of 10K logs in the response. Based on your \
             parameters and the response size limit, this block range should work: [0xeea5c0, 0xeeb042]",
            too_large(Some(Limit::Logs(10_000)), Some(2_691)),
        ),
        (
            -32000,
            "Too many logs requested. Max logs per response is 20000.",
            too_large(Some(Limit::Logs(20_000)), None),
        ),
        (
            -32008,
            "Response is too big: Exceeded max limit of 10485760",
            too_large(Some(Limit::Bytes(10_485_760)), None),
        ),
        (-32000, "response size should not be greater than 10MB", too_large(Some(Limit::Bytes(10_000_000)), None)),
    ]);
}

#[test]
fn what_sounds_like_size_is_split_without_a_number() {
    let less = too_large(None, None);
    check(&[
        (-32600, "block range is too wide", less),
        (-32000, "block range too high: the range is limited", less),
        (-32005, "Requested range exceeds maximum RPC range limit", less),
        (-32003, "response too large", less),
        (-32011, "The batch response was too large", less),
        (-32000, "query timeout of 10 seconds exceeded", less),
        (30, "Request timeout on the free tier, please upgrade your tier to the paid one", less),
        (-32002, "request timed out", less),
        (-32005, "limit exceeded", less),
        (-32000, "Block range limit exceeded. See more details at the docs", less),
    ]);
    assert_eq!(Refusal::of(-32002, "request timed out", Some(1), 0), Refusal::Other, "one block cannot be split");
    assert_eq!(Refusal::of(-32002, "request timed out", None, 0), Refusal::Other);
    assert_eq!(Refusal::of(-32005, "limit exceeded", Some(1), 0), Refusal::Throttled, "one block is not too many");
    assert_eq!(
        Refusal::of(-32000, "query returned more than 10 results", Some(1), 0),
        too_large(Some(Limit::Logs(10)), None)
    );
}

#[test]
fn lists_of_a_filter_are_cut_where_they_are_too_long() {
    let check = |code, words, blocks, max| {
        assert_eq!(Refusal::of(code, words, Some(blocks), 1_500), Refusal::List { max }, "{words}");
    };
    let geth = "exceed max addresses or topics per search position";
    check(-32_000, geth, 100, None);
    check(-32_000, geth, 1, None);
    check(-32_602, "too many addresses: at most 1000 addresses are allowed", 100, Some(1_000));
    check(-32_602, "filter exceeds the limit of 500 topics", 100, Some(500));
    check(-32_602, "query returned more than 10000 results", 1, None);
    assert_eq!(Refusal::of(-32_000, geth, Some(100), 1), too_large(None, None), "one value cannot be cut");
    assert_eq!(Refusal::of(-32_000, "your quota of block ranges is used up", Some(100), 0), too_large(None, None));
}

#[test]
fn the_rest_is_told_apart() {
    let throttled = Refusal::Throttled;
    check(&[
        (429, "Your app has exceeded its compute units per second capacity.", throttled),
        (-32005, "daily request count exceeded, request rate limited", throttled),
        (-32007, "50/second request limit reached - reduce calls per second or upgrade", throttled),
        (-32029, "Too Many Requests", throttled),
        (-32000, "daily request limit reached", throttled),
        (-32090, "Too many requests, reason: call rate limit exhausted, retry in 10s", throttled),
        (-32000, "exceeded the quota usage", throttled),
        (-32000, "missing trie node 5a1b (path )", Refusal::Pruned),
        (4444, "pruned history unavailable", Refusal::Pruned),
        (-32000, "history has been pruned for this block", Refusal::Pruned),
        (-32000, "this request requires an archive node", Refusal::Pruned),
        (-32601, "the method eth_foo does not exist/is not available", Refusal::NoMethod),
        (-32004, "Method not supported", Refusal::NoMethod),
        (-32000, "unknown block", Refusal::UnknownBlock),
        (-32000, "header not found", Refusal::UnknownBlock),
        (-39001, "Unknown block", Refusal::UnknownBlock),
        (-32000, "block range extends beyond current head block", Refusal::UnknownBlock),
        (-32602, "Block number out of range", Refusal::UnknownBlock),
        (-32000, "requested from block 9 after last accepted block 7", Refusal::UnknownBlock),
        (-32600, "batch too large", Refusal::Batch { max: None }),
        (31, "Batch of more than 3 requests are not allowed on free tier", Refusal::Batch { max: Some(3) }),
        (-32005, "Batched requests are not supported by this server", Refusal::Batch { max: Some(1) }),
        (-32010, "The batch request was too large: Exceeded max limit of 50", Refusal::Batch { max: Some(50) }),
        (-32602, "Number of requests in batch exceeds --rpc-max-batch-size", Refusal::Batch { max: None }),
        (-32603, "internal error", Refusal::Other),
        (-32011, "no backend is currently healthy to serve traffic", Refusal::Other),
        (-32000, "connection limit reached", Refusal::Other),
    ]);
    assert_eq!(
        Refusal::of(-32000, "exceeded something", None, 0),
        Refusal::Other,
        "a head cannot be asked for in halves"
    );
}

#[test]
fn a_node_asks_for_a_pause_in_seconds_or_by_a_date() {
    let now = DateTime::parse_from_rfc2822("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().with_timezone(&Utc);
    let check = |header: &str| retry_after(header, now).map(|pause| pause.as_millis());
    assert_eq!(check("7"), Some(7_000));
    assert_eq!(check(" 0.25 "), Some(250));
    assert_eq!(check("0"), Some(100), "never at once");
    assert_eq!(check("86400"), Some(60_000), "never for a day");
    assert_eq!(check("-3"), Some(100));
    assert_eq!(check("1e400"), Some(60_000));
    assert_eq!(check("Sun, 06 Nov 1994 08:49:49 GMT"), Some(12_000));
    assert_eq!(check("Sun, 06 Nov 1994 08:49:07 GMT"), Some(100), "a date that is over");
    assert_eq!(check("soon"), None);
}

#[test]
fn no_words_of_a_node_are_too_strange_to_read() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const WORDS: &[&str] = &[
        "range",
        "[",
        "0x",
        "0xffffffffffffffffffff",
        "]",
        ",",
        "99999999999999999999",
        "10k",
        "5m",
        "max:",
        "limit",
        "é",
        "than",
        "…3…",
        "-",
        "with the range ",
        "7-",
        "-7",
        "[0x9, 0x1]",
        "batch",
        "1_0_",
        "blocks",
        "18446744073709551615",
        "18446744073709551615m",
        ">",
        "\u{0}",
        "retry",
        "timeout",
        "results",
        ".",
        "=",
    ];
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let words: Vec<&str> =
            (0..random.random_range(0..12)).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
        for message in [words.concat(), words.join(" ")] {
            for asked in [None, Some(0), Some(1), Some(500), Some(u64::MAX)] {
                let refusal = Refusal::of(-32000, &message, asked, 0);
                if let (Refusal::TooLarge { limit: Some(Limit::Blocks(blocks)), .. }, Some(asked)) = (refusal, asked) {
                    assert!((1..asked).contains(&blocks), "seed {seed}: {message}");
                }
            }
        }
    }
}

#[test]
fn a_contracts_own_failure_is_told_from_the_nodes() {
    for (code, message) in [
        (3, "execution reverted: too many requests, rate limit"),
        (-32000, "execution reverted"),
        (-32000, "invalid opcode: INVALID"),
        (-32000, "out of gas"),
        (-32000, "stack underflow (0 <=> 1)"),
        (-32003, "EVM error InvalidFEOpcode"),
        (-32603, "EVM error OutOfGas"),
        (-32015, "VM execution error."),
        (-32000, "invalid jump destination"),
    ] {
        assert!(is_of_contract(code, message), "{code}: {message}");
    }
    for (code, message) in [
        (-32000, "header not found"),
        (-32000, "missing trie node 1234 (path )"),
        (-32601, "the method eth_call does not exist/is not available"),
        (429, "too many requests"),
        (-32603, "internal error"),
        (-32000, "execution aborted (timeout = 5s)"),
    ] {
        assert!(!is_of_contract(code, message), "{code}: {message}");
    }
}
