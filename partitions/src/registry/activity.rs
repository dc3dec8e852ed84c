//! The record of what was done: rows of the table `activity`, written in the transaction that they tell of.

use std::time::Duration;

use chrono::Utc;
use tokio_postgres::{
    Client, GenericClient,
    error::SqlState,
    types::{ToSql, Type},
};

use crate::leaves::create::ensure;
use crate::{Error, Interval, Need, Policy, Registry, Table};

/// Something that was done, or failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// What: `partition.detach`, `hold.add`.
    pub action: &'static str,
    /// To what: a leaf or a table, with its schema.
    pub object: String,
    /// The statement that did it; `None` if several small ones did.
    pub statement: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// How long of that it waited for its first lock.
    pub waited: Duration,
    /// Why it failed; `None` if it was done.
    pub failure: Option<String>,
    /// What else is worth knowing.
    pub detail: serde_json::Value,
}

impl Deed {
    /// A deed of no known duration.
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

/// Makes sure that rows of now and of the months to come have a leaf.
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

/// Writes the row; inside a transaction it commits with what it tells of.
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
