//! Results as text: a table, CSV or JSON lines. Values are PostgreSQL's text; nothing is rounded or re-encoded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::cli::grid;
use crate::cli::out::tell;

/// Format of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people; NULL is ∅.
    #[default]
    Table,
    /// With a header; NULL is empty, an empty text is "".
    Csv,
    /// One object per line; values are strings of PostgreSQL's text, NULL is null.
    Json,
}

/// The format that the user chose.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub format: Format,
    /// One line per value, instead of one per row.
    pub expanded: bool,
    /// Whether times are shown.
    pub timing: bool,
    /// Rows shown of one result; none for all.
    pub max_rows: Option<u64>,
    /// Columns of the terminal for a table, if there is one.
    pub width: Option<usize>,
}

/// NULL in a table: no text looks like it by accident.
const NULL: &str = "∅";

/// Bytes of text that are laid out as one table; later rows are laid out as the next one. A row holds data of contracts, so it
/// may have any size.
const TABLE_BYTES: usize = 4 << 20;

/// One result during its output. CSV and JSON are written at once, a table when its widths are known.
pub(super) struct ResultSet {
    view: View,
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
    /// [`TABLE_BYTES`].
    most: usize,
    /// Rows that were shown or will be.
    shown: u64,
    /// Arrived rows.
    seen: u64,
}

impl ResultSet {
    pub fn new(view: View, columns: Vec<String>, out: &mut impl Write) -> io::Result<Self> {
        if view.format == Format::Csv {
            let names: Vec<String> = columns.iter().map(|name| csv_field(Some(name))).collect();
            writeln!(out, "{}", names.join(","))?;
        }
        let columns = if view.format == Format::Json { distinct(columns) } else { columns };
        Ok(Self { view, columns, rows: Vec::new(), bytes: 0, most: TABLE_BYTES, shown: 0, seen: 0 })
    }

    /// Adds a row; a row beyond the limits is only counted.
    pub fn push(&mut self, row: &[Option<&str>], out: &mut impl Write) -> io::Result<()> {
        self.seen += 1;
        if self.view.max_rows.is_some_and(|most| self.shown >= most) {
            return Ok(());
        }
        self.shown += 1;
        match self.view.format {
            Format::Csv => {
                let fields: Vec<String> = row.iter().map(|value| csv_field(*value)).collect();
                writeln!(out, "{}", fields.join(","))
            }
            Format::Json => writeln!(out, "{}", json_object(&self.columns, row)),
            Format::Table => {
                self.bytes += row.iter().flatten().map(|value| value.len()).sum::<usize>();
                self.rows.push(row.iter().map(|value| value.map(|text| printable(text).into_owned())).collect());
                if self.bytes > self.most { self.write_table(out) } else { Ok(()) }
            }
        }
    }

    /// Writes the rest, and for a table the count and the time.
    pub fn finish(mut self, took: Duration, out: &mut impl Write) -> io::Result<()> {
        if self.view.format == Format::Table && !self.columns.is_empty() && (self.shown == 0 || !self.rows.is_empty()) {
            self.write_table(out)?;
        }
        let Self { shown, seen, .. } = self;
        if self.view.format == Format::Table {
            writeln!(out, "({seen} row{}{})", if seen == 1 { "" } else { "s" }, time(self.view, took))?;
        }
        if shown < seen {
            // Not into the data: a reader of CSV or JSON must not mistake it for a row.
            out.flush()?;
            tell!("notice: {shown} of {seen} rows are shown; --max-rows 0 shows all, --format csv streams them");
        }
        Ok(())
    }

    /// Writes the kept rows, and frees them.
    fn write_table(&mut self, out: &mut impl Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> = std::mem::take(&mut self.rows)
            .into_iter()
            .map(|row| row.into_iter().map(|value| value.unwrap_or_else(|| NULL.to_owned())).collect())
            .collect();
        self.bytes = 0;
        let names: Vec<String> = self.columns.iter().map(|name| printable(name).into_owned()).collect();
        let table =
            (!self.view.expanded).then(|| grid::laid_out(style(names.len(), &rows), &names, &rows, self.view.width));
        match table.flatten() {
            Some(table) => writeln!(out, "{table}"),
            None => write!(out, "{}", grid::line_by_line(&names, &rows)),
        }
    }
}

