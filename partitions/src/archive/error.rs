//! What can go wrong with an archive, named for the caller's next move.

#[cfg(feature = "archive")]
use object_store::path::Path;

use crate::Advice;
#[cfg(feature = "archive")]
use crate::pg::failure::{is_filtered, is_of_values};

/// Why an archive could not be written, read or trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// This build has no archives.
    #[error(
        "this program was built without archives (feature \"archive\"): use a build with archives, or choose another \
         action than archive"
    )]
    NotBuilt,
    /// The place is not one that can be used.
    #[error("the archive's URL or options: {why}")]
    Url {
        /// What is wrong.
        why: String,
    },
    /// A value has no place in a file as what it is, and its column is archived as text.
    #[error(
        "{table}: column \"{column}\" holds a value that cannot be archived: the server sent an invalid value for the \
         column's type"
    )]
    Unfit {
        /// The leaf.
        table: String,
        /// The column.
        column: String,
    },
    /// The store did not do it, after several tries: nothing is lost, do it again later.
    #[error("could not {doing} {object}: {why}. Nothing is lost: the next run tries again")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// To which object.
        object: String,
        /// What the store said.
        why: String,
    },
    /// An object that should be there is not.
    #[error(
        "{object} is missing from the archive: put a copy back, or archive its leaf again while the leaf exists; if only \
         the manifest of an intact file is missing, {} writes it again",
        Advice::RepairArchives
    )]
    Missing {
        /// The object.
        object: String,
    },
    /// The place is not this database's to write to: nothing was sealed or written.
    #[error("nothing is archived in {place}: {why}")]
    NotOurs {
        /// The archive.
        place: String,
        /// Whose it is, and what to do.
        why: String,
    },
    /// A manifest of this version is there already.
    #[error("{object} is already in the archive, and a manifest is never overwritten: archive as the next version")]
    Exists {
        /// The object.
        object: String,
    },
    /// An object is not what was written.
    #[error(
        "{object} cannot be trusted: {why}. Put a copy back; the leaf, if it exists, is not dropped and can be archived \
         again"
    )]
    Corrupt {
        /// The object.
        object: String,
        /// What differs.
        why: String,
    },
    /// Row security would hide rows: what is not seen is neither counted nor archived.
    #[error(
        "could not {doing} {table}: row security would hide some of its rows from this role. As its owner: ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, or give this role BYPASSRLS"
    )]
    Filtered {
        /// What was being done.
        doing: &'static str,
        /// The table.
        table: String,
    },
    /// The table does not take the values.
    #[error("could not {doing} {table}: {why}")]
    Values {
        /// What was being done.
        doing: &'static str,
        /// The table.
        table: String,
        /// What the server said.
        why: String,
    },
    /// The database refused, or the connection to it was lost.
    #[error("could not {doing} {table}: {why}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The table.
        table: String,
        /// What the server said.
        why: String,
    },
}

#[cfg(feature = "archive")]
impl ArchiveError {
    /// For `map_err` of what a store says.
    pub(super) fn doing(doing: &'static str, object: &Path) -> impl FnOnce(object_store::Error) -> Self {
        let object = object.to_string();
        move |error| match error {
            object_store::Error::NotFound { .. } => Self::Missing { object },
            object_store::Error::AlreadyExists { .. } => Self::Exists { object },
            // A store's words may be a page of XML.
            error => Self::Store { doing, object, why: error.to_string().chars().take(300).collect() },
        }
    }

    /// For `map_err` of what the database says.
    pub(super) fn asking(doing: &'static str, table: &str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let table = table.to_owned();
        move |error| {
            if is_filtered(&error) {
                return Self::Filtered { doing, table };
            }
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            match is_of_values(error.code()) {
                true => Self::Values { doing, table, why },
                false => Self::Database { doing, table, why },
            }
        }
    }

    /// For `map_err` of what the Parquet library says of an object.
    pub(super) fn reading(object: &str) -> impl Fn(parquet::errors::ParquetError) -> Self {
        let object = object.to_owned();
        move |error| Self::Corrupt { object: object.clone(), why: error.to_string() }
    }
}
