//! `partitions audit` and `doctor`: report wrong states and obstacles.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use dalp_partitions::{
    Action, Archive, Finding, Limits, Obstacle, Presence, Severity, hindrances, look, missing, plan_moves,
    read_inventory,
};
use serde::Serialize;

use super::shared::{Selection, Session, failed, print_json, tables};
use crate::cli::failure::Failure;
use crate::cli::out::say;
use crate::config::{Config, ManagedTable};
use crate::maintenance::retention::{has_one_policy, reference, terms};
use crate::store::connect::explain;
use crate::store::retention::{Run, last_run};

#[derive(Serialize)]
struct Found {
    /// Its name in the configuration; empty if the finding is about all tables.
    table: String,
    severity: String,
    object: String,
    what: String,
    next: String,
    #[serde(skip)]
    is_error: bool,
}

impl Found {
    fn of(table: &str, finding: Finding) -> Self {
        Self {
            is_error: finding.severity == Severity::Error,
            table: table.to_owned(),
            severity: finding.severity.to_string(),
            object: finding.object,
            what: finding.what,
            next: finding.next,
        }
    }
}

/// Prints the faults of the leaves.
pub(super) async fn audit(session: &mut Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let mut all = Vec::new();
    for table in tables(config, selection.table.as_deref())? {
        let findings = dalp_partitions::audit(&mut session.client, &table.table).await.map_err(failed);
        all.extend(told(table, findings));
        // Unreadable tables were reported already.
        all.extend(told(table, Ok(crowded(session, config, table).await.unwrap_or_default())));
        all.extend(told(table, Ok(stopped(session, config, table).await.unwrap_or_default())));
        let lost = lost(session, table).await;
        all.extend(told(table, lost));
    }
    report(&all, selection)
}

/// The findings about a table. An unreadable table is a finding too, and does not stop the report of the others.
fn told(table: &ManagedTable, findings: Result<Vec<Finding>, Failure>) -> Vec<Found> {
    let unreadable = |error: Failure| {
        vec![Finding {
            severity: Severity::Error,
            object: format!("{}.{}", table.table.schema, table.table.name),
            what: format!("it cannot be read: {error}"),
            next: "remove this cause: until then no partition of this table is made, retired or archived".to_owned(),
        }]
    };
    findings.unwrap_or_else(unreadable).into_iter().map(|finding| Found::of(&table.name, finding)).collect()
}

