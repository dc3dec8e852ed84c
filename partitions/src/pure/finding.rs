//! A finding for an operator, and its remedy.

use std::fmt;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information; may be intended.
    Info,
    /// An operator should check it.
    Warning,
    /// Needs a repair: rows will be refused, or maintenance stops.
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
    /// The finding.
    pub what: String,
    /// The remedy.
    pub next: String,
}
