//! The database schema of dalp-indexer: forward-only SQL files, embedded, and the code that applies and checks them.
//!
//! [`migrate`] brings a database up to date over a direct connection. [`check`] is what the indexer asks before it
//! works: it changes nothing, keeps no session state and may pass through PgBouncer in transaction mode.
//!
//! A binary meets a schema that another binary made. An *older* schema is refused ([`Error::Behind`]); a *newer* one is
//! accepted, so that an old binary can finish its work beside a new migration, unless the table
//! `dalp_indexed.schema_contract` says that this binary is too old for it ([`Error::Incompatible`]); an applied file
//! whose text changed later is refused ([`Error::Edited`]).
//!
//! This crate never drops anything, never reads chain data, and never writes a role name into SQL text: names come from
//! [`Roles`] and are quoted by the server's own `format('%I')`.

mod error;
mod history;
mod roles;
mod session;

use tokio_postgres::Client;

pub use error::Error;
pub use roles::Roles;

/// Version of the newest migration in this binary.
pub const LATEST: i32 = 14;

/// What stands in a database that this binary can work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// Exactly the migrations of this binary.
    Current,
    /// All of this binary's migrations and later ones, which declare themselves compatible with it.
    Newer {
        /// Newest applied version, greater than [`LATEST`].
        version: i32,
    },
}

/// What [`migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Versions applied by this call, ascending; empty if there was nothing to do.
    pub applied: Vec<i32>,
    /// What stands now.
    pub state: SchemaState,
}

/// Creates the roles (where allowed), their grants and the schemas, and applies the migrations that are missing.
///
/// Wants a direct connection, as it uses session state: an advisory lock (two calls on one database run one after the
/// other), settings and `SET ROLE`. All are undone before it returns, success or not. If the future is dropped before
/// it is done, drop the connection too.
///
/// Each migration is one transaction together with its history row, so a failure leaves a valid, older schema.
pub async fn migrate(client: &mut Client, roles: &Roles) -> Result<Report, Error> {
    roles.validate()?;
    session::refuse_unfit_server(client).await?;
    session::lock(client).await?;
    let outcome = migrate_locked(client, roles).await;
    let restored = session::restore(client).await;
    let report = outcome?;
    restored?;
    Ok(report)
}

async fn migrate_locked(client: &mut Client, roles: &Roles) -> Result<Report, Error> {
    roles::establish(client, roles).await?;
    session::become_migrator(client, roles).await?;
    // Judged before refinery runs, too: a schema that is newer, edited or closed to us must not be touched.
    let applied = match check(client).await {
        Ok(state) => return Ok(Report { applied: Vec::new(), state }),
        Err(Error::Missing { .. } | Error::Behind { .. }) => history::apply(client).await?,
        Err(error) => return Err(error),
    };
    Ok(Report { applied, state: check(client).await? })
}

/// Says whether this binary can work with the database, without changing anything.
///
/// Safe on a pooled connection: unnamed statements only, no session state. The login needs SELECT on
/// `dalp_indexed.schema_history` and `schema_contract`, which the writer and reader roles have.
pub async fn check(client: &Client) -> Result<SchemaState, Error> {
    let found = history::read(client).await?;
    history::judge(&found)
}
