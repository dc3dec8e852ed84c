//! Connections that act as the partitioner.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::LeavesError;
use crate::config::{Config, Database};
use crate::store::connect::{connect_direct, explain};

/// Makes connections that act as the partitioner.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    database: Database,
    role: String,
}

impl Connector {
    pub fn new(config: &Config) -> Self {
        Self { database: config.database.clone(), role: config.roles.partitioner.clone() }
    }

    /// A direct connection to `database.admin_url`.
    ///
    /// # Errors
    /// See [`LeavesError`].
    pub async fn connect(&self) -> Result<Client, LeavesError> {
        let client = connect_direct(&self.database, &self.database.admin_url).await?;
        // A decision about rows needs all of them, so hidden rows are an error.
        let set_role = format!("SET row_security = off; SET ROLE \"{}\"", self.role.replace('"', "\"\""));
        match client.batch_execute(&set_role).await {
            Err(error) => Err(self.refused(&client, &error).await),
            Ok(()) => Ok(client),
        }
    }

    /// Why SET ROLE failed: the right is missing (42501), the role is missing (22023), or the connection was lost.
    async fn refused(&self, client: &Client, error: &tokio_postgres::Error) -> LeavesError {
        let said = error.as_db_error().filter(|_| {
            matches!(error.code(), Some(&(SqlState::INSUFFICIENT_PRIVILEGE | SqlState::INVALID_PARAMETER_VALUE)))
        });
        let Some(said) = said else { return LeavesError::Lost { why: explain(error) } };
        let why = format!("{} (SQLSTATE {})", said.message(), said.code().code());
        let sql = "SELECT format('GRANT %I TO %I', $1, session_user)";
        match client.query_typed_one(sql, &[(&self.role, Type::TEXT)]).await {
            Ok(row) => LeavesError::Role { role: self.role.clone(), grant: row.get(0), why },
            Err(error) => LeavesError::Lost { why: explain(&error) },
        }
    }
}
