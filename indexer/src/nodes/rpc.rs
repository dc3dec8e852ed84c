//! JSON-RPC on the wire: a batch of calls to bytes, bytes to one answer per call. Pure, and strict: an answer is matched by its
//! id, and a missing, doubled or unexpected answer spoils them all.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::logs;
use super::plain::Cursor;
use crate::chain::logs::Logs;

/// The method whose answers are logs.
const GET_LOGS: &str = "eth_getLogs";

/// One JSON-RPC call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name.
    pub method: &'static str,
    params: serde_json::Value,
    /// The meaning of an error answer to it.
    pub on_error: OnError,
}

/// The meaning of an error answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It fails the batch.
    Fails,
    /// It counts as `null`.
    Null,
    /// It is the answer: [`Answer::Error`].
    Answer,
}

impl Call {
    /// A call of `method`; an error answer to it is an error.
    pub fn new(method: &'static str, params: serde_json::Value) -> Self {
        Self { method, params, on_error: OnError::Fails }
    }

    /// An error answer to this call counts as `null`.
    pub fn or_null(self) -> Self {
        Self { on_error: OnError::Null, ..self }
    }

    /// An error answer to this call is its answer.
    pub fn or_its_error(self) -> Self {
        Self { on_error: OnError::Answer, ..self }
    }

    /// Blocks of a request for logs; `None` for another call.
    pub fn log_blocks(&self) -> Option<u64> {
        if self.method != GET_LOGS {
            return None;
        }
        let at = |name: &str| {
            let text = self.params.get(0)?.get(name)?.as_str()?;
            u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        };
        match (at("fromBlock"), at("toBlock")) {
            (Some(first), Some(last)) => Some(last.saturating_sub(first).saturating_add(1)),
            _ => Some(1),
        }
    }
}

impl Call {
    /// The longest list in the filter of a request for logs; 0 for another call.
    pub fn list(&self) -> u64 {
        if self.method != GET_LOGS {
            return 0;
        }
        let filter = self.params.get(0);
        let length = |list: Option<&serde_json::Value>| list.and_then(|list| list.as_array()).map_or(0, Vec::len);
        let addresses = length(filter.and_then(|filter| filter.get("address")));
        let topics = length(filter.and_then(|filter| filter.get("topics")?.get(0)));
        addresses.max(topics) as u64
    }

    /// Whether it asks for the logs of blocks by their numbers.
    pub fn is_range(&self) -> bool {
        self.method == GET_LOGS && self.params.get(0).is_some_and(|filter| filter.get("blockHash").is_none())
    }
}

/// The request in words: its method and its block.
impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.method)?;
        let Some(first) = self.params.get(0) else { return Ok(()) };
        let number = |value: &serde_json::Value| {
            let text = value.as_str()?;
            let number = text.strip_prefix("0x").filter(|digits| digits.len() <= 16);
            Some(
                number
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                    .map_or(text.to_owned(), |n| n.to_string()),
            )
        };
        let at = |name: &str| first.get(name).and_then(number);
        match (at("fromBlock"), at("toBlock"), at("blockHash"), number(first)) {
            (Some(from), Some(to), ..) => write!(f, " of blocks {from}-{to}"),
            (_, _, Some(hash), _) => write!(f, " of block {hash}"),
            (.., Some(one)) if self.method.contains("Block") => write!(f, " of block {one}"),
            (.., Some(one)) => write!(f, " of {one}"),
            _ => Ok(()),
        }
    }
}

/// One answer of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its JSON, unparsed.
    Text(String),
    /// The logs of an `eth_getLogs` answer, read while passing through the body; at least one.
    Logs(Logs),
    /// The error in place of a result, for a call that keeps errors.
    Error(ErrorAnswer),
}

impl Answer {
    /// The value of an error where the caller ignores errors.
    pub fn null() -> Self {
        Self::Text("null".into())
    }

