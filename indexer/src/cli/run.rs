//! `dalp-indexer run`.

use super::Failure;
use crate::config::Config;

/// Runs the command.
pub async fn run(_config: Config) -> Result<(), Failure> {
    Err(Failure::other("run: not built in this branch"))
}
