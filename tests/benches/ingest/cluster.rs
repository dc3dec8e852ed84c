//! A durable PostgreSQL with the suite's logins and a migrated template.

use dalp_fixtures::Cluster;
use dalp_tests::stage::{ADMIN, WRITER};
use tokio_postgres::{Client, NoTls};

use super::Outcome;

/// A database that was migrated and never used.
pub const TEMPLATE: &str = "bench_template";
/// The login that may do anything.
pub const SUPERUSER: &str = "postgres";

/// The suite's logins, with passwords since this cluster listens on TCP, and the template.
pub async fn prepare(cluster: &mut Cluster) -> Outcome<()> {
    let superuser = connect(cluster, SUPERUSER, SUPERUSER).await?;
    for (login, rights) in [(ADMIN, "LOGIN CREATEROLE"), (WRITER, "LOGIN")] {
        let password = cluster.password(login)?.unwrap_or_default();
        superuser.batch_execute(&format!("CREATE ROLE {login} {rights} PASSWORD '{password}'")).await?;
    }
    superuser.batch_execute(&format!("CREATE DATABASE {TEMPLATE} OWNER {ADMIN}")).await?;
    let mut admin = connect(cluster, TEMPLATE, ADMIN).await?;
    dalp_migrations::migrate(&mut admin, &dalp_migrations::Roles::default()).await?;
    Ok(superuser.batch_execute(&format!("GRANT dalp_writer TO {WRITER}")).await?)
}

/// A connection by TCP and a password, as the indexer's.
pub async fn connect(cluster: &Cluster, database: &str, user: &str) -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(&cluster.url(database, user), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
