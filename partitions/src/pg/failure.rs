//! The meaning of the server's refusals.

use tokio_postgres::error::SqlState;

/// The server's message: the driver's own says only "db error".
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Whether the server refused because row security would filter rows out. Recognised by the place in the server's source: its
/// message is translated, and its code is the code of any missing right.
pub(crate) fn is_filtered(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.routine() == Some("check_enable_rls"))
}

/// Errors of values: data that does not fit, a constraint, a missing cast.
pub(crate) fn is_of_values(code: Option<&SqlState>) -> bool {
    let classes = ["22", "23"];
    code.is_some_and(|code| {
        classes.iter().any(|class| code.code().starts_with(class))
            || [SqlState::CANNOT_COERCE, SqlState::DATATYPE_MISMATCH].contains(code)
    })
}

/// A lock timeout, or a deadlock in which we lost.
pub(crate) fn is_passing(code: Option<&SqlState>) -> bool {
    matches!(code, Some(&(SqlState::LOCK_NOT_AVAILABLE | SqlState::T_R_DEADLOCK_DETECTED)))
}