    /// Its JSON; empty, which is no JSON, for logs that were read from it and for an error.
    pub fn get(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Logs(_) | Self::Error(_) => "",
        }
    }
}

/// An error in the node's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// Its code; 0 if it has none.
    pub code: i64,
    /// Its message, with the text in `data`.
    pub message: String,
}

/// Why bytes are not the answers to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The node refused the batch as a whole.
    Refused(ErrorAnswer),
    /// It ends too early.
    Cut(String),
    /// It is not JSON-RPC, or not the answer to this request.
    Malformed(String),
}

#[derive(Serialize)]
struct Request<'c> {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: &'c serde_json::Value,
}

/// The body of a request: an object for one call, because some nodes know no batches; an array for several. Ids count from
/// `first_id`.
pub fn encode(calls: &[Call], first_id: u64) -> Vec<u8> {
    let requests: Vec<_> = calls
        .iter()
        .zip(first_id..)
        .map(|(call, id)| Request { jsonrpc: "2.0", id, method: call.method, params: &call.params })
        .collect();
    let body = match &requests[..] {
        [one] => serde_json::to_vec(one),
        many => serde_json::to_vec(many),
    };
    // Strings, numbers and JSON values always can be written.
    body.unwrap_or_default()
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<Found<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// A result at its place in the body.
enum Found<'a> {
    Text(&'a str),
    Logs(Logs),
}

/// A field that is there, `null` or not: a block that does not exist is `null`, a missing result is no answer.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Found<'de>>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(|result| Some(Found::Text(result.get())))
}

/// The responses in `body`, if each is a result in the common layout; serde reads every other body.
fn plain(body: &[u8], is_array: bool) -> Option<Vec<Response<'_>>> {
    let (mut cursor, mut responses) = (Cursor::new(body), Vec::new());
    match is_array {
        true => cursor.items(|cursor| {
            responses.push(result(cursor)?);
            Some(())
        })?,
        false => responses.push(result(&mut cursor)?),
    }
    cursor.end()?;
    Some(responses)
}

/// One response with a result.
fn result<'b>(cursor: &mut Cursor<'b>) -> Option<Response<'b>> {
    let (mut id, mut result) = (None, None);
    cursor.fields(|cursor, name| match name {
        b"jsonrpc" => cursor.scalar(),
        b"id" => id.replace(cursor.number()?).is_none().then_some(()),
        b"result" => {
            let mut ahead = cursor.clone();
            let found = match logs::read(&mut ahead) {
                Some(logs) => {
                    *cursor = ahead;
                    Found::Logs(logs)
                }
                None => Found::Text(cursor.value()?),
            };
            result.replace(found).is_none().then_some(())
        }
        _ => None,
    })?;
    Some(Response { id: id?.into(), result: Some(result?), error: None })
}

/// The answer to one call, at its place in the body.
type Told<'a> = Result<Found<'a>, ErrorAnswer>;

/// The answers to `calls` whose ids count from `first_id`, in the order of the calls.
///
/// # Errors
/// [`Bad`]: for anything but exactly one answer per call.
pub fn decode(body: Vec<u8>, first_id: u64, calls: &[Call]) -> Result<Vec<Result<Answer, ErrorAnswer>>, Bad> {
    let told = matched(&body, first_id, calls)?;
    // A large text takes over the body's memory: a copy would need as much again.
    let mut large: Option<(usize, std::ops::Range<usize>)> = None;
    for (at, told) in told.iter().enumerate() {
        if let Ok(Found::Text(text)) = told
            && text.len() >= large.as_ref().map_or(LARGE, |(_, range)| range.len())
        {
            large = Some((at, within(&body, text)));
        }
    }
    let kept = large.as_ref().map(|(at, _)| *at);
    let own = |(at, told): (usize, Told<'_>)| {
        told.map(|found| match found {
            Found::Logs(logs) => Answer::Logs(logs),
            Found::Text(_) if Some(at) == kept => Answer::null(),
            Found::Text(text) => Answer::Text(text.to_owned()),
        })
    };
    let mut answers: Vec<_> = told.into_iter().enumerate().map(own).collect();
    if let Some((at, range)) = large {
        let mut body = body;
        body.truncate(range.end);
        body.drain(..range.start);
        let text = String::from_utf8(body).map_err(|error| Bad::Malformed(error.to_string()))?;
        answers[at] = Ok(Answer::Text(text));
    }
    Ok(answers)
}

