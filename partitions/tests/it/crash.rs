//! kill -9 of the manager before and after every statement, then another run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dalp_partitions::{
    Action, Archive, Error, Outcome, Presence, Reference, Retention, Scope, State, Switches, Terms, add_hold,
    read_inventory, retire,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, UnixStream};
use tokio_postgres::NoTls;

use super::archive::Folder;
use super::retire::filled;
use super::*;

#[path = "crash_ways.rs"]
mod ways;

/// The work of the killed process.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plot {
    /// A run in which a leaf is archived and dropped.
    Archive,
    /// Leaves are made, two are detached, one is brought back, both are dropped; holds come and go.
    There,
}

impl Plot {
    const ALL: [Self; 2] = [Self::Archive, Self::There];
}

const PLOT: &str = "DALP_TEST_CRASH_PLOT";
const PORT: &str = "DALP_TEST_CRASH_PORT";
const DATABASE: &str = "DALP_TEST_CRASH_DATABASE";
const FOLDER: &str = "DALP_TEST_CRASH_FOLDER";

/// One leaf goes all the way, one is held.
async fn run(client: &mut Client, folder: &Path) -> Result<Outcome, Error> {
    let archive = Archive::open(&format!("file://{}", folder.display()), []).unwrap();
    let retention = Retention {
        action: Action::Archive,
        time: TimeDelta::days(7),
        grace: TimeDelta::zero(),
        max_leaves: 9,
        max_share: 1.0,
    };
    let reference = Reference::Final(BTreeMap::from([(CHAIN, now())]));
    let terms = Terms {
        retention: &retention,
        switches: Switches::ALL,
        reference: &reference,
        can_archive: true,
        allow_many: false,
    };
    retire(client, &logs(), &terms, Some(&archive)).await
}

/// Alone, it is a run on its own database. Restarted by the other test, it is the killed process.
#[tokio::test]
async fn a_run_takes_one_leaf_and_leaves_the_held_one() {
    if let Ok(port) = std::env::var(PORT) {
        let (database, folder) = (std::env::var(DATABASE).unwrap(), std::env::var(FOLDER).unwrap());
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port.parse().unwrap()).dbname(database).user(server::SUPERUSER);
        let (mut client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
        match Plot::ALL
            .into_iter()
            .find(|plot| std::env::var(PLOT).is_ok_and(|name| name == format!("{plot:?}")))
            .unwrap()
        {
            Plot::Archive => run(&mut client, Path::new(&folder)).await.map(drop).unwrap(),
            Plot::There => ways::there_and_back(&mut client).await,
        }
        return;
    }
    let (database, folder) = (prepared().await, Folder::new());
    let mut client = as_role(&database, "dalp_partitioner").await;
    let outcome = run(&mut client, &folder.path_of("")).await.unwrap();
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.done.len(), 5);
    check(&database, &folder, "a run").await;
}

async fn prepared() -> Database {
    let (database, _admin, mut client) = filled().await;
    let scope = Scope { key: None, from: Some(at("2024-03-12T03:00:00Z")), to: Some(at("2024-03-12T04:00:00Z")) };
    add_hold(&mut client, &logs(), &scope, "case", "counsel").await.unwrap();
    database
}

/// Everything is as it has to be in the end.
async fn check(database: &Database, folder: &Folder, what: &str) {
    let mut admin = database.connect().await;
    let entries = read_inventory(&mut admin, &logs()).await.unwrap().entries;
    assert!(
        entries.iter().all(|entry| (entry.state, entry.presence) == (State::Attached, Presence::Attached)),
        "{what}: {entries:?}"
    );
    let held: Vec<_> = entries.iter().filter(|entry| entry.leaf == "logs_31337_20240312").collect();
    assert_eq!((held.len(), entries.len()), (1, 9), "{what}");
    let facts = "SELECT concat_ws(' ', (SELECT count(*) FROM dalp_indexed.logs), \
                   (SELECT string_agg(leaf || ' ' || state, ',') FROM dalp_indexed.leaf WHERE state <> 'ATTACHED'), \
                   (SELECT count(*) FROM dalp_audit.activity WHERE action = 'partition.drop' AND outcome = 'done'), \
                   (SELECT count(*) FROM dalp_audit.activity WHERE action = 'partition.retire' AND outcome = 'done'), \
                   (SELECT floor AT TIME ZONE 'UTC' FROM dalp_indexed.retention_floor WHERE table_name = 'logs'), \
                   (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())), \
                   (SELECT count(*) FROM pg_class WHERE relname = 'logs_31337_20240311'))";
    let expected = ["205 logs_31337_20240311 DROPPED 1 1 2024-03-12 00:00:00 0 0"];
    assert_eq!(strings(&admin, facts).await, expected, "{what}");
    let archived = folder.archive().list(None).await.unwrap().manifests;
    assert_eq!((archived.len(), folder.files("data").len()), (1, 1), "{what}: {:?}", folder.files(""));
    assert_eq!(folder.archive().verify(&archived[0]).await.unwrap().rows, 24, "{what}");
}

/// When the process is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// Before the server gets its request of this number.
    Before(usize),
    /// After the server has carried it out, before the answer arrives.
    After(usize),
    /// During the server's work: the server continues without us.
    During(usize),
}

