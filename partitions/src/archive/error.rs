//! Errors of archives, named for the caller's next move.

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
    /// The place cannot be used.
    #[error("the archive's URL or options: {why}")]
    Url {
        /// The reason.
        why: String,
    },
    /// A value has no Parquet form, and its column is archived as text.
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
    /// The store failed after several tries. Nothing is lost: try again later.
    #[error("could not {doing} {object}: {why}. Nothing is lost: the next run tries again")]
    Store {
        /// The attempted step.
        doing: &'static str,
        /// The object.
        object: String,
        /// The store's message.
        why: String,
    },
    /// An expected object is missing.
    #[error(
        "{object} is missing from the archive: put a copy back, or archive its leaf again while the leaf exists; if only \
         the manifest of an intact file is missing, {} writes it again",
        Advice::RepairArchives
    )]
    Missing {
        /// The object.
        object: String,
    },
    /// The place belongs to another database: nothing was sealed or written.
    #[error("nothing is archived in {place}: {why}")]
    NotOurs {
        /// The archive.
        place: String,
        /// The owner of the place, and the next step.
        why: String,
    },
    /// A manifest of this version already exists.
    #[error("{object} is already in the archive, and a manifest is never overwritten: archive as the next version")]
    Exists {
        /// The object.
        object: String,
    },
    /// An object differs from the written one.
    #[error(
        "{object} cannot be trusted: {why}. Put a copy back; the leaf, if it exists, is not dropped and can be archived \
         again"
    )]
    Corrupt {
        /// The object.
        object: String,
        /// The difference.
        why: String,
    },
    /// Row security would hide rows: hidden rows are neither counted nor archived.
    #[error(
        "could not {doing} {table}: row security would hide some of its rows from this role. As its owner: ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, or give this role BYPASSRLS"
    )]
    Filtered {
        /// The attempted step.
        doing: &'static str,
        /// The table.
        table: String,
    },
    /// The table rejects the values.
    #[error("could not {doing} {table}: {why}")]
    Values {
        /// The attempted step.
        doing: &'static str,
        /// The table.
        table: String,
        /// The server's message.
        why: String,
    },
    /// The database refused, or the connection to it was lost.
    #[error("could not {doing} {table}: {why}")]
    Database {
        /// The attempted step.
        doing: &'static str,
        /// The table.
        table: String,
        /// The server's message.
        why: String,
    },
}

#[cfg(feature = "archive")]
impl ArchiveError {
    /// For `map_err` of a store's error.
    pub(super) fn doing(doing: &'static str, object: &Path) -> impl FnOnce(object_store::Error) -> Self {
        let object = object.to_string();
        move |error| match error {
            object_store::Error::NotFound { .. } => Self::Missing { object },
            object_store::Error::AlreadyExists { .. } => Self::Exists { object },
            // A store's message may be a page of XML.
            error => Self::Store { doing, object, why: error.to_string().chars().take(300).collect() },
        }
    }

    /// For `map_err` of a database error.
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

    /// For `map_err` of an error of the Parquet library.
    pub(super) fn reading(object: &str) -> impl Fn(parquet::errors::ParquetError) -> Self {
        let object = object.to_owned();
        move |error| Self::Corrupt { object: object.clone(), why: error.to_string() }
    }
}
