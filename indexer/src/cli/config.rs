//! `dalp-indexer config`: check one, write one, write the reference.

use clap::Subcommand;

use super::failure::Failure;
use super::out::{say, tell};
use super::reach;
use crate::config::{Config, ConfigErrors, Settings};
use crate::maintenance::crowding;

/// Check or write a configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration without its secrets, or every problem it has
    #[command(after_help = "Example:
  dalp-indexer config check --config dalp-indexer.toml
  dalp-indexer config check --connect    also tests the databases, tables, nodes and archive

Exit code 2 for a problem in the file, 1 for a failed connection or test. Without --connect, it opens no connection.")]
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
    /// Test each configured database, table, node and archive, and print one line for each
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
            let config = settings.config();
            for crowding in config.tables.iter().filter_map(|table| crowding(&config.partitions, table)) {
                tell!("warning: {crowding}");
            }
            for skipped in &config.skipped {
                tell!("warning: {skipped}; its logs stay raw");
            }
            if args.connect {
                return reach::check(config).await;
            }
            format!("{}ok\n", settings.describe())
        }
        ConfigCommand::Example => Config::example(),
        ConfigCommand::Reference => Config::reference(),
    };
    say!("{}", text.trim_end())
}
