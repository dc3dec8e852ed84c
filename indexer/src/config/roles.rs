//! `[roles]`: the struct is the migrations', which make the roles.

use std::collections::BTreeMap;

use dalp_migrations::Roles;

use super::given::Given;
use super::kind;
use super::section::settings;

settings! {
    for Roles in "roles", drafted as RolesDraft {
        /// The group role that owns the schemas.
        ///
        /// Roles belong to the whole cluster: rename them if two installations share one cluster.
        pub migrator: String = "dalp_migrator", kind::ROLE;

        /// The group role that writes rows.
        ///
        /// The role cannot change tables, and cannot access a partition directly.
        pub writer: String = "dalp_writer", kind::ROLE;

        /// The group role that owns the partitioned tables.
        ///
        /// PostgreSQL lets only the owner attach a partition.
        pub partitioner: String = "dalp_partitioner", kind::ROLE;

        /// The group role of analysts.
        ///
        /// The role can read all tables and change none.
        pub reader: String = "dalp_reader", kind::ROLE;

        /// Whether `dalp-indexer migrate` creates missing roles.
        ///
        /// Set it to false if an administrator creates the roles.
        pub create: bool = "true", kind::BOOL;
    }
}

impl RolesDraft {
    /// Reports a name that two roles share.
    pub fn compare(&self, given: &mut Given) {
        let mut roles = BTreeMap::new();
        for setting in [&self.migrator, &self.writer, &self.partitioner, &self.reader] {
            let Some(role) = setting.get() else { continue };
            if let Some(first) = roles.insert(role, &setting.key) {
                let message = format!("\"{role}\" is {first} too: each needs a role of its own, with its own rights");
                given.object(&setting.key, message);
            }
        }
    }
}
