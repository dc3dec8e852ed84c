//! Names of tables and columns from those of events and parameters: snake case, free of reserved words, distinct, and stable.

use std::collections::HashSet;

use alloy::primitives::keccak256;

/// Most bytes of a name in PostgreSQL.
pub const NAME: usize = 63;

/// Words that no column can have as its name without quotes (PostgreSQL 15 to 18), and the columns that every table has.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "cmax",
    "cmin",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "ctid",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "tableoid",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmax",
    "xmin",
];

/// `newOnchainID` as `new_onchain_id`; without the underscores around it, and with `_` for every other character.
pub fn snake(name: &str) -> String {
    let name: Vec<char> = name.trim_matches('_').chars().collect();
    let is = |at: usize, of: fn(&char) -> bool| name.get(at).is_some_and(of);
    let mut snake = String::new();
    for (at, letter) in name.iter().enumerate() {
        let upper = letter.is_ascii_uppercase();
        // A word begins after a small letter or digit, or with the last capital of several, unless a plural's s follows it.
        let plural = is(at + 1, |next| *next == 's') && !is(at + 2, char::is_ascii_lowercase);
        let begins = upper
            && at > 0
            && (is(at - 1, |last| last.is_ascii_lowercase() || last.is_ascii_digit())
                || (is(at - 1, char::is_ascii_uppercase) && is(at + 1, char::is_ascii_lowercase) && !plural));
        if begins {
            snake.push('_');
        }
        snake.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    snake
}

/// The name, [`hashed`] if it has more than so many bytes.
pub fn fitting(name: String, bytes: usize) -> String {
    if name.len() <= bytes { name } else { hashed(&name, bytes) }
}

/// The beginning of the name and eight digits of its hash: so many bytes at most.
pub fn hashed(name: &str, bytes: usize) -> String {
    format!("{}_{}", &name[..name.floor_char_boundary(bytes - 9)], &alloy::hex::encode(keccak256(name))[..8])
}

/// The columns of an event's parameters.
#[derive(Debug)]
pub struct Columns {
    /// The columns that every table has.
    others: Vec<String>,
    taken: HashSet<String>,
}

impl Columns {
    /// Beside these columns, which every table has.
    pub fn beside(others: &[&str]) -> Self {
        Self { others: others.iter().map(|name| (*name).to_owned()).collect(), taken: HashSet::new() }
    }

    /// The column of the parameter `name`, the `at`th: `arg0` if it has no name. A reserved name gets a word after it, a repeated
    /// one a number. `suffix`: what else the name must tell, such as `_hash`.
    pub fn name(&mut self, name: &str, at: usize, is_address: bool, suffix: &str) -> String {
        // For the suffixes of this function and the longest of the callers'.
        const ROOM: usize = 16;
        let mut base = snake(name);
        if base.is_empty() {
            base = format!("arg{at}");
        } else if base.starts_with(|first: char| first.is_ascii_digit()) {
            base = format!("arg_{base}");
        }
        let mut base = fitting(base, NAME - ROOM);
        let whole = format!("{base}{suffix}");
        if RESERVED.contains(&&*whole) || self.others.contains(&whole) {
            base.push_str(if is_address { "_address" } else { "_arg" });
        }
        let mut whole = format!("{base}{suffix}");
        for number in 2.. {
            if self.taken.insert(whole.clone()) {
                break;
            }
            whole = format!("{base}_{number}{suffix}");
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_snake_case() {
        for (name, expected) in [
            ("Transfer", "transfer"),
            ("TransferSingle", "transfer_single"),
            ("newOnchainID", "new_onchain_id"),
            ("ERC20TokenRecovered", "erc20_token_recovered"),
            ("ATKFixedYieldScheduleCreated", "atk_fixed_yield_schedule_created"),
            ("tokenURI", "token_uri"),
            ("tokenURIs", "token_uris"),
            ("IDs", "ids"),
            ("isX", "is_x"),
            ("_from", "from"),
            ("__x_", "x"),
            ("a_b", "a_b"),
            ("amount0In", "amount0_in"),
            ("sqrtPriceX96", "sqrt_price_x96"),
            ("$pay", "_pay"),
            ("URL", "url"),
            ("_", ""),
        ] {
            assert_eq!(snake(name), expected, "{name}");
        }
    }

    #[test]
    fn columns_are_distinct_and_need_no_quotes() {
        let mut columns = Columns::beside(&["chain_id", "address"]);
        let named: Vec<String> = [
            ("from", true),
            ("to", true),
            ("order", false),
            ("address", true),
            ("", false),
            ("amount", false),
            ("Amount", false),
            ("amount", false),
        ]
        .iter()
        .enumerate()
        .map(|(at, (name, address))| columns.name(name, at, *address, ""))
        .collect();
        assert_eq!(named[..5], ["from_address", "to_address", "order_arg", "address_address", "arg4"]);
        assert_eq!(named[5..], ["amount", "amount_2", "amount_3"]);
        assert_eq!(columns.name("1st", 0, false, ""), "arg_1st");
        assert_eq!(columns.name("name", 0, false, "_hash"), "name_hash");
        let long = columns.name(&"a".repeat(80), 0, false, "_bytes");
        assert!(long.len() <= NAME && long.starts_with("aaa") && long.ends_with("_bytes"), "{long}");
        assert_ne!(columns.name(&"a".repeat(81), 0, false, "_bytes"), long);
    }
}
