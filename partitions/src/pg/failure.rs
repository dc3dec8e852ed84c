//! What the server says when it refuses.

use tokio_postgres::error::SqlState;

/// The server's words: the driver's own say "db error" and no more.
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Whether the server refused as row security would filter rows out. By the place in its source: its words are translated, and its
/// code is that of any missing right.
pub(crate) fn is_filtered(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.routine() == Some("check_enable_rls"))
}

/// Of values: data that does not fit, a constraint, a cast that there is not.
pub(crate) fn is_of_values(code: Option<&SqlState>) -> bool {
    let classes = ["22", "23"];
    code.is_some_and(|code| {
        classes.iter().any(|class| code.code().starts_with(class))
            || [SqlState::CANNOT_COERCE, SqlState::DATATYPE_MISMATCH].contains(code)
    })
}

/// A lock not had in time, or a deadlock ended at our cost.
pub(crate) fn is_passing(code: Option<&SqlState>) -> bool {
    matches!(code, Some(&(SqlState::LOCK_NOT_AVAILABLE | SqlState::T_R_DEADLOCK_DETECTED)))
}
