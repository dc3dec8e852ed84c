//! Retention on a timer: archives, retires, detaches and drops due leaves, table by table, beside the writing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use dalp_partitions::{
    Act, Action, Need, Outcome, Reference, Terms, ensure, is_begun, newest_rows, note_failure, read_inventory, retire,
};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::Client;
use tracing::{Instrument as _, debug, error, info, warn};

use super::policy::busy_since;
use super::{Leaves, LeavesError, Place, policy};
use crate::config::{ManagedTable, Partitions};
use crate::service::tasks::{Pulse, caught};
use crate::spans;
use crate::status::{ChainStatus, Role, TableReport};
use crate::store::retention::{final_times, has_rows_since};
use crate::store::{Store, connect::explain};

/// The time limit of a table's ANALYZE: ATTACH waits for it.
const ANALYZE_TIME: Duration = Duration::from_secs(30);

/// Pause after a failed turn.
const PAUSE: Duration = Duration::from_secs(5);

impl Leaves {
    /// Maintains the retention of all tables until `stop` turns true. Uses its own connection, because a detach waits for older
    /// readers. A failure is logged, and retried at the next turn; a failing table does not stop the others.
    pub async fn retire(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        reports: watch::Sender<Vec<TableReport>>,
        pulse: Pulse,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut client = None;
        loop {
            // A process that leads no chain leaves this to a leader.
            let leads = chains.iter().any(|chain| chain.borrow().role == Role::Leader);
            let mut pause = self.every;
            if leads && let Err(error) = self.connected(&mut client).await {
                warn!("retention: {error}");
                pulse.failing(error.to_string());
                pause = PAUSE;
            } else if leads {
                self.turn_of_all(&mut client, &store, &reports, &pulse).await;
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn turn_of_all(
        &self,
        client: &mut Option<Client>,
        store: &Store,
        reports: &watch::Sender<Vec<TableReport>>,
        pulse: &Pulse,
    ) {
        let (mut failed, mut down) = (Vec::new(), false);
        if let Some(why) = self.archive_fault().filter(|_| self.managed.iter().any(archives)) {
            error!("nothing is archived: {why}");
        }
        // Leaves of now come first, before any fault of old ones; the chains' own are made ahead of their heads.
        for ahead in [true, false] {
            for table in &self.managed {
                let span = spans::table(&table.name);
                let turn = caught(self.turn_of(client, table, store, reports, ahead)).instrument(span.clone()).await;
                let Err(error) = turn.unwrap_or_else(|panic| Err(LeavesError::Panicked(panic))) else { continue };
                span.in_scope(|| warn!("{}: {error}", if ahead { "partitions ahead" } else { "retention" }));
                if matches!(error, LeavesError::Panicked(_)) {
                    // Its progress is unknown.
                    (*client, down) = (None, true);
                }
                // A run that reached its end has logged its result.
                if !matches!(error, LeavesError::Undone { .. })
                    && let Ok(client) = self.connected(client).await
                    && let Err(error) = note_failure(client, &table.table, &error.to_string()).await
                {
                    span.in_scope(|| debug!(%error, "the failure could not be recorded"));
                }
                failed.push(format!("{}: {error}", table.name));
            }
        }
        match failed.is_empty() {
            true => pulse.well(),
            false if down => pulse.down(failed.join("; ")),
            false => pulse.failing(failed.join("; ")),
        }
    }

    /// A table's part of a turn: its leaves `ahead`, or all other work.
    async fn turn_of(
        &self,
        client: &mut Option<Client>,
        table: &ManagedTable,
        store: &Store,
        reports: &watch::Sender<Vec<TableReport>>,
        ahead: bool,
    ) -> Result<(), LeavesError> {
        let client = self.connected(client).await?;
        if ahead {
            let makes = self.partitions.create && !table.is_of_chains();
            return if makes { make_ahead(client, table, &self.partitions, None).await.map(drop) } else { Ok(()) };
        }
        self.analyze(client, table).await;
        has_one_policy(client, &self.managed, table).await?;
        if is_left_alone(client, table).await? {
            return Ok(());
        }
        let retired = retire_table(client, table, &self.partitions, &self.archive, false).await;
        reports.send_modify(|reports| note(reports, table, &retired));
        let moved = match &retired {
            Ok(outcome) => !outcome.done.is_empty(),
            Err(error) => !is_busy(error),
        };
        if moved && table.is_of_chains() {
            for chain_id in self.book.followed() {
                self.book.forget(chain_id);
                if let Err(error) = store.learn_floors(chain_id).await {
                    debug!(chain_id, %error, "the retention floors are unknown");
                }
            }
        }
        match retired {
            Ok(outcome) => outcome.trouble().map_or(Ok(()), |why| Err(LeavesError::Undone { why })),
            Err(error) if is_busy(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn archives(table: &ManagedTable) -> bool {
    table.retention.action == Action::Archive
}

/// Whether another session does this work.
fn is_busy(error: &LeavesError) -> bool {
    matches!(error, LeavesError::Partitions(dalp_partitions::Error::Busy { .. }))
}

impl Leaves {
    /// Keeps the planner's statistics of parents, which autovacuum never analyzes. No task waits for it, so a failure is logged
    /// at a low level.
    async fn analyze(&self, client: &mut Client, table: &ManagedTable) {
        let keys: Vec<i64> = match (table.is_of_chains(), table.table.flat) {
            (true, _) => self.book.followed().into_iter().map(super::key).collect(),
            (false, true) => vec![0],
            (false, false) => Vec::new(),
        };
        for key in keys {
            if let Err(error) = dalp_partitions::analyze(client, &table.table, key, &[], ANALYZE_TIME).await {
                debug!(key, %error, "statistics of a parent");
            }
        }
    }
}

/// Makes the next leaves of a table: ahead of now, or of the head of each chain with a head. Returns the number of new leaves.
///
/// # Errors
/// See [`LeavesError`].
pub(crate) async fn make_ahead(
    client: &mut Client,
    table: &ManagedTable,
    partitions: &Partitions,
    heads: Option<&BTreeMap<i64, DateTime<Utc>>>,
) -> Result<usize, LeavesError> {
    let (now, policy) = (Utc::now(), policy(partitions, table));
    let mut made = 0;
    for (key, time) in needs(client, table, heads).await? {
        made += ensure(client, &table.table, key, &policy, now, &Need::ahead_of(time)).await?.created.len();
    }
    Ok(made)
}

/// The newest time of each key that needs leaves.
pub(crate) async fn needs(
    client: &mut Client,
    table: &ManagedTable,
    heads: Option<&BTreeMap<i64, DateTime<Utc>>>,
) -> Result<Vec<(i64, DateTime<Utc>)>, LeavesError> {
    let now = Utc::now();
    Ok(match heads {
        Some(heads) => {
            let inventory = read_inventory(client, &table.table).await?;
            let mut needs = Vec::new();
            for (key, head) in heads.iter().filter(|(key, _)| !inventory.is_off_boarded(**key)) {
                if had_rows(client, table, *key, *head).await? {
                    needs.push((*key, *head));
                }
            }
            needs
        }
        None if table.table.flat => vec![(0, now)],
        // A key without rows has no sub-parent, and gets none; nor does a key whose sub-parent another user detached.
        None => {
            let inventory = read_inventory(client, &table.table).await?;
            inventory.keys.into_iter().map(|key| (key, now)).collect()
        }
    })
}

/// Whether a table has rows of a chain within the last interval before its head.
async fn had_rows(client: &Client, table: &ManagedTable, key: i64, head: DateTime<Utc>) -> Result<bool, LeavesError> {
    let Some(dataset) = &table.dataset else { return Ok(true) };
    let found = has_rows_since(client, key, dataset, busy_since(table, head)).await;
    found.map_err(|error| LeavesError::Lost { why: explain(&error) })
}

/// Records a run for the metrics.
fn note(reports: &mut Vec<TableReport>, table: &ManagedTable, retired: &Result<Outcome, LeavesError>) {
    let at = reports.iter().position(|report| report.name == table.name).unwrap_or_else(|| {
        reports.push(TableReport { name: table.name.clone(), ..TableReport::default() });
        reports.len() - 1
    });
    let report = &mut reports[at];
    match retired {
        Ok(outcome) => {
            for done in &outcome.done {
                report.count(done.act.word(), done.took, done.waited);
            }
            report.failures += outcome.failed.len() as u64;
            report.blocked = outcome.obstacles.len() as u64;
            if outcome.failed.is_empty() && outcome.stopped().is_empty() {
                report.succeeded_at = Some(chrono::Utc::now());
            }
        }
        Err(error) => report.failures += u64::from(!is_busy(error)),
    }
}

/// Whether a table needs no work: it keeps its rows, and no detach or restore was begun that must be ended.
///
/// # Errors
/// If the database does not answer.
pub(crate) async fn is_left_alone(client: &Client, table: &ManagedTable) -> Result<bool, LeavesError> {
    Ok(table.retention.action == Action::Keep && !is_begun(client, &table.table).await?)
}

/// Refuses a table that is a partition of another maintained table: its leaves would have two policies, and the stricter would
/// win.
///
/// # Errors
/// With the other table; and if the database does not answer.
pub(crate) async fn has_one_policy(
    client: &Client,
    tables: &[ManagedTable],
    table: &ManagedTable,
) -> Result<(), LeavesError> {
    let all: Vec<_> = tables.iter().map(|managed| &managed.table).collect();
    let nested = dalp_partitions::nested(client, &all).await?;
    let other =
        nested.into_iter().find(|(inner, _)| tables[*inner].name == table.name).map(|(_, outer)| &tables[outer]);
    match other {
        None => Ok(()),
        Some(other) => Err(dalp_partitions::Error::Unfit {
            what: table.table.to_string(),
            why: format!(
                "it is a partition of {}, which tables.{} maintains; a leaf has one policy: remove one of the two from \
                 the configuration",
                other.table, other.name
            ),
        }
        .into()),
    }
}

/// One run of one table's retention.
///
/// # Errors
/// See [`LeavesError`].
pub(crate) async fn retire_table(
    client: &mut Client,
    table: &ManagedTable,
    partitions: &Partitions,
    place: &Place,
    allow_many: bool,
) -> Result<Outcome, LeavesError> {
    let reference = reference(client, table).await?;
    let archive = place.archive.as_ref();
    let terms = terms(table, partitions, &reference, archive.is_some(), allow_many);
    let outcome = retire(client, &table.table, &terms, archive).await?;
    for done in &outcome.done {
        let (leaf, act, took_seconds) = (&done.leaf, done.act.word(), done.took.as_secs_f64());
        let lock_wait_seconds = done.waited.as_secs_f64();
        match done.act {
            Act::Note(_) => debug!(leaf, act, "partition"),
            _ => info!(leaf, act, took_seconds, lock_wait_seconds, "partition"),
        }
    }
    for (key, why) in outcome.stopped() {
        warn!(key, "none of its leaves is retired: {why}");
    }
    if let Some(why) = place.fault.as_ref().filter(|_| archives(table)) {
        warn!("none of its leaves is archived: {why}");
    }
    for (next, error) in &outcome.failed {
        warn!(leaf = next.entry.leaf, act = next.act.word(), "{error}");
    }
    Ok(outcome)
}

/// The time from which a table's retention counts back.
///
/// # Errors
/// If the database does not answer.
pub(crate) async fn reference(client: &mut Client, table: &ManagedTable) -> Result<Reference, LeavesError> {
    if !table.is_of_chains() {
        let times = match table.retention.action {
            Action::Keep => BTreeMap::new(),
            _ => newest_rows(client, &table.table, table.retention.time).await?,
        };
        return Ok(Reference::Final(times));
    }
    let times = final_times(client).await;
    times.map(Reference::Final).map_err(|error| LeavesError::Lost { why: explain(&error) })
}

/// The input of a table's plan.
pub(crate) fn terms<'t>(
    table: &'t ManagedTable,
    partitions: &Partitions,
    reference: &'t Reference,
    can_archive: bool,
    allow_many: bool,
) -> Terms<'t> {
    Terms { retention: &table.retention, switches: partitions.switches(), reference, can_archive, allow_many }
}
