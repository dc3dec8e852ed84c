//! What the server would refuse a leaf's way for: known before the first move, so that nothing is sealed that cannot go on.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied as Known, Vacant as New};
use std::fmt;

use tokio_postgres::Row;

use crate::{Fate, Finding, Inventory, Severity, Table, registry::Presence};

/// What of a parent makes the server refuse that a leaf of it is detached, or of a leaf that it is sealed, detached or dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// The parent has a DEFAULT partition.
    Default {
        /// The parent, as SQL takes it.
        parent: String,
        /// The partition, as SQL takes it.
        partition: String,
    },
    /// A foreign key points to the parent.
    Referenced {
        /// The constraint, as SQL takes it.
        by: String,
        /// The table that it is of, as SQL takes it.
        of: String,
    },
    /// The leaf is no plain table.
    Kind {
        /// What it is.
        kind: &'static str,
        /// The statement after which it is left alone.
        freed_by: String,
    },
    /// Another role owns the leaf.
    Owner {
        /// The role.
        owner: String,
        /// The statement that gives it to the manager's role.
        freed_by: String,
    },
    /// Something that is none of the leaf's parts depends on the leaf: it would not be dropped.
    Needed {
        /// What depends on it.
        by: String,
        /// The statements that end that.
        freed_by: String,
    },
}

impl Hindrance {
    /// Of a parent: its name, its DEFAULT partition, a foreign key that points to it, and the table of that.
    pub(crate) fn of_parent(row: &Row) -> Option<Self> {
        let default: Option<String> = row.get(2);
        match (default, row.get(3), row.get(4)) {
            (Some(partition), ..) => Some(Self::Default { parent: row.get(1), partition }),
            (None, Some(by), Some(of)) => Some(Self::Referenced { by, of }),
            _ => None,
        }
    }

    /// Of a leaf of that parent, both as SQL takes them: its kind, its owner where that is another role, what needs it, the statements
    /// that end that, and the manager's role.
    pub(crate) fn of_leaf(row: &Row, at: usize, leaf: &str, parent: Option<&str>) -> Option<Self> {
        let (kind, owner): (Option<String>, Option<String>) = (row.get(at), row.get(at + 1));
        let of_kind = |kind| {
            let freed_by = format!("ALTER TABLE {} DETACH PARTITION {leaf}", parent.unwrap_or("…"));
            Some(Self::Kind { kind, freed_by })
        };
        match (kind.as_deref(), owner, row.get(at + 2), row.get(at + 3)) {
            (Some("f"), ..) => of_kind("a foreign table"),
            (Some("p"), ..) => of_kind("partitioned again"),
            (_, Some(owner), ..) => {
                let manager: &str = row.get(at + 4);
                Some(Self::Owner { owner, freed_by: format!("ALTER TABLE {leaf} OWNER TO {manager}") })
            }
            (_, _, Some(by), Some(freed_by)) => Some(Self::Needed { by, freed_by }),
            _ => None,
        }
    }

    /// Whether it stands in the way of what becomes of a leaf.
    pub(crate) fn hinders(&self, fate: Fate) -> bool {
        match self {
            Self::Needed { .. } => matches!(fate, Fate::Drop | Fate::Archive),
            // Beside it, no leaf is made either.
            Self::Default { .. } => true,
            _ => fate != Fate::Keep,
        }
    }

    /// What is so.
    pub fn what(&self) -> String {
        match self {
            Self::Default { partition, .. } => {
                format!("{partition} is a DEFAULT partition, beside which the server detaches none concurrently")
            }
            Self::Referenced { by, of } => format!(
                "foreign key {by} of {of} points here, and the server detaches nothing from under it without locking that table"
            ),
            Self::Kind { kind, .. } => format!("it is {kind}, and only plain tables are sealed, archived and dropped"),
            Self::Owner { owner, .. } => format!("{owner} owns it, and only its owner may seal and drop it"),
            Self::Needed { by, .. } => {
                format!("{by} would be lost with it, and the server does not drop what something else needs")
            }
        }
    }

    /// What to do.
    pub fn next(&self) -> String {
        match self {
            Self::Default { parent, partition } => format!(
                "move its rows into leaves of their own (`dalp-indexer partitions fill` makes them), then ALTER TABLE {parent} \
                 DETACH PARTITION {partition}"
            ),
            Self::Referenced { by, of } => format!("ALTER TABLE {of} DROP CONSTRAINT {by}"),
            Self::Kind { freed_by, .. } => format!("it is left alone after {freed_by}"),
            Self::Owner { freed_by, .. } => freed_by.clone(),
            Self::Needed { freed_by, .. } => format!("let it go by the table instead of the leaf, or {freed_by}"),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.next())
    }
}

