//! `[tables.NAME]` and `[indexes]`: the maintained tables, the indexer's own by their names, and the tables of others.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use dalp_partitions::{Registry, Retention, Table, activity_table};

use super::given::{Drafted, Given, Read};
use super::kind::{self, IndexOf};
use super::section::settings;
use super::setting::{Default, Setting, Shape};
use super::value::{Action, DAY, HOUR, Index, Interval};
use crate::dataset::{Dataset, Datasets};

/// The schema of the partition manager's registry. Migrations make the registry.
const REGISTRY: &str = "dalp_indexed";

/// The registry, with the platform's record of activity.
pub(crate) fn registry() -> Registry {
    Registry::new(REGISTRY).recorded_in("dalp_audit")
}

/// The name of the record of activity in `[tables.NAME]`. Only this name and the names of the datasets need no `table`.
const ACTIVITY: &str = "activity";

/// A maintained table.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedTable {
    /// Its name in the configuration.
    pub name: String,
    /// The table.
    pub table: Table,
    /// The time span of its new leaves.
    pub interval: Interval,
    /// The time that its rows are kept, and the action after it.
    pub retention: Retention,
    /// The dataset of its rows, if chains make them.
    pub dataset: Option<Dataset>,
}

impl ManagedTable {
    /// Whether its key is a chain: then a row is final if its block is final.
    pub fn is_of_chains(&self) -> bool {
        self.dataset.is_some()
    }
}

settings! {
    draft TableDraft in "tables.*" {
        /// Your table to maintain. It is partitioned by time.
        ///
        /// The name as in the database; a name with a point is quoted as in SQL. The owner must be roles.partitioner. Not for the indexer's
        /// own tables.
        pub table: Option<(String, String)> = unset "dalp_assets.position", kind::TABLE;

        /// The partition column (timestamptz) of the table.
        ///
        /// Not for the indexer's own tables.
        pub time_column: Option<String> = unset "at", kind::COLUMN;

        /// Whether the table is first partitioned by LIST of a bigint column.
        ///
        /// The indexer's own tables are, by chain_id.
        pub list: bool = "false", kind::BOOL;

        /// The time span of a new partition of the table.
        ///
        /// A partition should have 5 to 20 GB.
        pub interval: Interval = same "partitions.interval", kind::Choice(Interval::NAMES);

        /// The action for a partition after its retention.
        ///
        /// keep; detach (the partition remains as a table of its own); drop; archive (write Parquet, verify it, then drop).
        pub action: Action = "keep", kind::Choice(Action::NAMES);

        /// The time that rows are kept, counted back from the last final block, or from now if now is earlier.
        ///
        /// A partition is due if all of its times are older.
        pub retention: Option<Duration> = unset "90d", kind::Time(HOUR, 36_500 * DAY);

        /// The time between the detach and the drop of a partition.
        ///
        /// Until the drop, `partitions undo` returns the partition in milliseconds.
        pub grace: Duration = "7d", kind::Time(0, 3_650 * DAY);

        /// The largest number of partitions of one chain that may start to go in one run.
        ///
        /// A larger number means a wrong clock or a changed setting. No partition goes then until `partitions apply --allow-many`.
        pub max_leaves_per_run: u16 = "10", kind::Int(1, 10_000);

        /// The largest share of a chain's bytes that may start to go in one run, in percent.
        ///
        /// As max_leaves_per_run; it also stops a single large partition.
        pub max_share_per_run: u32 = "30", kind::Int(1, 100);
    }
}

/// Its keys are the names of the datasets, so no struct can have them as fields.
pub(super) const INDEXES: Setting = Setting {
    path: "indexes.*",
    kind: &kind::INDEX,
    shape: Shape::Many,
    default: Default::OfDataset,
    docs: &[
        "The secondary indexes of each partition of this table, beside its key.",
        "",
        "An index that you remove from the list stays in the database until you drop it.",
    ],
};

/// The names of the tables that need no `table`.
fn own_names(datasets: &Datasets) -> Vec<&str> {
    datasets.partitioned().map(Dataset::name).chain([ACTIVITY]).collect()
}

/// All maintained tables: the indexer's own, then the tables of others. `archive_url`: the key of the place of archives.
pub(super) fn managed_tables(given: &mut Given, archive_url: &str) -> Read<Vec<ManagedTable>> {
    let datasets = given.datasets().clone();
    let own = own_names(&datasets);
    let others = given.names("tables").into_iter().filter(|name| !own.contains(&name.as_str()));
    let names: Vec<String> = own.iter().map(|&name| name.to_owned()).chain(others).collect();
    let mut seen = BTreeMap::new();
    let mut tables = Vec::new();
    for name in names {
        let draft = TableDraft::read(given, &name);
        let dataset = datasets.partitioned().find(|dataset| dataset.name() == name);
        let table = if own.contains(&name.as_str()) {
            draft.own_table(given, &name, dataset)
        } else {
            draft.compare(given, &name, &own, &mut seen);
            draft.others_table(given, &name, &own)
        };
        let is_of_kind = dataset.and_then(Dataset::event).is_some_and(|event| event.of.is_some());
        // The record of activity is small, and most events are rare.
        let interval = match given.is_set(&draft.interval.key) {
            false if name == ACTIVITY => Ok(Interval::Month),
            false if is_of_kind => Ok(Interval::Year),
            _ => draft.interval.value,
        };
        let retention = draft.retention(given, &name, archive_url);
        tables.push(managed(name, table, interval, retention, dataset));
    }
    tables.into_iter().collect()
}

