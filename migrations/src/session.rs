//! The migrating session: a suitable server, one migration at a time, known settings, all undone afterwards.

use tokio_postgres::{Client, error::SqlState, types::Type};

use crate::{Error, Roles};

/// Key of the advisory lock: "dalpmigr" in ASCII. Advisory locks are per database, and so is a schema.
const LOCK_KEY: i64 = 0x6461_6c70_6d69_6772;
/// The wait for another migration: longer than our migrations, and short enough for a person.
const LOCK_WAIT_SECONDS: u32 = 60;
/// PostgreSQL 15.0, as `server_version_num` writes it.
const OLDEST_SERVER: i32 = 150_000;

/// Refuses a server that is too old or accepts no writes.
pub(crate) async fn refuse_unfit_server(client: &Client) -> Result<(), Error> {
    let row = client
        .query_typed_one(
            "SELECT current_database()::text, current_setting('server_version'), \
                    current_setting('server_version_num')::int4, pg_is_in_recovery(), \
                    current_setting('transaction_read_only')::bool",
            &[],
        )
        .await
        .map_err(Error::doing("ask the server for its version"))?;
    let database = row.get(0);
    if row.get::<_, i32>(2) < OLDEST_SERVER {
        return Err(Error::TooOld { database, found: row.get(1) });
    }
    if row.get(3) {
        return Err(Error::ReadOnly { database, reason: "the server is a standby" });
    }
    if row.get(4) {
        return Err(Error::ReadOnly { database, reason: "default_transaction_read_only is on" });
    }
    Ok(())
}

/// Takes the lock that serialises migrations of one database.
pub(crate) async fn lock(client: &Client) -> Result<(), Error> {
    let sql = format!("SET lock_timeout = '{LOCK_WAIT_SECONDS}s'; SELECT pg_advisory_lock({LOCK_KEY})");
    client.batch_execute(&sql).await.map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Error::Busy { seconds: LOCK_WAIT_SECONDS },
        _ => Error::doing("take the migration lock")(error),
    })
}

/// Becomes the migrator, with settings that no default of server or role changes.
pub(crate) async fn become_migrator(client: &Client, roles: &Roles) -> Result<(), Error> {
    client
        .query_typed_one(
            // After such a wait, another session holds a table that a migration changes: fail and say so, and do not make every
            // later query wait. SET ROLE comes last: the login makes the settings.
            "SELECT set_config('TimeZone', 'UTC', false), set_config('search_path', 'pg_catalog', false), \
                    set_config('lock_timeout', '10s', false), set_config('statement_timeout', '0', false), \
                    set_config('dalp.migrator', $1, false), set_config('dalp.writer', $2, false), \
                    set_config('dalp.partitioner', $3, false), set_config('dalp.reader', $4, false), \
                    set_config('role', $1, false)",
            &[
                (&roles.migrator, Type::TEXT),
                (&roles.writer, Type::TEXT),
                (&roles.partitioner, Type::TEXT),
                (&roles.reader, Type::TEXT),
            ],
        )
        .await
        .map(drop)
        .map_err(Error::doing("become the migrator role"))
}

/// Returns the connection to its first state.
pub(crate) async fn restore(client: &Client) -> Result<(), Error> {
    let sql = format!(
        "RESET ROLE; RESET TimeZone; RESET search_path; RESET lock_timeout; RESET statement_timeout; \
         SELECT pg_advisory_unlock({LOCK_KEY})"
    );
    client.batch_execute(&sql).await.map_err(Error::doing("release the migration lock"))
}
