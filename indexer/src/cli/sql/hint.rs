//! The probable intention of a user, where PostgreSQL only reports an error.

use strsim::levenshtein;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::statement;
use crate::store::rights::{self, Duty};

/// Advice about an error; none if the server's message is enough. Reads the catalog, which a failed open transaction prevents.
pub(super) async fn of(client: &Client, sql: &str, error: &tokio_postgres::Error) -> Option<String> {
    let db = error.as_db_error()?;
    match db.code() {
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => rights::stranger(client, Duty::Read).await.ok()?,
        code if *code == SqlState::UNDEFINED_TABLE => {
            // Without a right to the schema, its tables look missing.
            if let Some(why) = rights::stranger(client, Duty::Read).await.ok()? {
                return Some(why);
            }
            if let Err(missing @ dalp_migrations::Error::Missing { .. }) = dalp_migrations::check(client).await {
                return Some(missing.to_string());
            }
            let wanted = quoted(db.message())?;
            let tables = names(client, TABLES, &[]).await?;
            Some(match near(wanted.rsplit('.').next()?, &tables) {
                Some(table) => format!("Did you mean dalp_indexed.{table}? \\d lists the tables"),
                None => "\\d lists the tables".to_owned(),
            })
        }
        code if *code == SqlState::UNDEFINED_COLUMN => {
            let wanted = quoted(db.message()).or_else(|| db.message().split_whitespace().nth(1))?;
            let words: Vec<&str> = sql.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let columns = names(client, COLUMNS, &words).await?;
            let near = near(wanted.rsplit('.').next()?, &columns).filter(|_| db.hint().is_none());
            let meant = near.map(|column| format!("Did you mean {column}? ")).unwrap_or_default();
            Some(format!("{meant}\\d NAME lists the columns of a table"))
        }
        _ => None,
    }
}

/// The hint for an empty result.
pub(super) fn of_nothing(sql: &str) -> Option<String> {
    let text = statement::hex_texts(sql).into_iter().find(|text| !sql.contains(&format!("hex('{text}')")))?;
    Some(format!(
        "notice: '{text}' is a text of {} letters. Addresses and hashes are bytea and never equal a text: write \
         hex('{text}') or '\\x{}'",
        text.len(),
        &text[2..]
    ))
}

/// The quoted name in a message.
fn quoted(message: &str) -> Option<&str> {
    message.split('"').nth(1)
}

async fn names(client: &Client, sql: &str, words: &[&str]) -> Option<Vec<String>> {
    let rows = client.query_typed(sql, &[(&words, Type::TEXT_ARRAY)]).await.ok()?;
    Some(rows.iter().map(|row| row.get(0)).collect())
}

/// The nearest name, if it is near: a third of its letters may differ, or one is the begin or the end of the other.
fn near<'n>(wanted: &str, names: &'n [String]) -> Option<&'n str> {
    let wanted = wanted.to_lowercase();
    let reads_like = |name: &&String| {
        let part = wanted.len() >= 3 && (name.contains(wanted.as_str()) || wanted.contains(name.as_str()));
        part || levenshtein(&wanted, name) <= (wanted.len() / 3).max(1)
    };
    names.iter().filter(reads_like).min_by_key(|name| levenshtein(&wanted, name)).map(String::as_str)
}

/// Leaves are left out; the parameter makes the statement uniform.
const TABLES: &str = "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                      WHERE n.nspname = 'dalp_indexed' AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition AND $1 IS NOT NULL";

/// The columns of the tables in the statement.
const COLUMNS: &str = "SELECT DISTINCT a.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'dalp_indexed' \
                       AND c.relname::text = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_near() {
        let tables: Vec<String> = ["logs", "erc20_transfer", "chain_state", "blocks"].map(str::to_owned).into();
        for (wanted, meant) in [
            ("log", Some("logs")),
            ("Logs", Some("logs")),
            ("transfer", Some("erc20_transfer")),
            ("erc20_transfers", Some("erc20_transfer")),
            ("block", Some("blocks")),
            ("chainstate", Some("chain_state")),
            ("users", None),
        ] {
            assert_eq!(near(wanted, &tables), meant, "{wanted}");
        }
    }

    #[test]
    fn a_text_that_should_be_bytes_is_noticed() {
        let text = format!("0x{}", "51".repeat(20));
        let notice = of_nothing(&format!("select 1 from logs where address = '{text}'")).unwrap();
        assert!(notice.contains(&format!("hex('{text}')")), "{notice}");
        assert_eq!(of_nothing(&format!("select 1 from logs where address = hex('{text}')")), None);
        assert_eq!(of_nothing("select 1 where 'a' = '0x12'"), None);
    }
}
