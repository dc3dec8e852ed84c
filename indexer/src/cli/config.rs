//! `dalp-indexer config`: check one, write one, write the reference.

use clap::Subcommand;

use super::Failure;
use super::out::say;
use crate::config::{Config, ConfigErrors, Settings};

/// Check or write a configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration without its secrets, or every problem it has
    #[command(after_help = "Example:
  dalp-indexer config check --config dalp-indexer.toml

Exit code 2 if there is a problem. Nothing is connected to.")]
    Check,
    /// Print a configuration file that works as it is and shows every setting
    #[command(after_help = "Example:
  dalp-indexer config example > dalp-indexer.toml")]
    Example,
    /// Print docs/configuration.md
    #[command(hide = true)]
    Reference,
}

/// Runs the command; `load` reads the configuration if it is needed.
pub(super) fn run(
    command: ConfigCommand,
    load: impl FnOnce() -> Result<Settings, ConfigErrors>,
) -> Result<(), Failure> {
    let text = match command {
        ConfigCommand::Check => {
            let settings = load()?;
            settings.config()?;
            format!("{}ok\n", settings.describe())
        }
        ConfigCommand::Example => Config::example(),
        ConfigCommand::Reference => Config::reference(),
    };
    say!("{}", text.trim_end())
}
