//! Checks that the layout of a table is supported. The check comes before the bounds are read, because a number could pass for a
//! time.

use tokio_postgres::{
    Client, Row, Transaction,
    types::{ToSql, Type},
};

use crate::pg::session::{self, Kind};
use crate::pure::names::quoted;
use crate::{Error, Table};

/// The layout of a partitioned table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    /// By `list`, `range` or `hash`.
    strategy: String,
    /// The columns of its key, with their types; an expression has no name.
    key: Vec<(String, String)>,
    /// The type of the time column, if there is one.
    time: Option<String>,
    /// Its columns of times.
    times: Vec<String>,
    /// A partition of it that is partitioned by another column than the time column.
    odd: Option<String>,
}

/// $1 schema, $2 table, $3 time column. No row if the table does not exist, or is not partitioned.
const SHAPE: &str = "
    SELECT CASE partstrat WHEN 'l' THEN 'list' WHEN 'r' THEN 'range' ELSE 'hash' END,
           ARRAY(SELECT COALESCE(attname::text, '(an expression)') FROM unnest(partattrs::int2[]) WITH ORDINALITY AS key (attnum, place)
                 LEFT JOIN pg_catalog.pg_attribute AS a ON attrelid = root.oid AND a.attnum = key.attnum ORDER BY place),
           ARRAY(SELECT COALESCE(format_type(atttypid, NULL), '') FROM unnest(partattrs::int2[]) WITH ORDINALITY AS key (attnum, place)
                 LEFT JOIN pg_catalog.pg_attribute AS a ON attrelid = root.oid AND a.attnum = key.attnum ORDER BY place),
           (SELECT format_type(atttypid, NULL) FROM pg_catalog.pg_attribute
            WHERE attrelid = root.oid AND attname = $3 AND attnum > 0 AND NOT attisdropped),
           ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute
                 WHERE attrelid = root.oid AND attnum > 0 AND NOT attisdropped AND atttypid = 'timestamptz'::regtype ORDER BY attnum),
           (SELECT sub.relname::text FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid
            JOIN pg_catalog.pg_partitioned_table AS cut ON cut.partrelid = sub.oid
            LEFT JOIN pg_catalog.pg_attribute AS a ON attrelid = sub.oid AND a.attnum = cut.partattrs[0]
            WHERE inhparent = root.oid AND (cut.partstrat <> 'r' OR cut.partnatts <> 1 OR attname IS DISTINCT FROM $3)
            ORDER BY 1 LIMIT 1)
    FROM pg_catalog.pg_class AS root JOIN pg_catalog.pg_partitioned_table ON partrelid = root.oid
    WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND relname = $2";

const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = to_regclass($1) AND relkind = 'p')";

