//! Whether a login has the rights for its duty, and the GRANT that gives them.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::StoreError;

/// The duty of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// `database.url`.
    Write,
    /// `database.reader_url`.
    Read,
}

/// Checks that this connection's login has its rights, and that this binary can use the schema.
///
/// # Errors
/// The fault, and the command that mends it.
pub async fn fit(client: &Client, duty: Duty) -> Result<dalp_migrations::SchemaState, StoreError> {
    if let Some(why) = stranger(client, duty).await? {
        return Err(StoreError::Fatal { why });
    }
    dalp_migrations::check(client).await.map_err(|error| StoreError::Fatal { why: error.to_string() })
}

/// The remedy for a login that lacks the rights of its duty and is not in the group with these rights; none if it is, or if there
/// is no schema.
///
/// # Errors
/// The server's.
pub async fn stranger(client: &Client, duty: Duty) -> Result<Option<String>, tokio_postgres::Error> {
    let (url, right) = match duty {
        Duty::Write => ("database.url", "INSERT"),
        Duty::Read => ("database.reader_url", "SELECT"),
    };
    let row = client.query_typed_opt(MISSING, &[(&right, Type::TEXT)]).await?;
    Ok(row.map(|row| {
        let (login, grant): (&str, &str) = (row.get(0), row.get(1));
        let verb = if duty == Duty::Write { "write" } else { "read" };
        format!(
            "{url}: permission denied: login \"{login}\" may not {verb} the tables of dalp_indexed (SQLSTATE 42501). As an \
             administrator, run: {grant};"
        )
    }))
}

/// The groups are found by their rights, so that their names need not be known: of those with rights on one table, the writer's
/// may INSERT and the reader's may not.
const MISSING: &str = "\
SELECT current_user::text, format('GRANT %I TO %I', g.rolname, current_user) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
CROSS JOIN LATERAL (SELECT a.grantee, bool_or(a.privilege_type = 'INSERT') AS writes FROM pg_catalog.aclexplode(c.relacl) a \
  WHERE a.grantee <> c.relowner GROUP BY a.grantee) AS held JOIN pg_catalog.pg_roles g ON g.oid = held.grantee \
WHERE n.nspname = 'dalp_indexed' AND c.relname = 'coverage' AND NOT g.rolcanlogin AND held.writes = ($1 = 'INSERT') \
  AND NOT pg_catalog.has_table_privilege(c.oid, $1) ORDER BY g.rolname LIMIT 1";
