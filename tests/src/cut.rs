//! A proxy in front of a node. It cuts answers in the middle until a test stops it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A running proxy. Dropping it closes its port and all connections.
pub struct Cut {
    /// Its port on 127.0.0.1.
    pub port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    node: SocketAddr,
    rng: Mutex<StdRng>,
    /// Most bytes of answers before it cuts a connection; 0 cuts nothing.
    most: AtomicU64,
    cuts: AtomicU64,
}

impl Cut {
    /// In front of the node on 127.0.0.1:`port`. It cuts nothing yet; `rng` will choose the position.
    pub async fn start(port: u16, rng: StdRng) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let state = Arc::new(State {
            node: ([127, 0, 0, 1], port).into(),
            rng: Mutex::new(rng),
            most: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let (port, shared) = (listener.local_addr().expect("it listens").port(), state.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                connections.spawn(async move { serve(client, &state).await });
            }
        });
        Self { port, state, task }
    }

    /// From now on, each connection is cut after at most `most` bytes of answers; 0 stops this.
    pub fn cut_after(&self, most: u64) {
        self.state.most.store(most, Ordering::SeqCst);
    }

    /// The number of cut answers.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, state: &State) -> std::io::Result<()> {
    let mut node = TcpStream::connect(state.node).await?;
    let (mut client_in, mut client_out) = client.split();
    let (mut node_in, mut node_out) = node.split();
    tokio::select! {
        end = copy(&mut client_in, &mut node_out) => end.map(drop),
        end = answers(&mut node_in, &mut client_out, state) => end,
    }
}

/// Ends the connection by returning, before it passes the current bytes on.
async fn answers(
    node: &mut (impl AsyncReadExt + Unpin),
    client: &mut (impl AsyncWriteExt + Unpin),
    state: &State,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = None;
    loop {
        let read = node.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let most = state.most.load(Ordering::SeqCst);
        if most == 0 {
            client.write_all(&buffer[..read]).await?;
            continue;
        }
        let allowed: &mut usize = left.get_or_insert_with(|| {
            let mut rng = state.rng.lock().unwrap_or_else(PoisonError::into_inner);
            rng.random_range(1..=most) as usize
        });
        client.write_all(&buffer[..read.min(*allowed)]).await?;
        if read > *allowed {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            return client.flush().await;
        }
        *allowed -= read;
    }
}
