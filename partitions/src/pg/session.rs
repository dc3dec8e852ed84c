//! The only way to begin a transaction in this crate.
//!
//! A transaction that reads rows to count, copy or compare them reads all of them or none: if row security would filter some out,
//! the server refuses ([`super::failure::is_filtered`]).

use tokio_postgres::{Client, IsolationLevel, Transaction};

/// Set in every transaction and in every session.
const WHOLE: &str = "row_security = off";

/// The text form of values, for any defaults of the login: equal values have equal text.
pub(crate) const AS_WRITTEN: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; \
                                     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL xmloption = 'content'; \
                                     SET LOCAL search_path = pg_catalog; SET LOCAL lc_monetary = 'C'";

/// Settings of every transaction that changes data. It waits patiently for the lane of leaf makers, because it holds no lock
/// meanwhile. It does not wait long for table locks, because later sessions would wait behind it. A session that becomes silent
/// in the lane is ended: its process is paused, and the leaves of the next session must not wait for it.
pub(crate) const BEGIN: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL search_path = pg_catalog; \
                     SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '30s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// The purpose of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes data.
    Write,
    /// It reads; each statement sees the rows committed by then.
    Read,
    /// It reads one moment.
    Snapshot,
}

/// Begins a transaction with `settings`: statements that are SET LOCAL or take a lock.
pub(crate) async fn begin<'c>(
    client: &'c mut Client,
    kind: Kind,
    settings: &str,
) -> Result<Transaction<'c>, tokio_postgres::Error> {
    let builder = client.build_transaction();
    let builder = match kind {
        Kind::Write => builder,
        Kind::Read => builder.read_only(true),
        Kind::Snapshot => builder.read_only(true).isolation_level(IsolationLevel::RepeatableRead),
    };
    let transaction = builder.start().await?;
    transaction.batch_execute(&format!("SET LOCAL {WHOLE}; {settings}")).await?;
    Ok(transaction)
}

/// Begins a session with its `settings`.
pub(crate) async fn settle(client: &Client, settings: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!("SET {WHOLE}; {settings}")).await
}

#[cfg(test)]
mod tests {
    /// A transaction begun elsewhere may read only a part of the rows.
    #[test]
    fn transactions_begin_at_the_door() {
        fn look(folder: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    look(&entry, found);
                    continue;
                }
                let text = std::fs::read_to_string(&entry).unwrap();
                let begins = [concat!(".trans", "action()"), concat!("build_trans", "action()")];
                if !entry.ends_with("session.rs") && begins.iter().any(|begins| text.contains(begins)) {
                    found.push(entry.display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        look(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert_eq!(found, [""; 0]);
    }
}
