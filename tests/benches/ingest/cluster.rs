//! A durable PostgreSQL with the suite's logins and a migrated template.

use dalp_fixtures::Cluster;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, READER, WRITER};
use tokio_postgres::{Client, NoTls};

use super::Outcome;

/// A database that was migrated and never used.
pub const TEMPLATE: &str = "bench_template";
/// The chain's id: Anvil's default.
pub const CHAIN: u64 = 31_337;
/// The login that may do anything.
pub const SUPERUSER: &str = "postgres";

/// The suite's logins, with passwords since this cluster listens on TCP, and the template.
pub async fn prepare(cluster: &mut Cluster) -> Outcome<()> {
    let superuser = connect(cluster, SUPERUSER, SUPERUSER).await?;
    for (login, rights) in [(ADMIN, "LOGIN CREATEROLE"), (WRITER, "LOGIN"), (READER, "LOGIN")] {
        let password = cluster.password(login)?.unwrap_or_default();
        superuser.batch_execute(&format!("CREATE ROLE {login} {rights} PASSWORD '{password}'")).await?;
    }
    superuser.batch_execute(&format!("CREATE DATABASE {TEMPLATE} OWNER {ADMIN}")).await?;
    // By the program: an older one knows an older schema.
    let migrated = site(cluster, TEMPLATE).call(&["migrate"]);
    if !migrated.status.success() {
        return Err(String::from_utf8_lossy(&migrated.stderr).into());
    }
    Ok(superuser.batch_execute(&format!("GRANT dalp_writer TO {WRITER}; GRANT dalp_reader TO {READER}")).await?)
}

/// The indexer's configuration in `database`, without a node: as shipped, but for daily leaves for times that lie months back, as a
/// busy live table has them.
pub fn site(cluster: &Cluster, database: &str) -> Site {
    Site {
        url: cluster.url(database, WRITER),
        admin_url: cluster.url(database, ADMIN),
        reader_url: cluster.url(database, WRITER),
        rpc_urls: vec!["http://127.0.0.1:9".into()],
        chain_id: CHAIN,
        chain: "bench".into(),
        database_lines: Vec::new(),
        chain_lines: Vec::new(),
        made_up: false,
        more: "[partitions]\nhistory_interval = \"day\"\n".into(),
    }
}

/// A connection by TCP and a password, as the indexer's.
pub async fn connect(cluster: &Cluster, database: &str, user: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(&cluster.url(database, user), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
