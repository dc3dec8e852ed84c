//! The HTTP transport under alloy's client: it reads a body up to a limit, where the stock one buffers without any.

use std::task::{Context, Poll};

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use futures_util::StreamExt;
use tower::Service;

/// A response body that passed the limit. Ask for less.
#[derive(Debug, thiserror::Error)]
#[error("the answer passes max_response_bytes = {limit}")]
pub struct BodyTooLarge {
    /// Bytes allowed.
    pub limit: u64,
}

/// HTTP POST with keep-alive and a cap on what is read.
#[derive(Clone, Debug)]
pub struct CappedHttp {
    client: reqwest::Client,
    url: reqwest::Url,
    max_bytes: u64,
}

impl CappedHttp {
    /// Posts to `url`; `client` brings the timeouts; bodies longer than `max_bytes` are an error.
    pub fn new(client: reqwest::Client, url: reqwest::Url, max_bytes: u64) -> Self {
        Self { client, url, max_bytes }
    }

    async fn post(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let body = serde_json::to_vec(&request).map_err(TransportError::ser_err)?;
        let post = self.client.post(self.url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        // The URL may hold a key: it is taken out of every error.
        let answer = post.send().await.map_err(|e| TransportErrorKind::custom(e.without_url()))?;
        let status = answer.status();
        let body = read(answer, self.max_bytes).await?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            return Err(TransportErrorKind::http_error(status.as_u16(), text));
        }
        serde_json::from_slice(&body)
            .map_err(|e| TransportErrorKind::custom_str(&format!("not a JSON-RPC answer: {e}")))
    }
}

async fn read(answer: reqwest::Response, max_bytes: u64) -> Result<Vec<u8>, TransportError> {
    let announced = answer.content_length().unwrap_or(0);
    if announced > max_bytes {
        return Err(TransportErrorKind::custom(BodyTooLarge { limit: max_bytes }));
    }
    let mut body = Vec::with_capacity(announced as usize);
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| TransportErrorKind::custom(e.without_url()))?;
        if (body.len() + chunk.len()) as u64 > max_bytes {
            return Err(TransportErrorKind::custom(BodyTooLarge { limit: max_bytes }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Service<RequestPacket> for CappedHttp {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().post(request))
    }
}
