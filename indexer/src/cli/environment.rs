//! The environment of a command: variables, and the folder for files that outlive a run.

use std::ffi::OsString;
use std::path::PathBuf;

/// The environment as texts. A value that is not Unicode is passed on damaged, so that the check of its setting refuses it by
/// name.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |raw: OsString| raw.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// The folder for files that outlive a run: `DALP_HOME`, otherwise the user's state folder; none without a home.
pub fn state_dir() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("DALP_HOME")
        .or_else(|| folder("XDG_STATE_HOME").map(|state| state.join("dalp-indexer")))
        .or_else(|| folder("HOME").map(|home| home.join(".local/state/dalp-indexer")))
}
