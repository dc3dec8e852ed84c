//! Turns the answer, refusal or break of a request into a judgement of its node: in our words, recorded, and named for the next
//! move.

use std::time::{Duration, Instant};

use super::asked::{Asked, Failure, Part, UNKNOWN, doubt, doubted, in_words};
use super::error::NodeError;
use super::http::HttpError;
use super::record::Record;
use super::refusal::{Limit, Refusal};
use super::rpc::{self, Bad};

/// Methods that every node must have.
const NEEDED: &[&str] = &["eth_chainId", "eth_getBlockByNumber", "eth_getBlockByHash", "eth_getLogs"];

impl Record {
    pub(super) fn answered(&self, asked: Asked<'_>) {
        let now = Instant::now();
        let mut record = self.known();
        // The time of logs and of many headers depends on their number.
        record.health.answered(asked.began, now, asked.blocks.is_none() && asked.sizes.calls <= 2);
        record.limits.answered(asked.sizes);
        if let Some(part) = asked.part() {
            *record.doubts.of(part) = 0;
        }
    }

    /// The node answered, and refused.
    pub(super) fn refused(&self, refusal: Refusal, words: &str, after: Option<Duration>, asked: Asked<'_>) -> Failure {
        let why = self.secrets.clean(&asked.told(words));
        let now = Instant::now();
        let mut record = self.known();
        let node = self.name().to_owned();
        let error = match refusal {
            Refusal::Batch { max } if asked.sizes.calls > 1 => {
                record.limits.refused_batch(asked.sizes.calls, max, asked.began, now);
                let max = record.limits.max_batch(now);
                tracing::info!(error = why, max_batch = max, "the node limits its batches; asking in smaller ones");
                return Failure::Batch;
            }
            Refusal::List { max } => {
                drop(record);
                self.limits_lists(max, &why, asked);
                NodeError::Retry { node, why, after }
            }
            Refusal::TooLarge { limit, suggested } => {
                record.limits.learn(limit, asked.sizes.blocks, suggested, asked.began, now);
                let known = matches!(limit, Some(Limit::Blocks(_))).then(|| record.limits.max_blocks(now)).flatten();
                record.health.answered(asked.began, now, false);
                NodeError::TooLarge { node, why, hint: suggested.or(known) }
            }
            Refusal::Throttled => {
                drop(record);
                let after = self.throttles(&why, after, asked);
                NodeError::Retry { node, why: format!("throttled: {why}"), after }
            }
            Refusal::UnknownBlock => {
                record.health.answered(asked.began, now, false);
                record.health.missing(now, why.clone());
                return doubted(&mut record.doubts, NodeError::Gone { node, what: why.clone() }, why, asked);
            }
            Refusal::NoMethod => {
                let why = format!("it does not offer {}: {why}", asked.method());
                record.limits.refused_method(asked.method(), now);
                // A node without receipts is still good for logs.
                if NEEDED.contains(&asked.method()) {
                    record.health.wrong(now, why.clone(), rand::random());
                }
                return doubted(&mut record.doubts, NodeError::Retry { node, why: why.clone(), after }, why, asked);
            }
            Refusal::Pruned => {
                let told = format!(
                    "it does not keep history that far back ({why}); add a node with full history to rpc_urls, or raise \
                     start_block to its oldest block"
                );
                record.health.wrong(now, told.clone(), rand::random());
                return doubted(&mut record.doubts, NodeError::Retry { node, why: told, after }, why, asked);
            }
            Refusal::Batch { .. } | Refusal::Other => {
                drop(record);
                return self.unexplained(words, after, asked);
            }
        };
        Failure::Error(error)
    }

    fn limits_lists(&self, max: Option<u64>, why: &str, asked: Asked<'_>) {
        let (mut record, now) = (self.known(), Instant::now());
        match max {
            Some(max) => record.limits.list.name(max, now),
            None => record.limits.list.refuse(asked.sizes.list, None, asked.began, now),
        }
        record.health.answered(asked.began, now, false);
        let max = record.limits.max_list(now);
        tracing::info!(error = why, max_list = max, "the node limits addresses and topics; asking in parts");
    }

    /// The time of the next allowed request.
    fn throttles(&self, why: &str, after: Option<Duration>, asked: Asked<'_>) -> Option<Duration> {
        let (mut record, now) = (self.known(), Instant::now());
        let before = record.limits.max_parallel(now);
        record.limits.parallel.refuse(asked.sizes.parallel, None, asked.began, now);
        let max = record.limits.max_parallel(now);
        if max < before {
            tracing::info!(error = why, max_parallel = max, "the node throttles; fewer requests at once");
        }
        record.health.throttled(asked.began, now, why.to_owned(), after, rand::random());
        record.health.throttle_left(now).or(after)
    }

