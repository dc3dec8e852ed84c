//! Unseals a leaf.

use tokio_postgres::{Client, types::Type};

use crate::leaves::blockers::blockers_of;
use crate::pg::patience::{PATIENCE, TRIES, pause};
use crate::registry::activity::{Deed, ensure_activity, record};
use crate::registry::inventory::{read_inventory, register};
use crate::registry::seal::unseal_statements;
use crate::registry::survey::manifest_of;
use crate::registry::transition::locked;
use crate::{Entry, Error, Manifest, State, Table};

/// Unseals a leaf that needs new rows. This voids its archive; the leaf is archived again later, as a new version. Returns the
/// void manifest, for [`crate::Archive::void`]; also `Ok(None)` if the leaf is not sealed.
///
/// A leaf below the floor stays sealed: [`Error::Refused`].
pub async fn unseal(client: &mut Client, table: &Table, leaf: &str) -> Result<Option<Manifest>, Error> {
    ensure_activity(client, &table.registry).await?;
    register(client, table).await?;
    let inventory = read_inventory(client, table).await?;
    let Some(entry) = inventory.entries.iter().find(|entry| entry.is_called(leaf) && entry.state > State::Attached)
    else {
        return Ok(None);
    };
    let name = table.sibling(leaf);
    if entry.state >= State::Retired {
        let why = format!("it is {}: rows of its times are no longer stored", entry.state);
        return Err(Error::Refused { leaf: name, why });
    }
    let void = entry.manifest.is_some().then(|| manifest_of(entry)).transpose()?;
    for again in 1..=TRIES {
        match open(client, table, entry).await {
            Err(error) if error.is_passing() => tokio::time::sleep(pause(again)).await,
            opened => return opened.map(|()| void),
        }
    }
    let holders = blockers_of(client, table, entry, false).await?;
    Err(Error::Locked { table: name, tries: TRIES, holders })
}

async fn open(client: &mut Client, table: &Table, entry: &Entry) -> Result<(), Error> {
    let doing = || Error::doing("open a sealed leaf", table);
    let name = entry.relation();
    let transaction = locked(client, table, entry).await?;
    let open = format!(
        "SET LOCAL lock_timeout = '{PATIENCE}'; LOCK TABLE ONLY {name} IN ACCESS EXCLUSIVE MODE; {}",
        unseal_statements(&name).join("; ")
    );
    transaction.batch_execute(&open).await.map_err(doing())?;
    transaction.query_typed(&table.registered(VOID), &[(&entry.id, Type::INT8)]).await.map_err(doing())?;
    let deed = Deed::new("partition.unseal", entry.to_string());
    record(&transaction, &table.registry, &deed).await?;
    transaction.commit().await.map_err(doing())
}

const VOID: &str = "UPDATE registry.leaf SET state = 'ATTACHED', manifest = NULL, seal = NULL, sealed_at = NULL, \
                    archived_at = NULL, updated_at = clock_timestamp() WHERE leaf_id = $1";
