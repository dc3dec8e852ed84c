//! Compares the applied migrations with the migrations in this binary.

use std::cmp::Ordering;

use refinery_core::{Migration, Runner};
use tokio_postgres::{Client, Row, error::SqlState};

use crate::{Error, LATEST, SchemaState, error::words};

/// Names and texts of files in `sql/`.
macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../sql/", $name, ".sql")))),*] };
}

/// All files, in the order of their numbers.
const FILES: &[(&str, &str)] = files![
    "V0001__schemas",
    "V0002__chain_state_and_blocks",
    "V0003__logs_and_erc20_transfers",
    "V0004__lease_reorgs_nodes_levels",
    "V0005__leaf_indexes",
    "V0006__retention",
    "V0007__whose_archives",
    "V0008__identity_of_leaves",
    "V0009__hashes_have_their_length",
    "V0010__quarantine_keeps_the_log",
    "V0011__way_back",
    "V0012__more_limits_of_nodes",
    "V0013__hex",
    "V0014__what_stays_raw",
    "V0015__contracts",
    "V0016__found_contracts",
    "V0017__views",
    "V0018__end_of_contracts",
];

fn migrations() -> impl Iterator<Item = Migration> {
    FILES.iter().map(|(name, sql)| Migration::unapplied(name, sql).expect("a test reads the name of each file"))
}

/// Refinery inserts the name unquoted, so it is quoted here.
const HISTORY_TABLE: &str = r#""dalp_indexed"."schema_history""#;

/// A migration in the database's record.
struct Applied {
    version: i32,
    checksum: String,
}

/// The result of [`read`].
pub(crate) struct Found {
    database: String,
    /// `None`: no history table, so our schema does not exist.
    applied: Option<Vec<Applied>>,
    /// Lowest version that a binary must know, 0 before the first migration.
    oldest_binary: i32,
}

/// Reads the history and the contract. Asks the catalog first, because a query of a missing table is an error.
pub(crate) async fn read(client: &Client) -> Result<Found, Error> {
    let row = client
        .query_typed_one(
            "SELECT current_database()::text, current_user::text, \
                    count(*) FILTER (WHERE c.relname = 'schema_history') > 0, \
                    count(*) FILTER (WHERE c.relname = 'schema_contract') > 0 \
             FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'dalp_indexed'",
            &[],
        )
        .await
        .map_err(Error::doing("look for the schema dalp_indexed"))?;
    let (database, login): (String, String) = (row.get(0), row.get(1));
    let refused = |error: tokio_postgres::Error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Error::Unreadable { database: database.clone(), login: login.clone() }
        }
        _ => Error::doing("read dalp_indexed.schema_history")(error),
    };
    let mut found = Found { database: database.clone(), applied: None, oldest_binary: 0 };
    if row.get(2) {
        let sql = "SELECT version, checksum::text FROM dalp_indexed.schema_history ORDER BY version";
        let rows = client.query_typed(sql, &[]).await.map_err(refused)?;
        found.applied = Some(rows.iter().map(Applied::from).collect());
    }
    if row.get(3) {
        let sql = "SELECT COALESCE(max(oldest_binary), 0) FROM dalp_indexed.schema_contract";
        found.oldest_binary = client.query_typed_one(sql, &[]).await.map_err(refused)?.get(0);
    }
    Ok(found)
}

impl From<&Row> for Applied {
    fn from(row: &Row) -> Self {
        Self { version: row.get(0), checksum: row.get(1) }
    }
}

