//! `dalp-indexer migrate`.

use super::failure::Failure;
use crate::cli::out::say;
use crate::config::Config;
use crate::store::connect::connect_direct;

/// Creates or updates the schemas, tables and roles, and reports the changes.
///
/// # Errors
/// The missing right or object, and the way to get it.
pub async fn run(config: Config) -> Result<(), Failure> {
    let report = apply(&config).await?;
    if report.applied.is_empty() {
        say!("the schema is up to date (version {})", dalp_migrations::LATEST)?;
    }
    for version in report.applied {
        say!("applied migration {version}")?;
    }
    Ok(())
}

/// Migrates over a direct connection.
///
/// # Errors
/// As [`run`].
pub async fn apply(config: &Config) -> Result<dalp_migrations::Report, Failure> {
    let mut client = connect_direct(&config.database, &config.database.admin_url).await?;
    dalp_migrations::migrate(&mut client, &config.roles).await.map_err(|error| Failure::other(error.to_string()))
}