/// Passes a connection on, request by request, until it is time. Answers whether it came to that.
async fn proxy(
    listener: TcpListener,
    socket: std::path::PathBuf,
    when: When,
    child: Arc<std::sync::Mutex<Child>>,
    struck: Arc<AtomicBool>,
) {
    let kill = || {
        struck.store(true, Ordering::SeqCst);
        child.lock().unwrap().kill().unwrap();
    };
    let (client, _) = listener.accept().await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = UnixStream::connect(socket).await.unwrap().into_split();
    // The startup message has no type.
    let length = from_client.read_u32().await.unwrap();
    let mut startup = vec![0; length as usize - 4];
    from_client.read_exact(&mut startup).await.unwrap();
    to_server.write_all(&[&length.to_be_bytes()[..], &startup].concat()).await.unwrap();
    answers(&mut from_server, Some(&mut to_client)).await;
    for number in 1.. {
        let Some(request) = request(&mut from_client).await else { return };
        if when == When::Before(number) {
            return kill();
        }
        to_server.write_all(&request).await.unwrap();
        if when == When::During(number) {
            return kill();
        }
        if when == When::After(number) {
            answers(&mut from_server, None).await;
            return kill();
        }
        answers(&mut from_server, Some(&mut to_client)).await;
    }
}

/// Messages up to one that asks for an answer: a query, or a Sync. `None` when the client is gone.
async fn request(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let kind = from.read_u8().await.ok()?;
        let length = from.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        from.read_exact(&mut body).await.ok()?;
        request.push(kind);
        request.extend(length.to_be_bytes());
        request.extend(body);
        if matches!(kind, b'Q' | b'S' | b'X') {
            return Some(request);
        }
    }
}

/// Passes answers on up to ReadyForQuery.
async fn answers(from: &mut (impl AsyncReadExt + Unpin), mut to: Option<&mut OwnedWriteHalf>) {
    loop {
        let Ok(kind) = from.read_u8().await else { return };
        let Ok(length) = from.read_u32().await else { return };
        let mut body = vec![0; length as usize - 4];
        if from.read_exact(&mut body).await.is_err() {
            return;
        }
        if let Some(to) = &mut to {
            let mut message = vec![kind];
            message.extend(length.to_be_bytes());
            message.extend(body);
            let _ = to.write_all(&message).await;
        }
        if kind == b'Z' {
            return;
        }
    }
}

/// Kills a run on a database of its own. Answers whether it came to that.
async fn kill(database: &Database, folder: &Path, plot: Plot, when: When) -> bool {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_run_takes_one_leaf_and_leaves_the_held_one"])
        .env(PLOT, format!("{plot:?}"))
        .env(PORT, port.to_string())
        .env(DATABASE, database.name())
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (child, struck) = (Arc::new(std::sync::Mutex::new(child)), Arc::new(AtomicBool::new(false)));
    let passing = tokio::spawn(proxy(listener, server::socket(), when, child.clone(), struck.clone()));
    let waited = child.clone();
    let status = tokio::task::spawn_blocking(move || {
        loop {
            if let Some(status) = waited.lock().unwrap().try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let status = status.await.unwrap();
    passing.abort();
    let struck = struck.load(Ordering::SeqCst);
    assert_eq!(status.success(), !struck, "{when:?}");
    struck
}

/// Repeats a run while the server may still do the dead process's work.
macro_rules! when_free {
    ($run:expr) => {{
        let begun = Instant::now();
        loop {
            match $run.await {
                Err(Error::Busy { .. }) if begun.elapsed() < server::PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                outcome => break outcome.unwrap(),
            }
        }
    }};
}
use when_free;

/// Kills a run, runs again, looks. Answers whether it was killed at all.
async fn strike(template: &Database, when: When) -> bool {
    let (database, folder) = (template.copy().await, Folder::new());
    let struck = kill(&database, &folder.path_of(""), Plot::Archive, when).await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let outcome = when_free!(run(&mut client, &folder.path_of("")));
    assert!(outcome.failed.is_empty(), "{when:?}: {:?}", outcome.failed);
    check(&database, &folder, &format!("{when:?}")).await;
    let again = run(&mut client, &folder.path_of("")).await.unwrap();
    assert_eq!((again.done.len(), again.failed.len()), (0, 0), "{when:?}: {again:?}");
    struck
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_killed_at_any_statement_is_taken_up_by_the_next_run() {
    let template = prepared().await;
    let mut killed = 0;
    // Every statement in a long run; else some, others each time.
    let long = std::env::var_os("DALP_TEST_LONG").is_some();
    let stride = if long { 1 } else { 8 };
    let mut number = rand::random_range(1..=stride);
    loop {
        // Four kills at a time.
        let next = number + stride;
        let batch = [When::Before(number), When::After(number), When::Before(next), When::After(next)];
        let struck = futures_util::future::join_all(batch.map(|when| strike(&template, when))).await;
        killed += struck.iter().filter(|struck| **struck).count();
        if struck.contains(&false) {
            break;
        }
        number += 2 * stride;
    }
    println!("killed {killed} times");
    assert!(killed > 100 / stride, "only {killed} statements: is the run whole?");
}
