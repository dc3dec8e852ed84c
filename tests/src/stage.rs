//! The cluster that all tests of a process share, and one database per test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dalp_fixtures::tools::{self, say_stderr};
use dalp_fixtures::{Anvil, AnvilOptions, Cluster, PgBouncer, Rpc, Settings};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Owns the databases and may make roles, but is not a superuser: migrations and partitions.
pub const ADMIN: &str = "it_admin";
/// A member of the writer group only.
pub const WRITER: &str = "it_writer";
/// A member of the reader group only.
pub const READER: &str = "it_reader";

/// A migrated and unused database.
const TEMPLATE: &str = "it_template";

/// The shared servers.
#[derive(Debug)]
pub struct Stage {
    /// PostgreSQL, which trusts every client of its socket.
    pub cluster: Cluster,
    /// PgBouncer in transaction mode, if the run asks for it (`DALP_TEST_PGBOUNCER`).
    pooler: Option<PgBouncer>,
}

static STAGE: OnceCell<Stage> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The stage; the first user makes it.
pub async fn stage() -> &'static Stage {
    STAGE.get_or_init(Stage::set_up).await
}

impl Stage {
    async fn set_up() -> Self {
        let tools = tools::postgres(say_stderr).await.expect("PostgreSQL is found or installed");
        let mut cluster = Cluster::throwaway(&tools).await.expect("PostgreSQL starts");
        prepare(&mut cluster).await;
        let pooler = match std::env::var_os("DALP_TEST_PGBOUNCER") {
            Some(_) => Some(pooler(&cluster).await),
            None => None,
        };
        Self { cluster, pooler }
    }

    /// A migrated database for one test.
    pub async fn database(&'static self) -> Database {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("it_{}_{number}", std::process::id());
        let super_ = connect(&self.cluster, "postgres", "postgres").await;
        // Only one session at a time can copy a template, and only after its last user has left.
        let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {ADMIN}");
        until_shown("a database from the template", || async {
            super_.batch_execute(&create).await.map_err(|error| format!("{error:?}"))
        })
        .await;
        Database { stage: self, name }
    }

    /// An empty database for one test.
    pub async fn empty_database(&'static self) -> Database {
        let name = format!("it_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let super_ = connect(&self.cluster, "postgres", "postgres").await;
        super_.batch_execute(&format!("CREATE DATABASE {name} OWNER {ADMIN}")).await.expect("the database is made");
        Database { stage: self, name }
    }
}

/// Makes the suite's logins and the template.
async fn prepare(cluster: &mut Cluster) {
    let super_ = connect(cluster, "postgres", "postgres").await;
    for (login, rights) in [(ADMIN, "CREATEROLE"), (WRITER, ""), (READER, "")] {
        let password = cluster.password(login).expect("passwords are kept");
        let password = password.map(|password| format!("PASSWORD '{password}'")).unwrap_or_default();
        super_.batch_execute(&format!("CREATE ROLE {login} LOGIN {rights} {password}")).await.expect("logins are made");
    }
    super_.batch_execute(&format!("CREATE DATABASE {TEMPLATE} OWNER {ADMIN}")).await.expect("the template is made");
    let mut admin = connect(cluster, TEMPLATE, ADMIN).await;
    dalp_migrations::migrate(&mut admin, &dalp_migrations::Roles::default()).await.expect("the template is migrated");
    drop(admin);
    super_
        .batch_execute(&format!("GRANT dalp_writer TO {WRITER}; GRANT dalp_reader TO {READER}"))
        .await
        .expect("logins join their groups");
}

/// A private server, to be killed: its folder outlives it.
#[derive(Debug)]
pub struct OwnServer {
    /// None while it is down.
    cluster: Option<Cluster>,
    settings: Settings,
    folder: tempfile::TempDir,
}

impl OwnServer {
    /// Starts it, with a migrated database and the suite's logins.
    pub async fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // As root, PostgreSQL is another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("the folder is opened");
        let mut server = Self { cluster: None, settings, folder };
        server.up().await;
        prepare(server.cluster.as_mut().expect("the server is up")).await;
        server
    }

    async fn up(&mut self) {
        let tools = tools::postgres(say_stderr).await.expect("PostgreSQL is found or installed");
        let folder = self.folder.path().join("cluster");
        let cluster = Cluster::start(&tools, &folder, self.settings.clone()).await.expect("PostgreSQL starts");
        self.settings.port = Some(cluster.port());
        self.cluster = Some(cluster);
    }