/// What will stand in the way of leaves when their time is over, whenever that is. One finding for all leaves of one hindrance.
pub fn hindrances(inventory: &Inventory, table: &Table, fate: Fate) -> Vec<Finding> {
    let of_keys = inventory.hindrances.values().map(|by| (format!("{}.{}", table.schema, table.name), by));
    let standing = inventory.entries.iter().filter(|entry| entry.presence == Presence::Attached);
    let of_leaves = standing.filter_map(|entry| Some((entry.to_string(), entry.hindrance.as_ref()?)));
    let mut found: Vec<(String, &Hindrance, usize)> = Vec::new();
    let mut told: HashMap<String, usize> = HashMap::new();
    for (object, by) in of_keys.chain(of_leaves).filter(|(_, by)| by.hinders(fate)) {
        match told.entry(by.what()) {
            Known(at) => found[*at.get()].2 += 1,
            New(new) => {
                new.insert(found.len());
                found.push((object, by, 0));
            }
        }
    }
    let finding = |(object, by, more): (String, &Hindrance, usize)| Finding {
        severity: Severity::Error,
        object: if more == 0 { object } else { format!("{object} and {more} more") },
        what: by.what(),
        next: by.next(),
    };
    let strangers = inventory.strangers.iter().map(|stranger| stranger_of(table, stranger));
    found.into_iter().map(finding).chain(strangers).collect()
}

/// A partition of the list level that is of no single key.
fn stranger_of(table: &Table, (name, bounds): &(String, String)) -> Finding {
    let (what, next) = match bounds.as_str() {
        "DEFAULT" => (
            "it is the DEFAULT partition of the keys: rows of a new key go there, and keep that from getting leaves of its own".to_owned(),
            format!("move its rows, then ALTER TABLE {table} DETACH PARTITION {name}"),
        ),
        bounds => (
            format!("it is of {bounds}, and a key is one number: its leaves are left alone, and none is made"),
            format!("give each number a partition of its own, or register {name} as a table of its own, without list"),
        ),
    };
    Finding { severity: Severity::Error, object: name.clone(), what, next }
}

/// What needs each leaf of `standing` and `known`: after the two in a WITH RECURSIVE. As the server does when it drops one: all that goes
/// with it is gathered, and whatever else depends on any of that is in the way. A foreign key that points to the parent has a copy for each
/// leaf, which ends when that is detached.
pub(crate) const NEEDED: &str = "
    , gone AS (
        SELECT oid AS leaf, 'pg_catalog.pg_class'::regclass::oid AS classid, oid AS objid
        FROM (SELECT oid FROM standing UNION SELECT found FROM known WHERE found IS NOT NULL) AS of_leaf
      UNION
        SELECT gone.leaf, d.classid, d.objid FROM gone
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = gone.classid AND d.refobjid = gone.objid
        WHERE d.deptype IN ('a', 'i', 'P', 'S')
    ), dependent AS MATERIALIZED (
        SELECT DISTINCT gone.leaf,
               CASE WHEN rule.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::regclass END AS classid,
               COALESCE(rule.ev_class, d.objid) AS objid, d.objsubid
        FROM gone JOIN pg_catalog.pg_depend AS d ON d.refclassid = gone.classid AND d.refobjid = gone.objid AND d.deptype = 'n'
        LEFT JOIN pg_catalog.pg_rewrite AS rule
               ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND rule.oid = d.objid AND rule.rulename = '_RETURN'
        WHERE NOT EXISTS (SELECT FROM gone AS own WHERE (own.leaf, own.classid, own.objid) = (gone.leaf, d.classid, d.objid))
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS copy
                          WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND copy.oid = d.objid AND copy.conparentid <> 0)
    ), needed AS MATERIALIZED (
        SELECT leaf, string_agg(concat_ws(' ', of.type, of.identity), ', ' ORDER BY of.identity) AS by,
               string_agg(CASE of.type
                   WHEN 'table constraint' THEN format('ALTER TABLE %I.%I DROP CONSTRAINT %I', names[1], names[2], names[3])
                   WHEN 'default value' THEN format('ALTER TABLE %I.%I ALTER %I DROP DEFAULT', names[1], names[2], names[3])
                   WHEN 'table column' THEN format('ALTER TABLE %I.%I DROP COLUMN %I', names[1], names[2], names[3])
                   ELSE format('DROP %s %s', upper(of.type), of.identity) END, '; ' ORDER BY of.identity) AS freed_by
        FROM dependent, LATERAL pg_identify_object(classid, objid, objsubid) AS of,
             LATERAL pg_identify_object_as_address(classid, objid, objsubid) AS address (of_type, names, arguments)
        GROUP BY leaf
    )";
