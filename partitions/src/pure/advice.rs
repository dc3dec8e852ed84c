//! What somebody is told to do or to set next, in the words of the program that they use.
//!
//! A library has functions for it; a program that uses the library has commands, and says so once with [`advise`]. The words go into
//! messages, which also the registry keeps.

use std::fmt;
use std::sync::OnceLock;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice<'a> {
    /// Look at what will be done, and at what stands in the way.
    Plan,
    /// Make what is missing and do what is due.
    Apply,
    /// The same, though much goes at once.
    AllowMany,
    /// Make leaves for certain times.
    Fill,
    /// Serve a leaf again that is on its way; without a name, that which it is said of.
    Undo(Option<&'a str>),
    /// Restore a dropped leaf from its archive.
    Restore(Option<&'a str>),
    /// Look at the archives.
    ListArchives,
    /// Read the archives whole.
    VerifyArchives,
    /// Write a manifest again.
    RepairArchives,
    /// Take a place for archives over.
    AdoptArchives,
    /// Look at the holds.
    ListHolds,
    /// Look for what keeps the manager from its work.
    Doctor,
    /// Make a table that is not there: what to do, as a sentence has it behind a colon.
    MakeTable,
    /// Get the rights of a table's owner; the same.
    BecomeOwner,
    /// Make the table of the record in this schema; the same.
    MakeRecord(&'a str),
    /// What says where archives are kept.
    ArchivePlace,
    /// What says how much may go at once.
    Breaker,
    /// The switch of this name in [`crate::Switches`].
    Switch(&'a str),
    /// Wait for the indexes of a leaf that was loaded; the same.
    AwaitIndexes,
}

type Words = fn(&Advice<'_>, &mut fmt::Formatter<'_>) -> fmt::Result;

static WORDS: OnceLock<Words> = OnceLock::new();

/// Says once for the whole process how a program calls these. Without, or the second time, nothing changes: the functions of this library
/// are named.
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
