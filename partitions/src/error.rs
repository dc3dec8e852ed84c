//! Errors of partitions, each with the next step.

use crate::pg::failure::{is_filtered, is_passing, words};
use crate::{Advice, PlanError};

/// Why leaves could not be read or made. Each message ends with the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table does not exist, or it is not partitioned by list.
    #[error(
        "{table} is not a partitioned table of the declared kind (LIST then RANGE, or only RANGE if flat) in this \
         database: {}, or correct the table's name",
        Advice::MakeTable
    )]
    NotManaged {
        /// Schema and name, quoted.
        table: String,
    },
    /// A partition has bounds that are not managed.
    #[error(
        "{table}: partition \"{leaf}\" is {bounds}, and such partitions are not managed: detach it, and move its rows"
    )]
    Foreign {
        /// Schema and name of the table, quoted.
        table: String,
        /// The partition.
        leaf: String,
        /// Its bounds, as the server prints them.
        bounds: String,
    },
    /// No plan can be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The current role is not the owner.
    #[error("{table}: {message}: partitions are made by the table's owner; {}", Advice::BecomeOwner)]
    NotOwner {
        /// Schema and name, quoted.
        table: String,
        /// The server's message.
        message: String,
    },
    /// Row security would hide rows: a decision needs all of them.
    #[error(
        "could not {doing} of {table}: row security would hide some of its rows from this role. As its owner: ALTER TABLE … NO FORCE ROW LEVEL SECURITY, or give this role BYPASSRLS"
    )]
    Filtered {
        /// The attempted step.
        doing: &'static str,
        /// Schema and name, quoted.
        table: String,
    },
    /// Other sessions held a conflicting lock in each try.
    #[error(
        "{table}: no lock to make partitions in {tries} tries; in the way: {holders}. Wait until these sessions end, or \
         end them with pg_terminate_backend; the last try changed nothing, and the next call continues"
    )]
    Locked {
        /// Schema and name, quoted.
        table: String,
        /// The number of tries.
        tries: u32,
        /// Sessions that hold conflicting locks now: process id, lock, application.
        holders: String,
    },
    /// Other sessions held a conflicting lock during all tries of a move.
    #[error(
        "{act} of {leaf}: no lock available; in the way: {holders}. Wait until these sessions end, or end them with \
         pg_terminate_backend(pid); every run tries again, and no other leaf waits for this one"
    )]
    InTheWay {
        /// The move.
        act: &'static str,
        /// The leaf, with its schema.
        leaf: String,
        /// The blocking sessions: process id, role, application, state, and their last statement.
        holders: String,
    },
    /// The server refused a statement, or the connection broke.
    #[error(
        "could not {doing} of {table}: {message}. Check the server's log and the connection, then try again; existing \
         leaves are kept"
    )]
    Database {
        /// The attempted step.
        doing: &'static str,
        /// Schema and name, quoted.
        table: String,
        /// The message of the server or the driver.
        message: String,
        /// The driver's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The request is invalid.
    #[error("{what}: {why}")]
    Unfit {
        /// The object of the request.
        what: String,
        /// The reason, and the next step.
        why: String,
    },
    /// A leaf was not dropped, or not retired, because the rule did not hold at that moment.
    #[error("{leaf} stays: {why}. Nothing was changed; {} shows the obstacle", Advice::Plan)]
    Refused {
        /// The leaf, with its schema.
        leaf: String,
        /// The reason of the rule.
        why: String,
    },
    /// A hold is valid, but the leaf was on its way out when the hold was added.
    #[error(
        "hold {hold} is valid, but it came too late for {leaf}, because its detach had begun: {why}. {} attaches it again; a held \
         leaf is not dropped",
        Advice::Undo(Some(.leaf))
    )]
    TooLate {
        /// The hold.
        hold: i64,
        /// The leaf, with its schema.
        leaf: String,
        /// The reason why it could not be stopped.
        why: String,
    },
    /// The table of the record is missing, so the operation was not done.
    #[error(
        "{schema}.activity does not exist, or does not belong to the partitioner, and no leaf is retired without a \
         record: {}",
        Advice::MakeRecord(.schema)
    )]
    NoActivity {
        /// The schema where it should be.
        schema: String,
    },
    /// The archive could not be written, read or trusted.
    #[error(transparent)]
    Archive(#[from] crate::ArchiveError),
    /// Another session does this work.
    #[error("another session maintains the partitions of this database (pid {holder}): wait until it ends, or end it")]
    Busy {
        /// Its process id, or a question mark.
        holder: String,
    },
}

impl Error {
    /// For `map_err`: names the attempted step and the table.
    pub(crate) fn doing(doing: &'static str, table: impl ToString) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| {
            let table = table.to_string();
            let message = words(&source);
            match source.code() {
                _ if is_filtered(&source) => Self::Filtered { doing, table },
                Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) => Self::NotOwner { table, message },
                _ => Self::Database { doing, table, message, source },
            }
        }
    }

    /// Whether the same call may succeed a little later: after a lock timeout, or a deadlock in which we lost.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Database { source, .. } if is_passing(source.code()))
    }
}
