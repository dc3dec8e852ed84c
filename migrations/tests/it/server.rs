//! A private PostgreSQL for the tests of this workspace's database crates: one server per test process, one database
//! per test. The server is stopped and its folder removed when the process ends, however it ends.

#![allow(dead_code, reason = "shared by two crates, each of which uses a part")]

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Config, NoTls};

/// The superuser of the private server.
pub const SUPERUSER: &str = "admin";

/// Words for the shell to split. Nothing here outlives the test, so nothing needs to reach the disk.
const SETTINGS: &str =
    "-clisten_addresses= -cfsync=off -cfull_page_writes=off -cmax_connections=200 -cmax_locks_per_transaction=256";

struct Server {
    folder: PathBuf,
    /// Its standard input is a pipe from us: it closes when this process ends, and the shell cleans up.
    _keeper: Child,
}

/// A database of a test's own.
pub struct Database {
    name: String,
}

impl Database {
    /// An empty one.
    pub async fn create() -> Self {
        Self::create_owned_by(SUPERUSER).await
    }

    /// An empty one with another owner.
    pub async fn create_owned_by(owner: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect("postgres", SUPERUSER).await;
        admin.batch_execute(&format!("CREATE DATABASE \"{name}\" OWNER \"{owner}\"")).await.unwrap();
        Self { name }
    }

    /// A connection of the superuser.
    pub async fn connect(&self) -> Client {
        connect(&self.name, SUPERUSER).await
    }

    /// A connection of another login.
    pub async fn connect_as(&self, login: &str) -> Client {
        connect(&self.name, login).await
    }
}

async fn connect(database: &str, login: &str) -> Client {
    let mut config = Config::new();
    config.host_path(&server().folder).dbname(database).user(login);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let bin = bin_folder();
    let folder = tempfile::Builder::new().prefix("dalp-pg-").tempdir().unwrap().keep();
    let user = unprivileged();
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    let data = folder.join("data");
    let mut initdb = command(&bin.join("initdb"), user);
    initdb.arg("-D").arg(&data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    succeed(&initdb.output().unwrap());
    let keeper = command(Path::new("/bin/sh"), user)
        .args([
            "-c",
            r#""$1" -D "$2/data" -k "$2" $3 >"$2/log" 2>&1 & cat; kill -QUIT $!; wait; rm -rf "$2""#,
            "keeper",
        ])
        .arg(bin.join("postgres"))
        .arg(&folder)
        .arg(SETTINGS)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    wait_for_socket(&folder);
    Server { folder, _keeper: keeper }
}

fn wait_for_socket(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::os::unix::net::UnixStream::connect(folder.join(".s.PGSQL.5432")).is_err() {
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "PostgreSQL did not start within 30 s:\n{}", log());
        sleep(Duration::from_millis(20));
    }
    // The socket listens a little before recovery is done; connections wait for it or are told so.
    sleep(Duration::from_millis(200));
}

/// `DALP_PG_BIN`, else the newest of Debian's folders.
fn bin_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("DALP_PG_BIN") {
        return folder.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .expect("no PostgreSQL here: apt-get install postgresql, or set DALP_PG_BIN");
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    PathBuf::from(format!("/usr/lib/postgresql/{}/bin", newest.expect("no version in /usr/lib/postgresql")))
}

/// initdb refuses root: as root, the user `postgres` runs the server.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().expect("as root, a user `postgres` is needed")
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
