//! Reasons for which the server would refuse a move of a leaf: known before the first move, so no leaf is sealed that cannot go
//! on.

use std::fmt;

use super::advice::Advice;
use super::retention::Action;

/// A property of a parent that makes the server refuse the detach of its leaves, or of a leaf that makes it refuse a seal, detach
/// or drop.
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
        /// The table of the constraint, as SQL.
        of: String,
    },
    /// The leaf is not a plain table.
    Kind {
        /// Its kind.
        kind: &'static str,
        /// The statement after which the manager leaves it alone.
        freed_by: String,
    },
    /// Another role owns the leaf.
    Owner {
        /// The role.
        owner: String,
        /// The statement that gives it to the manager's role.
        freed_by: String,
    },
    /// An object outside the leaf depends on the leaf: the server would refuse the drop.
    Needed {
        /// The dependent object.
        by: String,
        /// The statements that end the dependency.
        freed_by: String,
    },
}

impl Hindrance {
    /// Whether it blocks the moves of a leaf.
    pub(crate) fn hinders(&self, action: Action) -> bool {
        match self {
            Self::Needed { .. } => matches!(action, Action::Drop | Action::Archive),
            // Whether it also prevents new leaves.
            Self::Default { .. } => true,
            _ => action != Action::Keep,
        }
    }

    /// The obstacle in words.
    pub fn what(&self) -> String {
        match self {
            Self::Default { partition, .. } => {
                format!("{partition} is a DEFAULT partition; beside it, the server detaches no partition concurrently")
            }
            Self::Referenced { by, of } => format!(
                "foreign key {by} of {of} points here; under it, the server detaches no partition without a lock on that \
                 table"
            ),
            Self::Kind { kind, .. } => format!("it is {kind}, and only plain tables are sealed, archived and dropped"),
            Self::Owner { owner, .. } => format!("{owner} owns it, and only its owner may seal and drop it"),
            Self::Needed { by, .. } => {
                format!("{by} would be lost with it, and the server does not drop an object that another object needs")
            }
        }
    }

    /// The remedy.
    pub fn next(&self) -> String {
        match self {
            Self::Default { parent, partition } => format!(
                "move its rows into other leaves ({} makes them), then ALTER TABLE {parent} DETACH PARTITION {partition}",
                Advice::Fill
            ),
            Self::Referenced { by, of } => format!("ALTER TABLE {of} DROP CONSTRAINT {by}"),
            Self::Kind { freed_by, .. } => format!("it is left alone after {freed_by}"),
            Self::Owner { freed_by, .. } => freed_by.clone(),
            Self::Needed { freed_by, .. } => format!("make it use the table instead of the leaf, or run {freed_by}"),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.next())
    }
}
