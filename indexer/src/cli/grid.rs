//! Tables for people: at most as wide as the terminal, without broken words, numbers or times. Wider tables become several
//! tables, each with the columns that name the row, or lines; without a terminal, each row is one line.

use std::fmt;
use std::io;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// A table under construction.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    width: Option<usize>,
    /// Columns that name the row.
    names: usize,
}

impl Grid {
    /// For standard output's terminal, if it is one.
    pub fn new(header: &[&str]) -> Self {
        Self::within(header, terminal())
    }

    fn within(header: &[&str], width: Option<usize>) -> Self {
        Self { header: header.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new(), width, names: 0 }
    }

    /// The first columns, up to this number, name the row.
    pub fn named_by(self, names: usize) -> Self {
        Self { names, ..self }
    }

    /// As several tables, one below the other; none if that would break a word too.
    fn in_parts(&self) -> Option<String> {
        let width = self.width.filter(|_| self.names > 0)?;
        let column = |at: usize| {
            let cells = std::iter::once(&self.header[at]).chain(self.rows.iter().map(|row| &row[at]));
            cells.map(|cell| longest_word(&glue(cell)).max(longest_line(cell).min(READABLE))).max().unwrap_or(0)
        };
        let (names, mut parts): (Vec<usize>, Vec<Vec<usize>>) = ((0..self.names).collect(), Vec::new());
        for at in self.names..self.header.len() {
            let wide = |part: &Vec<usize>| total(part.iter().chain([&at]).map(|at| column(*at))) > width;
            match parts.last_mut() {
                Some(part) if !wide(part) => part.push(at),
                _ => parts.push(names.iter().copied().chain([at]).collect()),
            }
        }
        let of = |part: &Vec<usize>, row: &Vec<String>| part.iter().map(|at| row[*at].clone()).collect::<Vec<_>>();
        let part = |part: &Vec<usize>| {
            let rows: Vec<Vec<String>> = self.rows.iter().map(|row| of(part, row)).collect();
            laid_out(table(), &of(part, &self.header), &rows, Some(width))
        };
        Some(parts.iter().map(part).collect::<Option<Vec<_>>>()?.join("\n"))
    }

    pub fn add_row<C: fmt::Display>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match laid_out(table(), &self.header, &self.rows, self.width).or_else(|| self.in_parts()) {
            Some(text) => f.write_str(&text),
            None => f.write_str(line_by_line(&self.header, &self.rows).trim_end()),
        }
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table
}

/// A column of at least this width breaks few lines.
const READABLE: usize = 24;

/// The width of a table with such columns: each has a space at both sides and a line to its right, and the first one to its left.
fn total(columns: impl IntoIterator<Item = usize>) -> usize {
    columns.into_iter().map(|column| column + 3).sum::<usize>() + 1
}

fn longest_line(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

fn longest_word(text: &str) -> usize {
    text.split([' ', '\n']).map(|word| word.chars().count()).max().unwrap_or(0)
}

/// Columns of standard output's terminal; none if it is not a terminal.
pub(super) fn terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The rows in `table`, no wider than `width`; none if that would break a word.
pub(super) fn laid_out(
    mut table: Table,
    header: &[String],
    rows: &[Vec<String>],
    width: Option<usize>,
) -> Option<String> {
    let glued = |text: &String| glue(text);
    let header: Vec<String> = header.iter().map(glued).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(glued).collect()).collect();
    let cells = |at: usize| {
        let values = rows.iter().filter_map(move |row| row.get(at));
        std::iter::once(&header[at]).chain(values)
    };
    let of_columns = |longest: fn(&str) -> usize| -> Vec<usize> {
        (0..header.len()).map(|at| cells(at).map(|text| longest(text)).max().unwrap_or(0)).collect()
    };
    table.set_header(&header);
    for row in &rows {
        table.add_row(row);
    }
    if let Some(width) = width.filter(|width| total(of_columns(longest_line)) > *width) {
        let words = of_columns(longest_word);
        if total(words.iter().copied()) > width {
            return None;
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
        for (at, word) in words.iter().enumerate() {
            if let Some(column) = table.column_mut(at) {
                let least = u16::try_from(word + 2).unwrap_or(u16::MAX);
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
            }
        }
    }
    Some(table.trim_fmt().replace(GLUE, " "))
}

/// Replaces a space where no line may break.
const GLUE: char = '\u{a0}';

/// Dates and their times, and numbers and their units, stay together.
fn glue(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let is_glued = |at: usize| {
        let digit = |at: Option<&char>| at.is_some_and(char::is_ascii_digit);
        let before = at.checked_sub(1).and_then(|at| characters.get(at));
        let unit = characters.get(at + 2).is_none_or(|after| !after.is_alphabetic());
        characters[at] == ' ' && digit(before) && (digit(characters.get(at + 1)) || unit)
    };
    (0..characters.len()).map(|at| if is_glued(at) { GLUE } else { characters[at] }).collect()
}

/// Each value on a separate line, below its row's number.
pub(super) fn line_by_line(names: &[String], rows: &[Vec<String>]) -> String {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push_str(&format!("-[ {} ]-\n", number + 1));
        for (name, value) in names.iter().zip(row) {
            let value = value.replace('\n', &format!("\n{:width$} | ", ""));
            text.push_str(&format!("{name:width$} | {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(width: Option<usize>) -> String {
        let mut grid = Grid::within(&["chain", "since", "waits for"], width);
        grid.add_row([
            "devnet (31337)",
            "2026-03-01 12:00:00",
            "blocks 1 to 2147483647: the node answers with an error",
        ]);
        grid.to_string()
    }

    #[test]
    fn what_is_too_wide_becomes_several_tables_that_name_their_rows() {
        let header: Vec<String> = (0..12).map(|at| format!("column{at}")).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut grid = Grid::within(&header, Some(80)).named_by(2);
        grid.add_row(["erc20_transfer", "31337"].into_iter().chain(["2026-03-01 12:00"; 10]));
        let text = grid.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.matches("2026-03-01 12:00").count(), 10, "{text}");
        let tables = text.matches("erc20_transfer   31337").count();
        assert!(tables > 1 && tables == text.matches("column0").count(), "{text}");
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_and_breaks_no_word() {
        for width in [60, 80, 100, 200] {
            let text = shown(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            for word in ["(31337)", "2026-03-01 12:00:00", "2147483647:", "answers"] {
                assert!(text.contains(word), "{word} at {width}:\n{text}");
            }
        }
        assert!(shown(Some(40)).contains("waits for | blocks 1"), "line by line:\n{}", shown(Some(40)));
        let piped = shown(None);
        assert!(piped.lines().any(|line| line.contains("devnet (31337)") && line.contains("with an error")), "{piped}");
    }
}
