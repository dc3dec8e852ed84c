//! `partitions plan`, `apply` and `undo`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use dalp_partitions::{Entry, Fate, Move, Need, Step, plan, plan_moves, read, read_inventory, statements};
use serde::Serialize;

use super::{Failure, LeafArgs, Selection, Session, author, failed, grid, print_json, size, table_of, tables};
use crate::cli::out::say;
use crate::config::{Config, ManagedTable};
use crate::maintenance::policy;
use crate::maintenance::retention::{is_left_alone, make_ahead, needs, reference, retire_table, terms};
use crate::store::retention::head_times;

/// Arguments of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Let as many leaves begin to go as are due, whatever max_leaves_per_run and max_share_per_run say
    #[arg(long)]
    pub allow_many: bool,
}

#[derive(Serialize)]
struct Plan {
    /// Leaves that would be made ahead.
    create: Vec<Creation>,
    /// The next move of each leaf that has one; further ones follow from it.
    moves: Vec<Planned>,
    /// What stands in the way of others.
    obstacles: Vec<Blocked>,
}

#[derive(Serialize)]
struct Creation {
    table: String,
    key: i64,
    leaf: String,
    bounds: String,
}

#[derive(Serialize)]
struct Planned {
    leaf: String,
    key: i64,
    state: &'static str,
    act: &'static str,
    lock: &'static str,
    statements: Vec<String>,
    bytes: i64,
    rows: Option<i64>,
}

#[derive(Serialize)]
struct Blocked {
    leaf: String,
    key: i64,
    state: &'static str,
    why: String,
}

/// Prints what would be done.
pub(super) async fn show(session: &mut Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let mut all = Plan { create: Vec::new(), moves: Vec::new(), obstacles: Vec::new() };
    for table in tables(config, selection.table.as_deref())? {
        all.create.extend(creations(session, config, table).await?);
        let reference = reference(&mut session.client, table).await.map_err(failed)?;
        let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
        let terms = terms(table, &config.partitions, &reference, session.archive.is_some(), false);
        let moves = plan_moves(&inventory, &terms);
        all.moves.extend(moves.moves.iter().map(|next| planned(table, next)));
        all.obstacles.extend(moves.obstacles.iter().map(|(entry, why)| Blocked {
            leaf: entry.to_string(),
            key: entry.key,
            state: entry.state.word(),
            why: why.to_string(),
        }));
    }
    if selection.json {
        return print_json(&all);
    }
    print(&all)?;
    if config.tables.iter().all(|table| table.retention.fate == Fate::Keep) {
        say!("no retention is set: rows stay for ever (see [tables.NAME] in docs/configuration.md)")?;
    }
    Ok(())
}

fn print(all: &Plan) -> Result<(), Failure> {
    if all.create.is_empty() && all.moves.is_empty() {
        say!("nothing to do now")?;
    }
    if !all.create.is_empty() {
        let mut table = grid(&["make", "of", "key", "bounds"]);
        for made in &all.create {
            table.add_row([&made.leaf, &made.table, &made.key.to_string(), &made.bounds]);
        }
        say!("{table}")?;
    }
    if !all.moves.is_empty() {
        let mut table = grid(&["leaf", "state", "move", "bytes", "rows", "lock"]);
        for next in &all.moves {
            let rows = next.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
            let bytes = size(next.bytes as f64);
            table.add_row([&next.leaf, next.state, next.act, &bytes, &rows, next.lock]);
        }
        say!("{table}")?;
        for statement in all.moves.iter().flat_map(|next| &next.statements) {
            say!("{statement};")?;
        }
    }
    if !all.obstacles.is_empty() {
        let mut table = grid(&["leaf", "state", "stays, as"]);
        for blocked in &all.obstacles {
            table.add_row([&blocked.leaf, blocked.state, &blocked.why]);
        }
        say!("{table}")?;
    }
    Ok(())
}

fn planned(table: &ManagedTable, next: &Move) -> Planned {
    Planned {
        leaf: next.entry.to_string(),
        key: next.entry.key,
        state: next.entry.state.word(),
        act: next.act.word(),
        lock: next.act.lock(),
        statements: statements(&table.table, next),
        bytes: next.entry.bytes,
        rows: next.entry.rows,
    }
}

