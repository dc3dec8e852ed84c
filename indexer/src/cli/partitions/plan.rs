//! `partitions plan`, `apply` and `undo`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use dalp_partitions::{
    Action, Entry, Finding, Move, Moves, Need, Obstacle, Outcome, Step, hindrances, note_failure, plan, plan_moves,
    read, read_inventory, statements, way,
};
use serde::Serialize;
use tracing::Instrument as _;

use super::shared::{Faults, LeafArgs, Selection, Session, author, failed, grid, print_json, size, table_of, tables};
use crate::cli::failure::Failure;
use crate::cli::out::say;
use crate::config::{Config, ManagedTable};
use crate::maintenance::policy;
use crate::maintenance::retention::{has_one_policy, is_left_alone, make_ahead, needs, reference, retire_table, terms};
use crate::spans;
use crate::store::retention::head_times;

/// Arguments of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Begin with all due leaves, above max_leaves_per_run and max_share_per_run
    #[arg(long)]
    pub allow_many: bool,
}

#[derive(Default, Serialize)]
struct Plan {
    /// Leaves to make ahead.
    create: Vec<Creation>,
    /// The planned moves of each leaf, from its next one on.
    moves: Vec<Planned>,
    /// The obstacles of other leaves.
    obstacles: Vec<Blocked>,
    /// Future obstacles, also of leaves that are not due yet.
    hindrances: Vec<Hindered>,
    /// The tables without a plan, and the reasons.
    failed: Vec<String>,
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
    /// The later moves, up to the first obstacle.
    then: Vec<Following>,
}

#[derive(Serialize)]
struct Following {
    act: &'static str,
    lock: &'static str,
    statements: Vec<String>,
}

#[derive(Serialize)]
struct Blocked {
    leaf: String,
    key: i64,
    state: &'static str,
    why: String,
}

#[derive(Serialize)]
struct Hindered {
    object: String,
    what: String,
    next: String,
}

impl Hindered {
    fn of(Finding { object, what, next, .. }: Finding) -> Self {
        Self { object, what, next }
    }
}

impl Blocked {
    fn of(entry: &Entry, why: String) -> Self {
        Self { leaf: entry.to_string(), key: entry.key, state: entry.state.word(), why }
    }
}

/// Prints the plan.
pub(super) async fn show(session: &mut Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let mut all = Plan::default();
    let mut faults = Faults::default();
    for table in tables(config, selection.table.as_deref())? {
        let create = creations(session, config, table).await;
        all.create.extend(faults.keep(table, create).unwrap_or_default());
        let moves = moves_of(session, config, table).await;
        let Some(moves) = faults.keep(table, moves) else { continue };
        all.moves.extend(moves.ways);
        all.hindrances.extend(moves.hindrances.into_iter().map(Hindered::of));
        all.obstacles.extend(moves.obstacles.iter().map(|(entry, why)| Blocked::of(entry, why.to_string())));
    }
    all.failed.clone_from(&faults.0);
    if selection.json {
        print_json(&all)?;
        return faults.end();
    }
    print(&all)?;
    if config.tables.iter().all(|table| table.retention.action == Action::Keep) {
        say!("no retention is configured: rows stay for ever (see [tables.NAME] in docs/configuration.md)")?;
    }
    faults.end()
}

/// The planned and the blocked moves of a table's leaves.
struct Ways {
    ways: Vec<Planned>,
    obstacles: Vec<(Entry, Obstacle)>,
    hindrances: Vec<Finding>,
}

async fn moves_of(session: &mut Session, config: &Config, table: &ManagedTable) -> Result<Ways, Failure> {
    has_one_policy(&session.client, &config.tables, table).await.map_err(failed)?;
    let reference = reference(&mut session.client, table).await.map_err(failed)?;
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let terms = terms(table, &config.partitions, &reference, session.place.archive.is_some(), false);
    let Moves { moves, obstacles } = plan_moves(&inventory, &terms);
    let ways = moves.iter().map(|next| planned(table, &way(&inventory, &terms, next))).collect();
    Ok(Ways { ways, obstacles, hindrances: hindrances(&inventory, &table.table, table.retention.action) })
}

fn print(all: &Plan) -> Result<(), Failure> {
    if all.create.is_empty() && all.moves.is_empty() && all.failed.is_empty() {
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
            for then in &next.then {
                table.add_row(["", "", then.act, "", "", then.lock]);
            }
        }
        say!("{table}")?;
        for next in &all.moves {
            for statement in next.statements.iter().chain(next.then.iter().flat_map(|then| &then.statements)) {
                say!("{statement};")?;
            }
        }
    }
    if !all.obstacles.is_empty() {
        let mut table = grid(&["leaf", "state", "stays, as"]);
        for blocked in &all.obstacles {
            table.add_row([&blocked.leaf, blocked.state, &blocked.why]);
        }
        say!("{table}")?;
    }
    if !all.hindrances.is_empty() {
        let mut table = grid(&["object", "obstacle", "action"]);
        for hindered in &all.hindrances {
            table.add_row([&hindered.object, &hindered.what, &hindered.next]);
        }
        say!("{table}")?;
    }
    Ok(())
}

