//! Types of columns as manifests name them.

use super::ArchiveError;
use super::columns::{Column, Kind, WRITTEN};
use super::manifest::{Manifest, ManifestColumn};

/// The columns that a manifest names.
pub(super) fn columns_of(manifest: &Manifest) -> Option<Vec<Column>> {
    let columns = manifest
        .columns
        .iter()
        .map(|column| Some(Column { name: column.name.clone(), kind: kind_of(column)?, nullable: column.nullable }));
    columns.collect()
}

fn kind_of(column: &ManifestColumn) -> Option<Kind> {
    if is_written(column) {
        return Some(Kind::Written);
    }
    let (name, modifier) = base_type(&column.sql_type)?;
    Kind::of(&name, modifier)
}

/// Whether a column is archived as PostgreSQL's text.
pub(crate) fn is_written(column: &ManifestColumn) -> bool {
    column.parquet_type == WRITTEN
}

/// The SQL type of an archived column. A manifest is untrusted input for SQL, so only known types pass.
pub(crate) fn safe_type<'c>(manifest: &Manifest, column: &'c ManifestColumn) -> Result<&'c str, ArchiveError> {
    if is_written(column) {
        return Ok("text");
    }
    let sql_type = column.sql_type.as_str();
    let is_plain = sql_type.chars().all(|letter| letter.is_ascii_alphanumeric() || " (),".contains(letter));
    let kind = base_type(sql_type).and_then(|(name, modifier)| Kind::of(&name, modifier));
    match kind.filter(|_| is_plain) {
        Some(_) => Ok(sql_type),
        None => Err(manifest.corrupt(format!("its manifest names a type that is not known here: {sql_type:?}"))),
    }
}

/// `numeric(78,0)` from the name and the modifier in the catalog.
fn base_type(sql_type: &str) -> Option<(String, i32)> {
    let Some((name, rest)) = sql_type.split_once('(') else { return Some((sql_type.to_owned(), -1)) };
    let (arguments, after) = rest.split_once(')')?;
    let mut numbers = arguments.split(',').map(|number| number.trim().parse::<i32>().ok());
    let precision = numbers.next()??;
    let scale = numbers.next().unwrap_or(Some(0))?;
    // An impossible precision of a numeric, and the length of a long text, are not used as modifiers here.
    let modifier = precision.checked_mul(1 << 16).map_or(-1, |precision| (precision | scale & 0x7ff) + 4);
    Some((format!("{name}{after}"), modifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_that_a_manifest_names_are_read_or_refused() {
        let decimal = |precision, scale| Some(Kind::Decimal { precision, scale });
        for (sql_type, expected) in [
            ("bigint", Some(Kind::Int8)),
            ("timestamp(3) with time zone", Some(Kind::Timestamptz)),
            ("character varying(80)", Some(Kind::Text)),
            ("character varying(10485760)", Some(Kind::Text)),
            ("numeric(78,0)", Some(Kind::Word)),
            ("numeric(20,4)", decimal(20, 4)),
            ("numeric(20)", decimal(20, 0)),
            ("numeric(5,-2)", None),
            ("numeric", None),
            ("numeric(32767,65535)", None),
            ("numeric(65556,4)", None),
            ("numeric(-20,4)", None),
            ("numeric(20,4", None),
            ("numeric()", None),
        ] {
            let kind = base_type(sql_type).and_then(|(name, modifier)| Kind::of(&name, modifier));
            assert_eq!(kind, expected, "{sql_type}");
        }
    }
}