fn shape(row: &Row) -> Shape {
    let (names, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
    Shape {
        strategy: row.get(0),
        key: names.into_iter().zip(types).collect(),
        time: row.get(3),
        times: row.get(4),
        odd: row.get(5),
    }
}

/// Refuses a table whose layout differs from its declaration, with the reason.
pub(crate) async fn must_fit(transaction: &Transaction<'_>, table: &Table) -> Result<(), Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.schema, Type::TEXT), (&table.name, Type::NAME), (&table.time_column, Type::NAME)];
    let row = transaction.query_typed_opt(SHAPE, &parameters).await;
    let row = row.map_err(Error::doing("read the partitioning of a table", table))?;
    match row.and_then(|row| judge(table, &shape(&row))) {
        Some(why) => Err(Error::Unfit { what: table.to_string(), why }),
        None => Ok(()),
    }
}

/// The reason why a table cannot be managed as declared; `None` if it can. Changes nothing.
///
/// # Errors
/// If the server refuses.
pub async fn unfit(client: &mut Client, table: &Table) -> Result<Option<String>, Error> {
    let doing = || Error::doing("read the partitioning of a table", table);
    let transaction = session::begin(client, Kind::Read, "SET LOCAL search_path = pg_catalog").await.map_err(doing())?;
    let name = table.to_string();
    let exists = transaction.query_typed_one(EXISTS, &[(&name, Type::TEXT)]).await.map_err(doing())?;
    if !exists.get::<_, bool>(0) {
        let why = "there is no such partitioned table: create it with PARTITION BY, or correct its name";
        return Ok(Some(why.to_owned()));
    }
    let fits = must_fit(&transaction, table).await;
    transaction.commit().await.map_err(doing())?;
    match fits {
        Ok(()) => Ok(None),
        Err(Error::Unfit { why, .. }) => Ok(Some(why)),
        Err(error) => Err(error),
    }
}

/// $1 schemas, $2 tables. An ancestor counts at any level.
const NESTED: &str = "
    WITH RECURSIVE named AS (
        SELECT place, class.oid FROM unnest($1, $2) WITH ORDINALITY AS of (schema, name, place)
        JOIN pg_catalog.pg_namespace AS space ON nspname = of.schema
        JOIN pg_catalog.pg_class AS class ON relnamespace = space.oid AND relname = of.name
    ), above AS (
        SELECT place, oid FROM named
      UNION
        SELECT place, inhparent FROM above JOIN pg_catalog.pg_inherits ON inhrelid = above.oid
    )
    SELECT DISTINCT ON (above.place) above.place - 1, named.place - 1 FROM above JOIN named USING (oid)
    WHERE named.place <> above.place ORDER BY above.place, named.place";

/// The tables among several that are partitions of another one of them, by index: a leaf of such a table would have two policies.
///
/// # Errors
/// If the server refuses.
pub async fn nested(client: &Client, tables: &[&Table]) -> Result<Vec<(usize, usize)>, Error> {
    let names = |name: fn(&Table) -> &String| tables.iter().map(|table| name(table).clone()).collect::<Vec<_>>();
    let (schemas, names) = (names(|table| &table.schema), names(|table| &table.name));
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
    let rows = client.query_typed(NESTED, &parameters).await;
    let rows = rows.map_err(Error::doing("find the tables that are partitions of others", "the tables"))?;
    let place = |place: i64| usize::try_from(place).unwrap_or(usize::MAX);
    Ok(rows.iter().map(|row| (place(row.get(0)), place(row.get(1)))).collect())
}

const NUMBERS: [&str; 3] = ["smallint", "integer", "bigint"];
const TIMES: [&str; 3] = ["timestamp with time zone", "timestamp without time zone", "date"];

fn judge(table: &Table, shape: &Shape) -> Option<String> {
    let time = &table.time_column;
    let Some(time_type) = &shape.time else {
        let there = if shape.times.is_empty() { "none of type timestamptz".to_owned() } else { shape.times.join(", ") };
        return Some(format!("it has no column {}: set time_column to one of its columns ({there})", quoted(time)));
    };
    if !TIMES.contains(&time_type.as_str()) {
        return Some(format!(
            "time_column {} is {time_type}, not a time: a number such as 20240131 is not a time either. Partition the \
             table by a timestamptz",
            quoted(time)
        ));
    }
    let names: Vec<&str> = shape.key.iter().map(|(name, _)| name.as_str()).collect();
    let [(name, of_type)] = shape.key.as_slice() else {
        return Some(format!(
            "it is partitioned by {} columns ({}): only one is supported; partition it by one column, and below it by time",
            names.len(),
            names.join(", ")
        ));
    };
    match (shape.strategy.as_str(), table.flat) {
        ("list", true) => Some("it is partitioned by LIST: set list = true".to_owned()),
        ("range", false) => Some("it is partitioned by RANGE without LIST: omit list".to_owned()),
        ("hash", _) => Some(
            "it is partitioned by HASH: only partitions by time, or by a number and then by time, are supported"
                .to_owned(),
        ),
        ("range", true) if name != time => {
            Some(format!("it is partitioned by {}, and time_column is {}", quoted(name), quoted(time)))
        }
        ("list", false) if !NUMBERS.contains(&of_type.as_str()) => Some(format!(
            "its LIST key {} is {}, and only whole numbers are supported: number your tenants, or register each of its \
             partitions as a separate table, without list",
            quoted(name),
            if of_type.is_empty() { "an expression" } else { of_type }
        )),
        _ => shape.odd.as_ref().filter(|_| !table.flat).map(|odd| {
            format!(
                "its partition {} is not partitioned by RANGE ({}): detach it, and move its rows",
                quoted(odd),
                quoted(time)
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_or_the_reason_is_told() {
        let timestamptz = "timestamp with time zone";
        let shape = |strategy: &str, key: &[(&str, &str)], time: Option<&str>| Shape {
            strategy: strategy.to_owned(),
            key: key.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned())).collect(),
            time: time.map(str::to_owned),
            times: vec!["at".to_owned()],
            odd: None,
        };
        let (flat, list) = (Table::flat("s", "t", "at"), Table::new("s", "t", "at"));
        for (table, shape, expected) in [
            (&flat, shape("range", &[("at", timestamptz)], Some(timestamptz)), None),
            (&flat, shape("range", &[("at", "date")], Some("date")), None),
            (&list, shape("list", &[("tenant", "bigint")], Some(timestamptz)), None),
            (
                &flat,
                shape("range", &[("day", "integer")], None),
                Some("no column \"at\": set time_column to one of its columns (at)"),
            ),
            (&flat, shape("range", &[("at", "integer")], Some("integer")), Some("such as 20240131")),
            (&flat, shape("range", &[("at", "text")], Some("text")), Some("is text")),
            (&flat, shape("range", &[("made", timestamptz)], Some(timestamptz)), Some("partitioned by \"made\"")),
            (&flat, shape("list", &[("tenant", "bigint")], Some(timestamptz)), Some("list = true")),
            (&list, shape("range", &[("at", timestamptz)], Some(timestamptz)), Some("omit list")),
            (&list, shape("list", &[("tenant", "uuid")], Some(timestamptz)), Some("is uuid, and only whole numbers")),
            (&list, shape("list", &[("(an expression)", "")], Some(timestamptz)), Some("an expression")),
            (
                &flat,
                shape("range", &[("at", timestamptz), ("n", "bigint")], Some(timestamptz)),
                Some("2 columns (at, n)"),
            ),
            (&flat, shape("hash", &[("at", timestamptz)], Some(timestamptz)), Some("HASH")),
            (
                &list,
                Shape { odd: Some("t_1".into()), ..shape("list", &[("n", "bigint")], Some(timestamptz)) },
                Some("\"t_1\""),
            ),
        ] {
            let found = judge(table, &shape);
            assert_eq!(found.is_some(), expected.is_some(), "{shape:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{shape:?}");
        }
    }
}
