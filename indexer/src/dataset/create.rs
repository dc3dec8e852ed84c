//! The statements that make a described table: for `migrations` of a future table, and for a table that is known only at run
//! time.

use std::fmt::Write as _;

use super::column::KEY;
use super::sql::{NAME, quoted};
use super::table::Dataset;

/// The group roles of an installation.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'r> {
    /// The group that writes rows.
    pub writer: &'r str,
    /// The group that makes and drops partitions, and therefore owns the table.
    pub partitioner: &'r str,
    /// The group that reads.
    pub reader: &'r str,
}

impl Dataset {
    /// The table's schema and name as SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(self.schema()), quoted(self.table()))
    }

    /// Makes the table in its schema (and a missing schema), with its comments, the rights of the groups, and the view of its
    /// retained rows. For a login that may become the partitioner.
    pub fn create(&self, groups: Groups<'_>) -> String {
        let schema = quoted(self.schema());
        let [writer, partitioner, reader] = [groups.writer, groups.partitioner, groups.reader].map(quoted);
        let table = self.create_table(groups);
        let mut sql = format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};\nGRANT USAGE ON SCHEMA {schema} TO {writer}, {partitioner}, {reader};\n{table}"
        );
        if self.is_partitioned() {
            let _ = writeln!(sql, "GRANT CREATE ON SCHEMA {schema} TO {partitioner};");
        }
        sql
    }

    /// Makes the table in its schema, which is there, as [`Dataset::create`] does. For the partitioner, or a login that may
    /// become it.
    pub fn create_table(&self, groups: Groups<'_>) -> String {
        let (schema, of) = (quoted(self.schema()), self.quoted());
        let [writer, partitioner, reader] = [groups.writer, groups.partitioner, groups.reader].map(quoted);
        let mut sql = format!("CREATE TABLE {of} (\n");
        for column in self.columns() {
            let null = if column.nullable { "" } else { " NOT NULL" };
            // Writing to a text cannot fail.
            let _ = writeln!(sql, "    {} {}{null},", quoted(&column.name), column.of.sql());
        }
        let by = if self.is_partitioned() { " PARTITION BY LIST (chain_id)" } else { "" };
        let key =
            if self.is_partitioned() { KEY.join(", ") } else { "chain_id, block_number, log_index, decoder".into() };
        let _ = writeln!(sql, "    PRIMARY KEY ({key})\n){by};\nCOMMENT ON TABLE {of} IS {};", literal(self.about()));
        for column in self.columns() {
            let _ = writeln!(sql, "COMMENT ON COLUMN {of}.{} IS {};", quoted(&column.name), literal(&column.about));
        }
        let _ = write!(sql, "GRANT SELECT, INSERT, DELETE ON {of} TO {writer};\nGRANT SELECT ON {of} TO {reader};\n");
        if self.is_partitioned() {
            let view = format!("{schema}.{}", quoted(&retained(self.table())));
            let about = format!(
                "{of} from the retention floor on. Rows of a retired leaf go from here in one commit, from the table some time later."
            );
            let _ = write!(
                sql,
                "CREATE INDEX ON {of} USING brin (block_number);\n\
                 CREATE VIEW {view} AS SELECT t.* FROM {of} AS t LEFT JOIN dalp_indexed.retention_floor AS f \
                 ON f.key = t.chain_id AND f.table_schema = {} AND f.table_name = {} \
                 WHERE f.floor IS NULL OR t.block_time >= f.floor;\n\
                 COMMENT ON VIEW {view} IS {};\nGRANT SELECT ON {view} TO {reader};\n\
                 ALTER TABLE {of} OWNER TO {partitioner};\n",
                literal(self.schema()),
                literal(self.table()),
                literal(&about)
            );
        }
        sql
    }
}

/// The name of the view of retained rows: cut like PostgreSQL would, but between characters.
pub fn retained(table: &str) -> String {
    let mut name = format!("retained_{table}");
    let cut = (0..=NAME.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.truncate(cut);
    name
}

/// A text as SQL, for any value of `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}