    /// Shuts it down immediately, as `pg_ctl stop -m immediate` does, and starts it again at the same address.
    pub async fn stop_at_once_and_restart(&mut self) {
        self.stop_at_once();
        self.restart().await;
    }

    /// Shuts it down immediately.
    pub fn stop_at_once(&mut self) {
        drop(self.cluster.take());
    }

    /// Starts it again at the same address.
    pub async fn restart(&mut self) {
        self.up().await;
    }

    /// A pooler in front of it, and the URLs of its database through the pooler for these users.
    pub async fn pooler<const N: usize>(&self, users: [&str; N]) -> (PgBouncer, [String; N]) {
        let pooler = pooler(self.cluster()).await;
        let urls = users.map(|user| pooler.url(TEMPLATE, user));
        (pooler, urls)
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("the server is up")
    }

    /// The URL of its database.
    pub fn url(&self, user: &str) -> String {
        self.cluster().url(TEMPLATE, user)
    }

    /// A connection with all rights; none while the server recovers.
    pub async fn superuser(&self) -> Option<Client> {
        let mut config = self.cluster().superuser_config();
        config.dbname(TEMPLATE);
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }
}

/// A pooler in front of the cluster for the suite's users.
///
/// # Panics
/// Without PgBouncer: a test that needs a missing tool fails, and is not skipped.
pub async fn pooler(cluster: &Cluster) -> PgBouncer {
    PgBouncer::start(cluster, &[ADMIN, WRITER, READER]).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(cluster: &Cluster, database: &str, user: &str) -> Client {
    let config: tokio_postgres::Config = cluster.url(database, user).parse().expect("a URL");
    let (client, connection) = config.connect(NoTls).await.expect("the cluster answers");
    tokio::spawn(connection);
    client
}

/// One test's database.
#[derive(Debug)]
pub struct Database {
    stage: &'static Stage,
    /// Its name.
    pub name: String,
}

impl Database {
    /// A direct connection.
    pub async fn client(&self, user: &str) -> Client {
        connect(&self.stage.cluster, &self.name, user).await
    }

    /// A direct connection with all rights, to read and to break things.
    pub async fn superuser(&self) -> Client {
        self.client("postgres").await
    }

    /// A direct URL.
    pub fn direct_url(&self, user: &str) -> String {
        self.stage.cluster.url(&self.name, user)
    }

    /// The indexer's writing URL: PgBouncer's if this run has one.
    pub fn url(&self, user: &str) -> String {
        match &self.stage.pooler {
            Some(pooler) => pooler.url(&self.name, user),
            None => self.direct_url(user),
        }
    }
}

/// An Anvil for one test that mines a block per transaction.
pub async fn anvil() -> Anvil {
    anvil_with(AnvilOptions::default()).await
}

/// An Anvil for one test.
pub async fn anvil_with(options: AnvilOptions) -> Anvil {
    let program = tools::anvil(say_stderr).await.expect("Anvil is found or installed");
    Anvil::start(&program, options).await.expect("Anvil starts")
}

/// The limit of every wait, so that a hanging test ends. No machine is slow enough to reach it, and no test asserts a duration.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `look` is true: a level, not an edge.
///
/// # Panics
/// With `what` after [`PATIENCE`].
pub async fn until<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    until_shown(what, || {
        let look = look();
        async move { if look.await { Ok(()) } else { Err("not yet".to_owned()) } }
    })
    .await;
}

/// As [`until`], for a check that returns its observation instead.
///
/// # Panics
/// With `what` and the last observation, after [`PATIENCE`].
pub async fn until_shown<F: Future<Output = Result<(), String>>>(what: &str, mut look: impl FnMut() -> F) {
    let began = std::time::Instant::now();
    while let Err(instead) = look().await {
        assert!(began.elapsed() < PATIENCE, "waited {} s for {what}; instead: {instead}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a task ends by itself.
///
/// # Panics
/// With `what` after [`PATIENCE`].
pub async fn end_of<T>(what: &str, end: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, end).await;
    ended.unwrap_or_else(|_| panic!("waited {} s for {what}", PATIENCE.as_secs()))
}

/// The node's newest block.
pub async fn head(rpc: &Rpc) -> u64 {
    rpc.block_number().await.expect("Anvil answers")
}
