//! `partitions archive` and `restore`.

use clap::Subcommand;
use dalp_partitions::{Archived, Manifest, Request, Survey, note_verified, survey};
use serde::Serialize;

use super::shared::{LeafArgs, Selection, Session, author, bare, failed, grid, print_json, size, tables};
use crate::cli::failure::Failure;
use crate::cli::out::{say, tell};
use crate::config::{Config, ManagedTable, sql_name, sql_table};

/// The commands for archives.
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// List the archives
    #[command(after_help = "Examples:
  dalp-indexer partitions archive list --table logs
  dalp-indexer partitions archive list --json | jq '.[] | {leaf, rows, object}'")]
    List(Selection),
    /// Read and check every archive of the registry and of the store; exit code 1 if one is missing or damaged
    #[command(after_help = "Examples:
  dalp-indexer partitions archive verify
  dalp-indexer partitions archive verify --leaf logs_1_20240301")]
    Verify(VerifyArgs),
    /// Write lost or damaged manifests again from the registry, for intact files; exit code 1 if the file of such a manifest is
    /// missing or damaged, or the manifest could not be written
    #[command(after_help = "Example:
  dalp-indexer partitions archive repair

Before it writes a manifest, it reads the file as a whole. A damaged manifest moves below void/.")]
    Repair(Selection),
    /// Make this database the writer of the archive: a copy of the earlier writer, or the earlier writer reset to an older state
    #[command(after_help = "Example:
  dalp-indexer partitions archive adopt --author ops

A place has one writer. The existing archives stay.")]
    Adopt(AdoptArgs),
}

/// Arguments of `adopt`.
#[derive(Clone, Debug, clap::Args)]
pub struct AdoptArgs {
    /// Author of the request [default: the system's user name]
    #[arg(long)]
    pub author: Option<String>,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub leaf: LeafArgs,
    /// Archive to use if several have a leaf of this name: the object from `archive list`
    #[arg(long, value_name = "OBJECT")]
    pub archive: Option<String>,
    /// Restore into a new table with the archived columns, instead of the original table
    #[arg(long, value_name = "TABLE")]
    pub into: Option<String>,
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

/// An archive and its manifest.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    /// Whether the registry lists it.
    registered: bool,
    /// Whether the store has it.
    there: bool,
}

impl<'a> Listed<'a> {
    fn of(archived: &'a Archived) -> Self {
        Self { manifest: &archived.manifest, registered: archived.is_registered(), there: archived.stands }
    }
}

fn word(is_so: bool) -> String {
    (if is_so { "yes" } else { "no" }).to_owned()
}

/// Runs one command.
pub(super) async fn run(session: &mut Session, config: &Config, command: ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::List(selection) => list(session, config, &selection).await,
        ArchiveCommand::Verify(args) => verify(session, config, &args).await,
        ArchiveCommand::Repair(selection) => repair(session, config, &selection).await,
        ArchiveCommand::Adopt(args) => adopt(session, config, &args).await,
    }
}

/// The archives of the selected tables.
async fn surveys<'c>(
    session: &Session,
    config: &'c Config,
    selection: &Selection,
) -> Result<Vec<(&'c ManagedTable, Survey)>, Failure> {
    let archive = session.archive()?;
    let mut surveys = Vec::new();
    for table in tables(config, selection.table.as_deref())? {
        surveys.push((table, survey(&session.client, &table.table, archive).await.map_err(failed)?));
    }
    Ok(surveys)
}

/// Unreadable manifests are named beside the others.
async fn list(session: &Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let surveys = surveys(session, config, selection).await?;
    for error in surveys.iter().flat_map(|(_, survey)| &survey.unreadable) {
        tell!("{error}");
    }
    let all: Vec<&Archived> = surveys.iter().flat_map(|(_, survey)| &survey.archives).collect();
    if selection.json {
        return print_json(&all.into_iter().map(Listed::of).collect::<Vec<_>>());
    }
    if all.is_empty() {
        say!("nothing is archived in {}", session.archive()?.name())?;
        return Ok(());
    }
    let mut grid =
        grid(&["leaf", "version", "rows", "bytes", "of the table's", "written", "registered", "there", "object"]);
    for archived in all {
        let found = &archived.manifest;
        let share = found.bytes as f64 * 100.0 / found.heap_bytes.max(1) as f64;
        grid.add_row([
            &found.leaf,
            &found.version.to_string(),
            &found.counted.rows.to_string(),
            &size(found.bytes as f64),
            &format!("{share:.0} %"),
            &found.created_at.format("%Y-%m-%d %H:%M").to_string(),
            &word(archived.is_registered()),
            &word(archived.stands),
            &found.object,
        ]);
    }
    say!("{grid}")?;
    Ok(())
}

