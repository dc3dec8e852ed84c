//! A run over a table: plans and makes moves until none is left.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::exclusive::{begin_session, end_session};
use super::worker::{Done, Worker};
use crate::pure::lifecycle::stopped;
use crate::registry::activity::ensure_activity;
use crate::registry::claim::{self, Entered};
use crate::registry::inventory::{read_inventory, refresh, register};
use crate::{Act, Action, Archive, Entry, Error, Move, Obstacle, Table, Terms, plan_moves};

/// The tries of a move in a run. It comes again after all moves that can be made at once.
const LATE_TRIES: u32 = 4;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The moves made, in order.
    pub done: Vec<Done>,
    /// The obstacles of the other moves.
    pub obstacles: Vec<(Entry, Obstacle)>,
    /// The failed moves, with their leaves. A failed move does not stop the others.
    pub failed: Vec<(Move, Error)>,
}

impl Outcome {
    /// The keys of which no leaf began to go, because too many would go at once.
    pub fn stopped(&self) -> BTreeMap<i64, &Obstacle> {
        stopped(&self.obstacles)
    }

    /// Why the run was incomplete; `None` if it was complete.
    pub fn trouble(&self) -> Option<String> {
        let failed = self.failed.first().map(|(_, error)| error.to_string());
        failed.or_else(|| self.stopped().first_key_value().map(|(key, why)| format!("key {key}: {why}")))
    }
}

/// Makes moves until none is left: continues interrupted moves, and retires due leaves. Safe to call again after a crash
/// anywhere, and from several processes (all but one get [`Error::Busy`]).
///
/// Needs a separate direct connection whose current role owns the table; its session settings are changed.
pub async fn retire(
    client: &mut Client,
    table: &Table,
    terms: &Terms<'_>,
    archive: Option<&Archive>,
) -> Result<Outcome, Error> {
    begin_session(client, table).await?;
    let outcome = run(client, table, terms, archive).await;
    let noted = match &outcome {
        Ok(outcome) => note_run(client, table, outcome.trouble()).await,
        Err(error) => note_run(client, table, Some(error.to_string())).await,
    };
    let ended = end_session(client, table).await;
    let outcome = outcome?;
    noted.and(ended).map(|()| outcome)
}

async fn run(
    client: &mut Client,
    table: &Table,
    terms: &Terms<'_>,
    archive: Option<&Archive>,
) -> Result<Outcome, Error> {
    ensure_activity(client, &table.registry).await?;
    register(client, table).await?;
    let mut run = Run { outcome: Outcome::default(), given_up: HashSet::new(), late: HashSet::new() };
    let mut entered = None;
    let mut inventory = read_inventory(client, table).await?;
    loop {
        let planned = plan_moves(&inventory, terms);
        let (moves, tries) = run.next(planned.moves);
        if moves.is_empty() {
            let (faults, others) = planned.obstacles.into_iter().partition(|(_, obstacle)| obstacle.is_fault());
            run.outcome.obstacles = others;
            let failed = Vec::into_iter(faults).map(|(entry, obstacle)| refused(table, entry, &obstacle));
            run.outcome.failed.extend(failed);
            return Ok(run.outcome);
        }
        let moved: Vec<i64> = moves.iter().map(|next| next.entry.id).collect();
        if terms.retention.action == Action::Archive && entered.is_none() {
            match enter(client, table, archive, &moves).await {
                Ok(place) => entered = place,
                Err((first, error)) => {
                    run.outcome.failed.push((first, error));
                    let useless = moves.iter().filter(|next| is_for_archive(next));
                    run.given_up.extend(useless.map(|next| (next.entry.id, next.act)));
                    continue;
                }
            }
        }
        for next in moves {
            let mut worker = Worker {
                client,
                table,
                archive,
                entered: entered.as_ref(),
                action: terms.retention.action,
                grace: terms.retention.grace,
                has_begun: false,
            };
            if !run.make(&mut worker, next, tries).await? {
                break;
            }
        }
        // Each move detects changes by other sessions itself, behind the lock of the leaf's row.
        refresh(client, table, &mut inventory, &moved).await?;
    }
}

