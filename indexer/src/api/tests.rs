//! The server over real sockets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::status::{ChainStatus, TaskReport};
use crate::timings::Timings;

fn chain(name: &str, ready: bool) -> ChainStatus {
    ChainStatus {
        head: Some(7),
        tail: Some(5),
        lag_blocks: Some(2),
        lag_seconds: Some(2.0),
        events_per_second: 1.5,
        leaves: 3,
        ready,
        waits_for: if ready { String::new() } else { "the next head".into() },
        ..ChainStatus::new(name.into(), 1)
    }
}

struct Server {
    port: u16,
    status: watch::Sender<Vec<ChainStatus>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

fn published(chains: watch::Receiver<Vec<ChainStatus>>) -> Published {
    let (tables, tasks, commits) =
        (watch::channel(Vec::new()).1, watch::channel(Vec::new()).1, watch::channel(Vec::new()).1);
    Published { chains, tables, tasks, commits, timings: Timings::default() }
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (status, receiver) = watch::channel(Vec::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, published(receiver), async {
        stopped.await.ok();
    }));
    Server { port, status, stop, task }
}

async fn fetch(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn answers_follow_the_status() {
    let server = start().await;
    assert!(fetch(server.port, "/health").await.starts_with("HTTP/1.1 200"));
    assert!(fetch(server.port, "/ready").await.starts_with("HTTP/1.1 503"), "no chain has reported");
    server.status.send_replace(vec![chain("a", true), chain("b", false)]);
    let answer = fetch(server.port, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the next head"), "{answer}");
    server.status.send_replace(vec![chain("a", true)]);
    assert!(fetch(server.port, "/ready").await.starts_with("HTTP/1.1 200"));
    let answer = fetch(server.port, "/status").await;
    assert!(answer.contains(r#""lag_blocks":2"#) && answer.contains("no-store"), "{answer}");
    let answer = fetch(server.port, "/metrics").await;
    assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\ndalp_indexer_tail_block{chain=\"a\"} 5\n"), "{answer}");
    assert!(fetch(server.port, "/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_task_that_is_down_is_not_ready_and_one_that_fails_is_named() {
    let chains = watch::channel(vec![chain("a", true)]).1;
    for (state, code) in [(TaskState::Well, 200), (TaskState::Failing, 200), (TaskState::Down, 503)] {
        let error = (state != TaskState::Well).then(|| "no lock".to_owned());
        let tasks = watch::channel(vec![TaskReport { name: "retention", state, failures: 3, error }]).1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let published = Published { tasks, ..published(chains.clone()) };
        let server = tokio::spawn(serve(listener, published, std::future::pending()));
        let answer = fetch(port, "/ready").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{state:?}: {answer}");
        assert_eq!(answer.contains("no lock"), state != TaskState::Well, "{answer}");
        let up = fetch(port, "/metrics").await.contains("\ndalp_indexer_task_up{task=\"retention\"} 1\n");
        assert_eq!(up, state == TaskState::Well);
        server.abort();
    }
}

#[tokio::test]
async fn it_stops_although_somebody_keeps_a_connection_open() {
    let server = start().await;
    let mut held = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    held.write_all(b"GET /health HTTP/1.1\r\nhost").await.unwrap();
    assert!(fetch(server.port, "/health").await.contains("ok"));
    server.stop.send(()).unwrap();
    let mut nothing = [0; 64];
    tokio::select! {
        stopped = server.task => assert!(stopped.unwrap().is_ok()),
        _ = held.read(&mut nothing) => panic!("it waited until the connection was closed"),
    }
}

#[tokio::test]
async fn silence_and_crowds_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_status, receiver) = watch::channel(Vec::new());
    let bounded = listener::Bounded::with(listener, 1, Duration::from_millis(100));
    // The only slot is held by a connection that stops inside its header; the next connection is served after it. Both send
    // before the server listens, so that the silent one is not the second.
    let mut held = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    held.write_all(b"GET /health HTTP/1.1\r\nhost").await.unwrap();
    let mut next = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    next.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let server = tokio::spawn(axum::serve(bounded, router(published(receiver))).into_future());
    let mut answer = String::new();
    next.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("ok"), "{answer}");
    assert_eq!(held.read(&mut [0; 64]).await.unwrap_or(0), 0, "the silent connection was closed");
    server.abort();
}
