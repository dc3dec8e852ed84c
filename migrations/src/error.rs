//! Why a schema cannot be migrated or used.

use crate::LATEST;

/// Why a database could not be migrated or may not be used. Each message ends with the next step; the server's own message, if
/// any, is in the source or quoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server is older than PostgreSQL 15.
    #[error(
        "the server of database \"{database}\" is PostgreSQL {found}; 15 or newer is needed: upgrade it, or name a newer server in database.url and database.admin_url"
    )]
    TooOld {
        /// The connected database.
        database: String,
        /// The server's version, as reported.
        found: String,
    },
    /// The server accepts no writes.
    #[error(
        "database \"{database}\" accepts no writes: {reason}; connect to the primary with a login that may write \
         (database.admin_url), and run `dalp-indexer migrate` again"
    )]
    ReadOnly {
        /// The connected database.
        database: String,
        /// The reason: a standby, or read-only by setting.
        reason: &'static str,
    },
    /// Another migration holds the lock.
    #[error(
        "another `dalp-indexer migrate` has been working on this database for more than {seconds} s: wait for it, or find \
         its session in pg_stat_activity (application_name), then try again"
    )]
    Busy {
        /// The time that we waited.
        seconds: u32,
    },
    /// A configured role name cannot be used.
    #[error("role names: {0}; correct them in the configuration (database.roles)")]
    BadRoles(String),
    /// The login lacks a right that only an administrator can give.
    #[error(
        "login \"{login}\" lacks rights in database \"{database}\": {reason}. As an administrator, connected to that database, run:\n\n{sql}\n\nthen run `dalp-indexer migrate` again"
    )]
    Rights {
        /// The connected database.
        database: String,
        /// The connected login.
        login: String,
        /// The missing right, in the server's words or ours.
        reason: String,
        /// The statements to run, one per line.
        sql: String,
    },
    /// The login may not read which migrations were applied.
    #[error(
        "login \"{login}\" may not read dalp_indexed.schema_history in database \"{database}\": grant it membership in the writer role (for `run`) or in the reader role (to read only)"
    )]
    Unreadable {
        /// The connected database.
        database: String,
        /// The connected login.
        login: String,
    },
    /// There is no schema yet.
    #[error("database \"{database}\" has no dalp_indexed schema yet: run `dalp-indexer migrate` first")]
    Missing {
        /// The connected database.
        database: String,
    },
    /// Migrations of this binary are missing in the database.
    #[error(
        "the schema of database \"{database}\" is at version {found}, this binary needs {LATEST}: run `dalp-indexer migrate` with this binary"
    )]
    Behind {
        /// The connected database.
        database: String,
        /// Newest applied version, 0 if none.
        found: i32,
    },
    /// A file was changed after it had been applied.
    #[error(
        "migration {file} was edited after it was applied to database \"{database}\": its checksum in the database is \
         {applied} (the text that made the schema), in this binary {embedded} (the text that it would apply). Restore the \
         file, put the change into a new migration, and build again; or use the binary that applied it"
    )]
    Edited {
        /// The connected database.
        database: String,
        /// File name without folder.
        file: String,
        /// Its version.
        version: i32,
        /// Checksum recorded when it was applied.
        applied: String,
        /// Checksum of the text in this binary.
        embedded: String,
    },
    /// A migration is missing although later ones were applied.
    #[error(
        "migration {file} was never applied to database \"{database}\", but the database is at version {found}: \
         migrations are applied in the order of their numbers; give the file a number above {found}, and build again"
    )]
    Gap {
        /// The connected database.
        database: String,
        /// File name without folder.
        file: String,
        /// Newest applied version.
        found: i32,
    },
    /// The schema is newer and declares this binary too old.
    #[error(
        "the schema of database \"{database}\" needs a binary that knows version {oldest_binary} or later, and this \
         binary knows {LATEST}: install a newer dalp-indexer"
    )]
    Incompatible {
        /// The connected database.
        database: String,
        /// The lowest version that a binary must know.
        oldest_binary: i32,
    },
    /// A migration failed; it left nothing behind, and the earlier ones stay applied.
    #[error(
        "a migration failed and was rolled back: {message}. Remove the cause and run `dalp-indexer migrate` again; it continues where it stopped"
    )]
    Apply {
        /// The file and the server's message.
        message: String,
        /// The error of refinery.
        #[source]
        source: refinery_core::Error,
    },
    /// The server refused a statement, or the connection broke.
    #[error(
        "could not {doing}: {message}. Check that the server is up and database.admin_url is right, then try again"
    )]
    Database {
        /// The attempted step.
        doing: &'static str,
        /// The message of the server or the driver.
        message: String,
        /// The error of the driver.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// For `map_err`: names the attempted step.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Database { doing, message: words(&source), source }
    }
}

/// The innermost cause: the driver's outermost layer says only "db error".
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
