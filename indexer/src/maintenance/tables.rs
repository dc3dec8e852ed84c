//! Makes the tables of configured kinds of contracts and their views, before their chains begin.

use std::collections::HashMap;

use dalp_partitions::LANE_KEY;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tracing::{info, warn};

use super::{Leaves, LeavesError};
use crate::config::Roles;
use crate::dataset::{Dataset, Datasets, Groups, VIEWS, View};
use crate::spans;

/// The columns of a table in order, each with its type and whether it may be NULL; NULL if there is no such table.
const FOUND: &str = "SELECT array_agg(attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END \
                                      ORDER BY attnum) \
                     FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// The existing views and their comments.
const ABOUTS: &str = "SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_catalog.pg_class \
                      WHERE relnamespace = to_regnamespace($1) AND relkind = 'v'";

/// A session that reads an earlier version of a view keeps the lock on it, and others queue behind the one who waits for it.
const PATIENCE: &str = "SET LOCAL lock_timeout = '2s'";

impl Leaves {
    /// Makes each missing table of the events of configured contracts, as the partitioner, and its views for people. A view that
    /// cannot be made is reported, and the next start tries again: no row needs it.
    ///
    /// # Errors
    /// A table of that name has other columns; a missing right; see [`LeavesError`].
    pub async fn make_tables(&self, datasets: &Datasets, roles: &Roles) -> Result<(), LeavesError> {
        let of_kinds: Vec<&Dataset> =
            datasets.iter().filter(|dataset| dataset.event().is_some_and(|event| event.of.is_some())).collect();
        if of_kinds.is_empty() {
            return Ok(());
        }
        let groups = Groups { writer: &roles.writer, partitioner: &roles.partitioner, reader: &roles.reader };
        let mut lane = self.client.lock().await;
        let client = self.connected(&mut lane).await?;
        let (mut created, tables) = (0, of_kinds.len());
        for dataset in &of_kinds {
            created += usize::from(make(client, dataset, groups).await?);
        }
        let views = of_kinds.iter().flat_map(|dataset| dataset.views().into_iter().map(|view| (dataset.name(), view)));
        make_views(client, views, groups).await?;
        if created > 0 {
            info!(created, tables, "made tables for the events of configured contracts");
        }
        Ok(())
    }
}

/// Whether the table was missing, and is made.
async fn make(client: &mut Client, dataset: &Dataset, groups: Groups<'_>) -> Result<bool, LeavesError> {
    let of = dataset.quoted();
    let failed = |error: tokio_postgres::Error| LeavesError::Table { table: of.clone(), why: explain(&error) };
    if let Some(found) = found(client, &of).await.map_err(failed)? {
        return same(dataset, &of, &found).map(|()| false);
    }
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({LANE_KEY})")).await.map_err(failed)?;
    // Another process may have made it before we got the lock.
    if let Some(found) = found(transaction.client(), &of).await.map_err(failed)? {
        return same(dataset, &of, &found).map(|()| false);
    }
    transaction.batch_execute(&dataset.create_table(groups)).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(true)
}

/// Makes the missing views, each with the name of its table, and puts them in the place of those of an earlier version.
async fn make_views<'d>(
    client: &mut Client,
    views: impl Iterator<Item = (&'d str, View)>,
    groups: Groups<'_>,
) -> Result<(), LeavesError> {
    let known = abouts(client).await.map_err(|error| LeavesError::Lost { why: explain(&error) })?;
    for (table, view) in views.filter(|(_, view)| known.get(view.name()) != Some(&view.about())) {
        if let Err(error) = make_view(client, &view, groups).await {
            let error = LeavesError::View { view: view.quoted(), why: explain(&error) };
            spans::table(table).in_scope(|| warn!("{error}"));
        }
    }
    Ok(())
}

async fn make_view(client: &mut Client, view: &View, groups: Groups<'_>) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let lane = format!("SELECT pg_advisory_xact_lock({LANE_KEY}); {PATIENCE}");
    transaction.batch_execute(&lane).await?;
    // Another process may have made it before we got the lock.
    if abouts(transaction.client()).await?.get(view.name()) != Some(&view.about()) {
        transaction.batch_execute(&view.create(groups)).await?;
    }
    transaction.commit().await
}

async fn abouts(client: &Client) -> Result<HashMap<String, String>, tokio_postgres::Error> {
    let rows = client.query_typed(ABOUTS, &[(&VIEWS, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default())).collect())
}

async fn found(client: &Client, table: &str) -> Result<Option<Vec<String>>, tokio_postgres::Error> {
    Ok(client.query_typed_one(FOUND, &[(&table, Type::TEXT)]).await?.get(0))
}

fn same(dataset: &Dataset, of: &str, found: &[String]) -> Result<(), LeavesError> {
    let expected: Vec<String> = dataset
        .columns()
        .iter()
        .map(|column| {
            let null = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{null}", column.name, column.of.formatted())
        })
        .collect();
    let differs = |expected: &String, at: usize| found.get(at) != Some(expected);
    let Some((at, expected)) = expected.iter().enumerate().find(|(at, expected)| differs(expected, *at)) else {
        return Ok(());
    };
    let has = found.get(at).map_or("none", String::as_str);
    Err(LeavesError::Columns { table: of.to_owned(), expected: expected.clone(), found: has.to_owned() })
}

fn explain(error: &tokio_postgres::Error) -> String {
    crate::store::connect::explain(error)
}