/// The size from which moving a text to the front of the body is faster than a copy.
const LARGE: usize = 4 << 20;

/// The position of `part` in its body.
fn within(body: &[u8], part: &str) -> std::ops::Range<usize> {
    let start = part.as_ptr().addr() - body.as_ptr().addr();
    start..start + part.len()
}

fn matched<'b>(body: &'b [u8], first_id: u64, calls: &[Call]) -> Result<Vec<Told<'b>>, Bad> {
    let (is_array, count) = (is_array(body), calls.len());
    let responses: Vec<Response<'_>> = match plain(body, is_array) {
        Some(responses) => responses,
        None if is_array => serde_json::from_slice(body).map_err(|error| bad_json(&error, body))?,
        None => vec![serde_json::from_slice(body).map_err(|error| bad_json(&error, body))?],
    };
    let mut answers: Vec<Option<Told<'_>>> = Vec::new();
    answers.resize_with(count, || None);
    for response in responses {
        let at = response.id.as_u64().and_then(|id| id.checked_sub(first_id)).and_then(|at| usize::try_from(at).ok());
        let answer = match (response.error, response.result) {
            (Some(error), _) => Err(error_answer(error)),
            (None, Some(result)) => Ok(result),
            (None, None) => return Err(Bad::Malformed("an answer without a result".into())),
        };
        let slot = at.and_then(|at| answers.get_mut(at).zip(calls.get(at)));
        match (slot, answer) {
            (Some((None, _)), Err(error)) if !is_array && count > 1 => return Err(Bad::Refused(error)),
            (Some((None, call)), Ok(Found::Logs(_))) if call.method != GET_LOGS => {
                return Err(Bad::Malformed(format!("logs in answer to {}", call.method)));
            }
            (Some((slot @ None, _)), answer) => *slot = Some(answer),
            (Some((Some(_), _)), _) => return Err(Bad::Malformed(format!("two answers with the id {}", response.id))),
            // An answer that matches no call affects all of them.
            (None, Err(error)) => return Err(Bad::Refused(error)),
            (None, Ok(_)) => return Err(Bad::Malformed(format!("an answer with the unknown id {}", response.id))),
        }
    }
    // A node that gives up inside a batch says so in one answer and omits the rest.
    if answers.iter().any(Option::is_none)
        && let Some(Err(error)) = answers.iter().flatten().find(|answer| answer.is_err())
    {
        return Err(Bad::Refused(error.clone()));
    }
    let missing = answers.iter().filter(|answer| answer.is_none()).count();
    if missing > 0 {
        return Err(Bad::Malformed(format!("{missing} of {count} answers are missing")));
    }
    Ok(answers.into_iter().flatten().collect())
}