/// Numbers are aligned to the right.
fn style(columns: usize, rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(vec![""; columns]);
    for index in 0..columns {
        let mut values = rows.iter().map(|row| row[index].as_str()).filter(|value| *value != NULL).peekable();
        if values.peek().is_some()
            && values.all(is_number)
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Writes the end of a statement that returned no rows.
pub(super) fn done(view: View, affected: u64, took: Duration, out: &mut impl Write) -> io::Result<()> {
    if view.format != Format::Table {
        return Ok(());
    }
    let rows = match affected {
        0 => String::new(),
        1 => ", 1 row".into(),
        rows => format!(", {rows} rows"),
    };
    writeln!(out, "(done{rows}{})", time(view, took))
}

fn time(view: View, took: Duration) -> String {
    if view.timing { format!(", {:.1} ms", took.as_secs_f64() * 1_000.0) } else { String::new() }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit()) && digits.parse::<f64>().is_ok()
}

/// The text with control characters spelled out: contracts choose names, and a terminal obeys control characters.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    // Also the marks that change the direction of writing, with which one name can look like another.
    let harmful = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return text.into();
    }
    text.chars()
        .fold(String::new(), |mut shown, c| {
            if harmful(c) {
                let _ = write!(shown, "{}", c.escape_unicode());
            } else {
                shown.push(c);
            }
            shown
        })
        .into()
}

fn csv_field(value: Option<&str>) -> String {
    match value {
        None => String::new(),
        Some("") => "\"\"".into(),
        Some(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Some(text) => text.into(),
    }
}

fn json_object(names: &[String], row: &[Option<&str>]) -> String {
    let pair = |(name, value): (&String, &Option<&str>)| {
        format!("{}:{}", serde_json::Value::from(name.as_str()), serde_json::Value::from(*value))
    };
    format!("{{{}}}", names.iter().zip(row).map(pair).collect::<Vec<_>>().join(","))
}

/// Unique names, because a JSON object would lose values otherwise.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut times: HashMap<String, u32> = HashMap::new();
    names
        .into_iter()
        .map(|name| {
            let time = times.entry(name.clone()).and_modify(|time| *time += 1).or_insert(1);
            if *time == 1 { name } else { format!("{name}_{time}") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(format: Format) -> View {
        View { format, expanded: false, timing: false, max_rows: Some(2), width: None }
    }

    fn written(view: View, columns: &[&str], rows: &[&[Option<&str>]]) -> String {
        let mut out = Vec::new();
        let mut set = ResultSet::new(view, columns.iter().map(|name| (*name).into()).collect(), &mut out).unwrap();
        for row in rows {
            set.push(row, &mut out).unwrap();
        }
        set.finish(Duration::from_millis(3), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const ROWS: &[&[Option<&str>]] =
        &[&[Some("1"), Some("a,\"b\"")], &[Some("-20.5"), None], &[Some("3"), Some("not shown")]];

    #[test]
    fn tables() {
        let text = written(view(Format::Table), &["n", "text"], ROWS);
        assert_eq!(text, "|     n | text  |\n|-------|-------|\n|     1 | a,\"b\" |\n| -20.5 | ∅     |\n(3 rows)\n");
        let expanded = View { expanded: true, timing: true, ..view(Format::Table) };
        let text = written(expanded, &["n", "text"], &[&[Some("1"), Some("a\nb")]]);
        assert_eq!(text, "-[ 1 ]-\nn    | 1\ntext | a\n     | b\n(1 row, 3.0 ms)\n");
    }

    #[test]
    fn csv_tells_null_from_empty() {
        let text = written(view(Format::Csv), &["a", "b,c"], &[&[Some(""), None], &[Some("x\"y"), Some("1\n2")]]);
        assert_eq!(text, "a,\"b,c\"\n\"\",\n\"x\"\"y\",\"1\n2\"\n");
    }

    #[test]
    fn json_loses_nothing() {
        let text = written(view(Format::Json), &["a", "a"], &[&[Some("123456789012345678901234567890"), None]]);
        assert_eq!(text, "{\"a\":\"123456789012345678901234567890\",\"a_2\":null}\n");
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(printable("a\u{1b}[2J\tb\n"), "a\\u{1b}[2J\\u{9}b\n");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(printable("Zürich →"), "Zürich →");
    }

    #[test]
    fn all_rows_are_shown_however_many_bytes_they_are() {
        let mut out = Vec::new();
        let all = View { max_rows: None, ..view(Format::Table) };
        let mut set = ResultSet::new(all, vec!["a".into()], &mut out).unwrap();
        let big = "x".repeat(500);
        set.most = 1_000;
        for _ in 0..9 {
            set.push(&[Some(&big)], &mut out).unwrap();
            assert!(set.bytes <= set.most, "no more is kept than is laid out at once");
        }
        set.finish(Duration::ZERO, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches(&big).count(), 9);
        assert!(text.ends_with("(9 rows)\n"));
    }

    #[test]
    fn what_is_wider_than_the_terminal_is_written_line_by_line() {
        let narrow = View { width: Some(30), ..view(Format::Table) };
        let text = written(narrow, &["token"], &[&[Some("\\x5122000000000000000000000000000000000000")]]);
        assert!(text.starts_with("-[ 1 ]-\ntoken | \\x5122"), "{text}");
    }
}