/// A run under way.
struct Run {
    outcome: Outcome,
    /// Failed moves: this run does not try them again.
    given_up: HashSet<(i64, Act)>,
    /// Leaves that could not be locked at once: they come after all other work.
    late: HashSet<i64>,
}

impl Run {
    /// The next move, and the number of its tries. A blocking session delays only its own leaf. A detach, which waits for
    /// readers, comes after moves that do not wait.
    fn next(&self, mut moves: Vec<Move>) -> (Vec<Move>, u32) {
        moves.retain(|next| !self.given_up.contains(&(next.entry.id, next.act)));
        let is_late = |next: &Move| self.late.contains(&next.entry.id);
        let tries = if moves.iter().all(is_late) { LATE_TRIES } else { 1 };
        moves.retain(|next| tries > 1 || !is_late(next));
        moves.sort_by_key(|next| next.act == Act::Detach);
        (moves, tries)
    }

    /// Makes a move. Returns whether the moves planned with it are still valid.
    async fn make(&mut self, worker: &mut Worker<'_>, next: Move, tries: u32) -> Result<bool, Error> {
        let error = match worker.carry_out(&next, tries).await {
            Ok(done) => {
                self.outcome.done.push(done);
                return Ok(true);
            }
            Err(error) => error,
        };
        if error.is_passing() && tries == 1 && !worker.has_begun {
            self.late.insert(next.entry.id);
            return Ok(true);
        }
        let error = worker.named(&next, error).await?;
        worker.record_failure(&next, &error).await?;
        self.given_up.insert((next.entry.id, next.act));
        // It may be pending now, and its parent allows no second one: the moves are planned again.
        let stands_in_the_way = next.act == Act::Detach;
        self.outcome.failed.push((next, error));
        Ok(!stands_in_the_way)
    }
}

/// Checks before any seal that this database may write to the archive. The error goes to the first of the moves that are then not
/// made.
async fn enter(
    client: &Client,
    table: &Table,
    archive: Option<&Archive>,
    moves: &[Move],
) -> Result<Option<Entered>, (Move, Error)> {
    match (archive, moves.iter().find(|next| is_for_archive(next))) {
        (Some(archive), Some(first)) => {
            claim::enter(client, table, archive).await.map(Some).map_err(|error| (first.clone(), error))
        }
        _ => Ok(None),
    }
}

/// Whether a move is useless if archiving is impossible.
fn is_for_archive(next: &Move) -> bool {
    matches!(next.act, Act::Seal | Act::Archive)
}

/// A leaf that needs a repair before it can move.
fn refused(table: &Table, entry: Entry, obstacle: &Obstacle) -> (Move, Error) {
    let refused = Error::Refused { leaf: table.sibling(&entry.leaf), why: obstacle.to_string() };
    (Move { entry, act: Act::Seal }, refused)
}

const NOTE_RUN: &str = "
    INSERT INTO registry.partition_run AS r (table_schema, table_name, succeeded_at, failed_at, failures, last_error)
    VALUES ($1, $2, CASE WHEN $3::text IS NULL THEN clock_timestamp() END, CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END,
            CASE WHEN $3 IS NULL THEN 0 ELSE 1 END, $3)
    ON CONFLICT (table_schema, table_name) DO UPDATE
    SET succeeded_at = COALESCE(EXCLUDED.succeeded_at, r.succeeded_at), failed_at = COALESCE(EXCLUDED.failed_at, r.failed_at),
        failures = CASE WHEN $3 IS NULL THEN 0 ELSE r.failures + 1 END, last_error = COALESCE($3, r.last_error)";

/// Records that a table could not be maintained at all, so that `status` and `doctor` show the reason.
///
/// # Errors
/// If the server refuses.
pub async fn note_failure(client: &Client, table: &Table, why: &str) -> Result<(), Error> {
    note_run(client, table, Some(why.to_owned())).await
}

async fn note_run(client: &Client, table: &Table, error: Option<String>) -> Result<(), Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&error, Type::TEXT)];
    client
        .query_typed(&table.registered(NOTE_RUN), &parameters)
        .await
        .map(drop)
        .map_err(Error::doing("note the run", table))
}
