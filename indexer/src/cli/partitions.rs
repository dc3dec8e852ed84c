//! `dalp-indexer partitions`: what the partition manager will do, does and did, and the ways to intervene.

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

/// What to do with partitions.
#[derive(Debug, Subcommand)]
pub enum PartitionsCommand {
    /// Say what maintenance would do now: statements, locks, bytes, and what stands in the way; changes nothing
    #[command(after_help = "Examples:
  dalp-indexer partitions plan
  dalp-indexer partitions plan --table logs --json | jq '.moves[].statements'")]
    Plan(Selection),
    /// Do it now: make what will be needed, archive, retire, detach and drop what is due
    #[command(after_help = "Examples:
  dalp-indexer partitions apply
  dalp-indexer partitions apply --table logs --allow-many    after a first policy, or a long stop

A running indexer does the same every partitions.maintenance_interval. Exit code 1 if something failed.")]
    Apply(plan::ApplyArgs),
    /// Show each table: leaves, bytes, what is due, held and detached, and how large it will be
    #[command(after_help = "Examples:
  dalp-indexer partitions status
  dalp-indexer partitions status --json | jq '.tables[] | {table, key, bytes, forecast_90d}'")]
    Status(Selection),
    /// Look for gaps, drift from the parent, detachings that did not end; exit code 1 if something must be mended
    #[command(after_help = "Example:
  dalp-indexer partitions audit")]
    Audit(Selection),
    /// Look for what keeps the manager from its work: settings, rights, open transactions, the archive; exit code 1 as for audit
    #[command(after_help = "Examples:
  dalp-indexer partitions doctor
  dalp-indexer partitions doctor --json | jq '.[] | select(.severity != \"info\")'

Writes, reads and removes one small object in the archive, if there is one.")]
    Doctor(Selection),
    /// Make the leaf that a late row needs, or open it where it is sealed
    #[command(after_help = "Example:
  dalp-indexer partitions fill --table position --at 2023-11-05T10:00:00Z

Rows of times that are not made ahead are refused with SQLSTATE 23514 where no leaf takes them.")]
    Fill(fill::FillArgs),
    /// Serve a leaf again that was sealed, retired or detached, and every newer one of its chain
    #[command(after_help = "Example:
  dalp-indexer partitions undo logs_1_20240301 --reason 'wrong policy'

Takes milliseconds. A hold is put on what came back, or the policy would take it again: `hold release` ends it.")]
    Undo(LeafArgs),
    /// Bring a dropped leaf back from its archive
    #[command(after_help = "Example:
  dalp-indexer partitions restore logs_1_20240301 --reason 'audit 2026'
  dalp-indexer partitions restore logs_1_20240301 --reason 'audit 2026' --into dalp_indexed.logs_of_march

Its rows are compared with what was archived before it is attached; where the table is another by now, `--into` takes them as they were. A hold is put on it, as for undo.")]
    Restore(archive::RestoreArgs),
    /// Keep rows whatever a policy says
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Look at archives
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
}

/// Runs one command.
///
/// # Errors
/// What is wrong with the configuration or the request, and what the database or the archive refused.
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
