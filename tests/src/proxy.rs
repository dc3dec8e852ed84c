//! A proxy in front of PostgreSQL or PgBouncer that counts messages and strikes at a chosen moment.
//!
//! It knows only the part of the protocol (message type, length) that distinguishes COPY data, statements and COMMIT.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The moment of the strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In the middle of the n-th COPY: after its first data message.
    MidCopy(u64),
    /// The n-th COMMIT was sent on to the server; the proxy drops its answer.
    CommitUnanswered(u64),
    /// The n-th COMMIT was answered.
    BetweenBatches(u64),
    /// The n-th COMMIT of a transaction with a COPY was received and not sent on: its locks are held.
    BeforeCommit(u64),
    /// The proxy sent on this many messages of clients, at least one, after this amount of work. The progress counts, never the
    /// time.
    After(Work, u64),
    /// Never.
    Never,
}

/// The work of clients, as far as the proxy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// This number of answered COMMITs of transactions that moved a chain's epoch: all that write its rows or its tail.
    Writes(u64),
    /// This number of sent statements with this text.
    Statements(u64, &'static str),
}

/// The action at the moment.
pub type Strike = Arc<dyn Fn() + Send + Sync>;

/// The fate of the connection of the strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is closed on both sides.
    Close,
    /// It stays open, and nothing more is sent on, as for a paused client. The server may close it.
    Hold,
    /// It waits there, until [`Proxy::go_on`].
    Wait,
}

/// The server's address.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl Upstream {
    /// The address that a client of this URL connects to.
    ///
    /// # Panics
    /// If the URL does not name one host and its port.
    pub fn of(url: &str) -> Self {
        use tokio_postgres::config::Host;
        let config: tokio_postgres::Config = url.parse().expect("a URL");
        let &[port] = config.get_ports() else { panic!("one port: {url}") };
        match config.get_hosts() {
            [Host::Unix(folder)] => Self::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            [Host::Tcp(address)] => Self::Tcp(SocketAddr::new(address.parse().expect("an address"), port)),
            hosts => panic!("one host: {hosts:?}"),
        }
    }
}

/// A running proxy. Dropping it closes its port and all connections.
pub struct Proxy {
    /// Its port on 127.0.0.1.
    pub port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    plan: Mutex<(Moment, Then, Strike)>,
    struck: AtomicBool,
    copies: AtomicU64,
    commits: AtomicU64,
    /// COMMITs of transactions with a COPY.
    copied: AtomicU64,
    /// Answered COMMITs of transactions that moved an epoch.
    writes: AtomicU64,
    /// Statements with the text of the moment.
    statements: AtomicU64,
    /// Messages since the moment's work was done.
    messages: AtomicU64,
    /// The number of released waits.
    gone_on: watch::Sender<u64>,
    /// The server's later messages on held connections.
    last_words: Mutex<Vec<u8>>,
    upstream: Upstream,
}

impl State {
    fn plan(&self) -> (Moment, Then, Strike) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn moment(&self) -> Moment {
        self.plan().0
    }

    /// Counts a sent message, and returns whether the strike follows it.
    fn is_last(&self, kind: u8, body: &[u8]) -> bool {
        let Moment::After(work, messages) = self.moment() else { return false };
        let is_done = match work {
            Work::Writes(times) => self.writes.load(Ordering::SeqCst) >= times,
            Work::Statements(times, text) => {
                let says = is_statement(kind, body, text);
                let before = self.statements.fetch_add(u64::from(says), Ordering::SeqCst);
                before >= times
            }
        };
        is_done && self.messages.fetch_add(1, Ordering::SeqCst) + 1 == messages
    }
}

/// Whether a message parses a statement with this text.
fn is_statement(kind: u8, body: &[u8], text: &str) -> bool {
    kind == b'P' && body.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The common text of transactions that write a chain.
const WRITES: &str = "epoch = epoch + 1";

/// The shared state of the two directions of a connection.
#[derive(Default)]
struct Link {
    /// A COMMIT was sent and is not answered yet.
    commit_sent: AtomicBool,
    /// It ends a transaction that moved an epoch.
    writes: AtomicBool,
    /// The client's further messages are not sent on.
    held: AtomicBool,
}

impl Proxy {
    /// In front of the server at the Unix socket `socket`. At `moment`, once, it calls `strike` and closes the connection.
    pub async fn start(socket: PathBuf, moment: Moment, strike: Strike) -> Self {
        Self::before(Upstream::Unix(socket), moment, strike).await
    }

    /// As [`Proxy::start`], in front of any server.
    pub async fn before(upstream: Upstream, moment: Moment, strike: Strike) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let state = Arc::new(State {
            plan: Mutex::new((moment, Then::Close, strike)),
            struck: AtomicBool::new(false),
            copies: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            statements: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            gone_on: watch::Sender::new(0),
            last_words: Mutex::default(),
            upstream,
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, shared.clone()));
            }
        });
        Self { port, state, task }
    }

    /// Sets another moment, counted from now, and its action.
    pub fn strike_at(&self, moment: Moment, then: Then, strike: Strike) {
        let State { copies, commits, copied, writes, statements, messages, .. } = &*self.state;
        for count in [copies, commits, copied, writes, statements, messages] {
            count.store(0, Ordering::SeqCst);
        }
        self.state.struck.store(false, Ordering::SeqCst);
        *self.state.plan.lock().unwrap_or_else(PoisonError::into_inner) = (moment, then, strike);
    }

    /// Whether the moment came.
    pub fn struck(&self) -> bool {
        self.state.struck.load(Ordering::SeqCst)
    }

    /// Releases the connection that waits at the moment.
    pub fn go_on(&self) {
        self.state.gone_on.send_modify(|times| *times += 1);
    }

    /// Whether the server ended a held connection with this SQLSTATE, and not by a time limit.
    pub fn was_ended_with(&self, code: &str) -> bool {
        let said = self.state.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        said.windows(code.len() + 2).any(|bytes| bytes == format!("C{code}\0").as_bytes())
    }

    /// COMMITs of transactions that moved a chain's epoch, answered so far.
    pub fn writes(&self) -> u64 {
        self.state.writes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, state: Arc<State>) {
    match &state.upstream {
        Upstream::Unix(socket) => {
            let Ok(server) = UnixStream::connect(socket).await else { return };
            let (input, output) = server.into_split();
            relay(client, input, output, &state).await;
        }
        Upstream::Tcp(address) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            let (input, output) = server.into_split();
            relay(client, input, output, &state).await;
        }
    }
}