fn planned(table: &ManagedTable, way: &[Move]) -> Planned {
    let (next, then) = (&way[0], &way[1..]);
    let following = |next: &Move| Following {
        act: next.act.word(),
        lock: next.act.lock(),
        statements: statements(&table.table, next),
    };
    Planned {
        then: then.iter().map(following).collect(),
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

/// Missing leaves ahead: of each chain's head, or of now.
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

/// Does the due moves. A failing table does not stop the others; leaves of now come before old ones.
pub(super) async fn apply(session: &mut Session, config: &Config, args: &ApplyArgs) -> Result<(), Failure> {
    let mut applied = Applied { made: 0, done: Vec::new(), failed: Vec::new(), obstacles: Vec::new() };
    let mut faults = Faults::default();
    let tables = tables(config, args.selection.table.as_deref())?;
    for table in tables.iter().filter(|_| config.partitions.create) {
        let made = made_ahead(session, config, table).await;
        applied.made += faults.keep(table, made).unwrap_or_default();
    }
    for table in &tables {
        let outcome = retired(session, config, table, args.allow_many).await;
        let Some(Some(outcome)) = faults.keep(table, outcome) else { continue };
        applied.done.extend(outcome.done.iter().map(|done| Made {
            leaf: format!("{}.{}", done.schema, done.leaf),
            key: done.key,
            act: done.act.word(),
            seconds: done.took.as_secs_f64(),
            lock_wait: done.waited.as_secs_f64(),
        }));
        applied.failed.extend(outcome.failed.iter().map(|(next, error)| Blocked::of(&next.entry, error.to_string())));
        let stopped = outcome.stopped().into_iter().map(|(key, why)| format!("{} (key {key}): {why}", table.name));
        faults.0.extend(stopped);
        applied.obstacles.extend(outcome.obstacles.iter().map(|(entry, why)| Blocked::of(entry, why.to_string())));
    }
    if tables.iter().any(|table| table.retention.action == Action::Archive) {
        faults.0.extend(session.place.fault.iter().map(|why| format!("nothing is archived: {why}")));
    }
    faults.0.extend(applied.failed.iter().map(|failed| format!("{}: {}", failed.leaf, failed.why)));
    if args.selection.json {
        print_json(&applied)?;
    } else {
        print_applied(&applied)?;
    }
    faults.end()
}

/// A run of a table's retention; `None` if there is no work.
async fn retired(
    session: &mut Session,
    config: &Config,
    table: &ManagedTable,
    allow_many: bool,
) -> Result<Option<Outcome>, Failure> {
    has_one_policy(&session.client, &config.tables, table).await.map_err(failed)?;
    if is_left_alone(&session.client, table).await.map_err(failed)? {
        return Ok(None);
    }
    let outcome = retire_table(&mut session.client, table, &config.partitions, &session.place, allow_many)
        .instrument(spans::table(&table.name))
        .await;
    if let Err(error) = &outcome {
        // The status shows it too.
        note_failure(&session.client, &table.table, &error.to_string()).await.ok();
    }
    outcome.map(Some).map_err(failed)
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

/// The holds on returned leaves, and the way to end them: each hold alone would keep them.
fn kept(holds: &BTreeSet<i64>) -> String {
    let release = |id: &i64| format!("`dalp-indexer partitions hold release {id}`");
    let released: Vec<String> = holds.iter().map(release).collect();
    let ids: Vec<String> = holds.iter().map(ToString::to_string).collect();
    match holds.len() {
        1 => format!("hold {} protects them; {} ends it", ids.join(""), released.join("")),
        _ => format!("holds {} protect them, each alone; {} end them", ids.join(", "), released.join(" and ")),
    }
}

/// Returns a leaf to its table.
pub(super) async fn undo(session: &mut Session, config: &Config, args: &LeafArgs) -> Result<(), Failure> {
    let Some((table, leaf)) = table_of(session, config, &args.leaf).await? else {
        return Err(Failure::other(format!(
            "there is no leaf \"{}\", or it is dropped: `dalp-indexer partitions plan` lists leaves on their way, \
             `dalp-indexer partitions archive list` lists leaves that `dalp-indexer partitions restore` can restore",
            args.leaf
        )));
    };
    let author = author(args.author.as_deref())?;
    let undone =
        dalp_partitions::undo(&mut session.client, &table.table, &leaf, &args.reason, &author).await.map_err(failed)?;
    let floor = undone.floor.map_or_else(|| "everything".to_owned(), |floor| format!("rows from {floor}"));
    let inventory = dalp_partitions::read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let back = inventory.entries.iter().filter(|entry| undone.leaves.contains(&entry.leaf));
    let holds = back.flat_map(|entry| inventory.holds_on(entry)).map(|hold| hold.id).collect();
    say!(
        "attached again: {}\n{floor} of {} are now visible\n{}",
        undone.leaves.join(", "),
        table.table.name,
        kept(&holds)
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hold_that_keeps_a_leaf_is_named() {
        assert_eq!(kept(&[3].into()), "hold 3 protects them; `dalp-indexer partitions hold release 3` ends it");
        let two = kept(&[3, 7].into());
        assert!(
            two.contains("holds 3, 7 protect them") && two.contains("release 3` and `") && two.contains("release 7`"),
            "{two}"
        );
    }
}
