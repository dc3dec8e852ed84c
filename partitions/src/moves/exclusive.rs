//! The session that retires, undoes and restores: one per database at a time.

use tokio_postgres::{Client, types::Type};

use crate::pg::session;
use crate::{Error, Table};

/// Key of the advisory lock that lets one session of a database retire, undo and restore at a time: "dalpret" in ASCII.
pub const RETIRE_KEY: i64 = 0x64_616c_7072_6574;

/// The session settings of these operations, and the lock that only one session has. Every session has time limits.
pub(crate) async fn begin_session(client: &Client, table: &Table) -> Result<(), Error> {
    let doing = || Error::doing("begin to maintain partitions", table);
    let settings = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET search_path = pg_catalog; SET jit = off; \
                    SET lock_timeout = '2s'; SET statement_timeout = '60s'; \
                    SET idle_in_transaction_session_timeout = '60s'";
    session::settle(client, settings).await.map_err(doing())?;
    let locked = client.query_typed_one("SELECT pg_try_advisory_lock($1)", &[(&RETIRE_KEY, Type::INT8)]).await;
    if locked.map_err(doing())?.get(0) {
        return Ok(());
    }
    let holder = client.query_typed_opt(HOLDER, &[(&RETIRE_KEY, Type::INT8)]).await.map_err(doing())?;
    Err(Error::Busy { holder: holder.map_or_else(|| "?".to_owned(), |row| row.get::<_, i32>(0).to_string()) })
}

const HOLDER: &str = "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
                      AND (classid::int8 << 32 | objid::int8) = $1 \
                      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())";

pub(crate) async fn end_session(client: &Client, table: &Table) -> Result<(), Error> {
    let unlocked = client.query_typed("SELECT pg_advisory_unlock($1)", &[(&RETIRE_KEY, Type::INT8)]).await;
    unlocked.map(drop).map_err(Error::doing("end maintaining partitions", table))
}
