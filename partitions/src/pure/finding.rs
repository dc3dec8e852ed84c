//! What somebody ought to know of, and what to do about it.

use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; may be meant.
    Info,
    /// Should be looked at.
    Warning,
    /// Must be mended: rows will be refused, or maintenance stands still.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The leaf or parent, without schema.
    pub object: String,
    /// What is so.
    pub what: String,
    /// What to do.
    pub next: String,
}
