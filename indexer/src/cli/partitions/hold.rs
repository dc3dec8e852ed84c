//! `partitions hold`.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use dalp_partitions::{Scope, add_hold, all_holds, release_hold};
use serde::Serialize;

use super::shared::{Selection, Session, author, failed, grid, print_json, tables, time};
use crate::cli::backfill::pick;
use crate::cli::failure::Failure;
use crate::cli::out::say;
use crate::config::{Config, ManagedTable, registry};

/// The commands for holds.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Keep rows of a table against its policy
    #[command(after_help = "Example:
  dalp-indexer partitions hold add --table logs --chain mainnet --from 2024-01-01 --to 2024-04-01 --reason 'case 4711'

From then on, no touched leaf is retired, detached or dropped. A hold does not restore a dropped leaf.")]
    Add(AddArgs),
    /// List the holds
    #[command(after_help = "Example:
  dalp-indexer partitions hold list --all")]
    List(ListArgs),
    /// End a hold; its record stays
    #[command(after_help = "Example:
  dalp-indexer partitions hold release 3 --author counsel")]
    Release(ReleaseArgs),
}

/// Arguments of `add`.
#[derive(Clone, Debug, clap::Args)]
pub struct AddArgs {
    /// The table by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// The chain, by its name in the configuration [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    pub chain: Option<String>,
    /// The value of the list level, such as a chain id [default: all]
    #[arg(long)]
    pub key: Option<i64>,
    /// First held time [default: no lower bound]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<DateTime<Utc>>,
    /// First time after the hold [default: no upper bound]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<DateTime<Utc>>,
    /// Reason of the hold
    #[arg(long)]
    pub reason: String,
    /// Author of the request [default: the system's user name]
    #[arg(long)]
    pub author: Option<String>,
}

/// Arguments of `list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Include released holds
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `release`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReleaseArgs {
    /// Number of the hold
    pub id: i64,
    /// Author of the release [default: the system's user name]
    #[arg(long)]
    pub author: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    id: i64,
    table: String,
    key: Option<i64>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    reason: String,
    author: String,
    created_at: DateTime<Utc>,
    released_at: Option<DateTime<Utc>>,
    released_by: Option<String>,
}

/// Runs one command.
pub(super) async fn run(session: &mut Session, config: &Config, command: HoldCommand) -> Result<(), Failure> {
    match command {
        HoldCommand::Add(args) => add(session, config, &args).await,
        HoldCommand::List(args) => list(session, config, &args).await,
        HoldCommand::Release(args) => {
            let by = author(args.author.as_deref())?;
            release_hold(&mut session.client, &registry(), args.id, &by).await.map_err(failed)?;
            say!("hold {} was released by {by}", args.id)?;
            Ok(())
        }
    }
}

async fn add(session: &mut Session, config: &Config, args: &AddArgs) -> Result<(), Failure> {
    let table = tables(config, Some(&args.table))?[0];
    let chain = match &args.chain {
        Some(name) => Some(pick(config, Some(name))?.chain_id),
        None => None,
    };
    let key = args.key.or_else(|| chain.and_then(|id| i64::try_from(id).ok()));
    let scope = Scope { key, from: args.from, to: args.to };
    let author = author(args.author.as_deref())?;
    let (id, touched) =
        add_hold(&mut session.client, &table.table, &scope, &args.reason, &author).await.map_err(failed)?;
    say!("hold {id} keeps {} ({scope}); it touches {touched} registered leaves", table.table.name)?;
    Ok(())
}

async fn list(session: &mut Session, config: &Config, args: &ListArgs) -> Result<(), Failure> {
    let mut listed = Vec::new();
    // A hold is valid whether its table is maintained or not.
    for (schema, name, hold) in all_holds(&session.client, &registry(), args.all).await.map_err(failed)? {
        let is_it = |table: &&ManagedTable| table.table.schema == schema && table.table.name == name;
        let full = format!("{schema}.{name}");
        let table = config.tables.iter().find(is_it).map_or_else(|| full.clone(), |table| table.name.clone());
        if args.selection.table.as_ref().is_some_and(|wanted| *wanted != table && *wanted != full) {
            continue;
        }
        let (released_at, released_by) = hold.released.unzip();
        listed.push(Listed {
            id: hold.id,
            table,
            key: hold.scope.key,
            from: hold.scope.from,
            to: hold.scope.to,
            reason: hold.reason,
            author: hold.author,
            created_at: hold.created_at,
            released_at,
            released_by,
        });
    }
    if args.selection.json {
        return print_json(&listed);
    }
    if listed.is_empty() {
        say!("there is no hold")?;
        return Ok(());
    }
    let mut grid = grid(&["hold", "table", "key", "from", "to", "reason", "author", "since", "released"]);
    let or = |time: Option<DateTime<Utc>>, none: &str| time.map_or_else(|| none.to_owned(), |time| time.to_rfc3339());
    for hold in &listed {
        let key = hold.key.map_or_else(|| "all".to_owned(), |key| key.to_string());
        let released = match (&hold.released_at, &hold.released_by) {
            (Some(at), Some(by)) => format!("{} by {by}", at.to_rfc3339()),
            _ => "no".to_owned(),
        };
        grid.add_row([
            &hold.id.to_string(),
            &hold.table,
            &key,
            &or(hold.from, "the beginning"),
            &or(hold.to, "no end"),
            &hold.reason,
            &hold.author,
            &hold.created_at.to_rfc3339(),
            &released,
        ]);
    }
    say!("{grid}")?;
    Ok(())
}
