//! Leaves ahead of each chain's head and a compact coverage, on a timer.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use dalp_partitions::{Action, Need, Target, sizes};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{Instrument as _, info};

use super::policy::busy_since;
use super::{Leaves, LeavesError, key, policy};
use crate::config::ManagedTable;
use crate::dataset::Dataset;
use crate::service::tasks::Pulse;
use crate::spans;
use crate::status::{ChainStatus, Role};
use crate::store::{Store, StoreError};
use crate::task::Beside;

/// Pause of the upkeep while a chain's head is unknown.
const FIRST_LOOK: Duration = Duration::from_millis(200);

impl Leaves {
    /// Keeps leaves ahead of each chain's head, and the coverage compact, until `stop` turns true. A failure is logged and
    /// retried at the next turn: writing continues meanwhile, and makes its leaves itself.
    pub async fn keep(
        self: Arc<Self>,
        chains: Vec<watch::Receiver<ChainStatus>>,
        store: Store,
        pulse: Pulse,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            // Without a head, there is no time to make leaves ahead of: look again soon. A standby leaves this to the leader, and
            // reads the leader's leaves at its takeover. A chain that cannot begin does not delay the others.
            let statuses = chains.iter().map(|chain| chain.borrow().clone());
            let led: Vec<ChainStatus> = statuses.filter(|status| status.role == Role::Leader).collect();
            let known = !led.is_empty() && led.iter().all(|status| status.head_time.is_some());
            let mut failed = None;
            for status in &led {
                let turn = self.turn(status, &store).instrument(spans::chain(&status.name));
                failed = turn.await.err().or(failed);
            }
            pulse.turn(failed);
            let pause = if known { self.every } else { FIRST_LOOK };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// An error names the chain without leaves ahead, and the reason.
    async fn turn(&self, status: &ChainStatus, store: &Store) -> Result<(), String> {
        let chain_id = status.chain_id;
        let floors = store.learn_floors(chain_id).await.map(drop).map_err(|error| error.to_string());
        let sizes = self.choose_intervals(chain_id).await.map_err(|error| error.to_string());
        let ahead = self.ahead(chain_id, status.head_time, store).await;
        let outcomes = [
            ("the retention floors", floors),
            ("the sizes of the partitions", sizes),
            ("partitions ahead of the head", ahead.clone()),
            ("compacting the coverage", store.compact_coverage(chain_id).await.map_err(|error| error.to_string())),
        ];
        let mut upkeep = self.upkeep.write().unwrap_or_else(PoisonError::into_inner);
        let upkeep = upkeep.entry(chain_id).or_default();
        for (what, outcome) in outcomes {
            upkeep.tell(what, outcome);
        }
        ahead.map_err(|error| format!("chain {chain_id}: {error}"))
    }

    /// The number of failed upkeeps of a chain.
    pub fn failures(&self, chain_id: u64) -> u64 {
        self.upkeep.read().unwrap_or_else(PoisonError::into_inner).get(&chain_id).map_or(0, Beside::failures)
    }

    /// Chooses each table's interval by the sizes of its full leaves, if configured.
    async fn choose_intervals(&self, chain_id: u64) -> Result<(), LeavesError> {
        let Some(head) = self.book.head_of(chain_id).filter(|_| self.partitions.interval_by_size) else {
            return Ok(());
        };
        let mut client = self.connect().await?;
        for (_, managed) in self.tables_of(chain_id) {
            let table = &managed.table;
            let sizes = sizes(&mut client, table, key(chain_id)).await?;
            let retention_time = (managed.retention.action != Action::Keep).then_some(managed.retention.time);
            let target = Target { narrowest: managed.interval, retention_time, ..Target::default() };
            let choice = policy(&self.partitions, managed).sized(&sizes, &target, head);
            let mut chosen = self.chosen.write().unwrap_or_else(PoisonError::into_inner);
            if chosen.insert((chain_id, managed.name.clone()), choice.interval) != Some(choice.interval) {
                spans::table(&managed.name).in_scope(|| info!(reason = choice.reason, "interval of new partitions"));
            }
        }
        Ok(())
    }

    /// Makes leaves ahead of the head for the tables with rows of the chain within the last interval: rows of the other tables
    /// get their leaves when they arrive.
    async fn ahead(&self, chain_id: u64, head: Option<DateTime<Utc>>, store: &Store) -> Result<(), String> {
        let Some(head) = head.filter(|_| self.partitions.create) else { return Ok(()) };
        let mut ended = Ok(());
        for (dataset, table) in self.tables_of(chain_id) {
            // A failing table does not keep the others from their leaves.
            let made = async {
                if self.is_busy(chain_id, (dataset, table), head, store).await.map_err(|error| error.to_string())? {
                    let need = Need::ahead_of(head).bare_before(self.book.bare_before(chain_id));
                    return self.make(chain_id, table, &need).await.map_err(|error| error.to_string());
                }
                // The known leaves of a table may have been forgotten: leaves without indexes still need them.
                match self.book.catalog(chain_id, &table.table) {
                    Some(_) => Ok(()),
                    None => self.learn_table(chain_id, &table.table).await.map_err(|error| error.to_string()),
                }
            };
            ended = made.instrument(spans::table(&table.name)).await.and(ended);
        }
        ended
    }

    /// Whether a table had rows of a chain within the last interval before its head: our own rows, if known, or any rows.
    async fn is_busy(
        &self,
        chain_id: u64,
        (dataset, table): (&Dataset, &ManagedTable),
        head: DateTime<Utc>,
        store: &Store,
    ) -> Result<bool, StoreError> {
        let since = busy_since(table, head);
        let ours = self.book.newest(chain_id, &table.table).is_some_and(|newest| newest >= since);
        Ok(ours || store.has_rows_since(chain_id, dataset, since).await?)
    }
}
