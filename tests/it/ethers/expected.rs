//! The row that another decoder's values make: the rules of docs/events.md, said once more.

use std::collections::{BTreeMap, HashSet};

use alloy::hex;
use serde::Deserialize;
use serde_json::{Value, json};

/// The columns before those of the parameters.
const OF_EVERY_TABLE: &[&str] = &["chain_id", "block_time", "block_number", "log_index", "address", "tx_hash"];

/// A log as ethers decodes it.
#[derive(Debug, Deserialize)]
pub struct Decoded {
    /// Its name and types, such as `Paused(address)`.
    pub event: String,
    pub columns: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
pub struct Parameter {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub indexed: bool,
    pub value: Value,
}

impl Decoded {
    /// The event and which of its parameters are indexed.
    pub fn form(&self) -> (String, Vec<bool>) {
        (self.event.clone(), self.columns.iter().map(|column| column.indexed).collect())
    }

    /// The name of the event's table, unless it is too long or another version has it.
    pub fn table(&self, kind: &str) -> String {
        format!("{kind}_{}", snake(self.event.split('(').next().unwrap_or_default()))
    }

    /// The columns of the parameters, each with its value as PostgreSQL writes it. `reserved`: the words that cannot be names.
    pub fn columns(&self, reserved: &HashSet<String>) -> BTreeMap<String, Option<String>> {
        let mut columns = BTreeMap::new();
        let is_taken = |name: &String| reserved.contains(name) || OF_EVERY_TABLE.contains(&name.as_str());
        for (at, parameter) in self.columns.iter().enumerate() {
            let mut name = snake(&parameter.name);
            if name.is_empty() {
                name = format!("arg{at}");
            }
            if parameter.is_hashed() {
                name.push_str("_hash");
            } else if is_taken(&name) {
                name.push_str(if parameter.ty == "address" { "_address" } else { "_arg" });
            }
            let (value, bytes) = parameter.text();
            if parameter.ty == "string" && !parameter.indexed {
                columns.insert(format!("{name}_bytes"), bytes);
            }
            columns.insert(name, value);
        }
        columns
    }
}

impl Parameter {
    fn is_list(&self) -> bool {
        self.ty.ends_with(']') || self.ty.starts_with("tuple")
    }

    fn is_hashed(&self) -> bool {
        self.indexed && (self.is_list() || ["string", "bytes"].contains(&self.ty.as_str()))
    }

    /// The value, or in its place the bytes of a text with NUL, which PostgreSQL cannot hold as text.
    fn text(&self) -> (Option<String>, Option<String>) {
        if self.is_list() && !self.indexed {
            return (Some(self.json().to_string()), None);
        }
        let is_text = self.ty == "string" && !self.indexed;
        let value = match &self.value {
            Value::Bool(flag) => flag.to_string(),
            Value::String(text) if is_text && text.contains('\0') => {
                return (None, Some(format!("\\x{}", hex::encode(text))));
            }
            Value::String(text) if is_text || self.ty.starts_with("uint") || self.ty.starts_with("int") => text.clone(),
            Value::String(hex) => format!("\\x{}", hex.trim_start_matches("0x").to_lowercase()),
            other => panic!("{self:?}: {other}"),
        };
        (Some(value), None)
    }

    /// A list of values of one type. Numbers of up to 48 bits are numbers.
    fn json(&self) -> Value {
        let of = self.ty.strip_suffix("[]").unwrap_or_else(|| panic!("{self:?}"));
        let item = |item: &Value| match (of, item) {
            ("uint8" | "uint16" | "uint32", Value::String(number)) => number.parse::<u64>().unwrap().into(),
            ("address", Value::String(hex)) => hex.to_lowercase().into(),
            ("string", Value::String(text)) if text.contains('\0') => json!({ "hex": hex::encode_prefixed(text) }),
            (_, item) => item.clone(),
        };
        self.value.as_array().unwrap_or_else(|| panic!("{self:?}")).iter().map(item).collect()
    }
}

/// `_newOnchainID` as `new_onchain_id`.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.trim_matches('_').chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let is = |at: usize, of: fn(&char) -> bool| letters.get(at).is_some_and(of);
        let follows = at > 0 && is(at - 1, |last| !last.is_ascii_uppercase());
        if letter.is_ascii_uppercase() && (follows || (at > 0 && is(at + 1, char::is_ascii_lowercase))) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
