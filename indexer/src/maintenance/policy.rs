//! The policies of the configuration: how tables are cut into leaves.

use chrono::{DateTime, TimeDelta, Utc};
use dalp_partitions::{Action, Interval, Policy};

use crate::config::{ManagedTable, Partitions};

/// The policy of a table.
pub(crate) fn policy(partitions: &Partitions, table: &ManagedTable) -> Policy {
    Policy {
        interval: table.interval,
        // Leaves of old rows are no narrower than those of new ones.
        history: partitions.history_interval.max(table.interval),
        history_after: TimeDelta::from_std(partitions.history_after).unwrap_or(TimeDelta::MAX),
        premake: ahead(partitions, table),
        max_leaves: partitions.max_leaves as usize,
        ..Policy::default()
    }
}

/// The number of leaves ahead: for at most a year, since hundreds of tables of rare events have leaves of a year.
fn ahead(partitions: &Partitions, table: &ManagedTable) -> u32 {
    let of_a_year = (Interval::Year.seconds() / table.interval.seconds()).ceil();
    partitions.premake.min(of_a_year as u32)
}

/// A warning about a policy that keeps more leaves than allowed: given before they are made.
pub fn crowding(partitions: &Partitions, table: &ManagedTable) -> Option<String> {
    let time = (table.retention.action != Action::Keep).then_some(table.retention.time.as_seconds_f64())?;
    // The head's own leaf and the leaves ahead, beside the kept ones.
    let leaves = (time / table.interval.seconds()).ceil() + f64::from(ahead(partitions, table)) + 1.0;
    (leaves > f64::from(partitions.max_leaves)).then(|| {
        format!(
            "tables.{}: retention at interval = \"{}\" keeps {leaves:.0} leaves of a key, more than partitions.max_leaves \
             = {}: above this number, leaves are one step wider",
            table.name,
            table.interval.name(),
            partitions.max_leaves
        )
    })
}

/// The time since which a table must have had rows to get leaves ahead of a head.
pub(super) fn busy_since(table: &ManagedTable, head: DateTime<Utc>) -> DateTime<Utc> {
    head - TimeDelta::seconds(table.interval.seconds() as i64)
}
