//! The HTTP server: /health, /ready, /status and /metrics. It reads the last published status, and asks neither nodes nor
//! database.

mod listener;
mod metrics;
mod published;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::status::TaskState;

pub use self::published::Published;

/// The time for open answers after the server gets the stop signal.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown` completes, and a moment longer for answers under way.
///
/// # Errors
/// The error of the listener.
pub async fn serve(
    listener: TcpListener,
    published: Published,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopping = Arc::new(Notify::new());
    let told = Arc::clone(&stopping);
    let server = axum::serve(listener::Bounded::new(listener), router(published)).with_graceful_shutdown(async move {
        shutdown.await;
        told.notify_one();
    });
    let out_of_patience = async {
        stopping.notified().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server.into_future() => result,
        () = out_of_patience => Ok(()),
    }
}

/// The routes, for a server or a test.
pub fn router(published: Published) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(chains))
        .route("/metrics", get(numbers))
        .fallback(unknown)
        .with_state(published)
}

/// Only says that the process is alive.
async fn health() -> Response {
    answer(StatusCode::OK, json!({ "status": "ok" }))
}

/// 200 only if every chain is ready, and no background task is down; the body names the reasons. A task that fails at its work (a
/// lock, a store that does not answer) does not stop readers: the body names it.
async fn ready(State(published): State<Published>) -> Response {
    let chains = published.chains.borrow().clone();
    // No chain at all has nothing to serve: an orchestrator must not send readers here.
    let tasks = published.tasks.borrow().clone();
    let works = tasks.iter().all(|task| task.state != TaskState::Down);
    let all = works && !chains.is_empty() && chains.iter().all(|chain| chain.ready);
    let reasons: Vec<Value> = chains
        .iter()
        .map(|c| json!({ "name": c.name, "chain_id": c.chain_id, "ready": c.ready, "waits_for": c.waits_for }))
        .collect();
    let code = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, json!({ "ready": all, "chains": reasons, "tasks": tasks }))
}

/// `{"chains": [...], "tasks": [...]}`, each as [`ChainStatus`] and [`TaskReport`] have it.
async fn chains(State(published): State<Published>) -> Response {
    let chains = published.chains.borrow().clone();
    answer(StatusCode::OK, json!({ "chains": chains, "tasks": *published.tasks.borrow() }))
}

/// The status in Prometheus' text format.
async fn numbers(State(published): State<Published>) -> Response {
    match metrics::render(&metrics::registry(published)) {
        Ok(text) => {
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")], text).into_response()
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": error.to_string() })),
    }
}

async fn unknown() -> Response {
    answer(StatusCode::NOT_FOUND, json!({ "error": "there is no such path; use /health, /ready, /status or /metrics" }))
}

fn answer(code: StatusCode, body: Value) -> Response {
    // A cached answer about readiness is a wrong answer.
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests;
