//! The backslash commands' actions.

use std::io::Write;

use super::meta::Meta;
use super::render::View;
use super::session::{Session, SqlError};

const HELP: &str = r"\d          tables of dalp_indexed        \d NAME   columns of a table
\x          one line per value            \timing   times on or off
\q          exit, like Ctrl-D             \?        this help
A statement ends with ; and may span lines. Ctrl-C cancels a running query, or clears the typed statement.
Addresses and hashes are bytea: WHERE token = hex('0x5122…'), and hex(token) shows one as 0x….
∅ is NULL. A line that begins with a space or contains the word password is not saved in the history.
";

/// Runs a command other than [`Meta::Quit`], which the caller handles.
pub(super) async fn run(
    command: &Meta,
    session: &mut Session,
    view: &mut View,
    out: &mut impl Write,
) -> Result<(), SqlError> {
    let on = |flag: bool| if flag { "on" } else { "off" };
    match command {
        Meta::Quit => {}
        Meta::Help => write!(out, "{HELP}")?,
        Meta::Timing => {
            view.timing = !view.timing;
            writeln!(out, "timing is {}", on(view.timing))?;
        }
        Meta::Expanded => {
            view.expanded = !view.expanded;
            writeln!(out, "expanded output is {}", on(view.expanded))?;
        }
        Meta::List => session.execute(TABLES, *view, out).await?,
        Meta::Describe(name) => session.execute(&columns_of(name), *view, out).await?,
        Meta::Unknown(word) => {
            return Err(SqlError::Database(format!("there is no command \\{word}; \\? lists them")));
        }
    }
    Ok(())
}

/// Leaves are left out: there are thousands, and nobody should write to one.
const TABLES: &str = r#"SELECT c.relname AS "table",
       CASE c.relkind WHEN 'p' THEN 'partitioned' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END
           AS kind,
       obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'dalp_indexed' AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
ORDER BY c.relname"#;

/// A name without a schema is searched in `dalp_indexed` first. An unknown name is the server's error.
fn columns_of(name: &str) -> String {
    let name = literal(name);
    format!(
        r#"SELECT a.attname AS "column", pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN a.attnotnull THEN 'not null' ELSE '' END AS "null?",
       pg_catalog.col_description(a.attrelid, a.attnum) AS comment
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = COALESCE(
        CASE WHEN strpos({name}, '.') = 0 THEN to_regclass('dalp_indexed.' || {name}) END, ({name}::text)::regclass)
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum"#
    )
}

/// A text as an SQL literal, for any value of `standard_conforming_strings`.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal(r"a'; drop--\"), r"E'a''; drop--\\'");
    }
}
