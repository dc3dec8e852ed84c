//! Restores archived rows into a table that may have changed: the restored rows equal the archived rows, or the restore is
//! refused.
//!
//! The server casts a column whose type has changed. All rows are then read back under the archived types and hashed: this finds
//! every value that a cast changed.

use std::collections::HashMap;

use tokio_postgres::{
    Row, Transaction,
    types::{ToSql, Type},
};

use crate::archive::{self, ManifestColumn};
use crate::pg::failure::{is_of_values, words};
use crate::pure::names::quoted;
use crate::{Archive, ArchiveError, Error, Manifest, Table};

/// A present column of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Now {
    sql_type: String,
    /// It accepts no NULL, and has no default.
    is_wanted: bool,
    /// Its values are computed.
    is_generated: bool,
}

const COLUMNS: &str = "
    SELECT attname::text, format_type(atttypid, atttypmod), attnotnull AND NOT atthasdef AND attidentity = '', attgenerated <> ''
    FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

async fn columns(transaction: &Transaction<'_>, relation: &str) -> Result<HashMap<String, Now>, Error> {
    let rows = transaction.query_typed(COLUMNS, &[(&relation as &(dyn ToSql + Sync), Type::TEXT)]).await;
    let now = |row: &Row| Now { sql_type: row.get(1), is_wanted: row.get(2), is_generated: row.get(3) };
    let rows = rows.map_err(Error::doing("read the columns", relation))?;
    Ok(rows.iter().map(|row| (row.get(0), now(row))).collect())
}

/// The columns with another type now; an error names columns without a place.
fn compare(manifest: &Manifest, now: &HashMap<String, Now>) -> Result<Vec<String>, String> {
    let (mut cast, mut wrong) = (Vec::new(), Vec::new());
    for column in &manifest.columns {
        match now.get(&column.name) {
            None => {
                wrong.push(format!("column \"{}\" was archived, and the table has no column of this name", column.name))
            }
            // Computed again, and compared with the archive.
            Some(now) if now.is_generated => {}
            Some(now) if is_of_a_zone(&column.sql_type, &now.sql_type) => wrong.push(format!(
                "column \"{}\" was {} and is now {}, and the time zone of its values is unknown",
                column.name, column.sql_type, now.sql_type
            )),
            Some(now) if now.sql_type != column.sql_type => cast.push(column.name.clone()),
            Some(_) => {}
        }
    }
    let archived = |name: &str| manifest.columns.iter().any(|column| column.name == name);
    let mut missing: Vec<&String> =
        now.iter().filter(|(name, now)| now.is_wanted && !archived(name)).map(|(name, _)| name).collect();
    missing.sort();
    wrong.extend(missing.iter().map(|name| format!("column \"{name}\" accepts no NULL, and was not archived")));
    if wrong.is_empty() { Ok(cast) } else { Err(wrong.join("; ")) }
}

/// Whether a cast depends on the session's time zone, which may differ from the time zone of the writers.
fn is_of_a_zone(was: &str, now: &str) -> bool {
    let is_zoned = |sql_type: &str| sql_type.starts_with("timestamp") && sql_type.ends_with("with time zone");
    let is_local = |sql_type: &str| sql_type == "date" || sql_type.ends_with("without time zone");
    (is_zoned(was) && is_local(now)) || (is_local(was) && is_zoned(now))
}

/// Loads an archive into an empty table, and proves that the table holds the archived rows. Returns the cast columns.
pub(crate) async fn load(
    transaction: &Transaction<'_>,
    table: &Table,
    archive: &Archive,
    manifest: &Manifest,
    into: &str,
) -> Result<Vec<String>, Error> {
    let unfit = |why: String| changed(table, manifest, &why);
    let now = columns(transaction, into).await?;
    let cast = compare(manifest, &now).map_err(unfit)?;
    let is_computed = |column: &ManifestColumn| now.get(&column.name).is_some_and(|now| now.is_generated);
    let is_read = |column: &ManifestColumn| cast.contains(&column.name) || archive::is_written(column);
    if !manifest.columns.iter().any(|column| is_read(column) || is_computed(column)) {
        archive.load(transaction, manifest, into).await.map_err(|error| explained(error, table, manifest))?;
    } else {
        let beside = table.sibling(&format!("dalp_restore_{:016x}", rand::random::<u64>()));
        let doing = || Error::doing("cast the rows of an archive", table);
        transaction.batch_execute(&archived_table(manifest, &beside)?).await.map_err(doing())?;
        archive.load(transaction, manifest, &beside).await?;
        let stored: Vec<&ManifestColumn> = manifest.columns.iter().filter(|column| !is_computed(column)).collect();
        let names = stored.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
        let values = stored.iter().map(|column| match now.get(&column.name) {
            Some(now) if is_read(column) => format!("{}::{}", quoted(&column.name), now.sql_type),
            _ => quoted(&column.name),
        });
        let values = values.collect::<Vec<_>>().join(", ");
        let fill = format!("INSERT INTO {into} ({names}) SELECT {values} FROM {beside}; DROP TABLE {beside}");
        transaction.batch_execute(&fill).await.map_err(|error| match is_of_values(error.code()) {
            true => unfit(format!("{}: {}", retyped(manifest, &cast, &now), words(&error))),
            false => doing()(error),
        })?;
    }
    prove(transaction, manifest, into).await.map_err(|error| match error {
        Error::Archive(_) if !cast.is_empty() => {
            unfit(format!("{}: the cast changes a value", retyped(manifest, &cast, &now)))
        }
        Error::Archive(_) if manifest.columns.iter().any(is_computed) => {
            let computed = manifest.columns.iter().filter(|column| is_computed(column));
            let computed: Vec<String> = computed.map(|column| format!("\"{}\"", column.name)).collect();
            unfit(format!("it now computes {}, and a value differs", computed.join(", ")))
        }
        error => error,
    })?;
    Ok(cast)
}