async fn relay(
    client: TcpStream,
    mut server_in: impl AsyncReadExt + Unpin,
    mut server_out: impl AsyncWriteExt + Unpin,
    state: &State,
) {
    let (client_in, client_out) = client.into_split();
    // The direction that sees the answer to a COMMIT holds it back or reports it.
    let link = Link::default();
    let up = upstream(client_in, &mut server_out, state, &link);
    let down = downstream(&mut server_in, client_out, state, &link);
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

/// Messages from the client, one at a time.
async fn upstream(
    mut client: OwnedReadHalf,
    server: &mut (impl AsyncWriteExt + Unpin),
    state: &State,
    link: &Link,
) -> std::io::Result<()> {
    // The start-up message has no type byte.
    let length = client.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    client.read_exact(&mut body).await?;
    server.write_u32(length).await?;
    server.write_all(&body).await?;
    let (mut in_copy, mut copied, mut writes) = (false, false, false);
    loop {
        let (kind, length) = (client.read_u8().await?, client.read_u32().await?);
        body.resize(length as usize - 4, 0);
        client.read_exact(&mut body).await?;
        let copy_data = kind == b'd';
        let first_of_copy = copy_data && !in_copy;
        in_copy = copy_data || (in_copy && kind != b'c' && kind != b'f');
        copied |= copy_data;
        writes |= is_statement(kind, &body, WRITES);
        if kind == b'Q' && body.starts_with(b"COMMIT") {
            let ends_copy = std::mem::take(&mut copied);
            if ends_copy
                && state.moment() == Moment::BeforeCommit(state.copied.fetch_add(1, Ordering::SeqCst) + 1)
                && !strike(state, link).await
            {
                return Ok(());
            }
            link.writes.store(std::mem::take(&mut writes), Ordering::SeqCst);
            link.commit_sent.store(true, Ordering::SeqCst);
        }
        server.write_u8(kind).await?;
        server.write_u32(length).await?;
        server.write_all(&body).await?;
        let mid_copy =
            first_of_copy && state.moment() == Moment::MidCopy(state.copies.fetch_add(1, Ordering::SeqCst) + 1);
        if mid_copy || state.is_last(kind, &body) {
            server.flush().await?;
            if !strike(state, link).await {
                return Ok(());
            }
        }
    }
}

/// Bytes from the server; their content matters only around a COMMIT.
async fn downstream(
    server: &mut (impl AsyncReadExt + Unpin),
    mut client: OwnedWriteHalf,
    state: &State,
    link: &Link,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = server.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if link.held.load(Ordering::SeqCst) {
            state.last_words.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]);
        }
        let sent = link.commit_sent.load(Ordering::SeqCst);
        let answered = sent && buffer[..read].windows(7).any(|bytes| bytes == b"COMMIT\0");
        let commits = if answered { state.commits.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
        if answered {
            link.commit_sent.store(false, Ordering::SeqCst);
            state.writes.fetch_add(link.writes.load(Ordering::SeqCst).into(), Ordering::SeqCst);
        }
        if answered && state.moment() == Moment::CommitUnanswered(commits) && !strike(state, link).await {
            return Ok(());
        }
        client.write_all(&buffer[..read]).await?;
        if answered && state.moment() == Moment::BetweenBatches(commits) && !strike(state, link).await {
            return Ok(());
        }
    }
}

/// Returns whether the connection continues.
async fn strike(state: &State, link: &Link) -> bool {
    let (_, then, strike) = state.plan();
    link.held.store(then == Then::Hold, Ordering::SeqCst);
    // Before the report: the test may release the connection faster than the next lines run.
    let mut gone_on = state.gone_on.subscribe();
    if !state.struck.swap(true, Ordering::SeqCst) {
        strike();
    }
    match then {
        Then::Close => false,
        // The other direction continues, and ends both when the server closes the connection.
        Then::Hold => std::future::pending().await,
        Then::Wait => gone_on.changed().await.is_ok(),
    }
}
