//! `dalp-indexer abi`: the tables of an ABI or a built-in kind, before anything runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::grid::Grid;
use super::out::{say, tell};
use crate::config::{abi_of, kind_name};
use crate::dataset::{Dataset, Groups, tables};
use crate::events::abi::Event;
use crate::events::catalogue;

/// The tables for the events of an ABI or a built-in kind.
#[derive(Debug, Subcommand)]
pub enum AbiCommand {
    /// List the built-in kinds of contracts, which need no ABI
    #[command(after_help = "Examples:
  dalp-indexer abi kinds
  dalp-indexer abi check --kind smart_token    shows the events and tables of one of them

[contracts.NAME] with `kind` and `addresses` is all that a contract of such a kind needs.")]
    Kinds,
    /// Print the events of ABI files, their tables and columns, and what stays raw
    #[command(after_help = "Examples:
  dalp-indexer abi check out/Bond.sol/Bond.json
  dalp-indexer abi check --kind bond abi/BondV1.json abi/BondV2.json
  dalp-indexer abi check --kind smart_token                      a built-in kind
  dalp-indexer abi check --kind smart_token abi/TokenV2.json     and more versions of it

Needs no database. The kind, which begins the names of the tables, is the name of the first file if --kind is missing.
Exit code 2 if a file holds no event or two events that cannot be told apart.")]
    Check(AbiArgs),
    /// Print the statements that make the tables
    #[command(after_help = "Examples:
  dalp-indexer abi ddl --kind bond abi/Bond.json > bond.sql
  dalp-indexer abi ddl --kind smart_token > smart_token.sql

`run` makes the missing tables of [contracts.NAME] by itself; the statements are for those who make tables by hand.")]
    Ddl(DdlArgs),
}

/// ABI files of one kind of contracts.
#[derive(Debug, Args)]
pub struct AbiArgs {
    /// The kind of the contracts: a-z, 0-9 and _; a built-in kind brings its events
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// JSON arrays, artefacts, or lines such as `event Paid(address indexed by)`; versions of an ABI, the oldest first
    #[arg(required_unless_present = "kind", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Arguments of `ddl`.
#[derive(Debug, Args)]
pub struct DdlArgs {
    #[command(flatten)]
    abi: AbiArgs,
    /// The group role that writes rows
    #[arg(long, default_value = "dalp_writer", value_name = "ROLE")]
    writer: String,
    /// The group role that owns the tables
    #[arg(long, default_value = "dalp_partitioner", value_name = "ROLE")]
    partitioner: String,
    /// The group role that reads
    #[arg(long, default_value = "dalp_reader", value_name = "ROLE")]
    reader: String,
}

/// Runs the command.
pub(super) fn run(command: AbiCommand) -> Result<(), Failure> {
    match command {
        AbiCommand::Kinds => kinds(),
        AbiCommand::Check(args) => check(&args),
        AbiCommand::Ddl(args) => {
            let groups = Groups { writer: &args.writer, partitioner: &args.partitioner, reader: &args.reader };
            for (dataset, _) in read(&args.abi)?.tables {
                say!("{}", dataset.create_table(groups))?;
            }
            Ok(())
        }
    }
}

fn kinds() -> Result<(), Failure> {
    let mut grid = Grid::new(&["kind", "events", "contracts"]).named_by(1);
    for kind in catalogue::kinds() {
        grid.add_row([kind.name, &kind.abi().events.len().to_string(), kind.about()]);
    }
    say!("{grid}")
}

/// What a built-in kind and the files hold.
struct Read {
    tables: Vec<(Dataset, Vec<Event>)>,
    anonymous: Vec<Event>,
    skipped: Vec<String>,
}

fn read(args: &AbiArgs) -> Result<Read, Failure> {
    let built_in = args.kind.as_deref().and_then(catalogue::of);
    let kind = match (&args.kind, args.files.first()) {
        (Some(kind), None) if built_in.is_none() => return Err(Failure::usage(catalogue::unknown(kind))),
        (Some(kind), _) => kind.clone(),
        (None, Some(first)) => kind_name(first),
        (None, None) => return Err(Failure::usage("name an ABI file, or a built-in kind with --kind")),
    };
    let (mut all, mut skipped) = (built_in.map(|kind| kind.abi()).unwrap_or_default(), Vec::new());
    for path in &args.files {
        let abi = abi_of(path).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?;
        skipped.extend(abi.skipped.iter().map(|why| format!("{}: {why}", path.display())));
        all = all.joined(abi).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?;
    }
    let anonymous = all.events.iter().filter(|event| event.topic0.is_none()).cloned().collect();
    Ok(Read { tables: tables(&kind, &all.events), anonymous, skipped })
}

fn check(args: &AbiArgs) -> Result<(), Failure> {
    let read = read(args)?;
    for (dataset, events) in &read.tables {
        say!("{}.{}", dataset.schema(), dataset.table())?;
        for event in events {
            say!("  event {event}")?;
        }
        for column in dataset.columns() {
            let null = if column.nullable { "" } else { " NOT NULL" };
            say!("    {} {}{null}", column.name, column.of.sql())?;
        }
    }
    for event in &read.anonymous {
        say!("no table: event {event} has no first topic of its own: its logs stay raw")?;
    }
    for why in &read.skipped {
        tell!("warning: {why}");
    }
    let (tables, events) = (read.tables.len(), read.tables.iter().map(|(_, events)| events.len()).sum::<usize>());
    say!("{events} events in {tables} tables; {} anonymous, {} not read", read.anonymous.len(), read.skipped.len())
}
