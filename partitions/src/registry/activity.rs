//! The record of operations: rows of the table `activity`, written in the transaction of the operation.

use std::time::Duration;

use chrono::Utc;
use tokio_postgres::{
    Client, GenericClient,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::leaves::create::ensure;
use crate::{Error, Interval, Need, Policy, Registry, Table};

/// A completed or failed operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// Its kind: `partition.detach`, `hold.add`.
    pub action: &'static str,
    /// Its object: a leaf or a table, with its schema.
    pub object: String,
    /// Its statement; `None` for several small ones.
    pub statement: Option<String>,
    /// Its duration.
    pub took: Duration,
    /// The wait for its first lock, as a part of the duration.
    pub waited: Duration,
    /// Why it failed; `None` if it succeeded.
    pub failure: Option<String>,
    /// Further details.
    pub detail: serde_json::Value,
}

impl Deed {
    /// An operation of unknown duration.
    pub(crate) fn new(action: &'static str, object: impl Into<String>) -> Self {
        Self {
            action,
            object: object.into(),
            statement: None,
            took: Duration::ZERO,
            waited: Duration::ZERO,
            failure: None,
            detail: serde_json::Value::Null,
        }
    }

    #[must_use]
    pub(crate) fn with_detail(self, detail: serde_json::Value) -> Self {
        Self { detail, ..self }
    }
}

/// The table of a registry's record, to be managed itself.
pub fn activity_table(registry: &Registry) -> Table {
    Table::flat(&registry.record, "activity", "occurred_at").registered_in(registry.clone())
}

/// Makes sure that rows of now and of the next months have a leaf.
pub async fn ensure_activity(client: &mut Client, registry: &Registry) -> Result<(), Error> {
    let policy = Policy { interval: Interval::Month, ..Policy::default() };
    let now = Utc::now();
    match ensure(client, &activity_table(registry), 0, &policy, now, &Need::ahead_of(now)).await {
        Err(Error::NotManaged { .. } | Error::NotOwner { .. }) => Err(missing(registry)),
        ensured => ensured.map(drop),
    }
}

const RECORD: &str = "INSERT INTO record.activity (action, object, statement, outcome, duration_ms, lock_wait_ms, detail) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Writes the row; inside a transaction, it commits together with the operation.
pub(crate) async fn record(client: &impl GenericClient, registry: &Registry, deed: &Deed) -> Result<(), Error> {
    let outcome = deed.failure.as_deref().unwrap_or("done");
    let (took, waited) = (deed.took.as_secs_f64() * 1_000.0, deed.waited.as_secs_f64() * 1_000.0);
    let detail = (!deed.detail.is_null()).then_some(&deed.detail);
    let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
        (&deed.action, Type::TEXT),
        (&deed.object, Type::TEXT),
        (&deed.statement, Type::TEXT),
        (&outcome, Type::TEXT),
        (&took, Type::FLOAT8),
        (&waited, Type::FLOAT8),
        (&detail, Type::JSONB),
    ];
    match client.query_typed(&registry.sql(RECORD), &parameters).await {
        Err(error) if is_missing(error.code()) => Err(missing(registry)),
        written => {
            written.map(drop).map_err(Error::doing("record the operation", format!("{}.activity", registry.record)))
        }
    }
}

fn missing(registry: &Registry) -> Error {
    Error::NoActivity { schema: registry.record.clone() }
}

fn is_missing(code: Option<&SqlState>) -> bool {
    matches!(code, Some(&(SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::INVALID_SCHEMA_NAME)))
}
