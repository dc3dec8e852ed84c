//! `[partitions]`.

use std::time::Duration;

use dalp_partitions::Switches;

use super::kind;
use super::section::settings;
use super::value::{DAY, Interval, SECOND, Secret};

settings! {
    /// The partitions of all tables.
    pub struct Partitions in "partitions", drafted as PartitionsDraft {
        /// The time span of one partition near the head.
        ///
        /// Choose it by size: a partition should have some gigabytes.
        pub interval: Interval = "day", kind::Choice(Interval::NAMES);

        /// Whether the indexer makes wider partitions if full partitions are small. It then chooses the interval of each table and chain for
        /// partitions of 5 to 20 GB.
        ///
        /// The configured interval remains the narrowest one. Existing partitions do not change.
        pub interval_by_size: bool = "false", kind::BOOL;

        /// The time span of one partition of old history.
        ///
        /// Old history is fetched once and rarely dropped. Queries over few partitions are planned faster.
        pub history_interval: Interval = "month", kind::Choice(Interval::NAMES);

        /// The age at which history begins.
        ///
        /// 90 days keep daily partitions for the recent months.
        pub history_after: Duration = "90d", kind::Time(DAY, 36_500 * DAY);

        /// The number of partitions made ahead of the head, for tables with rows of the chain in the last interval.
        ///
        /// With daily partitions, this covers a long weekend without maintenance.
        pub premake: u32 = "3", kind::Int(1, 100);

        /// The largest number of partitions of one table and chain.
        ///
        /// Planning time and locks grow with the number of partitions.
        pub max_leaves: u32 = "1000", kind::Int(1, 10_000);

        /// The interval of partition maintenance.
        ///
        /// One round costs one catalog query.
        pub maintenance_interval: Duration = "30s", kind::Time(SECOND, DAY);

        /// Whether the indexer makes partitions ahead of the head.
        ///
        /// You can turn it off during an incident. The indexer still makes a partition that a row needs.
        pub create: bool = "true", kind::BOOL;

        /// Whether the indexer seals and archives partitions after their retention.
        ///
        /// You can turn it off during an incident. Without a retention, no partition is due.
        pub archive: bool = "true", kind::BOOL;

        /// Whether the indexer retires and detaches partitions after their retention.
        ///
        /// You can turn it off during an incident.
        pub detach: bool = "true", kind::BOOL;

        /// Whether the indexer drops detached partitions after their grace period.
        ///
        /// You can turn it off during an incident, or to check each drop before it happens.
        pub drop: bool = "true", kind::BOOL;

        /// The place of archives.
        ///
        /// Credentials come from archive_options, or from the environment variables of the object store (AWS_…, GOOGLE_…, AZURE_…).
        pub archive_url: Option<String> = unset "file:///var/lib/dalp/archive", kind::ARCHIVE;

        /// Options of the object store: endpoint, region, keys.
        ///
        /// Their names are those of the object store's environment variables, in lower case. The values are never printed.
        pub archive_options: Vec<Secret> = unset "aws_endpoint=http://127.0.0.1:9000", kind::PAIR;
    }
}

impl Partitions {
    /// The allowed steps.
    pub fn switches(&self) -> Switches {
        Switches { create: self.create, archive: self.archive, detach: self.detach, drop: self.drop }
    }
}
