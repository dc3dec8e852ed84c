//! Views for people: the retained rows of a table, with bytes as 0x text, an exact text beside each number, and amounts in the
//! unit of their token.

use std::collections::HashSet;
use std::fmt::Write as _;

use alloy::primitives::keccak256;

use super::column::{Column, Type};
use super::create::{Groups, literal, retained};
use super::sql::{NAME, quoted};
use super::table::Dataset;
use crate::events::name::{fitting, hashed};

/// The schema of the views.
pub const VIEWS: &str = "dalp_views";
/// The columns with an amount of the token that emitted the event.
const AMOUNTS: [&str; 2] = ["value", "amount"];
/// The end of the name of a view that ends at the final block.
const FINAL: &str = "_final";

/// A view for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    name: String,
    columns: Vec<Shown>,
    /// The tables behind it, and the selected rows.
    from: String,
    about: String,
}

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    /// Its value as SQL.
    value: String,
    about: String,
}

impl Dataset {
    /// The view of the table's retained rows, and the view of the final ones among them. None for the quarantine, whose rows have no
    /// retention.
    pub fn views(&self) -> Vec<View> {
        if !self.is_partitioned() {
            return Vec::new();
        }
        let all = self.view();
        let last = all.up_to_final(name_of_final(self.table()));
        vec![all, last]
    }

    fn view(&self) -> View {
        let mut taken: HashSet<String> = self.columns().iter().map(|column| column.name.clone()).collect();
        let emitter = self.event().map(|event| quoted(&event.emitter));
        let (mut columns, mut scales) = (Vec::new(), false);
        for column in self.columns() {
            columns.push(shown(column));
            if !matches!(column.of, Type::Numeric | Type::Uint64) {
                continue;
            }
            let (number, shown) = (format!("t.{}", quoted(&column.name)), &column.name);
            columns.push(Shown {
                name: beside(shown, "_text", &mut taken),
                value: format!("{number}::text"),
                about: format!("{shown} as an exact text, for programs that read numeric as floating point."),
            });
            if column.of == Type::Numeric && AMOUNTS.contains(&shown.as_str()) && emitter.is_some() {
                scales = true;
                columns.push(Shown {
                    name: beside(shown, "_scaled", &mut taken),
                    // A division would round to 16 digits or to whole numbers.
                    value: format!("{number} * ('1e-' || k.decimals)::numeric"),
                    about: format!(
                        "{shown} in whole tokens, exact: divided by 10^decimals of its contract in dalp_indexed.token. NULL where these are unknown."
                    ),
                });
            }
        }
        let mut from = format!("{}.{} AS t", quoted(self.schema()), quoted(&retained(self.table())));
        if let Some(emitter) = emitter.filter(|_| scales) {
            // At most one row of the key: queries without a scaled column do not read the table of tokens.
            let _ = write!(
                from,
                " LEFT JOIN dalp_indexed.token AS k ON k.chain_id = t.chain_id AND k.address = t.{emitter}"
            );
        }
        let about = format!(
            "{} From the retention floor of {}.{} on, with bytes as 0x text and an exact text beside each number.",
            self.about(),
            self.schema(),
            self.table()
        );
        View { name: name_of(self.table()), columns, from, about }
    }
}

/// A column as people read it.
fn shown(column: &Column) -> Shown {
    let value = format!("t.{}", quoted(&column.name));
    let (value, about) = match column.of {
        Type::Bytes => {
            (format!("'0x' || encode({value}, 'hex')"), format!("{} As 0x and hexadecimal digits.", column.about))
        }
        _ => (value, column.about.clone()),
    };
    Shown { name: column.name.clone(), value, about: about.trim_start().to_owned() }
}

impl View {
    /// The same rows up to the final block of their chain.
    fn up_to_final(&self, name: String) -> Self {
        let same = |column: &Shown| Shown { value: format!("t.{}", quoted(&column.name)), ..column.clone() };
        Self {
            name,
            columns: self.columns.iter().map(same).collect(),
            from: format!(
                "{} AS t JOIN dalp_indexed.chain_state AS s ON s.chain_id = t.chain_id AND t.block_number <= s.finalized",
                self.quoted()
            ),
            about: format!("{} Up to the final block of the chain; empty while no block is final.", self.about),
        }
    }

    /// Its name in [`VIEWS`], unquoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its schema and name as SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(VIEWS), quoted(&self.name))
    }

    fn definition(&self) -> String {
        let mut sql = String::from("SELECT");
        for (at, column) in self.columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a text cannot fail.
            let _ = write!(sql, "{comma}\n    {} AS {}", column.value, quoted(&column.name));
        }
        let _ = write!(sql, "\nFROM {}", self.from);
        sql
    }

    /// Its comment. The comment names the definition, because the server keeps another form of its text: a view with this comment is
    /// this view.
    pub fn about(&self) -> String {
        let hash = alloy::hex::encode(keccak256(self.definition()));
        format!("{} Definition {}.", self.about, &hash[..8])
    }

    /// Makes it, or puts it in the place of an earlier version of itself, with its comments and rights. For the partitioner, or a login
    /// that may become it.
    pub fn create(&self, groups: Groups<'_>) -> String {
        let of = self.quoted();
        let mut sql = format!(
            "CREATE OR REPLACE VIEW {of} AS\n{};\nCOMMENT ON VIEW {of} IS {};\n",
            self.definition(),
            literal(&self.about())
        );
        for column in &self.columns {
            let (name, about) = (quoted(&column.name), literal(&column.about));
            let _ = writeln!(sql, "COMMENT ON COLUMN {of}.{name} IS {about};");
        }
        let _ = write!(
            sql,
            "GRANT SELECT ON {of} TO {};\nALTER VIEW {of} OWNER TO {};\n",
            quoted(groups.reader),
            quoted(groups.partitioner)
        );
        sql
    }
}

/// The name of the view of a table: its own. Names that end with `_final` belong to the other views.
fn name_of(table: &str) -> String {
    if table.ends_with(FINAL) { hashed(table, NAME) } else { table.to_owned() }
}

fn name_of_final(table: &str) -> String {
    format!("{}{FINAL}", fitting(table.to_owned(), NAME - FINAL.len()))
}

/// The name of a column beside the column `name`, distinct from the taken ones: with a number before its suffix if it must be.
fn beside(name: &str, suffix: &str, taken: &mut HashSet<String>) -> String {
    let (mut number, mut end) = (1, suffix.to_owned());
    loop {
        let whole = format!("{}{end}", fitting(name.to_owned(), NAME - end.len()));
        if taken.insert(whole.clone()) {
            return whole;
        }
        number += 1;
        end = format!("_{number}{suffix}");
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
