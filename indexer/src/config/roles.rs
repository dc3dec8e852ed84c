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
        /// Roles belong to the whole cluster: rename them where two installations share one.
        pub migrator: String = "dalp_migrator", kind::ROLE;

        /// The group role that writes rows.
        ///
        /// It can neither change tables nor touch a partition directly.
        pub writer: String = "dalp_writer", kind::ROLE;

        /// The group role that owns the partitioned tables.
        ///
        /// Attaching a partition demands ownership.
        pub partitioner: String = "dalp_partitioner", kind::ROLE;

        /// The group role of analysts.
        ///
        /// It reads everything and changes nothing.
        pub reader: String = "dalp_reader", kind::ROLE;

        /// Whether `dalp-indexer migrate` creates the roles that are missing.
        ///
        /// Set it to false where an administrator creates them.
        pub create: bool = "true", kind::BOOL;
    }
}

impl RolesDraft {
    /// Reports what two roles have in common.
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