/// Serde accepts an array for a struct's fields in order; here it never is one.
fn is_array(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

fn bad_json(error: &serde_json::Error, body: &[u8]) -> Bad {
    let begins = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    if body.is_empty() {
        return Bad::Cut("an empty body".into());
    }
    match error.classify() {
        serde_json::error::Category::Eof => Bad::Cut(format!("the body ends after {} bytes", body.len())),
        _ => Bad::Malformed(format!("not a JSON-RPC answer ({error}): {}", one_line(&begins))),
    }
}

/// The error in a body with a JSON-RPC error: many come with their own HTTP status.
pub fn error_in(body: &[u8]) -> Option<ErrorAnswer> {
    let response = match is_array(body) {
        true => serde_json::from_slice::<Vec<Response<'_>>>(body).ok()?.into_iter().next()?,
        false => serde_json::from_slice(body).ok()?,
    };
    response.error.map(error_answer)
}

/// Leniently: it only matters that it is an error.
fn error_answer(error: &RawValue) -> ErrorAnswer {
    let value: serde_json::Value = serde_json::from_str(error.get()).unwrap_or_else(|_| json!(error.get()));
    let code = value.get("code").and_then(serde_json::Value::as_i64).unwrap_or(0);
    let words = value.get("message").and_then(serde_json::Value::as_str).or(value.as_str());
    let mut message = words.map_or_else(|| value.to_string(), str::to_owned);
    if let Some(data) = value.get("data").and_then(serde_json::Value::as_str) {
        message = format!("{message}: {data}");
    }
    ErrorAnswer { code, message: one_line(&message) }
}

/// Most characters of a node's message.
const SAID: usize = 1_000;

/// `text` on one line, for a message; a text longer than this ends with a whole word and "…".
pub fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((end, _)) = line.char_indices().nth(SAID) else { return line };
    let whole = line[..end].rfind(' ').filter(|space| *space > end / 2).unwrap_or(end);
    format!("{} …", line[..whole].trim_end())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::plain::tests::{spelled, spoil};
    use super::*;

    fn call(method: &'static str) -> Call {
        Call::new(method, json!([]))
    }

    #[test]
    fn one_call_is_an_object_and_several_are_an_array() {
        let text = |calls: &[Call]| String::from_utf8(encode(calls, 7)).unwrap();
        assert_eq!(text(&[call("a")]), r#"{"jsonrpc":"2.0","id":7,"method":"a","params":[]}"#);
        let both = text(&[call("a"), call("b")]);
        assert!(both.starts_with('[') && both.contains(r#""id":7,"method":"a""#) && both.contains(r#""id":8,"#));
    }

    #[test]
    fn a_call_is_named_with_its_block() {
        let named = |method, params| Call::new(method, params).to_string();
        let logs = json!([{ "fromBlock": "0x10", "toBlock": "0x1f" }]);
        assert_eq!(named("eth_getLogs", logs), "eth_getLogs of blocks 16-31");
        assert_eq!(
            named("eth_getLogs", json!([{ "blockHash": format!("0x{}", "ab".repeat(32)) }])),
            format!("eth_getLogs of block 0x{}", "ab".repeat(32))
        );
        assert_eq!(named("eth_getBlockByNumber", json!(["0x7", false])), "eth_getBlockByNumber of block 7");
        assert_eq!(named("eth_getBlockByNumber", json!(["latest", false])), "eth_getBlockByNumber of block latest");
        assert_eq!(named("eth_chainId", json!([])), "eth_chainId");
    }

    #[test]
    fn what_a_node_said_is_shown_whole_up_to_a_bound() {
        let long = "word ".repeat(200);
        assert_eq!(one_line(&long), long.trim());
        let longer = one_line(&"word ".repeat(2_000));
        assert!(longer.ends_with("word …") && longer.len() < 1_010, "{longer}");
        assert_eq!(one_line(&"é".repeat(2_000)).chars().count(), SAID + 2);
    }

    #[test]
    fn the_blocks_of_a_question_for_logs_are_known() {
        let logs = |at: serde_json::Value| Call::new("eth_getLogs", json!([at])).log_blocks();
        assert_eq!(logs(json!({ "fromBlock": "0x10", "toBlock": "0x1f" })), Some(16));
        assert_eq!(logs(json!({ "blockHash": "0xab" })), Some(1));
        assert_eq!(call("eth_blockNumber").log_blocks(), None);
    }

    /// The result for three calls with the ids 5, 6 and 7 from `body`: the results, or the error.
    fn three(body: &str) -> String {
        match decode(body.as_bytes().to_vec(), 5, &["a", "b", "c"].map(call)) {
            Ok(answers) => {
                let show = |answer: &Result<Answer, ErrorAnswer>| match answer {
                    Ok(answer) => answer.get().to_owned(),
                    Err(error) => format!("{}:{}", error.code, error.message),
                };
                answers.iter().map(show).collect::<Vec<_>>().join(" ")
            }
            Err(Bad::Refused(error)) => format!("refused {}:{}", error.code, error.message),
            Err(Bad::Cut(_)) => "cut".into(),
            Err(Bad::Malformed(why)) => why,
        }
    }

    #[test]
    fn answers_are_matched_by_id_and_nothing_is_made_up() {
        let five = r#"{"id":5,"result":[]}"#;
        let six = r#"{"id":6,"result":null}"#;
        let seven = r#"{"id":7,"result":{"a":1}}"#;
        assert_eq!(three(&format!("[{seven},{five},{six}]")), r#"[] null {"a":1}"#, "in any order");
        assert_eq!(three(&format!(" \n[{five},{six},{seven}]")), r#"[] null {"a":1}"#);
        assert_eq!(three(&format!("[{five},{seven}]")), "1 of 3 answers are missing");
        assert_eq!(three("[]"), "3 of 3 answers are missing");
        assert_eq!(three(&format!("[{five},{six},{six},{seven}]")), "two answers with the id 6");
        assert_eq!(
            three(&format!(r#"[{five},{six},{seven},{{"id":8,"result":1}}]"#)),
            "an answer with the unknown id 8"
        );
        assert_eq!(three(&format!(r#"[{five},{six},{{"id":null,"result":1}}]"#)), "an answer with the unknown id null");
        assert_eq!(
            three(&format!(r#"[{five},{six},{{"id":"7","result":1}}]"#)),
            r#"an answer with the unknown id "7""#
        );
        assert_eq!(three(&format!(r#"[{five},{six},{{"id":7}}]"#)), "an answer without a result");
        assert_eq!(three(five), "2 of 3 answers are missing", "one answer to a batch");
    }

    #[test]
    fn a_large_answer_is_the_same_as_a_small_one() {
        let large = format!(r#"["{}"]"#, "é".repeat(LARGE));
        let body = format!(r#" [{{"id":6,"result":{large} }}, {{"id":7,"result":2}},{{"result":1,"id":5}}] "#);
        assert_eq!(three(&body), format!("1 {large} 2"));
    }

    #[test]
    fn an_error_for_one_call_and_one_for_all_are_told_apart() {
        let (five, seven) = (r#"{"id":5,"result":1}"#, r#"{"id":7,"result":2}"#);
        let error = r#""error":{"code":-1,"message":"no"}"#;
        assert_eq!(three(&format!(r#"[{five},{{"id":6,{error}}},{seven}]"#)), "1 -1:no 2");
        assert_eq!(three(&format!(r#"[{five},{{"id":6,"result":null,{error}}},{seven}]"#)), "1 -1:no 2");
        assert_eq!(three(&format!(r#"[{five},{{"id":6,"result":3,"error":null}},{seven}]"#)), "1 3 2");
        assert_eq!(three(&format!(r#"{{"id":null,{error}}}"#)), "refused -1:no");
        assert_eq!(three(&format!(r#"{{"id":5,{error}}}"#)), "refused -1:no");
        assert_eq!(three(&format!(r#"[{{"id":null,{error}}}]"#)), "refused -1:no");
        assert_eq!(three(&format!(r#"[{{"id":5,{error}}}]"#)), "refused -1:no", "it gave up at the first");
        assert_eq!(three(r#"{"error":"rate limited"}"#), "refused 0:rate limited");
        let data = r#"{"id":null,"error":{"code":-2,"message":"big","data":"max\n 5"}}"#;
        assert_eq!(three(data), "refused -2:big: max 5");
    }

    #[test]
    fn what_is_not_json_is_told_from_what_was_cut() {
        assert_eq!(three(""), "cut");
        assert_eq!(three(r#"[{"id":5,"result":[{"address":"0x12"#), "cut");
        assert_eq!(three(r#"{"id":5,"resu"#), "cut");
        assert!(three("<html><body>502 Bad\nGateway</body></html>").contains("<html><body>502 Bad Gateway"));
        assert!(three(r#"[{"id":5,"result":1}] and more"#).starts_with("not a JSON-RPC answer"));
    }

    #[test]
    fn logs_are_read_on_the_way_and_only_where_they_were_asked_for() {
        let log = r#"{"address":"0x0101010101010101010101010101010101010101","topics":[],"data":"0x","blockHash":"WORD",
            "blockNumber":"0x1","transactionHash":"WORD","transactionIndex":"0x0","logIndex":"0x0"}"#;
        let log = log.replace("WORD", &format!("0x{}", "ab".repeat(32)));
        let body = |logs: &str| format!(r#"{{"jsonrpc":"2.0","id":5,"result":[{logs}]}}"#).into_bytes();
        let [answer] = &decode(body(&log), 5, &[call(GET_LOGS)]).unwrap()[..] else { panic!("one call") };
        assert!(matches!(answer, Ok(Answer::Logs(logs)) if logs.len() == 1), "{answer:?}");
        let [answer] = &decode(body(""), 5, &[call(GET_LOGS)]).unwrap()[..] else { panic!("one call") };
        assert_eq!(answer, &Ok(Answer::Text("[]".into())));
        let wrong = decode(body(&log), 5, &[call("eth_getBlockReceipts")]);
        assert_eq!(wrong, Err(Bad::Malformed("logs in answer to eth_getBlockReceipts".into())));
        assert!(serde_json::from_str::<serde_json::Value>(Answer::Logs(Logs::default()).get()).is_err());
    }

    #[test]
    fn what_is_read_plainly_serde_reads_the_same() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut plainly, mut refused) = (0, 0);
        for _ in 0..2_000 {
            let logs = spelled(&mut rng, false);
            let mut body = format!(
                r#"[{{"jsonrpc":"2.0","id":5,"result":{logs}}}, {{"id":6,"result":{{"a":[1.5,"\u00e9"]}},"jsonrpc":"2.0"}}]"#
            );
            spoil(&mut rng, &mut body);
            let Some(read) = plain(body.as_bytes(), is_array(body.as_bytes())) else {
                refused += 1;
                continue;
            };
            plainly += 1;
            let all = match is_array(body.as_bytes()) {
                true => serde_json::from_str::<Vec<Response<'_>>>(&body).unwrap_or_else(|e| panic!("{e}: {body}")),
                false => vec![serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"))],
            };
            assert_eq!(read.len(), all.len());
            for (read, all) in read.iter().zip(&all) {
                assert_eq!(read.id, all.id);
                let Some(Found::Text(text)) = all.result else { panic!("serde leaves results as text") };
                match read.result.as_ref().unwrap() {
                    Found::Text(read) => assert_eq!(*read, text),
                    Found::Logs(read) => {
                        let mut logs = Logs::default();
                        logs::parse(text, &mut logs).unwrap_or_else(|e| panic!("{e}: {text}"));
                        assert_eq!(*read, logs, "{text}");
                    }
                }
            }
        }
        assert!(plainly > 100 && refused > 100, "both happen: {plainly}, {refused}");
    }

    #[test]
    fn an_error_is_found_in_a_body_of_any_status() {
        let error = error_in(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32614,"message":"limited"}}"#).unwrap();
        assert_eq!((error.code, &error.message[..]), (-32614, "limited"));
        assert_eq!(error_in(br#"[{"error":{"code":1,"message":"x"}}]"#).unwrap().code, 1);
        assert_eq!(error_in(b"<html>"), None);
    }
}
