//! `[database]`.

use std::path::PathBuf;
use std::time::Duration;

use super::kind;
use super::section::settings;
use super::value::{MINUTE, MS, Secret, TlsMode};

settings! {
    /// The database and the connections to it.
    pub struct Database in "database", drafted as DatabaseDraft {
        /// The database that the indexer writes rows to. The URL may point to PgBouncer.
        ///
        /// The URL may contain sslmode=verify-full, sslmode=disable and sslrootcert=FILE. The parameter `options` is refused.
        pub url: Secret = must "postgres://postgres@127.0.0.1:5432/dalp", kind::DATABASE_URL;

        /// A direct connection, for migrations and partitions.
        ///
        /// Set it if `url` points to a pooler: locks and DDL need their own session.
        pub admin_url: Secret = same "database.url", kind::DATABASE_URL;

        /// The connection of `dalp-indexer sql`.
        ///
        /// Set it to a read-only user, or to a standby.
        pub reader_url: Secret = same "database.url", kind::DATABASE_URL;

        /// The largest number of connections to `url`.
        ///
        /// One for the tail of each chain, `write_parallelism` for history, and a few spare ones.
        pub pool_size: u32 = "8", kind::Int(1, 1_000);

        /// The largest number of history transactions that write at the same time. It is always less than `pool_size`.
        ///
        /// On 2 cores, 2 writers load 25 % faster than 1 writer, and 4 writers are as fast as 2. More writers help a server with more cores.
        pub write_parallelism: u32 = "2", kind::Int(1, 64);

        /// The time limit of one attempt to connect to a database.
        ///
        /// A healthy server answers in milliseconds; a dead host never answers.
        pub connect_timeout: Duration = "5s", kind::Time(100 * MS, 10 * MINUTE);

        /// TLS to database hosts. Unix sockets and loopback hosts use no TLS, unless their URL has sslmode=verify-full.
        ///
        /// Encryption without a checked identity does not protect against a false server.
        pub tls: TlsMode = "verify-full", kind::Choice(TlsMode::NAMES);

        /// A PEM file of the authorities that sign the certificate of the database. Without it, the system's authorities are used.
        ///
        /// Managed databases often have their own authority.
        pub ca_file: Option<PathBuf> = unset "/etc/dalp/database-ca.pem", kind::FILE;
    }
}
