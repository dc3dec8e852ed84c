//! `[database]`.

use std::path::PathBuf;
use std::time::Duration;

use super::kind;
use super::section::settings;
use super::value::{MINUTE, MS, Secret, TlsMode};

settings! {
    /// The database and how it is reached.
    pub struct Database in "database", drafted as DatabaseDraft {
        /// The database that rows are written to; it may point to PgBouncer.
        ///
        /// Takes sslmode=verify-full or disable and sslrootcert=FILE; `options` is refused.
        pub url: Secret = must "postgres://postgres@127.0.0.1:5432/dalp", kind::DATABASE_URL;

        /// A direct connection, for migrations and partitions.
        ///
        /// Set it when `url` points to a pooler: locks and DDL need a session of their own.
        pub admin_url: Secret = same "database.url", kind::DATABASE_URL;

        /// The connection of `dalp-indexer sql`.
        ///
        /// Set it to a user that may only read, or to a standby.
        pub reader_url: Secret = same "database.url", kind::DATABASE_URL;

        /// Connections kept to `url`, at most.
        ///
        /// One for each chain's tail, those of `write_parallelism`, and a few to spare.
        pub pool_size: u32 = "8", kind::Int(1, 1_000);

        /// Transactions of history that write at once, at most; always fewer than `pool_size`.
        ///
        /// Two load a quarter faster than one on two cores, and four as two; more gain where the server has cores to spare.
        pub write_parallelism: u32 = "2", kind::Int(1, 64);

        /// How long one attempt to reach a database may take.
        ///
        /// A healthy server answers in milliseconds; a dead host never does.
        pub connect_timeout: Duration = "5s", kind::Time(100 * MS, 10 * MINUTE);

        /// TLS to database hosts. Unix sockets and loopback hosts do without, unless their URL says sslmode=verify-full.
        ///
        /// Encryption without a checked identity protects from nobody who can answer in the server's place.
        pub tls: TlsMode = "verify-full", kind::Choice(TlsMode::NAMES);

        /// A PEM file of the authorities that sign the database's certificate; the system's are used without it.
        ///
        /// Managed databases often have an authority of their own.
        pub ca_file: Option<PathBuf> = unset "/etc/dalp/database-ca.pem", kind::FILE;
    }
}
