//! The command line: parse, dispatch, exit code. 2 for usage and configuration, 1 for every other failure.

mod abi;
mod advice;
mod again;
pub mod backfill;
mod block;
mod config;
pub mod contracts;
#[cfg(feature = "dev")]
pub mod dev;
mod environment;
mod failure;
mod grid;
pub mod migrate;
mod out;
pub mod partitions;
pub mod quarantine;
mod reach;
pub mod redecode;
mod reindex;
pub mod repair;
pub mod run;
mod sql;
pub mod status;
pub mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::MultiProgress;

use crate::config::Settings;
use crate::telemetry::{self, LogFormat};

pub use self::environment::{environment, state_dir};
pub use self::failure::Failure;
use self::out::tell;
use crate::dataset::Datasets;

/// Indexes the events of EVM chains into time-partitioned PostgreSQL tables.
#[derive(Debug, Parser)]
#[command(name = "dalp-indexer", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  dalp-indexer dev                                  starts a private devnet and database
  dalp-indexer config example > dalp-indexer.toml   writes an example configuration
  dalp-indexer migrate && dalp-indexer run          starts a deployment

Every setting is also an environment variable: see `dalp-indexer config example`.
Exit codes: 0 success, 2 wrong usage or configuration, 1 any other error.")]
pub struct Cli {
    /// The configuration file [default: ./dalp-indexer.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "DALP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Format of the logs on stderr; RUST_LOG filters them
    #[arg(long, global = true, value_name = "FORMAT", env = "DALP_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a private devnet with database and sample traffic, and index it
    #[cfg(feature = "dev")]
    #[command(after_help = "Examples:
  dalp-indexer dev                                  installs missing programs; Ctrl-C stops everything
  dalp-indexer dev --fresh                          starts with an empty chain and database
  dalp-indexer dev --rpc-url http://127.0.0.1:8545  indexes a running node
  dalp-indexer dev --rpc-url http://127.0.0.1:8545 --artifacts out
                                                    makes tables for the events of your own contracts on it")]
    Dev(dev::DevArgs),
    /// Follow the configured chains until stopped
    #[command(after_help = "Example:
  dalp-indexer run --config dalp-indexer.toml --log-format json")]
    Run(run::RunArgs),
    /// Create or update the database's schemas, tables and roles
    #[command(after_help = "Example:
  DALP_DATABASE__URL=postgres://postgres@127.0.0.1/dalp dalp-indexer migrate

Uses database.admin_url. A second run changes nothing.")]
    Migrate,
    /// Show how far each chain is indexed
    #[command(after_help = "Examples:
  dalp-indexer status
  dalp-indexer status --watch
  dalp-indexer status --json | jq '.chains[].lag_blocks'")]
    Status(status::StatusArgs),
    /// Index a range of final blocks, such as blocks below the start block
    #[command(after_help = "Example:
  dalp-indexer backfill --chain mainnet --from 18000000 --to 18099999

Does not store a block twice.")]
    Backfill(backfill::BackfillArgs),
    /// Remove stored blocks from a block upwards, final or not; the indexer reads them again
    #[command(after_help = "Example:
  dalp-indexer reindex --chain mainnet --from 18000000 --yes

For a chain that rewrote final blocks, or a restored database. A running indexer may continue:
reindex waits for its turn. Without --yes, nothing is removed and the exit code is 2.")]
    Reindex(reindex::ReindexArgs),
    /// Add, list and remove contracts without a restart
    #[command(subcommand)]
    #[command(after_help = "Examples:
  dalp-indexer contracts list
  dalp-indexer contracts add --kind bond 0x5fbdb2315678afecb367f032d93f642f64180aa3")]
    Contracts(contracts::ContractsCommand),
    /// List the logs that a table refused, and why
    #[command(after_help = "Examples:
  dalp-indexer quarantine
  dalp-indexer quarantine --table bond_paid --limit 100 --json

A refused log is stored unchanged in dalp_indexed.quarantine. After the ABI is mended, the next start of `run` decodes it again.
Uses database.reader_url.")]
    Quarantine(quarantine::QuarantineArgs),
    /// Decode the stored logs of configured contracts again, without a node
    #[command(after_help = "Examples:
  dalp-indexer redecode
  dalp-indexer redecode --chain mainnet --kind bond

A new contract and a changed ABI need no redecode: `run` decodes what is stored when it starts. The running indexer does the work,
newest logs first, beside new blocks; it goes on after a restart.")]
    Redecode(redecode::RedecodeArgs),
    /// Compare the stored rows with the chain, row by row; exit code 1 if a row differs or was not compared
    #[command(after_help = "Examples:
  dalp-indexer verify                                    all blocks, at the strongest level of the chain
  dalp-indexer verify --from 18000000 --to 18099999 --level returned
  dalp-indexer verify --json | jq '.chains[].differences'

Does not disturb a running indexer. Blocks that the present filter does not cover yet are not compared, and the exit code
is 1. For correct blocks, the level of verification is recorded.")]
    Verify(verify::VerifyArgs),
    /// Fetch each block whose stored rows differ from the chain, and replace its rows
    #[command(after_help = "Examples:
  dalp-indexer repair --dry-run      names the blocks to replace
  dalp-indexer repair --from 18000000 --to 18099999

Verifies first. Each range is replaced in one transaction; the tail does not move.")]
    Repair(repair::RepairArgs),
    /// Maintain partitions: plan, apply, status, audit, undo, holds, archives
    #[command(subcommand)]
    #[command(after_help = "Examples:
  dalp-indexer partitions status
  dalp-indexer partitions plan --table logs

docs/partitions.md explains policies, holds and messages. Uses database.admin_url.")]
    Partitions(partitions::PartitionsCommand),
    /// Query the database: a prompt, or -c for one query
    #[command(after_help = "Examples:
  dalp-indexer sql                                          opens a prompt; \\? lists its commands
  dalp-indexer sql -c '\\d'                                  lists the tables
  dalp-indexer sql -c 'SELECT count(*) FROM dalp_indexed.logs' --format json
  dalp-indexer sql < report.sql                             runs a file; statements between \\ commands are one transaction

Uses database.reader_url.")]
    Sql(sql::SqlArgs),
    /// Show the tables for the events of an ABI
    #[command(subcommand)]
    #[command(after_help = "Examples:
  dalp-indexer abi check out/Bond.sol/Bond.json
  dalp-indexer abi kinds")]
    Abi(abi::AbiCommand),
    /// Check or write a configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// The whole program: reads the arguments and the environment, runs, and reports the result. `datasets`: the tables for the logs
/// of chains; `dev` knows the indexer's own.
pub fn main(datasets: Datasets) -> ExitCode {
    advice::give();
    // clap answers --help with 0 and wrong usage with 2.
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("error: cannot start the threads of the program: {error}");
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(dispatch(cli, datasets));
    // A blocked thread (a line editor's read, a name lookup) must not keep a finished program alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                tell!("error: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(cli: Cli, datasets: Datasets) -> Result<(), Failure> {
    // Only the commands with a live status line need logs to step aside for it.
    let bars = MultiProgress::new();
    telemetry::init(cli.log_format, std::env::var("RUST_LOG").ok().as_deref(), Some(bars.clone()))?;
    let settings = || Settings::load(datasets.clone(), cli.config.as_deref(), environment());
    let load = || Ok::<_, Failure>(settings()?.into_config());
    match cli.command {
        #[cfg(feature = "dev")]
        Command::Dev(args) => dev::run(args, bars).await,
        Command::Run(args) => run::run(load()?, args).await,
        Command::Migrate => migrate::run(load()?).await,
        Command::Status(args) => status::run(load()?, args).await,
        Command::Reindex(args) => reindex::run(load()?, args, bars).await,
        Command::Contracts(command) => contracts::run(load()?, command).await,
        Command::Quarantine(args) => quarantine::run(load()?, args).await,
        Command::Redecode(args) => redecode::run(load()?, args).await,
        Command::Backfill(args) => backfill::run(load()?, args, bars).await,
        Command::Verify(args) => verify::run(load()?, args, bars).await,
        Command::Repair(args) => repair::run(load()?, args, bars).await,
        Command::Partitions(command) => partitions::run(load()?, command).await,
        Command::Sql(args) => sql::run(load()?, args).await,
        Command::Abi(command) => abi::run(command),
        Command::Config(command) => config::run(command, settings).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_block_is_0_or_more() {
        for line in ["reindex --from -1", "backfill --from 1 --to -5", "verify --from 1.5", "repair --to x"] {
            let said =
                Cli::try_parse_from(["dalp-indexer"].into_iter().chain(line.split(' '))).unwrap_err().to_string();
            assert!(said.contains("a block is a whole number, 0 or more"), "{said}");
        }
    }

    #[test]
    fn parses() {
        for (line, good) in [
            ("dalp-indexer run --config x.toml --log-format json", true),
            ("dalp-indexer --config x.toml config check", true),
            ("dalp-indexer backfill --from 1 --to 9", true),
            ("dalp-indexer backfill --from 1", false),
            ("dalp-indexer reindex --from -1", false),
            ("dalp-indexer verify --chain a --from 1 --level receipts --json", true),
            ("dalp-indexer verify --level all", false),
            ("dalp-indexer repair --to 9 --dry-run", true),
            ("dalp-indexer partitions plan --table logs --json", true),
            ("dalp-indexer partitions apply --allow-many", true),
            ("dalp-indexer partitions undo logs_1 --reason r", true),
            ("dalp-indexer partitions undo logs_1", false),
            ("dalp-indexer partitions hold add --table logs --from 2024-01-01 --reason r", true),
            ("dalp-indexer partitions hold add --table logs --from yesterday --reason r", false),
            ("dalp-indexer partitions hold add --table logs --chain a --key 1 --reason r", false),
            ("dalp-indexer partitions hold release three", false),
            ("dalp-indexer partitions archive verify --leaf l", true),
            ("dalp-indexer abi check --kind bond a.json b.json", true),
            ("dalp-indexer abi check --kind bond", true),
            ("dalp-indexer abi kinds", true),
            ("dalp-indexer quarantine --table logs --limit 5 --json", true),
            ("dalp-indexer quarantine --limit -1", false),
            ("dalp-indexer contracts add --kind bond 0x5fbdb2315678afecb367f032d93f642f64180aa3", true),
            ("dalp-indexer contracts add --kind bond 0x5FbDB2315678afecb367f032d93F642f64180aa4", false),
            ("dalp-indexer contracts add --kind bond", false),
            ("dalp-indexer contracts list --kind bond --json", true),
            ("dalp-indexer abi ddl", false),
            ("dalp-indexer sql -c a -c b --format csv --max-rows 5", true),
            ("dalp-indexer sql --format xml", false),
            ("dalp-indexer run --log-format xml", false),
            ("dalp-indexer", false),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), good, "{line}");
        }
    }
}
