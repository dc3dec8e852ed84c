//! Why a schema cannot be migrated or used.

use crate::LATEST;

/// Why a database could not be migrated or may not be used. Each message ends with what to do next; the server's own
/// words, where there are any, are in the source or quoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server is older than PostgreSQL 15.
    #[error(
        "the server of database \"{database}\" is PostgreSQL {found}; 15 or newer is needed: upgrade it, or name a newer server in database.url and database.admin_url"
    )]
    TooOld {
        /// Database that we are connected to.
        database: String,
        /// The server's version, as it says it.
        found: String,
    },
    /// The server takes no writes.
    #[error(
        "database \"{database}\" accepts no writes: {reason}; connect to the primary with a login that may write \
         (database.admin_url), and run `dalp-indexer migrate` again"
    )]
    ReadOnly {
        /// Database that we are connected to.
        database: String,
        /// Standby, or read-only by setting.
        reason: &'static str,
    },
    /// Another migration holds the lock.
    #[error(
        "another `dalp-indexer migrate` has been working on this database for more than {seconds} s: wait for it, or find \
         its session in pg_stat_activity (application_name), then try again"
    )]
    Busy {
        /// How long we waited.
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
        /// Database that we are connected to.
        database: String,
        /// Who we are connected as.
        login: String,
        /// Which right is missing, in the server's words or ours.
        reason: String,
        /// The statements to run, one a line.
        sql: String,
    },
    /// The login may not read which migrations were applied.
    #[error(
        "login \"{login}\" may not read dalp_indexed.schema_history in database \"{database}\": grant it membership in the writer role (for `run`) or in the reader role (to read only)"
    )]
    Unreadable {
        /// Database that we are connected to.
        database: String,
        /// Who we are connected as.
        login: String,
    },
    /// There is no schema yet.
    #[error("database \"{database}\" has no dalp_indexed schema yet: run `dalp-indexer migrate` first")]
    Missing {
        /// Database that we are connected to.
        database: String,
    },
    /// Migrations of this binary are missing in the database.
    #[error(
        "the schema of database \"{database}\" is at version {found}, this binary needs {LATEST}: run `dalp-indexer migrate` with this binary"
    )]
    Behind {
        /// Database that we are connected to.
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
        /// Database that we are connected to.
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
        /// Database that we are connected to.
        database: String,
        /// File name without folder.
        file: String,
        /// Newest applied version.
        found: i32,
    },
    /// The schema is newer and says that this binary is too old for it.
    #[error(
        "the schema of database \"{database}\" needs a binary that knows version {oldest_binary} or later, and this \
         binary knows {LATEST}: install a newer dalp-indexer"
    )]
    Incompatible {
        /// Database that we are connected to.
        database: String,
        /// The least version a binary must know.
        oldest_binary: i32,
    },
    /// A migration failed; it left nothing behind, the ones before it stand.
    #[error(
        "a migration failed and was rolled back: {message}. Remove the cause and run `dalp-indexer migrate` again; it continues where it stopped"
    )]
    Apply {
        /// File and the server's words.
        message: String,
        /// What refinery said.
        #[source]
        source: refinery_core::Error,
    },
    /// The server refused a statement, or the connection broke.
    #[error(
        "could not {doing}: {message}. Check that the server is up and database.admin_url is right, then try again"
    )]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The server's or the driver's words.
        message: String,
        /// What the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// For `map_err`: names what was being done.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Database { doing, message: words(&source), source }
    }
}

/// The innermost cause: the driver's outermost layer says "db error" and no more.
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
