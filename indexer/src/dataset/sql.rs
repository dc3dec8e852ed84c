//! The statements that follow from a description: built once, from quoted names only.

use std::fmt::Write as _;

use super::column::{Column, KEY};

/// Most bytes of a name in PostgreSQL.
pub(super) const NAME: usize = 63;

const CHAIN: &str = "chain_id";

/// The statements of a table.
#[derive(Clone, Debug)]
pub struct Statements {
    /// Loads rows.
    pub copy: String,
    /// Deletes the rows of chain `$1` from block `$2` upwards; of a partitioned table, between the times `$3` and `$4`.
    pub unwind: String,
    /// Of the table of raw logs: as `unwind`, and moves the rows to `orphaned_log` under the epoch `$5`.
    pub orphan: String,
    /// Deletes the rows of chain `$1` and blocks `$2` to `$3`, at any time, except the rows at the blocks `$4` and log indexes
    /// `$5`.
    pub clear: String,
    /// Of a table with its emitter in a column of its own: deletes the rows of chain `$1`, blocks `$2` to `$3` and contracts `$4`,
    /// between the times `$5` and `$6`.
    pub clear_emitted: Option<String>,
    /// Whether chain `$1` has a row at the time `$2` or later.
    pub recent: String,
    /// Reads the rows of chain `$1` and blocks `$2` to `$3`: block, log index and time, then the other columns. In a partitioned
    /// table, first the rows between the times `$4` and `$5`, and then the others.
    pub read: Vec<String>,
}

impl Statements {
    /// `emitter`: the column of the contract whose event a row is.
    pub(super) fn of(schema: &str, table: &str, columns: &[Column], partitioned: bool, emitter: Option<&str>) -> Self {
        let of = format!("{}.{}", quoted(schema), quoted(table));
        let all = joined(columns.iter());
        let cells = joined(columns.iter().filter(|column| !KEY.contains(&column.name.as_str())));
        let read = format!(
            "SELECT block_number, log_index, block_time, {cells} FROM {of} WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3"
        );
        let (in_time, read) = match partitioned {
            true => (
                " AND block_time BETWEEN $3 AND $4",
                ["block_time BETWEEN $4 AND $5", "(block_time < $4 OR block_time > $5)"]
                    .map(|part| format!("{read} AND {part}"))
                    .to_vec(),
            ),
            false => ("", vec![read]),
        };
        let unwind = format!("DELETE FROM {of} WHERE chain_id = $1{in_time} AND block_number >= $2");
        let kept = joined(columns.iter().filter(|column| column.name != CHAIN));
        let orphan = format!(
            "WITH gone AS ({unwind} RETURNING *) INSERT INTO dalp_indexed.orphaned_log ({CHAIN}, epoch, {kept}) \
             SELECT {CHAIN}, $5, {kept} FROM gone"
        );
        Self {
            copy: format!("COPY {of} ({all}) FROM STDIN (FORMAT binary)"),
            unwind,
            orphan,
            clear: format!(
                "DELETE FROM {of} AS r WHERE r.chain_id = $1 AND r.block_number BETWEEN $2 AND $3 AND NOT EXISTS (\
                 SELECT 1 FROM unnest($4::int8[], $5::int4[]) AS f (n, i) WHERE f.n = r.block_number AND f.i = r.log_index)"
            ),
            clear_emitted: emitter.map(|emitter| {
                format!(
                    "DELETE FROM {of} WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND {} = ANY ($4) \
                     AND block_time BETWEEN $5 AND $6",
                    quoted(emitter)
                )
            }),
            recent: format!("SELECT EXISTS (SELECT FROM {of} WHERE chain_id = $1 AND block_time >= $2)"),
            read,
        }
    }
}

/// A name as SQL, with any characters.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn joined<'c>(columns: impl Iterator<Item = &'c Column>) -> String {
    columns.fold(String::new(), |mut text, column| {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a text cannot fail.
        let _ = write!(text, "{comma}{}", quoted(&column.name));
        text
    })
}
