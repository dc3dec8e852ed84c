//! The body of an answer with logs. Three readers must agree: the plain one, serde's, and alloy's own types.

#![no_main]

use alloy::rpc::types::Log as AlloyLog;
use dalp_fuzz::{bounded, in_columns};
use dalp_indexer::chain::logs::Logs;
use dalp_indexer::nodes::fuzzing::{Cursor, Refusal};
use dalp_indexer::nodes::logs;
use dalp_indexer::nodes::rpc::{self, Answer, Bad, Call, ErrorAnswer};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

const GET_LOGS: &str = "eth_getLogs";
/// The id of the first call.
const FIRST: u64 = 5;

fuzz_target!(|body: &[u8]| {
    if let Ok(text) = str::from_utf8(body) {
        readers_agree(text);
    }
    let calls = [GET_LOGS, "eth_getBlockByNumber", GET_LOGS].map(|method| Call::new(method, Value::Null));
    for count in [1, 3] {
        answers(body, &calls[..count]);
    }
    if let Some(error) = rpc::error_in(body) {
        refusal(&error);
    }
});

/// How an array of logs is read in each way.
fn readers_agree(text: &str) {
    let ours = bounded(text.len(), || serde_reads(text));
    if let Some(plainly) = bounded(text.len(), || plain_reads(text)) {
        assert_eq!(Ok(&plainly), ours.as_ref(), "the plain reader and serde differ");
    }
    let theirs = serde_json::from_str::<Vec<AlloyLog>>(text);
    match (&ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(Some(ours), in_columns(&theirs).as_ref(), "alloy reads something else"),
        (Ok(ours), Err(_)) => alloy_is_only_stricter(text, ours),
        (Err(why), Ok(_)) => assert!(is_named(why), "refused without a reason of ours: {why}"),
        (Err(_), Err(_)) => {}
    }
}

fn serde_reads(text: &str) -> Result<Logs, String> {
    let mut logs = Logs::default();
    logs::parse(text, &mut logs).map(|()| logs).map_err(|error| error.to_string())
}

fn plain_reads(text: &str) -> Option<Logs> {
    let mut cursor = Cursor::new(text.as_bytes());
    let logs = logs::read(&mut cursor)?;
    cursor.end()?;
    Some(logs)
}

/// Alloy keeps unknown fields until the end, and refuses values that we skip, such as a number outside f64; and only serde
/// accepts an array of fields as a log. A log's own time is not read here: rows have their header's time. Alloy must read all
/// other parts as we do.
fn alloy_is_only_stricter(text: &str, ours: &Logs) {
    let Ok(Value::Array(mut items)) = serde_json::from_str(text) else { return };
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("blockTimestamp");
    }
    if items.iter().all(Value::is_object) {
        let theirs: Vec<AlloyLog> = serde_json::from_value(items.into()).expect("alloy reads what we read");
        assert_eq!(Some(ours), in_columns(&theirs).as_ref(), "alloy reads something else");
    }
}

/// Reasons for refusing logs that alloy accepts: each names the fault.
fn is_named(why: &str) -> bool {
    const REASONS: &[&str] = &[
        "a log is marked `removed`",
        "missing field `",
        "duplicate field `",
        "invalid type: ",
        "more than 4 topics",
        "topics: ",
        "data: ",
        "address: ",
        "blockHash: ",
        "blockNumber: ",
        "blockTimestamp: ",
        "transactionHash: ",
        "transactionIndex: ",
        "logIndex: ",
    ];
    REASONS.iter().any(|reason| why.starts_with(reason))
}

/// A response as serde reads it.
#[derive(Deserialize)]
struct Response<'b> {
    #[serde(default)]
    id: Value,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'b RawValue>,
    #[serde(borrow, default)]
    error: Option<&'b RawValue>,
}

/// `null` is a result; a missing one is none.
fn present<'b, D: Deserializer<'b>>(deserializer: D) -> Result<Option<&'b RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn responses(body: &[u8]) -> Option<Vec<Response<'_>>> {
    match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body).ok(),
        _ => serde_json::from_slice(body).ok().map(|one| vec![one]),
    }
}

/// The recorded answers of the calls are the answers in the body, once each.
fn answers(body: &[u8], calls: &[Call]) {
    let owned = body.to_vec();
    let decoded = bounded(body.len(), || rpc::decode(owned, FIRST, calls));
    let told = responses(body);
    let answers = match decoded {
        Ok(answers) => answers,
        Err(bad) => return refused(&bad, calls, told.as_deref()),
    };
    let told = told.expect("what is taken for answers is JSON-RPC");
    assert_eq!((answers.len(), told.len()), (calls.len(), calls.len()));
    for ((answer, call), id) in answers.iter().zip(calls).zip(FIRST..) {
        let mut own = told.iter().filter(|response| response.id.as_u64() == Some(id));
        let (Some(own), None) = (own.next(), own.next()) else { panic!("not one response has the id {id}") };
        match answer {
            Ok(Answer::Logs(logs)) => {
                let text = own.result.expect("logs come from a result").get();
                assert!(call.method == GET_LOGS && !logs.is_empty() && own.error.is_none());
                assert_eq!(serde_reads(text).as_ref(), Ok(logs), "the plain reader and serde differ");
            }
            Ok(Answer::Text(text)) => {
                assert_eq!((Some(&text[..]), own.error.is_none()), (own.result.map(RawValue::get), true));
                readers_agree(text);
            }
            Ok(Answer::Error(error)) => panic!("{error:?} is made of an error where the call keeps it"),
            Err(error) => {
                assert!(own.error.is_some(), "nobody told of an error");
                refusal(error);
            }
        }
    }
}

/// One result for each call is refused only where it holds logs that were not asked for.
fn refused(bad: &Bad, calls: &[Call], told: Option<&[Response<'_>]>) {
    let is_result = |response: &Response<'_>| response.result.is_some() && response.error.is_none();
    let ids = (FIRST..).take(calls.len());
    if let Some(told) = told
        && told.len() == calls.len()
        && told.iter().all(is_result)
        && ids.clone().all(|id| told.iter().any(|response| response.id.as_u64() == Some(id)))
    {
        assert!(matches!(bad, Bad::Malformed(why) if why.starts_with("logs in answer to ")), "{bad:?}");
    }
    match bad {
        Bad::Refused(error) => refusal(error),
        Bad::Cut(why) | Bad::Malformed(why) => assert!(!why.is_empty()),
    }
}

fn refusal(error: &ErrorAnswer) {
    for asked in [None, Some(1), Some(1_000)] {
        Refusal::of(error.code, &error.message, asked, 0);
    }
}