/// Leaves ahead that are missing: of each chain's head, or of now.
async fn creations(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<Vec<Creation>, Failure> {
    let (now, policy) = (Utc::now(), policy(&config.partitions, table));
    let heads = heads_of(session, table).await?;
    let needs = needs(&mut session.client, table, heads.as_ref()).await.map_err(failed)?;
    let mut creations = Vec::new();
    for (key, time) in needs {
        let catalog = read(&mut session.client, &table.table, key).await.map_err(failed)?;
        let steps = plan(&catalog, &policy, now, &Need::ahead_of(time)).map_err(dalp_partitions::Error::from);
        creations.extend(steps.map_err(failed)?.steps.into_iter().map(|step| {
            let (leaf, bounds) = match step {
                Step::CreateSubParent { name } => (name, format!("IN ({key})")),
                Step::CreateLeaf { name, bounds, .. } => (name, bounds.to_string()),
            };
            Creation { table: table.table.name.clone(), key, leaf, bounds }
        }));
    }
    Ok(creations)
}

#[derive(Serialize)]
struct Applied {
    made: usize,
    done: Vec<Made>,
    failed: Vec<Blocked>,
    obstacles: Vec<Blocked>,
}

#[derive(Serialize)]
struct Made {
    leaf: String,
    key: i64,
    act: &'static str,
    seconds: f64,
    lock_wait: f64,
}

/// Does what is due. A table that fails does not keep the others from being looked after.
pub(super) async fn apply(session: &mut Session, config: &Config, args: &ApplyArgs) -> Result<(), Failure> {
    let mut applied = Applied { made: 0, done: Vec::new(), failed: Vec::new(), obstacles: Vec::new() };
    let mut failures = Vec::new();
    for table in tables(config, args.selection.table.as_deref())? {
        if config.partitions.switches.create {
            match made_ahead(session, config, table).await {
                Ok(made) => applied.made += made,
                Err(error) => failures.push(format!("{}: {error}", table.name)),
            }
        }
        if is_left_alone(&session.client, table).await.map_err(failed)? {
            continue;
        }
        let archive = session.archive.as_ref();
        match retire_table(&mut session.client, table, &config.partitions, archive, args.allow_many).await {
            Ok(outcome) => {
                applied.done.extend(outcome.done.iter().map(|done| Made {
                    leaf: format!("{}.{}", done.schema, done.leaf),
                    key: done.key,
                    act: done.act.word(),
                    seconds: done.took.as_secs_f64(),
                    lock_wait: done.waited.as_secs_f64(),
                }));
                let blocked = |entry: &Entry, why: String| Blocked {
                    leaf: entry.to_string(),
                    key: entry.key,
                    state: entry.state.word(),
                    why,
                };
                applied
                    .failed
                    .extend(outcome.failed.iter().map(|(next, error)| blocked(&next.entry, error.to_string())));
                let stopped =
                    outcome.stopped().into_iter().map(|(key, why)| format!("{} (key {key}): {why}", table.name));
                failures.extend(stopped);
                applied.obstacles.extend(outcome.obstacles.iter().map(|(entry, why)| blocked(entry, why.to_string())));
            }
            Err(error) => failures.push(format!("{}: {error}", table.name)),
        }
    }
    failures.extend(applied.failed.iter().map(|failed| format!("{}: {}", failed.leaf, failed.why)));
    let printed = if args.selection.json { print_json(&applied) } else { print_applied(&applied) };
    if failures.is_empty() { printed } else { Err(Failure::other(failures.join("\n"))) }
}

async fn made_ahead(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<usize, Failure> {
    let heads = heads_of(session, table).await?;
    make_ahead(&mut session.client, table, &config.partitions, heads.as_ref()).await.map_err(failed)
}

/// The heads of the chains, if the table's keys are chains.
async fn heads_of(session: &Session, table: &ManagedTable) -> Result<Option<BTreeMap<i64, DateTime<Utc>>>, Failure> {
    if !table.is_of_chains() {
        return Ok(None);
    }
    head_times(&session.client).await.map(Some).map_err(|error| Failure::other(error.to_string()))
}

fn print_applied(applied: &Applied) -> Result<(), Failure> {
    say!("{} partitions made, {} moves", applied.made, applied.done.len())?;
    if !applied.done.is_empty() {
        let mut table = grid(&["leaf", "move", "took", "waited for a lock"]);
        for done in &applied.done {
            let ms = |seconds: f64| format!("{:.1} ms", seconds * 1_000.0);
            table.add_row([&done.leaf, done.act, &ms(done.seconds), &ms(done.lock_wait)]);
        }
        say!("{table}")?;
    }
    for blocked in &applied.obstacles {
        say!("{} stays {}: {}", blocked.leaf, blocked.state, blocked.why)?;
    }
    Ok(())
}

/// Serves a leaf again.
pub(super) async fn undo(session: &mut Session, config: &Config, args: &LeafArgs) -> Result<(), Failure> {
    let Some((table, leaf)) = table_of(session, config, &args.leaf).await? else {
        return Err(Failure::other(format!(
            "there is no leaf \"{}\" that is not dropped: `dalp-indexer partitions status` shows the tables, `restore` brings \
             back what is archived",
            args.leaf
        )));
    };
    let author = author(args.author.as_deref())?;
    let undone =
        dalp_partitions::undo(&mut session.client, &table.table, &leaf, &args.reason, &author).await.map_err(failed)?;
    let floor = undone.floor.map_or_else(|| "everything".to_owned(), |floor| format!("rows from {floor}"));
    say!(
        "served again: {}\n{floor} of {} are served now\nhold {} keeps them: `dalp-indexer partitions hold release {}` lets them go",
        undone.leaves.join(", "),
        table.table.name,
        undone.hold,
        undone.hold
    )?;
    Ok(())
}
