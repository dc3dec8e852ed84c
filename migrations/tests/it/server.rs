//! A private PostgreSQL, found or installed, for the tests of the two database crates: one server per test process, one database
//! per test.

#![allow(dead_code, reason = "shared by two crates, each of which uses a part")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use dalp_fixtures::Cluster;
use dalp_fixtures::tools::{postgres, say_stderr};
use tokio_postgres::{Client, NoTls};

/// The superuser of the private server.
pub const SUPERUSER: &str = dalp_fixtures::cluster::SUPERUSER;

/// The limit of every wait, so that a hanging test ends. No machine is slow enough to reach it, and no test asserts a duration.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// Each test has its own runtime, and none of them may own the shared server: a thread without a runtime starts it.
static SERVER: LazyLock<Cluster> = LazyLock::new(|| {
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Cluster::throwaway(&postgres(say_stderr).await.unwrap()).await.unwrap() })
    };
    std::thread::spawn(start).join().unwrap()
});

/// The database of one test.
pub struct Database {
    name: String,
}

impl Database {
    /// An empty database.
    pub async fn create() -> Self {
        Self::create_owned_by(SUPERUSER).await
    }

    /// An empty database with another owner.
    pub async fn create_owned_by(owner: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect("postgres", SUPERUSER).await;
        admin.batch_execute(&format!("CREATE DATABASE \"{name}\" OWNER \"{owner}\"")).await.unwrap();
        Self { name }
    }

    /// A copy of this database; this one must have no connections.
    pub async fn copy(&self) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{}_{}", self.name, NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect("postgres", SUPERUSER).await;
        // A closed connection may stay open for a moment.
        let began = std::time::Instant::now();
        let copy = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{}\"", self.name);
        while let Err(error) = admin.batch_execute(&copy).await {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for a copy of {}: {error:?}", self.name);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Self { name }
    }

    /// A database made from a dump of this one.
    pub async fn restored(&self) -> Self {
        let other = Self::create().await;
        let bin = postgres(say_stderr).await.unwrap().bin;
        let command = |program: &str, database: &str| {
            let mut command = std::process::Command::new(bin.join(program));
            command.arg("-h").arg(SERVER.socket_dir()).args([
                "-p",
                &SERVER.port().to_string(),
                "-U",
                SUPERUSER,
                "-d",
                database,
            ]);
            command
        };
        let dump = command("pg_dump", &self.name).output().unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let file = std::env::temp_dir().join(format!("dalp-dump-{}-{}.sql", std::process::id(), other.name));
        std::fs::write(&file, dump.stdout).unwrap();
        let load =
            command("psql", &other.name).args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        other
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
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

/// The server's Unix socket.
pub fn socket() -> std::path::PathBuf {
    SERVER.socket_dir().join(format!(".s.PGSQL.{}", SERVER.port()))
}

async fn connect(database: &str, login: &str) -> Client {
    let mut config = SERVER.superuser_config();
    config.dbname(database).user(login);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