/// Compares the recorded migrations with this binary's.
pub(crate) fn judge(found: &Found) -> Result<SchemaState, Error> {
    let database = || found.database.clone();
    if found.oldest_binary > LATEST {
        return Err(Error::Incompatible { database: database(), oldest_binary: found.oldest_binary });
    }
    let Some(applied) = &found.applied else {
        return Err(Error::Missing { database: database() });
    };
    let newest = applied.last().map_or(0, |last| last.version);
    for ours in &migrations().collect::<Vec<_>>() {
        let file = || format!("{}.sql", file_stem(ours));
        match applied.iter().find(|theirs| theirs.version == ours.version()) {
            Some(theirs) if theirs.checksum == ours.checksum().to_string() => {}
            Some(theirs) => {
                return Err(Error::Edited {
                    database: database(),
                    file: file(),
                    version: ours.version(),
                    applied: theirs.checksum.clone(),
                    embedded: ours.checksum().to_string(),
                });
            }
            None if ours.version() < newest => {
                return Err(Error::Gap { database: database(), file: file(), found: newest });
            }
            None => return Err(Error::Behind { database: database(), found: newest }),
        }
    }
    Ok(match newest.cmp(&LATEST) {
        Ordering::Greater => SchemaState::Newer { version: newest },
        _ => SchemaState::Current,
    })
}

fn file_stem(migration: &Migration) -> String {
    format!("V{:04}__{}", migration.version(), migration.name())
}

/// Applies the missing migrations, each with its history row in one transaction; returns the versions.
pub(crate) async fn apply(client: &mut Client) -> Result<Vec<i32>, Error> {
    let mut runner = Runner::new(&migrations().collect::<Vec<_>>())
        .set_abort_divergent(true)
        // A newer schema has migrations that this binary lacks.
        .set_abort_missing(false);
    runner.set_migration_table_name(HISTORY_TABLE);
    let report = runner.run_async(client).await.map_err(|source| Error::Apply {
        message: match source.kind() {
            refinery_core::error::Kind::Connection(what, cause) => format!("{what}: {}", words(cause.as_ref())),
            kind => kind.to_string(),
        },
        source,
    })?;
    Ok(report.applied_migrations().iter().map(Migration::version).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(versions: &[i32], oldest_binary: i32) -> Found {
        let checksum_of = |version| {
            let ours = migrations().find(|ours| ours.version() == version);
            ours.map_or_else(|| "1".to_owned(), |ours| ours.checksum().to_string())
        };
        let applied = versions.iter().map(|&version| Applied { version, checksum: checksum_of(version) }).collect();
        Found { database: "db".to_owned(), applied: Some(applied), oldest_binary }
    }

    #[test]
    fn files_are_numbered_without_gaps_up_to_latest() {
        let versions: Vec<i32> = migrations().map(|file| file.version()).collect();
        assert_eq!(versions, (1..=LATEST).collect::<Vec<_>>());
    }

    #[test]
    fn every_file_is_embedded() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql")).unwrap();
        let mut there: Vec<_> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        there.sort_unstable();
        assert_eq!(there, FILES.iter().map(|(name, _)| format!("{name}.sql")).collect::<Vec<_>>());
    }

    #[test]
    fn judges_what_was_found() {
        let all: Vec<i32> = (1..=LATEST).collect();
        let later: Vec<i32> = (1..=LATEST).chain([77]).collect();
        assert_eq!(judge(&found(&all, 1)).unwrap(), SchemaState::Current);
        assert_eq!(judge(&found(&later, 3)).unwrap(), SchemaState::Newer { version: 77 });
        assert!(matches!(judge(&found(&later, 77)), Err(Error::Incompatible { oldest_binary: 77, .. })));
        assert!(matches!(judge(&found(&[], 0)), Err(Error::Behind { found: 0, .. })));
        assert!(matches!(judge(&found(&[1, 2], 1)), Err(Error::Behind { found: 2, .. })));
        assert!(matches!(judge(&found(&[1, 3], 1)), Err(Error::Gap { found: 3, .. })));
        let mut edited = found(&all, 1);
        edited.applied.as_mut().unwrap()[1].checksum = "7".to_owned();
        assert!(matches!(judge(&edited), Err(Error::Edited { version: 2, .. })));
    }
}
