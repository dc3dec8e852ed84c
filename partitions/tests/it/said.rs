//! The statements of a session, and the time that each may wait for a lock: the requested budgets, on any machine.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::NoTls;

use super::server::SUPERUSER;
use super::*;

/// A statement, and its `lock_timeout`; zero is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub text: String,
    pub lock_timeout: Duration,
}

#[derive(Debug, Default)]
struct Heard {
    /// Values of `SET`.
    session: Duration,
    /// Values of `SET LOCAL`, until the transaction ends.
    local: Option<Duration>,
    statements: Vec<Statement>,
}

/// All that a session has said so far.
#[derive(Debug, Clone, Default)]
pub struct Said(Arc<Mutex<Heard>>);

/// As `as_role`, in an observed session.
pub async fn heard(database: &Database, role: &str) -> (Client, Said) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = Said::default();
    let writer = said.clone();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        // A connection ends when either side goes.
        let _ = pass(client, &writer).await;
    });
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).dbname(database.name()).user(SUPERUSER);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
    (client, said)
}

async fn pass(client: TcpStream, said: &Said) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = UnixStream::connect(server::socket()).await?.into_split();
    let down = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    // The startup message has no type.
    let length = from_client.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    from_client.read_exact(&mut body).await?;
    to_server.write_all(&[&length.to_be_bytes()[..], &body].concat()).await?;
    while let (Ok(kind), Ok(length)) = (from_client.read_u8().await, from_client.read_u32().await) {
        body.resize(length as usize - 4, 0);
        from_client.read_exact(&mut body).await?;
        let mut texts = body.split(|byte| *byte == 0);
        match kind {
            b'Q' => said.hear(&String::from_utf8_lossy(texts.next().unwrap_or_default())),
            // After the name.
            b'P' => said.hear(&String::from_utf8_lossy(texts.nth(1).unwrap_or_default())),
            _ => {}
        }
        to_server.write_all(&[&[kind][..], &length.to_be_bytes(), &body].concat()).await?;
    }
    drop(to_server);
    down.await?.map(drop)
}

/// A time as PostgreSQL reads it.
fn time(text: &str) -> Duration {
    let text = text.trim_matches([' ', '\'']);
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().unwrap();
    Duration::from_millis(
        number * [("", 1), ("ms", 1), ("s", 1_000), ("min", 60_000)].iter().find(|(name, _)| *name == unit).unwrap().1,
    )
}

impl Said {
    fn hear(&self, text: &str) {
        let mut heard = self.0.lock().unwrap();
        for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            if let Some(value) = statement.strip_prefix("SET LOCAL lock_timeout =") {
                heard.local = Some(time(value));
            } else if let Some(value) = statement.strip_prefix("SET lock_timeout =") {
                heard.session = time(value);
            } else if statement == "RESET lock_timeout" {
                heard.session = Duration::ZERO;
            } else if ["BEGIN", "START", "COMMIT", "ROLLBACK"].iter().any(|word| statement.starts_with(word)) {
                heard.local = None;
            }
            let lock_timeout = heard.local.unwrap_or(heard.session);
            heard.statements.push(Statement { text: statement.to_owned(), lock_timeout });
        }
    }

    /// How much was said so far.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().statements.len()
    }

    /// The statements after the first `count` that have all of `words`.
    pub fn since(&self, count: usize, words: &[&str]) -> Vec<Statement> {
        let heard = self.0.lock().unwrap();
        let statements = heard.statements.iter().skip(count);
        statements.filter(|statement| words.iter().all(|word| statement.text.contains(word))).cloned().collect()
    }

    /// Each statement so far that locks a table was said within its budget.
    pub fn kept_to_budgets(&self, what: &str) {
        let all = self.since(0, &[]);
        let locking: Vec<_> = all.iter().filter_map(|said| Some((budget(&said.text)?, said))).collect();
        assert!(!locking.is_empty(), "{what}: nothing locks anything among {all:?}");
        for (budget, said) in locking {
            assert_eq!(said.lock_timeout, budget, "{what}: {}", said.text);
        }
    }
}

/// The time that a statement may wait for table locks, or for older transactions if no session waits behind it.
fn budget(statement: &str) -> Option<Duration> {
    const LOCKING: [&str; 9] = [
        "LOCK TABLE ",
        "ALTER TABLE ",
        "CREATE TABLE ",
        "DROP TABLE ",
        "CREATE INDEX ",
        "DROP INDEX ",
        "CREATE OR REPLACE TRIGGER ",
        "DROP TRIGGER ",
        "ANALYZE ",
    ];
    if !LOCKING.iter().any(|word| statement.starts_with(word)) {
        return None;
    }
    let says = |word: &str| statement.contains(word);
    Some(match () {
        () if says("INDEX CONCURRENTLY") => Duration::from_secs(600),
        () if says("CONCURRENTLY") => Duration::from_secs(30),
        () if says("FINALIZE") => Duration::from_millis(800),
        () => Duration::from_millis(200),
    })
}