/// Keys with the maximum number of leaves, and a policy that makes more.
async fn crowded(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<Vec<Finding>, Failure> {
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let object = format!("{}.{}", table.table.schema, table.table.name);
    let next = "choose a longer interval, a shorter retention, or raise partitions.max_leaves";
    let found = |what| Finding { severity: Severity::Warning, object: object.clone(), what, next: next.to_owned() };
    let mut leaves: BTreeMap<i64, u32> = BTreeMap::new();
    for entry in inventory.entries.iter().filter(|entry| entry.presence == Presence::Attached) {
        *leaves.entry(entry.key).or_default() += 1;
    }
    let full = leaves.into_iter().filter(|(_, leaves)| *leaves >= config.partitions.max_leaves).map(|(key, leaves)| {
        let max = config.partitions.max_leaves;
        found(format!(
            "key {key} has {leaves} leaves, and max_leaves is {max}: new leaves are one step wider than the interval"
        ))
    });
    Ok(crate::maintenance::crowding(&config.partitions, table).map(&found).into_iter().chain(full).collect())
}

/// The listed archives that the store lacks. A store that does not answer is a finding too.
async fn lost(session: &Session, table: &ManagedTable) -> Result<Vec<Finding>, Failure> {
    if session.place.fault.is_some() {
        return Ok(Vec::new());
    }
    match missing(&session.client, &table.table, session.place.archive.as_ref()).await {
        Err(dalp_partitions::Error::Archive(error)) => Ok(vec![of_archive(session, &error)]),
        found => found.map_err(failed),
    }
}

fn of_archive(session: &Session, error: &impl ToString) -> Finding {
    Finding {
        severity: Severity::Error,
        object: session.place.archive.as_ref().map_or_else(String::new, |archive| archive.name().to_owned()),
        what: format!("the archive cannot be used: {}", error.to_string()),
        next: "check partitions.archive_url and archive_options; the store must allow put, get, list, copy and delete"
            .to_owned(),
    }
}

/// Prints the obstacles for the manager.
pub(super) async fn show(session: &mut Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let mut all = Vec::new();
    let findings = dalp_partitions::doctor_server(&session.client, &Limits::default()).await.map_err(failed)?;
    all.extend(findings.into_iter().map(|finding| Found::of("", finding)));
    for table in tables(config, selection.table.as_deref())? {
        let found = found_of(session, config, table).await;
        all.extend(told(table, found));
    }
    let archives = config.tables.iter().any(|table| table.retention.action == Action::Archive);
    match (&session.place.archive, &session.place.fault) {
        (Some(archive), _) => all.extend(unusable(session, archive, config).await?),
        (None, Some(why)) => {
            let severity = if archives { Severity::Error } else { Severity::Warning };
            all.push(Found::of("", Finding { severity, ..of_archive(session, why) }));
        }
        (None, None) => {}
    }
    report(&all, selection)
}

/// The obstacles for the maintenance of a table.
async fn found_of(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<Vec<Finding>, Failure> {
    has_one_policy(&session.client, &config.tables, table).await.map_err(failed)?;
    let limits = Limits { leaves: i64::from(config.partitions.max_leaves), ..Limits::default() };
    let mut all = dalp_partitions::doctor_table(&session.client, &table.table, &limits).await.map_err(failed)?;
    let run = last_run(&session.client, &table.table).await;
    let run = run.map_err(|error| Failure::other(explain(&error)))?;
    all.extend(late(table, &run, config.partitions.maintenance_interval, Utc::now()));
    all.extend(crate::maintenance::crowding(&config.partitions, table).map(|what| Finding {
        severity: Severity::Warning,
        object: format!("{}.{}", table.table.schema, table.table.name),
        what,
        next: "choose a longer interval, a shorter retention, or raise partitions.max_leaves".to_owned(),
    }));
    all.extend(stopped(session, config, table).await?);
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    all.extend(hindrances(&inventory, &table.table, table.retention.action));
    all.extend(lost(session, table).await?);
    Ok(all)
}

/// A table with a policy and without maintenance for three intervals, or whose last run was incomplete.
fn late(table: &ManagedTable, run: &Run, interval: Duration, now: DateTime<Utc>) -> Option<Finding> {
    let is_recent = |at: DateTime<Utc>| (now - at).to_std().unwrap_or_default() <= interval * 3;
    let is_well = run.error.is_none() && run.succeeded_at.is_some_and(is_recent);
    if table.retention.action == Action::Keep || is_well {
        return None;
    }
    let since =
        run.succeeded_at.map_or_else(|| "has never succeeded".to_owned(), |at| format!("last succeeded at {at}"));
    let why = run.error.as_ref().map(|error| format!("; last failure: {error}")).unwrap_or_default();
    Some(Finding {
        severity: Severity::Warning,
        object: format!("{}.{}", table.table.schema, table.table.name),
        what: format!("its maintenance {since}{why}"),
        next: "start `dalp-indexer run`, or run `dalp-indexer partitions apply` now".to_owned(),
    })
}

/// The keys of which no leaf begins to go, because too many would go at once.
async fn stopped(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<Vec<Finding>, Failure> {
    let reference = reference(&mut session.client, table).await.map_err(failed)?;
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let moves =
        plan_moves(&inventory, &terms(table, &config.partitions, &reference, session.place.archive.is_some(), false));
    let finding = |(key, why): (i64, &Obstacle)| Finding {
        severity: Severity::Error,
        object: format!("{}.{}", table.table.schema, table.table.name),
        what: format!("no leaf of key {key} is retired: {why}"),
        next: "read `dalp-indexer partitions plan`; if the amount is intended, run `dalp-indexer partitions apply \
            --allow-many`"
            .to_owned(),
    };
    Ok(moves.stopped().into_iter().map(finding).collect())
}

/// Checks that this database may write to the archive, and that the store works.
async fn unusable(session: &Session, archive: &Archive, config: &Config) -> Result<Option<Found>, Failure> {
    let Some(table) = config.tables.first() else { return Ok(None) };
    let finding = match look(&session.client, &table.table, archive).await {
        Ok(None) => match archive.probe().await {
            Ok(probed) if probed.writes_once => return Ok(None),
            Ok(_) => Finding {
                severity: Severity::Warning,
                object: archive.name().to_owned(),
                what: "the store ignores conditional writes (If-None-Match): it cannot refuse a second writer"
                    .to_owned(),
                next: "let only one database write there, or use a store with conditional writes".to_owned(),
            },
            Err(error) => of_archive(session, &error),
        },
        Ok(Some(why)) => Finding {
            severity: Severity::Error,
            object: archive.name().to_owned(),
            what: "nothing is archived there".to_owned(),
            next: why,
        },
        Err(dalp_partitions::Error::Archive(error)) => of_archive(session, &error),
        Err(error) => return Err(failed(error)),
    };
    Ok(Some(Found::of("", finding)))
}

fn report(all: &[Found], selection: &Selection) -> Result<(), Failure> {
    if selection.json {
        print_json(&all)?;
    } else if all.is_empty() {
        say!("nothing found")?;
    } else {
        // Not a table: nobody can copy a command that is broken over several lines of a column.
        for Found { severity, object, what, next, .. } in all {
            say!("{severity}: {object}: {what}\n    {next}")?;
        }
    }
    match all.iter().filter(|found| found.is_error).count() {
        0 => Ok(()),
        errors => Err(Failure::other(format!("{errors} of {} findings need an action", all.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn a_policy_that_nothing_follows_is_told() {
        let env = [
            ("DALP_DATABASE__URL", "postgres://u@127.0.0.1/x"),
            ("DALP_CHAINS__A__CHAIN_ID", "1"),
            ("DALP_CHAINS__A__RPC_URLS", "http://127.0.0.1:8545"),
        ];
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = Config::load(None, env).unwrap();
        let table = |action| {
            let table = config.tables.iter().find(|table| table.name == "logs").unwrap();
            let mut table = table.clone();
            table.retention.action = action;
            table
        };
        let (now, minute) = (Utc::now(), Duration::from_mins(1));
        let run = |minutes| Run { succeeded_at: Some(now - TimeDelta::minutes(minutes)), error: None };
        assert!(late(&table(Action::Drop), &run(3), minute, now).is_none());
        assert!(late(&table(Action::Drop), &run(-3), minute, now).is_none(), "a clock that is ahead");
        assert!(late(&table(Action::Keep), &Run::default(), minute, now).is_none(), "there is nothing to do");
        assert!(late(&table(Action::Drop), &run(4), minute, now).unwrap().what.contains("last succeeded at"));
        let failed = Run { succeeded_at: None, error: Some("no lock".to_owned()) };
        let found = late(&table(Action::Drop), &failed, minute, now).unwrap();
        assert!(found.what.contains("never") && found.what.contains("no lock") && found.severity < Severity::Error);
    }
}
