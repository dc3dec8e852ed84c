//! What may go wrong with partitions, each with what to do next.

use crate::pg::failure::{is_filtered, is_passing, words};
use crate::{Advice, PlanError};

/// Why leaves could not be read or made. Each message ends with what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such table, or it is not partitioned by list.
    #[error(
        "{table} is not a partitioned table of the declared kind (LIST then RANGE, or only RANGE if flat) in this \
         database: {}, or correct the table's name",
        Advice::MakeTable
    )]
    NotManaged {
        /// Schema and name, quoted.
        table: String,
    },
    /// A partition has bounds that are not ours to manage.
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
    /// We are not the owner.
    #[error("{table}: {message}: partitions are made by the table's owner; {}", Advice::BecomeOwner)]
    NotOwner {
        /// Schema and name, quoted.
        table: String,
        /// The server's words.
        message: String,
    },
    /// Row security would hide rows: nothing is decided by a part of them.
    #[error(
        "could not {doing} of {table}: row security would hide some of its rows from this role. As its owner: ALTER TABLE … NO FORCE ROW LEVEL SECURITY, or give this role BYPASSRLS"
    )]
    Filtered {
        /// What was being done.
        doing: &'static str,
        /// Schema and name, quoted.
        table: String,
    },
    /// Somebody held a lock in our way, each time we tried.
    #[error(
        "{table}: no lock to make partitions in {tries} tries; in the way: {holders}. Wait until these sessions end, or \
         end them with pg_terminate_backend; the last try changed nothing, and the next call continues"
    )]
    Locked {
        /// Schema and name, quoted.
        table: String,
        /// How often we tried.
        tries: u32,
        /// Sessions that hold conflicting locks now: process id, lock, application.
        holders: String,
    },
    /// Somebody held a lock in the way of a move, until our patience ended.
    #[error(
        "{act} of {leaf}: no lock available; in the way: {holders}. Wait until these sessions end, or end them with \
         pg_terminate_backend(pid); every run tries again, and no other leaf waits for this one"
    )]
    InTheWay {
        /// The move.
        act: &'static str,
        /// The leaf, with its schema.
        leaf: String,
        /// Sessions that hold locks in the way: process id, role, application, state, and what they said last.
        holders: String,
    },
    /// The server refused a statement, or the connection broke.
    #[error(
        "could not {doing} of {table}: {message}. Check the server's log and the connection, then try again; existing \
         leaves are kept"
    )]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Schema and name, quoted.
        table: String,
        /// The server's or the driver's words.
        message: String,
        /// What the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// What was asked for cannot be done as it was said.
    #[error("{what}: {why}")]
    Unfit {
        /// What it was about.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A leaf was not dropped, or not retired, as the rule was not fulfilled when it came to it.
    #[error("{leaf} stays: {why}. Nothing was changed; {} shows the obstacle", Advice::Plan)]
    Refused {
        /// The leaf, with its schema.
        leaf: String,
        /// What the rule said.
        why: String,
    },
    /// A hold stands, but what it keeps was on its way out when it was added.
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
        /// Why it could not be stopped.
        why: String,
    },
    /// There is nowhere to write down what is done, so that it is not done.
    #[error(
        "{schema}.activity does not exist, or does not belong to the partitioner, and no leaf is retired without a \
         record: {}",
        Advice::MakeRecord(.schema)
    )]
    NoActivity {
        /// Where it should be.
        schema: String,
    },
    /// The archive could not be written, read or trusted.
    #[error(transparent)]
    Archive(#[from] crate::ArchiveError),
    /// Somebody else does this already.
    #[error("another session maintains the partitions of this database (pid {holder}): wait until it ends, or end it")]
    Busy {
        /// Its process id, or a question mark.
        holder: String,
    },
}

impl Error {
    /// For `map_err`: names what was being done, and where.
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

    /// Whether the same call may succeed a little later: a lock not had in time, or a deadlock ended at our cost.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Database { source, .. } if is_passing(source.code()))
    }
}
