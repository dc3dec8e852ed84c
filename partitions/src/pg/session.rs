//! The one door through which transactions of this crate begin.
//!
//! Whoever reads rows behind it, to count, copy or compare them, reads all of them or none: where row security would filter some out,
//! the server refuses ([`super::failure::is_filtered`]).

use tokio_postgres::{Client, IsolationLevel, Transaction};

/// Said in every transaction here, and in every session.
const WHOLE: &str = "row_security = off";

/// How values are written as text, whatever a login's defaults say: of the same values, the same text.
pub(crate) const AS_WRITTEN: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; \
                                     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL xmloption = 'content'; \
                                     SET LOCAL search_path = pg_catalog; SET LOCAL lc_monetary = 'C'";

/// Settings of every transaction that changes something. The lane of those who make leaves is waited for with patience, since nothing is
/// held meanwhile; the locks on tables are not, since whoever comes after us would wait behind us. Nor is a session that falls silent in the
/// lane: its process is stopped, and the next one's leaves must not wait until it goes on.
pub(crate) const BEGIN: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL search_path = pg_catalog; \
                     SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '30s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes something.
    Write,
    /// It looks, at each statement at what is committed by then.
    Read,
    /// It looks at one moment.
    Snapshot,
}

/// Begins a transaction with `settings`: statements, of which each is SET LOCAL or takes a lock.
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

/// The same for a session of our own, with `settings` of it.
pub(crate) async fn settle(client: &Client, settings: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!("SET {WHOLE}; {settings}")).await
}

#[cfg(test)]
mod tests {
    /// A transaction that begins elsewhere may be answered a part of the rows.
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
