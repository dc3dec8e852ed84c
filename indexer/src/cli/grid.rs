//! Tables for people: as wide as the terminal at most, and no word, number or time is broken. What does not fit so is written line by
//! line; where there is no terminal, each row is one line.

use std::fmt;
use std::io;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// A table in the making.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    width: Option<usize>,
}

impl Grid {
    /// For the terminal that standard output is, if it is one.
    pub fn new(header: &[&str]) -> Self {
        Self::within(header, terminal())
    }

    fn within(header: &[&str], width: Option<usize>) -> Self {
        Self { header: header.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new(), width }
    }

    pub fn add_row<C: fmt::Display>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        match laid_out(table, &self.header, &self.rows, self.width) {
            Some(text) => f.write_str(&text),
            None => f.write_str(line_by_line(&self.header, &self.rows).trim_end()),
        }
    }
}

/// Columns of the terminal that standard output is; none where it is another thing.
pub(super) fn terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The rows in `table`, no wider than `width`; none where that would break a word.
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
    // Each column has a space at both sides and a line to its right, and the first one to its left.
    let total = |columns: &[usize]| columns.iter().map(|column| column + 3).sum::<usize>() + 1;
    let longest_line = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let longest_word = |text: &str| text.split([' ', '\n']).map(|word| word.chars().count()).max().unwrap_or(0);
    if let Some(width) = width.filter(|width| total(&of_columns(longest_line)) > *width) {
        let words = of_columns(longest_word);
        if total(&words) > width {
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

/// Stands for a space that no line may end at.
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

/// Each value on a line of its own, below its row's number.
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
