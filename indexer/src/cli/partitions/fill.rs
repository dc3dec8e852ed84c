//! `partitions fill`.

use chrono::{DateTime, Utc};
use dalp_partitions::{Need, Policy, State, ensure, read_inventory, set_aside, unseal};

use super::shared::{Session, failed, tables, time};
use crate::cli::failure::Failure;
use crate::cli::out::say;
use crate::config::{Config, ManagedTable};
use crate::maintenance::policy;

/// Arguments of `fill`.
#[derive(Clone, Debug, clap::Args)]
pub struct FillArgs {
    /// The table by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// The value of the list level, such as a chain id; required for a table with a list level
    #[arg(long)]
    pub key: Option<i64>,
    /// The time of the row
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: DateTime<Utc>,
}

/// Makes the leaf of a time, if there is none, and unseals it, if it is sealed.
pub(super) async fn run(session: &mut Session, config: &Config, args: &FillArgs) -> Result<(), Failure> {
    let table = tables(config, Some(&args.table))?[0];
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let key = match (table.table.flat, args.key) {
        (true, None) => 0,
        (true, Some(_)) => return Err(Failure::usage("the table has no list level: omit --key")),
        (false, Some(key)) if inventory.is_off_boarded(key) => {
            return Err(Failure::other(format!(
                "the partition of key {key} is detached: attach it again, then run fill"
            )));
        }
        (false, Some(key)) => key,
        (false, None) => {
            let known: Vec<String> = inventory.keys.iter().take(20).map(i64::to_string).collect();
            return Err(Failure::usage(format!("choose a key: --key {}", known.join(" or "))));
        }
    };
    // The user asks for this one.
    let policy = Policy { max_leaves: usize::MAX, ..policy(&config.partitions, table) };
    let need = Need::rows([args.at]);
    let made = ensure(&mut session.client, &table.table, key, &policy, Utc::now(), &need).await.map_err(failed)?;
    let Some(leaf) = made.catalog.leaf_at(args.at) else {
        return Err(Failure::other(format!(
            "{} is too far ahead, or outside every calendar: no leaf is made. Correct the time of the row",
            args.at
        )));
    };
    let name = format!("{}.{}", table.table.schema, leaf.name);
    let leaf = leaf.clone();
    let word = match (made.created.is_empty(), is_opened(session, config, table, &leaf.name).await?) {
        (false, _) => "is made",
        (true, true) => {
            "is unsealed (its archive is void; when the leaf is due, a run seals it again; `hold add` keeps it open)"
        }
        (true, false) => "already exists",
    };
    say!("{name} {word}: it takes rows {}", leaf.bounds)?;
    let floor = inventory.floors.get(&key).filter(|floor| **floor > args.at);
    if let Some(floor) = floor {
        say!("it is below the floor ({floor}): the retained_ views do not show it, and the policy retires it again")?;
    }
    Ok(())
}

/// Unseals a sealed leaf. Its archive moves out of the data, and is made again as the next version.
async fn is_opened(session: &mut Session, config: &Config, table: &ManagedTable, leaf: &str) -> Result<bool, Failure> {
    let inventory = read_inventory(&mut session.client, &table.table).await.map_err(failed)?;
    let is_sealed = inventory.entries.iter().any(|entry| entry.leaf == leaf && entry.state > State::Attached);
    if !is_sealed {
        return Ok(false);
    }
    if config.tables.iter().any(|of| of.table == table.table && of.is_of_chains()) {
        return Err(Failure::usage(format!(
            "{leaf} is sealed; the indexer unseals it when one of its rows is missing"
        )));
    }
    let void = unseal(&mut session.client, &table.table, leaf).await.map_err(failed)?;
    if let (Some(manifest), Some(archive)) = (&void, &session.place.archive) {
        set_aside(&session.client, &table.table, archive, manifest).await.map_err(failed)?;
    }
    Ok(true)
}