    /// The bytes are not the answers.
    pub(super) fn bad(&self, bad: Bad, asked: Asked<'_>) -> Failure {
        match bad {
            Bad::Refused(error) => self.refused(asked.refusal_of(&error), &in_words(&error), None, asked),
            Bad::Cut(why) => self.unexplained(&why, None, asked),
            Bad::Malformed(why) => self.unexplained(&format!("malformed answer: {why}"), None, asked),
        }
    }

    /// `null` in place of the logs of a range: neither a list nor an empty list.
    pub(super) fn null(&self, asked: Asked<'_>) -> Failure {
        self.unexplained("it answered null, which is neither a list of logs nor an empty list", None, asked)
    }

    /// No successful answer came.
    pub(super) fn no_body(&self, error: HttpError, asked: Asked<'_>) -> Failure {
        if matches!(error, HttpError::Cut(_) | HttpError::Unreachable(_)) {
            // The next connection may reach another node.
            self.known().checked = false;
        }
        let (status, body, after) = match error {
            HttpError::Status { status, body, after } => (status, body, after),
            HttpError::TooLarge(limit) => return self.over_the_cap(limit, asked),
            HttpError::Timeout => return self.unexplained("no answer within request_timeout", None, asked),
            HttpError::Cut(why) => return self.unexplained(&why, None, asked),
            HttpError::Redirect(to) => {
                let why =
                    format!("it redirects to {to}, and redirects are not followed; put the final URL into rpc_urls");
                return Failure::Error(self.failed(&why, None, asked));
            }
            HttpError::Unreachable(why) => return Failure::Error(self.failed(&why, None, asked)),
        };
        let told = rpc::error_in(&body);
        let begins = || rpc::one_line(&String::from_utf8_lossy(&body[..body.len().min(200)]));
        let why = format!("HTTP {status}: {}", told.as_ref().map_or_else(begins, in_words));
        let refusal = told.map_or(Refusal::Other, |error| asked.refusal_of(&error));
        match (status, refusal) {
            (429, _) => self.refused(Refusal::Throttled, &why, after, asked),
            (503, Refusal::Other) if after.is_some() => self.refused(Refusal::Throttled, &why, after, asked),
            (413, Refusal::Other) if asked.blocks.is_some() => {
                self.refused(Refusal::TooLarge { limit: None, suggested: None }, &why, None, asked)
            }
            (413, Refusal::Other) => self.refused(Refusal::Batch { max: None }, &why, None, asked),
            (401 | 403, Refusal::Other) => {
                Failure::Error(self.failed(&format!("{why}; check the key in its URL (rpc_urls)"), after, asked))
            }
            (_, refusal) => self.refused(refusal, &why, after, asked),
        }
    }

    /// More bytes than our limit: fewer logs, fewer addresses, or fewer headers in one batch.
    fn over_the_cap(&self, limit: u64, asked: Asked<'_>) -> Failure {
        let now = Instant::now();
        let mut record = self.known();
        record.health.answered(asked.began, now, false);
        let why = asked.told(&format!("the answer is too large: it exceeds max_response_bytes = {limit}"));
        let node = self.name().to_owned();
        match asked.part() {
            Some(Part::Calls(calls)) if asked.blocks.is_none() => {
                record.limits.refused_batch(calls, None, asked.began, now);
                Failure::Batch
            }
            Some(Part::List(values)) if asked.sizes.calls <= 2 => {
                record.limits.list.refuse(values, None, asked.began, now);
                Failure::Error(NodeError::Retry { node, why, after: None })
            }
            _ => Failure::Error(NodeError::TooLarge { node, why, hint: None }),
        }
    }

    /// A failure for an unknown reason: once is chance, a repeat may be caused by the size of the request.
    fn unexplained(&self, words: &str, after: Option<Duration>, asked: Asked<'_>) -> Failure {
        let error = self.failed(words, after, asked);
        doubt(&mut self.known().doubts, UNKNOWN, error, self.secrets.clean(&asked.told(words)), asked)
    }

    /// A failed call whose reason is the node, not the request.
    fn failed(&self, words: &str, after: Option<Duration>, asked: Asked<'_>) -> NodeError {
        let why = self.secrets.clean(&asked.told(words));
        let mut record = self.known();
        if record.health.failed(asked.began, Instant::now(), why.clone(), rand::random()) {
            // After its return, another node may answer there.
            record.checked = false;
            tracing::warn!(error = why, "the node failed repeatedly and rests");
        }
        drop(record);
        self.error(why, after)
    }
}
