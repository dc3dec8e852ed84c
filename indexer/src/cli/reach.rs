//! `config check --connect`: tests each object of a configuration, one line each.

use dalp_partitions::{Finding, hindrances};
use tokio_postgres::Client;
use tracing::Instrument as _;

use super::failure::Failure;
use crate::cli::out::say;
use crate::config::{Chain, Config, ManagedTable, Secret, endpoint};
use crate::maintenance::{Connector, Place, retention::has_one_policy};
use crate::nodes::Nodes;
use crate::spans;
use crate::store::connect::connect_direct;
use crate::store::rights::{self, Duty};

/// The number of tests, and the failed ones.
#[derive(Default)]
struct Looks {
    all: usize,
    failed: usize,
}

impl Looks {
    fn tell(&mut self, what: &str, found: Result<String, String>) -> Result<(), Failure> {
        self.all += 1;
        self.failed += usize::from(found.is_err());
        match found {
            Ok(found) => say!("ok      {what}: {found}"),
            Err(why) => say!("failed  {what}: {why}"),
        }
    }
}

/// Connects to each, changes only an object in the archive, which it removes, and prints the results.
///
/// # Errors
/// If a test fails.
pub(super) async fn check(config: &Config) -> Result<(), Failure> {
    let mut looks = Looks::default();
    looks.tell("database.url", login(config, &config.database.url, Duty::Write).await)?;
    looks.tell("database.reader_url", login(config, &config.database.reader_url, Duty::Read).await)?;
    let manager = Connector::new(config).connect().await;
    let role = format!("ok, as \"{}\"", config.roles.partitioner);
    looks.tell("database.admin_url", manager.as_ref().map(|_| role).map_err(ToString::to_string))?;
    if let Ok(mut client) = manager
        // Without the schema, there is nothing to test, and the line above said so.
        && !matches!(dalp_migrations::check(&client).await, Err(dalp_migrations::Error::Missing { .. }))
    {
        for managed in &config.tables {
            looks.tell(&format!("tables.{}", managed.name), table(&mut client, config, managed).await)?;
        }
        archive(config, &client, &mut looks).await?;
    }
    for chain in &config.chains {
        for url in &chain.rpc_urls {
            looks.tell(
                &format!("chains.{} {}", chain.name, endpoint(url.expose())),
                node(chain, url).instrument(spans::chain(&chain.name)).await,
            )?;
        }
    }
    match looks {
        Looks { failed: 0, .. } => Ok(()),
        Looks { all, failed } => Err(Failure::other(format!("{failed} of {all} checks failed: see above"))),
    }
}

async fn login(config: &Config, url: &Secret, duty: Duty) -> Result<String, String> {
    let client = connect_direct(&config.database, url).await.map_err(|error| error.to_string())?;
    rights::fit(&client, duty).await.map_err(|error| error.to_string())?;
    Ok("the schema is there, and the login has its rights".to_owned())
}

async fn table(client: &mut Client, config: &Config, managed: &ManagedTable) -> Result<String, String> {
    let table = &managed.table;
    has_one_policy(client, &config.tables, managed).await.map_err(|error| error.to_string())?;
    if let Some(why) = dalp_partitions::unfit(client, table).await.map_err(|error| error.to_string())? {
        return Err(format!("{table}: {why}"));
    }
    let inventory = dalp_partitions::read_inventory(client, table).await.map_err(|error| error.to_string())?;
    let found = hindrances(&inventory, table, managed.retention.action);
    let told = |Finding { object, what, next, .. }: &Finding| format!("{object}: {what}: {next}");
    match found.is_empty() {
        true => Ok(format!("{} partitions", inventory.entries.len())),
        false => Err(found.iter().map(told).collect::<Vec<_>>().join("; ")),
    }
}

async fn node(chain: &Chain, url: &Secret) -> Result<String, String> {
    let alone = Chain { rpc_urls: vec![url.clone()], ws_urls: Vec::new(), ..chain.clone() };
    let nodes = Nodes::new(&alone).map_err(|error| error.to_string())?;
    let found = nodes.identity().await.map_err(|error| error.to_string())?;
    match found.chain_id == chain.chain_id {
        true => Ok(format!("chain {}, genesis {}", found.chain_id, found.genesis)),
        false => Err(format!(
            "the node serves chain {}, but chains.{}.chain_id is {}",
            found.chain_id, chain.name, chain.chain_id
        )),
    }
}

async fn archive(config: &Config, client: &Client, looks: &mut Looks) -> Result<(), Failure> {
    let place = Place::open(&config.partitions);
    if let Some(why) = place.fault {
        return looks.tell("partitions.archive_url", Err(why));
    }
    let (Some(archive), Some(table)) = (place.archive, config.tables.first()) else { return Ok(()) };
    let found = match dalp_partitions::look(client, &table.table, &archive).await {
        Ok(Some(why)) => Err(why),
        Err(error) => Err(error.to_string()),
        Ok(None) => match archive.probe().await {
            Ok(probed) if probed.writes_once => {
                Ok("it stores and returns objects, and refuses to overwrite one".to_owned())
            }
            Ok(_) => {
                Ok("it stores and returns objects, but ignores conditional writes: let only one database write there"
                    .to_owned())
            }
            Err(error) => Err(error.to_string()),
        },
    };
    looks.tell(&format!("partitions.archive_url {}", archive.name()), found)
}
