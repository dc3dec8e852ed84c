//! `partitions status`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use dalp_partitions::{
    Action, Entry, Presence, Size, State, forecast, growth, is_due, plan_moves, read_inventory, verified,
};
use serde::Serialize;

use super::shared::{Faults, Selection, Session, failed, grid, print_json, size, tables};
use crate::cli::failure::Failure;
use crate::cli::grid::Grid;
use crate::cli::out::say;
use crate::config::{Config, ManagedTable};
use crate::maintenance::retention::{reference, terms};
use crate::store::connect::explain;
use crate::store::retention::{gone, last_run};

/// One table and key.
#[derive(Serialize)]
struct Row {
    table: String,
    key: i64,
    /// The action for leaves past their retention.
    action: &'static str,
    leaves: usize,
    bytes: i64,
    /// An estimate: PostgreSQL's last count, for counted leaves.
    rows: i64,
    oldest: Option<DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
    /// Leaves that begin after now.
    ahead: usize,
    due: usize,
    held: usize,
    detached: usize,
    detached_bytes: i64,
    /// Leaves whose archive is valid, dropped ones among them.
    archived: i64,
    /// The number of them that were read as a whole and are unchanged.
    verified: i64,
    /// The oldest time of such a verification.
    verified_since: Option<DateTime<Utc>>,
    dropped: i64,
    /// Earliest served time; none if all times are.
    floor: Option<DateTime<Utc>>,
    bytes_per_day: Option<f64>,
    forecast_30d: Option<f64>,
    forecast_90d: Option<f64>,
    forecast_365d: Option<f64>,
    /// Leaves that are due or on their way, and do not move.
    blocked: usize,
    last_success: Option<DateTime<Utc>>,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct Report {
    tables: Vec<Row>,
    /// The unreadable tables, and all other faults.
    failed: Vec<String>,
}

/// Prints every table's state.
pub(super) async fn show(session: &mut Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let mut report = Report { tables: Vec::new(), failed: Vec::new() };
    let mut faults = Faults::default();
    for table in tables(config, selection.table.as_deref())? {
        let rows = rows(session, config, table).await;
        report.tables.extend(faults.keep(table, rows).unwrap_or_default());
    }
    if config.tables.iter().any(|table| table.retention.action == Action::Archive) {
        faults.0.extend(session.place.fault.iter().map(|why| format!("nothing is archived: {why}")));
    }
    report.failed.clone_from(&faults.0);
    if selection.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    faults.end()
}

async fn rows(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<Vec<Row>, Failure> {
    let said = |error: tokio_postgres::Error| Failure::other(explain(&error));
    let run = last_run(&session.client, &table.table).await.map_err(said)?;
    let gone = gone(&session.client, &table.table).await.map_err(said)?;
    let reference = reference(&mut session.client, table).await.map_err(failed)?;
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let terms = terms(table, &config.partitions, &reference, session.place.archive.is_some(), false);
    let verified = verified(&session.client, &table.table).await.map_err(failed)?;
    let obstacles = plan_moves(&inventory, &terms).obstacles;
    let mut keys: BTreeMap<i64, Vec<&Entry>> = BTreeMap::new();
    for entry in &inventory.entries {
        keys.entry(entry.key).or_default().push(entry);
    }
    let rows = keys.into_iter().map(|(key, entries)| {
        let attached: Vec<&Entry> =
            entries.iter().copied().filter(|entry| entry.presence == Presence::Attached).collect();
        let detached: Vec<&Entry> = entries.iter().copied().filter(|entry| entry.state == State::Detached).collect();
        let sizes: Vec<Size> = attached
            .iter()
            .map(|entry| Size { from: entry.bounds.from(), to: entry.bounds.to(), bytes: entry.bytes })
            .collect();
        let now = reference.end(key, inventory.now).unwrap_or(inventory.now);
        let ahead = |days| forecast(&sizes, &table.retention, now, days);
        Row {
            table: table.name.clone(),
            key,
            action: word(table.retention.action),
            leaves: attached.len(),
            bytes: attached.iter().map(|entry| entry.bytes).sum(),
            rows: attached.iter().filter_map(|entry| entry.rows).sum(),
            oldest: attached.first().and_then(|entry| entry.bounds.from()),
            newest: attached.last().map(|entry| entry.bounds.to()),
            ahead: attached.iter().filter(|entry| entry.bounds.from() > Some(now)).count(),
            due: attached.iter().filter(|entry| is_due(&inventory, &terms, entry)).count(),
            held: entries.iter().filter(|entry| inventory.holds_on(entry).next().is_some()).count(),
            detached_bytes: detached.iter().map(|entry| entry.bytes).sum(),
            detached: detached.len(),
            archived: verified.get(&key).map_or(0, |verified| verified.archives),
            verified: verified.get(&key).map_or(0, |verified| verified.verified),
            verified_since: verified.get(&key).and_then(|verified| verified.since),
            dropped: gone.get(&key).copied().unwrap_or(0),
            floor: inventory.floors.get(&key).map(|floor| floor.utc()),
            bytes_per_day: growth(&sizes, now),
            forecast_30d: ahead(30),
            forecast_90d: ahead(90),
            forecast_365d: ahead(365),
            blocked: obstacles.iter().filter(|(entry, _)| entry.key == key).count(),
            last_success: run.succeeded_at,
            last_error: run.error.clone(),
        }
    });
    Ok(rows.collect())
}

/// The number of verified archives, and the oldest time of a verification.
fn verified_of(row: &Row) -> String {
    match row.verified_since {
        Some(since) => format!("{}, {} or later", row.verified, since.format("%Y-%m-%d %H:%M")),
        None if row.archived > 0 => "none yet".to_owned(),
        None => "-".to_owned(),
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Keep => "keep",
        Action::Detach => "detach",
        Action::Drop => "drop",
        Action::Archive => "archive",
    }
}

fn date(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M").to_string())
}

/// The present state of each key, and its forecast.
fn leaves(report: &Report) -> Grid {
    let bytes = |bytes: Option<f64>| bytes.map_or_else(|| "?".to_owned(), size);
    let mut leaves = grid(&[
        "table", "key", "leaves", "ahead", "rows", "bytes", "oldest", "newest", "a day", "in 30 d", "90 d", "365 d",
    ])
    .named_by(2);
    for row in &report.tables {
        leaves.add_row([
            &row.table,
            &row.key.to_string(),
            &row.leaves.to_string(),
            &row.ahead.to_string(),
            &row.rows.to_string(),
            &size(row.bytes as f64),
            &date(row.oldest),
            &date(row.newest),
            &bytes(row.bytes_per_day),
            &bytes(row.forecast_30d),
            &bytes(row.forecast_90d),
            &bytes(row.forecast_365d),
        ]);
    }
    leaves
}

/// The action for each key's leaves.
fn ways(report: &Report) -> Grid {
    let mut ways = grid(&[
        "table",
        "key",
        "action",
        "due",
        "held",
        "detached",
        "archived",
        "verified",
        "blocked",
        "served from",
        "last success",
    ])
    .named_by(2);
    for row in &report.tables {
        ways.add_row([
            &row.table,
            &row.key.to_string(),
            row.action,
            &row.due.to_string(),
            &row.held.to_string(),
            &format!("{} ({})", row.detached, size(row.detached_bytes as f64)),
            &row.archived.to_string(),
            &verified_of(row),
            &row.blocked.to_string(),
            &row.floor.map_or_else(|| "the beginning".to_owned(), |floor| date(Some(floor))),
            &date(row.last_success),
        ]);
    }
    ways
}

fn print(report: &Report) -> Result<(), Failure> {
    if report.tables.is_empty() {
        if report.failed.is_empty() {
            say!("no table has a partition yet")?;
        }
        return Ok(());
    }
    say!("{}\n{}", leaves(report), ways(report))?;
    let mut told = Vec::new();
    for row in &report.tables {
        if let Some(error) = row.last_error.as_ref().filter(|_| !told.contains(&&row.table)) {
            say!("{}: last failure: {error}", row.table)?;
            told.push(&row.table);
        }
    }
    Ok(())
}
