//! `[tables.NAME]` and `[indexes]`: the tables that are looked after, the indexer's own by their names, and those of others.

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

/// The schema that the partition manager's registry stands in: migrations make it there.
const REGISTRY: &str = "dalp_indexed";

/// The registry, with the platform's record of who did what.
pub(crate) fn registry() -> Registry {
    Registry::new(REGISTRY).recorded_in("dalp_audit")
}

/// The name of the record of deeds among `[tables.NAME]`: with the datasets', those that need no `table`.
const ACTIVITY: &str = "activity";

/// A table that is looked after.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedTable {
    /// Its name in the configuration.
    pub name: String,
    /// The table.
    pub table: Table,
    /// Span of its new leaves.
    pub interval: Interval,
    /// How long its rows are kept, and what then.
    pub retention: Retention,
    /// What its rows are, if they are of chains.
    pub dataset: Option<Dataset>,
}

impl ManagedTable {
    /// Whether its key is a chain, so that its rows are final when their block is.
    pub fn is_of_chains(&self) -> bool {
        self.dataset.is_some()
    }
}

settings! {
    draft TableDraft in "tables.*" {
        /// A table of yours to look after: partitioned by time.
        ///
        /// As the database has its name; one with a point is quoted as in SQL. Its owner must be roles.partitioner. Not for the indexer's
        /// own tables.
        pub table: Option<(String, String)> = unset "dalp_assets.position", kind::TABLE;

        /// The column (timestamptz) that it is partitioned by.
        ///
        /// Not for the indexer's own tables.
        pub time_column: Option<String> = unset "at", kind::COLUMN;

        /// Whether it is partitioned by LIST of a bigint column first.
        ///
        /// As the indexer's own tables are, by chain_id.
        pub list: bool = "false", kind::BOOL;

        /// The time span of one of its new partitions.
        ///
        /// Aim at 5 to 20 GB a partition.
        pub interval: Interval = same "partitions.interval", kind::Choice(Interval::NAMES);

        /// What becomes of a partition whose retention is over.
        ///
        /// keep; detach (it stays as a table of its own); drop; archive (Parquet, verified, then dropped).
        pub action: Action = "keep", kind::Choice(Action::NAMES);

        /// How long rows are kept, counted back from the last final block, or from now if that is earlier.
        ///
        /// A partition is due when all of its times are older.
        pub retention: Option<Duration> = unset "90d", kind::Time(HOUR, 36_500 * DAY);

        /// How long a detached partition is kept before it is dropped.
        ///
        /// Until then, `partitions undo` brings it back in milliseconds.
        pub grace: Duration = "7d", kind::Time(0, 3_650 * DAY);

        /// How many partitions of one chain may begin to go in one run.
        ///
        /// More is a clock that jumped or a setting that changed: nothing goes then until `partitions apply --allow-many`.
        pub max_leaves_per_run: u16 = "10", kind::Int(1, 10_000);

        /// What share of a chain's bytes may begin to go in one run, in percent.
        ///
        /// As max_leaves_per_run, be it a single partition.
        pub max_share_per_run: u32 = "30", kind::Int(1, 100);
    }
}

/// Among the names of sections, that of the tables of chains.
pub(super) const DATASETS: &str = "indexes";

/// Its keys are the tables themselves, which no struct can name: datasets are given.
pub(super) const INDEXES: Setting = Setting {
    path: "indexes.*",
    kind: &kind::INDEX,
    shape: Shape::Many,
    default: Default::OfDataset,
    docs: &[
        "Secondary indexes of each leaf of this table, beside its key.",
        "",
        "Indexes that are no longer named stay until they are dropped.",
    ],
};

/// The names of the tables that need no `table`.
fn own_names(datasets: &Datasets) -> Vec<&str> {
    datasets.partitioned().map(Dataset::name).chain([ACTIVITY]).collect()
}

/// Every table that is looked after: the indexer's own, then those of others. `archive_url`: the key that says where archives go.
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
        // Whoever says nothing of the record of deeds gets months: it is small.
        let interval = match (name.as_str(), given.is_set(&draft.interval.key)) {
            (ACTIVITY, false) => Ok(Interval::Month),
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
    /// One of the indexer's own: where it stands and how it is partitioned is known.
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

    /// A table of one's own says which it is.
    fn others_table(&self, given: &mut Given, name: &str, own: &[&str]) -> Read<Table> {
        let why = format!("it must be set: [tables.{name}] is none of the indexer's own tables ({})", own.join(", "));
        let table = needed(given, &self.table, &why);
        let time = needed(given, &self.time_column, &why);
        let ((schema, table), time, list) = (table?, time?, self.list.value?);
        Ok(Table { flat: !list, ..Table::new(schema, table, time).registered_in(registry()) })
    }

    /// A table has one policy: under two names, the stricter one would win for both. What the indexer keeps for itself has its own names.
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

    /// What becomes of old rows and when goes together.
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
