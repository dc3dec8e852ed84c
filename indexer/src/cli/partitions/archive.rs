//! `partitions archive` and `restore`.

use clap::Subcommand;
use dalp_partitions::Manifest;
use serde::Serialize;

use super::{Failure, LeafArgs, Selection, Session, author, bare, failed, grid, print_json, size, tables};
use crate::config::Config;

/// What to do with archives.
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// List what is archived
    #[command(after_help = "Examples:
  dalp-indexer partitions archive list --table logs
  dalp-indexer partitions archive list --json | jq '.[] | {leaf, rows, object}'")]
    List(Selection),
    /// Read archives whole and compare them with their manifests; exit code 1 if one cannot be trusted
    #[command(after_help = "Examples:
  dalp-indexer partitions archive verify
  dalp-indexer partitions archive verify --leaf logs_1_20240301")]
    Verify(VerifyArgs),
}

/// Arguments of `verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// One leaf [default: all]
    #[arg(long)]
    pub leaf: Option<String>,
}

#[derive(Serialize)]
struct Verified {
    object: String,
    /// None if it cannot be trusted.
    rows: Option<u64>,
    error: Option<String>,
}

/// Runs one command.
pub(super) async fn run(session: &mut Session, config: &Config, command: ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::List(selection) => list(session, config, &selection).await,
        ArchiveCommand::Verify(args) => verify(session, config, &args).await,
    }
}

async fn manifests(session: &Session, config: &Config, selection: &Selection) -> Result<Vec<Manifest>, Failure> {
    let archive = session.archive()?;
    let mut found = Vec::new();
    for table in tables(config, selection.table.as_deref())? {
        let name = format!("{}.{}", table.table.schema, table.table.name);
        found.extend(archive.list(Some(&name)).await.map_err(failed)?);
    }
    Ok(found)
}

async fn list(session: &Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let manifests = manifests(session, config, selection).await?;
    if selection.json {
        return print_json(&manifests);
    }
    if manifests.is_empty() {
        println!("nothing is archived in {}", session.archive()?.name());
        return Ok(());
    }
    let mut grid = grid(&["leaf", "version", "rows", "bytes", "of the table's", "written", "object"]);
    for found in &manifests {
        let share = found.bytes as f64 * 100.0 / found.heap_bytes.max(1) as f64;
        grid.add_row([
            &found.leaf,
            &found.version.to_string(),
            &found.counted.rows.to_string(),
            &size(found.bytes as f64),
            &format!("{share:.0} %"),
            &found.created_at.format("%Y-%m-%d %H:%M").to_string(),
            &found.object,
        ]);
    }
    println!("{grid}");
    Ok(())
}

/// Every archive is read, whatever is found in one.
async fn verify(session: &Session, config: &Config, args: &VerifyArgs) -> Result<(), Failure> {
    let (mut bad, mut told) = (Vec::new(), Vec::new());
    let (mut rows, mut files) = (0, 0);
    for manifest in manifests(session, config, &args.selection).await? {
        let schema = manifest.table.split('.').next().unwrap_or_default();
        if args.leaf.as_ref().is_some_and(|leaf| bare(schema, leaf) != manifest.leaf) {
            continue;
        }
        files += 1;
        match session.archive()?.verify(&manifest).await {
            Ok(counted) => {
                rows += counted.rows;
                eprintln!("{}: {} rows, as written", manifest.object, counted.rows);
                told.push(Verified { object: manifest.object, rows: Some(counted.rows), error: None });
            }
            Err(error) => {
                bad.push(error.to_string());
                told.push(Verified { object: manifest.object, rows: None, error: Some(error.to_string()) });
            }
        }
    }
    if args.selection.json {
        print_json(&told)?;
    }
    match (bad.is_empty(), &args.leaf, files) {
        (true, Some(leaf), 0) => {
            Err(Failure::other(format!("no archive of \"{leaf}\" in {}", session.archive()?.name())))
        }
        (true, ..) if args.selection.json => Ok(()),
        (true, ..) => {
            println!("{files} archives, {rows} rows: all as written");
            Ok(())
        }
        _ => Err(Failure::other(bad.join("\n"))),
    }
}

/// Brings a dropped leaf back.
pub(super) async fn restore(session: &mut Session, config: &Config, args: &LeafArgs) -> Result<(), Failure> {
    let archive = session.archive()?.clone();
    let all = archive.list(None).await.map_err(failed)?;
    let of = config.tables.iter().find(|table| {
        let (leaf, name) =
            (bare(&table.table.schema, &args.leaf), format!("{}.{}", table.table.schema, table.table.name));
        all.iter().any(|manifest| manifest.table == name && manifest.leaf == leaf)
    });
    let Some(table) = of else {
        return Err(Failure::other(format!(
            "{} holds no archive of \"{}\": `dalp-indexer partitions archive list` shows what there is",
            archive.name(),
            args.leaf
        )));
    };
    let (leaf, author) = (bare(&table.table.schema, &args.leaf), author(args.author.as_deref())?);
    let client = &mut session.client;
    let restored = dalp_partitions::restore(client, &table.table, &archive, &leaf, &args.reason, &author).await;
    let restored = restored.map_err(failed)?;
    let floor = restored.floor.map_or_else(|| "everything".to_owned(), |floor| format!("rows from {floor}"));
    println!(
        "{}.{} is back with {} rows, as they were archived\n{floor} of {} are served now\nhold {} keeps it: \
         `dalp-indexer partitions hold release {}` lets it go",
        table.table.schema, restored.leaf, restored.rows, table.table.name, restored.hold, restored.hold
    );
    Ok(())
}