/// The old and new types of the cast columns.
fn retyped(manifest: &Manifest, cast: &[String], now: &HashMap<String, Now>) -> String {
    let columns = manifest.columns.iter().filter(|column| cast.contains(&column.name));
    let said = columns.filter_map(|column| {
        let now = &now.get(&column.name)?.sql_type;
        Some(format!("column \"{}\" was {} and is now {now}", column.name, column.sql_type))
    });
    said.collect::<Vec<_>>().join("; ")
}

/// Checks that the table's rows, under the archived types, are the archived rows.
pub(crate) async fn prove(transaction: &Transaction<'_>, manifest: &Manifest, relation: &str) -> Result<(), Error> {
    let counted = archive::count_as(transaction, manifest, relation).await?;
    if manifest.is_of(&counted) {
        return Ok(());
    }
    let (object, rows, archived) = (manifest.object.clone(), counted.rows, manifest.counted.rows);
    let why = format!("the {rows} loaded rows are not the {archived} archived rows");
    Err(ArchiveError::Corrupt { object, why }.into())
}

/// The statement that makes a table with the archived columns.
pub(crate) fn archived_table(manifest: &Manifest, name: &str) -> Result<String, Error> {
    let mut columns = Vec::new();
    for column in &manifest.columns {
        let (name, sql_type) = (quoted(&column.name), archive::safe_type(manifest, column)?);
        columns.push(format!("{name} {sql_type}{}", if column.nullable { "" } else { " NOT NULL" }));
    }
    Ok(format!("CREATE TABLE {name} ({})", columns.join(", ")))
}

fn changed(table: &Table, manifest: &Manifest, why: &str) -> Error {
    let why = format!(
        "the table has changed since the archive: {why}. `restore {} --into TABLE` restores the archived rows into a \
         separate table",
        manifest.leaf
    );
    Error::Unfit { what: table.sibling(&manifest.leaf), why }
}

/// The server's message about values that the table no longer accepts.
fn explained(error: ArchiveError, table: &Table, manifest: &Manifest) -> Error {
    match &error {
        ArchiveError::Values { why, .. } => changed(table, manifest, why),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ManifestColumn;

    fn manifest(columns: &[(&str, &str)]) -> Manifest {
        let column = |(name, sql_type): &(&str, &str)| ManifestColumn {
            name: (*name).to_owned(),
            sql_type: (*sql_type).to_owned(),
            parquet_type: String::new(),
            nullable: true,
        };
        let json = serde_json::json!({
            "format": 1, "table": "s.t", "key": 0, "leaf": "t_1", "from": null, "to": "2024-01-01T00:00:00Z", "version": 1, "rows": 0,
            "hash": "00000000000000000000000000000000", "extents": {}, "object": "data/x.parquet", "bytes": 0, "sha256": "", "heap_bytes": 0,
            "columns": columns.iter().map(column).collect::<Vec<_>>(), "created_at": "2024-01-01T00:00:00Z", "server": "", "software": ""
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn columns_that_changed_are_cast_or_named() {
        let now = |columns: &[(&str, &str, bool, bool)]| -> HashMap<String, Now> {
            let of = |(name, sql_type, is_wanted, is_generated): &(&str, &str, bool, bool)| {
                let now = Now { sql_type: (*sql_type).to_owned(), is_wanted: *is_wanted, is_generated: *is_generated };
                ((*name).to_owned(), now)
            };
            columns.iter().map(of).collect()
        };
        let archived = manifest(&[("a", "bigint"), ("b", "text")]);
        for (columns, expected) in [
            (now(&[("a", "bigint", true, false), ("b", "text", false, false)]), Ok(vec![])),
            (now(&[("a", "numeric(78,0)", true, false), ("b", "text", false, false)]), Ok(vec!["a".to_owned()])),
            (
                now(&[("a", "bigint", true, false), ("b", "text", false, false), ("c", "text", false, false)]),
                Ok(vec![]),
            ),
            (now(&[("a", "bigint", true, false)]), Err("column \"b\" was archived")),
            (now(&[("a", "bigint", true, false), ("b", "text", false, true)]), Ok(vec![])),
            (
                now(&[("a", "bigint", true, false), ("b", "text", false, false), ("c", "text", true, false)]),
                Err("column \"c\" accepts no NULL"),
            ),
        ] {
            match (compare(&archived, &columns), expected) {
                (Ok(cast), Ok(expected)) if cast == expected => {}
                (Err(why), Err(expected)) if why.contains(expected) => {}
                (found, expected) => panic!("{columns:?}: {found:?}, not {expected:?}"),
            }
        }
        for (was, now, expected) in [
            ("timestamp without time zone", "timestamp(3) with time zone", true),
            ("timestamp with time zone", "date", true),
            ("timestamp with time zone", "timestamp(3) with time zone", false),
            ("date", "timestamp without time zone", false),
            ("bigint", "timestamp with time zone", false),
        ] {
            assert_eq!(is_of_a_zone(was, now), expected, "{was}, {now}");
        }
        let made = archived_table(&archived, "\"x\"").unwrap();
        assert_eq!(made, "CREATE TABLE \"x\" (\"a\" bigint, \"b\" text)");
        assert!(archived_table(&manifest(&[("a", "bigint); DROP TABLE x; --")]), "x").is_err());
        assert!(archived_table(&manifest(&[("a", "numeric(5,2,$$)")]), "x").is_err());
    }
}