fn managed(
    name: String,
    table: Read<Table>,
    interval: Read<Interval>,
    retention: Read<Retention>,
    dataset: Option<&Dataset>,
) -> Read<ManagedTable> {
    Ok(ManagedTable { name, table: table?, interval: interval?, retention: retention?, dataset: dataset.cloned() })
}

impl TableDraft {
    /// One of the indexer's own tables: its place and its partitioning are known.
    fn own_table(&self, given: &mut Given, name: &str, dataset: Option<&Dataset>) -> Read<Table> {
        for key in [&self.table.key, &self.time_column.key] {
            if given.is_set(key) {
                given.object(key, format!("{name} is the indexer's own table: name yours otherwise"));
            }
        }
        if self.list.get() == Some(&true) {
            let message = format!("{name} is the indexer's own table, whose kind is known: leave it out");
            given.object(&self.list.key, message);
        }
        let Some(dataset) = dataset else { return Ok(activity_table(&registry())) };
        let table = Table::new(dataset.schema(), dataset.table(), "block_time").registered_in(registry());
        let indexes: Drafted<Vec<Index>> = given.read(&INDEXES, name, &IndexOf(dataset));
        Ok(table.with_leaf_indexes(indexes.value?))
    }

    /// A table of somebody else: the configuration must name it.
    fn others_table(&self, given: &mut Given, name: &str, own: &[&str]) -> Read<Table> {
        let why = format!("it must be set: [tables.{name}] is none of the indexer's own tables ({})", own.join(", "));
        let table = needed(given, &self.table, &why);
        let time = needed(given, &self.time_column, &why);
        let ((schema, table), time, list) = (table?, time?, self.list.value?);
        Ok(Table { flat: !list, ..Table::new(schema, table, time).registered_in(registry()) })
    }

    /// A table has one policy: with two names, the stricter policy would win for both. The indexer's own tables have their own names.
    fn compare(&self, given: &mut Given, name: &str, own: &[&str], seen: &mut BTreeMap<(String, String), String>) {
        let Ok(Some(table)) = &self.table.value else { return };
        let (schema, named) = table;
        let is_ours = schema == REGISTRY
            || (schema.as_str(), named.as_str()) == ("dalp_audit", "activity")
            || given.datasets().of_table(schema, named).is_some();
        if is_ours {
            let own = own.join(", ");
            let message = format!("{schema}.{named} is the indexer's own: its tables are looked after as {own}");
            given.object(&self.table.key, message);
        } else if let Some(first) = seen.insert(table.clone(), name.to_owned()) {
            let message = format!("{schema}.{named} is tables.{first} already: a table has one policy");
            given.object(&self.table.key, message);
        }
    }

    /// The action and the retention go together.
    fn retention(&self, given: &mut Given, name: &str, archive_url: &str) -> Read<Retention> {
        let action = self.action.value?;
        match (action, given.is_set(&self.retention.key)) {
            (Action::Keep, true) => {
                let set = &self.retention.key;
                let message = format!("{set} is set, and nothing is done when it is over: say detach, drop or archive");
                given.object(&self.action.key, message);
            }
            (Action::Detach | Action::Drop | Action::Archive, false) => {
                let action = given.items(&self.action.key).0.join(",");
                let message = format!("action is {action}, and it is not said after what time: set retention");
                given.object(&self.retention.key, message);
            }
            (Action::Archive, true) if !given.is_set(archive_url) => {
                let message =
                    format!("tables.{name}.action is archive: say where to, such as file:///var/lib/dalp/archive");
                given.object(archive_url, message);
            }
            _ => {}
        }
        let span = |time: Duration| TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
        Ok(Retention {
            action,
            time: self.retention.value?.map_or(TimeDelta::MAX, span),
            grace: span(self.grace.value?),
            max_leaves: self.max_leaves_per_run.value?.into(),
            max_share: f64::from(self.max_share_per_run.value?) / 100.0,
        })
    }
}

fn needed<'d, T>(given: &mut Given, setting: &'d Drafted<Option<T>>, why: &str) -> Read<&'d T> {
    match &setting.value {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(given.object(&setting.key, why)),
        Err(reported) => Err(*reported),
    }
}