/// Reads every archive, after any fault in another one. Lists the registry's archives first: the store may have lost them.
async fn verify(session: &Session, config: &Config, args: &VerifyArgs) -> Result<(), Failure> {
    let (mut bad, mut told) = (Vec::new(), Vec::new());
    let (mut rows, mut files) = (0, 0);
    for (table, survey) in surveys(session, config, &args.selection).await? {
        let leaf = args.leaf.as_ref().map(|leaf| bare(&table.table.schema, leaf));
        for archived in survey.archives {
            if leaf.as_ref().is_some_and(|leaf| *leaf != archived.manifest.leaf) {
                continue;
            }
            files += 1;
            let object = archived.manifest.object.clone();
            match dalp_partitions::verify(session.archive()?, &archived).await {
                Ok(counted) => {
                    note_verified(&session.client, &table.table, &archived).await.map_err(failed)?;
                    rows += counted;
                    let beside = if archived.is_registered() { "" } else { "; the registry does not list it" };
                    tell!("{object}: {counted} rows, unchanged{beside}");
                    told.push(Verified { object, rows: Some(counted), error: None });
                }
                Err(error) => {
                    bad.push(error.to_string());
                    told.push(Verified { object, rows: None, error: Some(error.to_string()) });
                }
            }
        }
        // The registry's archives are also judged by the registry's own manifest.
        for error in survey.unreadable.iter().map(ToString::to_string) {
            let is_asked = leaf.as_ref().is_none_or(|leaf| error.contains(leaf.as_str()));
            if is_asked && !bad.contains(&error) {
                bad.push(error);
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
            say!("{files} archives, {rows} rows: all unchanged")?;
            Ok(())
        }
        _ => Err(Failure::other(bad.join("\n"))),
    }
}

#[derive(Serialize)]
struct Repaired {
    object: String,
    /// Whether its manifest was written again.
    repaired: bool,
    error: Option<String>,
}

async fn repair(session: &Session, config: &Config, selection: &Selection) -> Result<(), Failure> {
    let (archive, mut told) = (session.archive()?, Vec::new());
    for (table, survey) in surveys(session, config, selection).await? {
        for archived in survey.archives {
            let repaired = dalp_partitions::repair(&session.client, &table.table, archive, &archived).await;
            told.push(Repaired {
                object: archived.manifest.object,
                repaired: repaired.as_ref().is_ok_and(|repaired| *repaired),
                error: repaired.err().map(|error| error.to_string()),
            });
        }
    }
    if selection.json {
        print_json(&told)?;
    } else {
        for repaired in told.iter().filter(|told| told.repaired) {
            say!("{}: its manifest was written again", repaired.object)?;
        }
        say!("{} of {} manifests were written again", told.iter().filter(|told| told.repaired).count(), told.len())?;
    }
    let errors: Vec<&str> = told.iter().filter_map(|told| told.error.as_deref()).collect();
    if errors.is_empty() { Ok(()) } else { Err(Failure::other(errors.join("\n"))) }
}

/// Takes the archive over for this database.
async fn adopt(session: &mut Session, config: &Config, args: &AdoptArgs) -> Result<(), Failure> {
    let archive = session.archive()?.clone();
    let Some(table) = config.tables.first() else {
        return Err(Failure::usage("no table is maintained: nothing is archived"));
    };
    let author = author(args.author.as_deref())?;
    dalp_partitions::adopt(&mut session.client, &table.table, &archive, &author).await.map_err(failed)?;
    say!("this database is now the writer of {}; its copies and its original only read there", archive.name())?;
    Ok(())
}

/// Restores a dropped leaf.
pub(super) async fn restore(session: &mut Session, config: &Config, args: &RestoreArgs) -> Result<(), Failure> {
    let archive = session.archive()?.clone();
    let mut of = None;
    for table in &config.tables {
        let leaf = bare(&table.table.schema, &args.leaf.leaf);
        let survey = survey(&session.client, &table.table, &archive).await.map_err(failed)?;
        if survey.archives.iter().any(|archived| archived.manifest.leaf == leaf) {
            of = Some((table, leaf));
            break;
        }
    }
    let Some((table, leaf)) = of else {
        return Err(Failure::other(format!(
            "{} holds no archive of \"{}\": `dalp-indexer partitions archive list` lists the archives",
            archive.name(),
            args.leaf.leaf
        )));
    };
    let author = author(args.leaf.author.as_deref())?;
    let request = Request { leaf: &leaf, object: args.archive.as_deref(), reason: &args.leaf.reason, author: &author };
    let (client, schema) = (&mut session.client, &table.table.schema);
    if let Some(into) = &args.into {
        let named = sql_table(into).or_else(|| sql_name(into).map(|name| (schema.clone(), name)));
        let Some((schema, name)) = named else {
            return Err(Failure::usage(format!(
                "--into {into}: give the name of a table, such as {schema}.rows_of_march"
            )));
        };
        let rows = dalp_partitions::restore_into(client, &table.table, &archive, &request, (&schema, &name)).await;
        say!(
            "{schema}.{name} has the {} archived rows of {leaf}; it is not a partition of {}",
            rows.map_err(failed)?,
            table.table.name
        )?;
        return Ok(());
    }
    let restored = dalp_partitions::restore(client, &table.table, &archive, &request).await.map_err(failed)?;
    let floor = restored.floor.map_or_else(|| "everything".to_owned(), |floor| format!("rows from {floor}"));
    let cast = match restored.cast.is_empty() {
        true => String::new(),
        false => format!("; each value was cast exactly to its new type: {}", restored.cast.join(", ")),
    };
    let served = match restored.is_served {
        true => format!("{floor} of {} are now visible", table.table.name),
        false => format!(
            "{} has them; the retained_ views show {floor}, because newer partitions are missing: restore them too",
            table.table.name
        ),
    };
    say!(
        "{schema}.{} is restored with its {} archived rows{cast}\n{served}\nhold {} protects it; `dalp-indexer partitions \
         hold release {}` ends the hold",
        restored.leaf,
        restored.rows,
        restored.hold,
        restored.hold
    )?;
    Ok(())
}
