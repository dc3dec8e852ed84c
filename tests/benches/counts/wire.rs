//! A proxy in front of PostgreSQL that counts messages, at any speed of the machine.
//!
//! Client and server take turns. The proxy holds the client's bytes until the client sends no more by itself, and the server's
//! bytes until the server waits for the client. So a round trip is a wait that the client needs, and an early answer does not
//! change the count. All clients must be on one single-threaded runtime: a client that stays idle for many turns of the scheduler
//! waits for an answer, without any clock.

use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dalp_fixtures::Cluster;
use dalp_tests::counts::Counts;
use futures_util::future::try_join;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet, yield_now};

use super::Outcome;

/// Turns of the scheduler without a byte after which a client waits: none of ours needs a tenth of them to go on.
const QUIET: u32 = 200;
/// Bytes that a buffer grows by at a time.
const MORE: usize = 64 * 1024;

/// The counted messages.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often the client waited for an answer.
    pub trips: u64,
    /// Statements that the server carried out.
    pub statements: u64,
    /// Bytes of COPY data, with their frames.
    pub copied: u64,
    /// The statements as they were sent; several may come as one text.
    pub texts: Vec<String>,
}

impl Tally {
    fn since(self, before: &Self) -> Self {
        Self {
            trips: self.trips - before.trips,
            statements: self.statements - before.statements,
            copied: self.copied - before.copied,
            texts: self.texts[before.texts.len()..].to_vec(),
        }
    }
}

/// The sent statements, by purpose.
pub type Said = Vec<(String, Vec<String>)>;

impl Tally {
    /// Puts this into `counts`, and its statements into `said`.
    pub fn put(self, what: &str, counts: &mut Counts, said: &mut Said) {
        counts.put(format!("{what}: round trips"), self.trips as f64);
        counts.put(format!("{what}: statements"), self.statements as f64);
        said.push((what.to_owned(), self.texts));
    }
}

/// A running proxy. Dropping it closes it and all connections.
pub struct Wire {
    folder: TempDir,
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    upstream: PathBuf,
    tally: Mutex<Tally>,
    /// Connections with an unanswered message of the client.
    busy: Mutex<u32>,
}

impl State {
    fn note(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn busy(&self) -> u32 {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, change: impl FnOnce(u32) -> u32) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = change(*busy);
    }
}

