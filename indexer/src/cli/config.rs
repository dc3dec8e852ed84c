//! `dalp-indexer config`: check one, write one, write the reference.

use std::io::Write as _;

use clap::Subcommand;

use super::Failure;
use crate::config::{Config, ConfigErrors, Settings};
use crate::maintenance::{crowding, unfit_tables};

/// Check or write a configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration without its secrets, or every problem it has
    #[command(after_help = "Example:
  dalp-indexer config check --config dalp-indexer.toml
  dalp-indexer config check --connect    the tables that it names, too

Exit code 2 if there is a problem. Without --connect nothing is connected to.")]
    Check(CheckArgs),
    /// Print a configuration file that works as it is and shows every setting
    #[command(after_help = "Example:
  dalp-indexer config example > dalp-indexer.toml")]
    Example,
    /// Print docs/configuration.md
    #[command(hide = true)]
    Reference,
}

/// Arguments of `check`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CheckArgs {
    /// Look in the database whether the tables that are to be looked after can be
    #[arg(long)]
    pub connect: bool,
}

/// Runs the command; `load` reads the configuration if it is needed.
pub(super) async fn run(
    command: ConfigCommand,
    load: impl FnOnce() -> Result<Settings, ConfigErrors>,
) -> Result<(), Failure> {
    let text = match command {
        ConfigCommand::Check(args) => {
            let settings = load()?;
            let config = settings.config()?;
            for crowding in config.tables.iter().filter_map(|table| crowding(&config.partitions, table)) {
                eprintln!("warning: {crowding}");
            }
            if args.connect {
                let unfit = unfit_tables(&config).await.map_err(|error| Failure::other(error.to_string()))?;
                if !unfit.is_empty() {
                    return Err(Failure::usage(unfit.join("\n")));
                }
            }
            format!("{}ok\n", settings.describe())
        }
        ConfigCommand::Example => Config::example(),
        ConfigCommand::Reference => Config::reference(),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `… | head` has read enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
