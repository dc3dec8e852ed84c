//! The database schema of dalp-indexer: forward-only SQL files, embedded, and the code that applies and checks them.
//!
//! [`migrate`] updates a database over a direct connection. The indexer calls [`check`] before it works: [`check`] changes
//! nothing, keeps no session state and works through PgBouncer in transaction mode.
//!
//! A binary may find a schema that another binary made. It refuses an *older* schema ([`Error::Behind`]). It accepts a *newer*
//! one, so that an old binary can finish its work beside a new migration, unless the table `dalp_indexed.schema_contract`
//! declares this binary too old ([`Error::Incompatible`]). It refuses an applied file whose text changed later
//! ([`Error::Edited`]).
//!
//! This crate never drops an object, never reads chain data, and never writes a role name into SQL text: names come from
//! [`Roles`], and the server's own `format('%I')` quotes them.

mod error;
mod history;
mod roles;
mod session;

use tokio_postgres::Client;

pub use error::Error;
pub use roles::Roles;

/// Version of the newest migration in this binary.
pub const LATEST: i32 = 18;

/// The schema of a database that this binary can work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// It has exactly the migrations of this binary.
    Current,
    /// It has all of this binary's migrations, and later ones that declare themselves compatible with it.
    Newer {
        /// Newest applied version, greater than [`LATEST`].
        version: i32,
    },
}

/// The result of [`migrate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Versions applied by this call, ascending; empty if none was missing.
    pub applied: Vec<i32>,
    /// The resulting schema.
    pub state: SchemaState,
}

/// Creates the roles (if allowed), their grants and the schemas, and applies the missing migrations.
///
/// Needs a direct connection, because it uses session state: an advisory lock (two calls on one database run one after the
/// other), settings and `SET ROLE`. It undoes all of them before it returns, with or without an error. If the future is dropped
/// early, drop the connection too.
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
    // Checked before refinery runs too: a newer, edited or closed schema must not be touched.
    let applied = match check(client).await {
        Ok(state) => return Ok(Report { applied: Vec::new(), state }),
        Err(Error::Missing { .. } | Error::Behind { .. }) => history::apply(client).await?,
        Err(error) => return Err(error),
    };
    Ok(Report { applied, state: check(client).await? })
}

/// Checks whether this binary can work with the database, without changes.
///
/// Safe on a pooled connection: only unnamed statements, no session state. The login needs SELECT on
/// `dalp_indexed.schema_history` and `schema_contract`, which the writer and reader roles have.
pub async fn check(client: &Client) -> Result<SchemaState, Error> {
    let found = history::read(client).await?;
    history::judge(&found)
}