impl Wire {
    /// In front of `cluster`, which trusts every client of its socket.
    pub fn before(cluster: &Cluster) -> Outcome<Self> {
        let (folder, port) = (tempfile::tempdir()?, cluster.port());
        let name = format!(".s.PGSQL.{port}");
        let listener = UnixListener::bind(folder.path().join(&name))?;
        let upstream = cluster.socket_dir().join(&name);
        let state = Arc::new(State { upstream, tally: Mutex::default(), busy: Mutex::default() });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                // A connection that breaks is seen by its client, which fails.
                connections.spawn(async move { serve(client, &state).await.unwrap_or(()) });
            }
        });
        Ok(Self { folder, port, state, task })
    }

    /// The URL of a database through this proxy.
    pub fn url(&self, database: &str, user: &str) -> String {
        let host = self.folder.path().to_string_lossy().replace('/', "%2F");
        format!("postgres://{user}@{host}:{}/{database}", self.port)
    }

    /// The messages during `work`, up to its last answer.
    pub async fn count<T>(&self, work: impl Future<Output = T>) -> (T, Tally) {
        self.settle().await;
        let before = self.tally();
        let done = work.await;
        self.settle().await;
        (done, self.tally().since(&before))
    }

    fn tally(&self) -> Tally {
        self.state.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until no client waits.
    async fn settle(&self) {
        let mut quiet = 0;
        while quiet < 2 * QUIET {
            quiet = if self.state.busy() == 0 { quiet + 1 } else { 0 };
            yield_now().await;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: UnixStream, state: &State) -> Result<()> {
    let mut server = UnixStream::connect(&state.upstream).await?;
    let mut session = Session::default();
    loop {
        tokio::select! {
            ready = client.readable() => ready?,
            ready = server.readable() => {
                ready?;
                if !unasked(&server, &mut client).await? {
                    return Ok(());
                }
                continue;
            }
        }
        state.turn(|busy| busy + 1);
        let going_on = turn(&mut client, &mut server, &mut session, state).await;
        state.turn(|busy| busy - 1);
        if !going_on? {
            return Ok(());
        }
    }
}

/// A server's unasked message goes to the client at once: the reason of its end. `false` if the connection is gone.
async fn unasked(server: &UnixStream, client: &mut UnixStream) -> Result<bool> {
    let mut said = Vec::with_capacity(MORE);
    match server.try_read_buf(&mut said) {
        Ok(read) => client.write_all(&said).await.map(|()| read > 0),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// The client's turn and the server's. Returns whether the connection continues.
async fn turn(client: &mut UnixStream, server: &mut UnixStream, session: &mut Session, state: &State) -> Result<bool> {
    let sent = collect(client, session).await?;
    if sent.is_empty() {
        return Ok(!session.ended);
    }
    let asked = session.asked(&sent, state);
    // Whether a silent connection is still there is asked by the clock; and connecting is not the work.
    if asked == Asked::Work && session.awaited > 0 {
        state.note(|tally| tally.trips += 1);
    }
    let (mut input, mut output) = server.split();
    let send = async { output.write_all(&sent).await };
    let ((), answers) = try_join(send, answers(&mut input, session, state)).await?;
    client.write_all(&answers).await?;
    Ok(!session.ended)
}

/// Reads whole messages until the client sends no more by itself.
async fn collect(client: &UnixStream, session: &mut Session) -> Result<Vec<u8>> {
    let (mut sent, mut quiet) = (Vec::new(), 0);
    while quiet < QUIET || !session.is_whole(&sent) {
        sent.reserve(MORE);
        match client.try_read_buf(&mut sent) {
            Ok(0) => {
                session.ended = true;
                break;
            }
            Ok(_) => quiet = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                quiet += 1;
                yield_now().await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Reads until the server waits for the client.
async fn answers(server: &mut (impl AsyncReadExt + Unpin), session: &mut Session, state: &State) -> Result<Vec<u8>> {
    let (mut answers, mut seen) = (Vec::new(), 0);
    while session.awaited > 0 {
        answers.reserve(MORE);
        if server.read_buf(&mut answers).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, body)) = message(&answers[seen..])? {
            seen += 5 + body.len();
            session.answered(kind, state);
        }
    }
    Ok(answers)
}

/// A client's request to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Something.
    Work,
    /// To be let in, or to hear whether it is there.
    Sign,
}

/// Where a connection's two sides are.
#[derive(Debug, Default)]
struct Session {
    /// The start-up message, which has no type, was sent.
    begun: bool,
    /// Answers before which the server does not wait for the client.
    awaited: u32,
    /// The client is gone.
    ended: bool,
}

impl Session {
    fn is_whole(&self, sent: &[u8]) -> bool {
        if !self.begun {
            return sent.first_chunk().is_some_and(|length| u32::from_be_bytes(*length) as usize == sent.len());
        }
        let mut at = 0;
        while let Ok(Some((_, body))) = message(&sent[at..]) {
            at += 5 + body.len();
        }
        at == sent.len()
    }

    /// Takes note of whole messages of the client.
    fn asked(&mut self, sent: &[u8], state: &State) -> Asked {
        if !self.begun {
            (self.begun, self.awaited) = (true, 1);
            return Asked::Sign;
        }
        if *sent == [b'Q', 0, 0, 0, 5, 0] {
            self.awaited += 1;
            return Asked::Sign;
        }
        let mut at = 0;
        while let Ok(Some((kind, body))) = message(&sent[at..]) {
            at += 5 + body.len();
            match kind {
                b'Q' | b'S' => self.awaited += 1,
                b'd' => state.note(|tally| tally.copied += body.len() as u64),
                _ => {}
            }
            // A text follows the name of a statement, which is empty for an unnamed one.
            let text = match kind {
                b'Q' => body.split(|byte| *byte == 0).next(),
                b'P' => body.split(|byte| *byte == 0).nth(1),
                _ => None,
            };
            if let Some(text) = text {
                state.note(|tally| tally.texts.push(String::from_utf8_lossy(text).into_owned()));
            }
        }
        Asked::Work
    }

    /// Takes note of one message of the server.
    fn answered(&mut self, kind: u8, state: &State) {
        match kind {
            b'Z' => self.awaited = self.awaited.saturating_sub(1),
            // It takes COPY data now, and ignores the Sync behind the statement.
            b'G' => self.awaited = self.awaited.saturating_sub(1),
            b'C' => state.note(|tally| tally.statements += 1),
            _ => {}
        }
    }
}

/// The first message of `bytes`, if it is complete: its type, and the bytes after its length.
fn message(bytes: &[u8]) -> Result<Option<(u8, &[u8])>> {
    let Some(([kind, a, b, c, d], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([*a, *b, *c, *d]).checked_sub(4);
    let length = length.ok_or_else(|| Error::other("a message shorter than its own length"))?;
    Ok(rest.get(..length as usize).map(|body| (*kind, body)))
}
