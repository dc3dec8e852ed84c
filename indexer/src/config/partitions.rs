//! `[partitions]`.

use std::time::Duration;

use dalp_partitions::Switches;

use super::kind;
use super::section::settings;
use super::value::{DAY, Interval, SECOND, Secret};

settings! {
    /// How tables are partitioned.
    pub struct Partitions in "partitions", drafted as PartitionsDraft {
        /// The time span of one partition near the head.
        ///
        /// Choose it by size: some gigabytes a partition.
        pub interval: Interval = "day", kind::Choice(Interval::NAMES);

        /// Whether wider partitions are made where full ones are small: the interval is then chosen for each table and chain so that one
        /// has 5 to 20 GB.
        ///
        /// The configured interval stays the narrowest. What stands is not changed.
        pub interval_by_size: bool = "false", kind::BOOL;

        /// The time span of one partition of old history.
        ///
        /// Old history is fetched once and rarely dropped; few partitions plan faster.
        pub history_interval: Interval = "month", kind::Choice(Interval::NAMES);

        /// The age at which history begins.
        ///
        /// A quarter keeps the daily partitions of recent months.
        pub history_after: Duration = "90d", kind::Time(DAY, 36_500 * DAY);

        /// Partitions made ahead of the head, of tables that a chain had rows in within the last interval.
        ///
        /// With days, a long weekend without maintenance.
        pub premake: u32 = "3", kind::Int(1, 100);

        /// Partitions of one table and chain, at most.
        ///
        /// Planning and locks grow with their number.
        pub max_leaves: u32 = "1000", kind::Int(1, 10_000);

        /// How often the partitions are looked after.
        ///
        /// A look costs one catalog query.
        pub maintenance_interval: Duration = "30s", kind::Time(SECOND, DAY);

        /// Whether partitions are made ahead of the head.
        ///
        /// A switch for an incident; what a row needs is made in any case.
        pub create: bool = "true", kind::BOOL;

        /// Whether partitions whose time is over are sealed and archived.
        ///
        /// A switch for an incident. With no retention set, nothing is due.
        pub archive: bool = "true", kind::BOOL;

        /// Whether they are retired and detached.
        ///
        /// A switch for an incident.
        pub detach: bool = "true", kind::BOOL;

        /// Whether detached partitions are dropped after their grace period.
        ///
        /// A switch for an incident; turn it off to look at every drop before.
        pub drop: bool = "true", kind::BOOL;

        /// Where archives go.
        ///
        /// Credentials come from archive_options or the store's own environment variables (AWS_…, GOOGLE_…, AZURE_…).
        pub archive_url: Option<String> = unset "file:///var/lib/dalp/archive", kind::ARCHIVE;

        /// What the object store needs to know: endpoint, region, keys.
        ///
        /// Named as the store's environment variables, in lower case. Never printed.
        pub archive_options: Vec<Secret> = unset "aws_endpoint=http://127.0.0.1:9000", kind::PAIR;
    }
}

impl Partitions {
    /// What may be done at all.
    pub fn switches(&self) -> Switches {
        Switches { create: self.create, archive: self.archive, detach: self.detach, drop: self.drop }
    }
}
