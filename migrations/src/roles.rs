//! The four group roles, and the rights that must exist before the first migration.

use tokio_postgres::{Client, Row, error::SqlState, types::Type};

use crate::{Error, error::words};

/// Lists the missing statements, in order, quoted by the server; empty means that all roles and rights exist.
const MISSING: &str = include_str!("missing_rights.sql");

/// The number of retries after a migration of another database changed the same cluster-wide rows.
const ATTEMPTS: usize = 10;

/// PostgreSQL cuts off longer names, and two cut names may be equal.
const LONGEST_NAME: usize = 63;

/// Names of the group roles (NOLOGIN), and whether we may create them. Roles belong to the whole cluster, not to one database:
/// installations that share a cluster but no rights need different names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Owns the schemas and all tables that are not partitioned. Default `dalp_migrator`.
    pub migrator: String,
    /// Writes rows and checkpoints; no DDL, no rights on leaves. Default `dalp_writer`.
    pub writer: String,
    /// Owns the partitioned tables and their leaves. Default `dalp_partitioner`.
    pub partitioner: String,
    /// Reads `dalp_indexed`. Default `dalp_reader`.
    pub reader: String,
    /// Whether missing roles are created (needs CREATEROLE). If false and some are missing, [`crate::migrate`] fails with the SQL
    /// for the administrator. Default true.
    pub create: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            migrator: "dalp_migrator".to_owned(),
            writer: "dalp_writer".to_owned(),
            partitioner: "dalp_partitioner".to_owned(),
            reader: "dalp_reader".to_owned(),
            create: true,
        }
    }
}

impl Roles {
    fn names(&self) -> [&String; 4] {
        [&self.migrator, &self.writer, &self.partitioner, &self.reader]
    }

    /// Refuses names that PostgreSQL would refuse or cut, and one name for two roles, which would join their rights.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let names = self.names();
        for (index, name) in names.iter().enumerate() {
            let reason = match name.as_str() {
                "" => "a name is empty".to_owned(),
                long if long.len() > LONGEST_NAME => format!("\"{long}\" is longer than {LONGEST_NAME} bytes"),
                reserved if reserved.starts_with("pg_") || ["public", "none"].contains(&reserved) => {
                    format!("\"{reserved}\" is reserved by PostgreSQL")
                }
                nul if nul.contains('\0') => "a name holds a NUL byte".to_owned(),
                twice if names[..index].contains(name) => format!("\"{twice}\" is used for two roles"),
                _ => continue,
            };
            return Err(Error::BadRoles(reason));
        }
        Ok(())
    }
}

/// The missing statements, the login and the database.
struct Missing {
    database: String,
    login: String,
    statements: Vec<String>,
}

impl Missing {
    async fn read(client: &Client, roles: &Roles) -> Result<Self, Error> {
        let parameters = roles.names().map(|name| (name as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT));
        let rows = client.query_typed(MISSING, &parameters).await.map_err(Error::doing("look up roles and rights"))?;
        // The first row has the database and the login, so there is one row even if no statement is missing.
        let text = |row: &Row, column: usize| row.get::<_, String>(column);
        Ok(Self {
            database: rows.first().map_or_else(String::new, |row| text(row, 0)),
            login: rows.first().map_or_else(String::new, |row| text(row, 1)),
            statements: rows.iter().skip(1).map(|row| text(row, 2)).collect(),
        })
    }

    fn creates_role(&self) -> bool {
        self.statements.iter().any(|statement| statement.starts_with("CREATE ROLE"))
    }

    fn into_error(self, reason: impl Into<String>) -> Error {
        let sql = self.statements.iter().map(|statement| format!("    {statement};")).collect::<Vec<_>>().join("\n");
        Error::Rights { database: self.database, login: self.login, reason: reason.into(), sql }
    }
}

/// Makes roles, memberships and the rights on `dalp_indexed`.
///
/// All databases of the cluster share roles and memberships. Another migration may add the same ones, and the advisory lock is
/// per database. So: read, act, and read again after a collision.
pub(crate) async fn establish(client: &Client, roles: &Roles) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let missing = Missing::read(client, roles).await?;
        if missing.statements.is_empty() {
            return Ok(());
        }
        if missing.creates_role() && !roles.create {
            return Err(missing.into_error("roles are missing, and the configuration forbids their creation"));
        }
        if let Err(error) = run_all(client, &missing.statements).await {
            match error.code() {
                Some(code) if is_collision(code) => {}
                Some(&(SqlState::INSUFFICIENT_PRIVILEGE | SqlState::INVALID_GRANT_OPERATION)) => {
                    let left = Missing::read(client, roles).await?;
                    return Err(left.into_error(words(&error)));
                }
                _ => return Err(Error::doing("create roles and grant rights")(error)),
            }
        }
    }
    // A GRANT without the grant option warns instead of failing, so the code can reach this end.
    let missing = Missing::read(client, roles).await?;
    if missing.statements.is_empty() { Ok(()) } else { Err(missing.into_error("rights could not be granted")) }
}

async fn run_all(client: &Client, statements: &[String]) -> Result<(), tokio_postgres::Error> {
    for statement in statements {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// The server's errors after another session did the same: the name exists, the catalog row exists, or (XX000) "tuple
/// concurrently updated".
fn is_collision(code: &SqlState) -> bool {
    [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_SCHEMA, SqlState::UNIQUE_VIOLATION, SqlState::INTERNAL_ERROR]
        .contains(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_postgres_would_refuse_are_refused() {
        let with = |reader: &str| Roles { reader: reader.to_owned(), ..Roles::default() }.validate();
        assert!(with("analysts").is_ok());
        assert!(with("Any \"name\" goes").is_ok());
        for bad in ["", "pg_read", "public", "none", "dalp_writer", "a\0b", &"x".repeat(64)] {
            assert!(matches!(with(bad), Err(Error::BadRoles(_))), "{bad:?}");
        }
    }
}
