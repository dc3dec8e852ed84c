//! Advice in messages: the next step, in the words of the running program.
//!
//! A library has functions for each step. A program with commands registers them once with [`advise`]. The words go into
//! messages, and the registry keeps these messages.

use std::fmt;
use std::sync::OnceLock;

/// The advised step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice<'a> {
    /// Show the planned moves and the obstacles.
    Plan,
    /// Make the missing leaves and do the due moves.
    Apply,
    /// The same, with permission for many leaves at once.
    AllowMany,
    /// Make leaves for certain times.
    Fill,
    /// Return a leaf that is on its way; without a name, the leaf in the message.
    Undo(Option<&'a str>),
    /// Restore a dropped leaf from its archive.
    Restore(Option<&'a str>),
    /// List the archives.
    ListArchives,
    /// Read and check the archives.
    VerifyArchives,
    /// Write a manifest again.
    RepairArchives,
    /// Take over a place for archives.
    AdoptArchives,
    /// List the holds.
    ListHolds,
    /// Find obstacles for the manager.
    Doctor,
    /// Make a missing table: the step, as a clause behind a colon.
    MakeTable,
    /// Get the rights of a table's owner, as a clause.
    BecomeOwner,
    /// Make the table of the record in this schema, as a clause.
    MakeRecord(&'a str),
    /// The setting for the place of archives.
    ArchivePlace,
    /// The setting for the amount that may go at once.
    Breaker,
    /// The switch of this name in [`crate::Switches`].
    Switch(&'a str),
    /// Wait for the indexes of a loaded leaf, as a clause.
    AwaitIndexes,
}

type Words = fn(&Advice<'_>, &mut fmt::Formatter<'_>) -> fmt::Result;

static WORDS: OnceLock<Words> = OnceLock::new();

/// Registers once for the whole process how a program names these steps. Without a call, or at a second call, nothing changes:
/// messages name the functions of this library.
pub fn advise(words: Words) {
    WORDS.get_or_init(|| words);
}

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(words) = WORDS.get() {
            return words(self, f);
        }
        match self {
            Self::Plan => f.write_str("`Manager::plan`"),
            Self::Apply => f.write_str("`Manager::ensure` with `Manager::retire`"),
            Self::AllowMany => f.write_str("`Manager::allow_many`"),
            Self::Fill => f.write_str("`Manager::ensure`"),
            Self::Undo(_) => f.write_str("`Manager::undo`"),
            Self::Restore(_) => f.write_str("`Manager::restore`"),
            Self::ListArchives => f.write_str("`survey`"),
            Self::VerifyArchives => f.write_str("`verify`"),
            Self::RepairArchives => f.write_str("`repair`"),
            Self::AdoptArchives => f.write_str("`adopt`"),
            Self::ListHolds => f.write_str("`all_holds`"),
            Self::Doctor => f.write_str("`doctor_table`"),
            Self::MakeTable => f.write_str("create it with PARTITION BY"),
            Self::BecomeOwner => f.write_str("SET ROLE to it"),
            Self::MakeRecord(_) => f.write_str("as the registry's owner, `install` it"),
            Self::ArchivePlace => f.write_str("the archive's URL"),
            Self::Breaker => f.write_str("`Retention::max_leaves` or `Retention::max_share`"),
            Self::Switch(name) => write!(f, "`Switches::{name}`"),
            Self::AwaitIndexes => f.write_str("`build` makes them afterwards"),
        }
    }
}
