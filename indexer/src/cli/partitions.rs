//! `dalp-indexer partitions`: the plans, work and record of the partition manager, and the ways to intervene.

mod archive;
mod doctor;
mod fill;
mod hold;
mod plan;
mod shared;
mod status;

use clap::Subcommand;

use super::failure::Failure;
use crate::config::Config;

use self::shared::Session;
pub use self::shared::{LeafArgs, Selection};

/// The commands for partitions.
#[derive(Debug, Subcommand)]
pub enum PartitionsCommand {
    /// Show the planned maintenance: statements, locks, bytes and obstacles; changes nothing
    #[command(after_help = "Examples:
  dalp-indexer partitions plan
  dalp-indexer partitions plan --table logs --json | jq '.moves[].statements'")]
    Plan(Selection),
    /// Carry the plan out: make leaves ahead; archive, retire, detach and drop due leaves
    #[command(after_help = "Examples:
  dalp-indexer partitions apply
  dalp-indexer partitions apply --table logs --allow-many    after a first policy or a long stop

A running indexer does this every partitions.maintenance_interval. Exit code 1 if a step failed.")]
    Apply(plan::ApplyArgs),
    /// Show each table: leaves, bytes, due, held and detached leaves, and the expected size
    #[command(after_help = "Examples:
  dalp-indexer partitions status
  dalp-indexer partitions status --json | jq '.tables[] | {table, key, bytes, forecast_90d}'")]
    Status(Selection),
    /// Find gaps, differences from the parent and unfinished detaches; exit code 1 if a finding needs an action
    #[command(after_help = "Example:
  dalp-indexer partitions audit")]
    Audit(Selection),
    /// Find obstacles: settings, rights, open transactions, the archive; exit code 1 as for audit
    #[command(after_help = "Examples:
  dalp-indexer partitions doctor
  dalp-indexer partitions doctor --json | jq '.[] | select(.severity != \"info\")'

Writes, reads and removes one small object in a configured archive.")]
    Doctor(Selection),
    /// Make the leaf for a late row, or unseal it
    #[command(after_help = "Example:
  dalp-indexer partitions fill --table position --at 2023-11-05T10:00:00Z

The server refuses a row without a leaf with SQLSTATE 23514.")]
    Fill(fill::FillArgs),
    /// Return a sealed, retired or detached leaf to its table, with every newer leaf of its chain
    #[command(after_help = "Example:
  dalp-indexer partitions undo logs_1_20240301 --reason 'wrong policy'

Takes milliseconds. A hold protects the returned leaf from the policy; `hold release` ends the hold.")]
    Undo(LeafArgs),
    /// Restore a dropped leaf from its archive
    #[command(after_help = "Example:
  dalp-indexer partitions restore logs_1_20240301 --reason 'audit 2026'
  dalp-indexer partitions restore logs_1_20240301 --reason 'audit 2026' --into dalp_indexed.logs_of_march

Compares the rows with the archive before the leaf is attached. If the table has changed, `--into` restores the archived
columns into a new table. A hold protects the leaf, as after undo.")]
    Restore(archive::RestoreArgs),
    /// Keep rows against any policy
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// List, verify and repair archives
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
}

/// Runs one command.
///
/// # Errors
/// The fault of the configuration or the request, and the refusals of the database or the archive.
pub async fn run(config: Config, command: PartitionsCommand) -> Result<(), Failure> {
    let mut session = Session::open(&config).await?;
    match command {
        PartitionsCommand::Plan(selection) => plan::show(&mut session, &config, &selection).await,
        PartitionsCommand::Apply(args) => plan::apply(&mut session, &config, &args).await,
        PartitionsCommand::Status(selection) => status::show(&mut session, &config, &selection).await,
        PartitionsCommand::Audit(selection) => doctor::audit(&mut session, &config, &selection).await,
        PartitionsCommand::Doctor(selection) => doctor::show(&mut session, &config, &selection).await,
        PartitionsCommand::Fill(args) => fill::run(&mut session, &config, &args).await,
        PartitionsCommand::Undo(args) => plan::undo(&mut session, &config, &args).await,
        PartitionsCommand::Restore(args) => archive::restore(&mut session, &config, &args).await,
        PartitionsCommand::Hold(command) => hold::run(&mut session, &config, command).await,
        PartitionsCommand::Archive(command) => archive::run(&mut session, &config, command).await,
    }
}
