//! HTTP POST to one node: a body is read up to a limit, redirects are not followed, and no error shows the URL, which may hold a
//! key.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use tokio::time::{Instant, timeout_at};

use super::budget::{Budget, Hold};
use super::refusal::retry_after;
use super::rpc::one_line;
use crate::config::{Secret, endpoint};

/// Why there is no body to parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// The body exceeds our own limit of this number of bytes.
    TooLarge(u64),
    /// A status other than success, with the beginning of its body and the value of `Retry-After`.
    Status {
        /// The status.
        status: u16,
        /// Its body, which may hold a JSON-RPC error.
        body: Vec<u8>,
        /// The time to wait.
        after: Option<Duration>,
    },
    /// It redirects: scheme, host and port of the target.
    Redirect(String),
    /// It took longer than `request_timeout`.
    Timeout,
    /// The connection ended inside the answer.
    Cut(String),
    /// There was no connection, or no request.
    Unreachable(String),
}

/// HTTP POST with keep-alive and a limit on read bytes.
#[derive(Clone, Debug)]
pub struct CappedHttp {
    client: reqwest::Client,
    url: reqwest::Url,
    timeout: Duration,
    max_bytes: u64,
    budget: Budget,
}

/// Uncounted bytes of a body: heads and headers must get through while other requests wait for room.
const UNCOUNTED: u64 = 256 * 1024;

impl CappedHttp {
    /// Posts to `url`, each request and connection within `timeout`; a body longer than `max_bytes` is an error. Read bytes count
    /// against `budget`, and the wait for memory does not count as the node's time.
    ///
    /// # Errors
    /// Why there is no client.
    pub fn new(url: &str, timeout: Duration, max_bytes: u64, budget: Budget) -> Result<Self, String> {
        // Installs a TLS provider unless the process has one: the client accepts no other.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(timeout)
            .tcp_nodelay(true)
            // The configuration decides where the calls go, not the answering host.
            .redirect(Policy::none())
            .build()
            .map_err(|error| error.without_url().to_string())?;
        let url = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
        Ok(Self { client, url, timeout, max_bytes, budget })
    }

    /// The body of a successful answer. `turn` is the right to ask; it is released while the answer waits for memory, because the
    /// holder of the memory may need a turn to continue.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post<T: Send>(&self, body: Vec<u8>, turn: T) -> Result<Vec<u8>, HttpError> {
        let post = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let deadline = Instant::now() + self.timeout;
        let answer = timeout_at(deadline, post.send()).await.map_err(|_late| HttpError::Timeout)?.map_err(failed)?;
        let status = answer.status();
        if status.is_redirection() {
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            let to = self.url.join(to).map_or_else(|_| "nowhere".into(), |to| endpoint(to.as_str()));
            return Err(HttpError::Redirect(to));
        }
        let header = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        let after = header.and_then(|after| retry_after(after, Utc::now()));
        let body = read(answer, self.max_bytes, Room { hold: self.budget.held(), turn: Some(turn) }, deadline).await?;
        match status.is_success() {
            true => Ok(body),
            false => Err(HttpError::Status { status: status.as_u16(), body, after }),
        }
    }
}

/// Parts of a URL that no message may repeat: providers often show a key when they refuse it.
#[derive(Clone)]
pub struct UrlSecrets(Vec<String>);

impl UrlSecrets {
    /// The parts of `url` that may be keys, longest first: a part that contains another one is replaced as a whole.
    pub fn of(url: &Secret) -> Self {
        let Ok(parsed) = reqwest::Url::parse(url.expose()) else { return Self(vec![url.expose().to_owned()]) };
        let words = |text: &str| text.split(['/', '&', '=', '?']).map(str::to_owned).collect::<Vec<_>>();
        let mut secrets = words(parsed.path());
        secrets.extend(words(parsed.query().unwrap_or_default()));
        secrets.extend([parsed.username().to_owned(), parsed.password().unwrap_or_default().to_owned()]);
        // Shorter words ("v2", "rpc", "mainnet") are names, and their removal would spoil the message.
        secrets.retain(|secret| secret.len() >= 8);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// `text` on one line, without these parts.
    pub fn clean(&self, text: &str) -> String {
        let cleaned = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"));
        one_line(&cleaned)
    }
}

impl std::fmt::Debug for UrlSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UrlSecrets")
    }
}

/// Memory for an answer, and the turn, which is never held during a wait for memory.
struct Room<T> {
    hold: Arc<Hold>,
    turn: Option<T>,
}

impl<T> Room<T> {
    async fn take(&mut self, bytes: u64) -> Duration {
        if self.hold.try_take(bytes) {
            return Duration::ZERO;
        }
        self.turn = None;
        self.hold.take(bytes).await
    }
}

async fn read<T: Send>(
    answer: reqwest::Response,
    max_bytes: u64,
    mut room: Room<T>,
    mut deadline: Instant,
) -> Result<Vec<u8>, HttpError> {
    let announced = answer.content_length().unwrap_or(0);
    if announced > max_bytes {
        return Err(HttpError::TooLarge(max_bytes));
    }
    // Waits for the memory of an announced body as a whole: half of it would be useless.
    let mut counted = UNCOUNTED.max(announced);
    deadline += room.take(counted - UNCOUNTED).await;
    let mut body = Vec::with_capacity(announced as usize);
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = timeout_at(deadline, stream.next()).await.map_err(|_late| HttpError::Timeout)? {
        let chunk = chunk.map_err(|error| match failed(error) {
            HttpError::Unreachable(why) => {
                HttpError::Cut(format!("the answer was cut after {} bytes: {why}", body.len()))
            }
            other => other,
        })?;
        if (body.len() + chunk.len()) as u64 > max_bytes {
            return Err(HttpError::TooLarge(max_bytes));
        }
        let more = ((body.len() + chunk.len()) as u64).saturating_sub(counted);
        deadline += room.take(more).await;
        counted += more;
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn failed(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    match (error.is_connect(), error.is_timeout()) {
        // A slow answer and an unreachable host need different remedies.
        (false, true) => HttpError::Timeout,
        (false, false) if error.is_request() => HttpError::Cut(causes(&error)),
        _ => HttpError::Unreachable(causes(&error)),
    }
}

/// An error with its causes: "connection refused" is in the last one.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_out_of_what_a_node_says() {
        let secrets = |url: &str| UrlSecrets::of(&Secret::new(url));
        let node = secrets("https://user:hunter2hunter2@h.example/v2/abcdef0123456789/rpc?apikey=0123456789");
        let text = node.clean("no project abcdef0123456789\n with key 0123456789 (hunter2hunter2) in /v2/rpc");
        assert_eq!(text, "no project … with key … (…) in /v2/rpc");
        assert_eq!(secrets("http://127.0.0.1:8545").clean("connection refused"), "connection refused");
        assert_eq!(format!("{node:?}"), "UrlSecrets");
    }
}
