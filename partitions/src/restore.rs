//! A leaf that was dropped, back from its archive: loaded into a table of its own, compared on the way, and attached.

use chrono::{DateTime, Utc};
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use crate::{
    Archive, Bounds, Catalog, Error, Manifest, Scope, Table,
    activity::{Deed, ensure_activity, record},
    apply::{BEGIN, LANE_KEY, LIKE, is_passing, pause},
    hold::place,
    moves::{MARK, PATIENCE, TRIES, begin_session, end_session, locked, parent_of, seal_statements},
    read,
    registry::{Entry, State, read_inventory},
    undo::{drop_checks, lower_floor},
};

/// What [`restore`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// The leaf.
    pub leaf: String,
    /// Its rows.
    pub rows: u64,
    /// The hold that keeps it from being retired at the next run.
    pub hold: i64,
    /// The earliest time served now; `None` if all is.
    pub floor: Option<DateTime<Utc>>,
}

/// Brings a dropped leaf back from its newest archive. It is sealed, as its archive stays valid, and held, or the policy would retire it
/// at its next run. The floor goes down to it if no newer leaf is missing.
///
/// Wants a direct connection of its own whose current role owns the table; its session settings are changed. What a crash leaves of it,
/// the next `retire` discards.
pub async fn restore(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    leaf: &str,
    reason: &str,
    author: &str,
) -> Result<Restored, Error> {
    begin_session(client, table).await?;
    let restored = restore_leaf(client, table, archive, leaf, reason, author).await;
    let ended = end_session(client, table).await;
    let restored = restored?;
    ended.map(|()| restored)
}

async fn restore_leaf(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    leaf: &str,
    reason: &str,
    author: &str,
) -> Result<Restored, Error> {
    ensure_activity(client, &table.registry).await?;
    let name = format!("{}.{}", table.schema, table.name);
    let unfit = |why: String| Error::Unfit { what: table.sibling(leaf), why };
    let found = archive.list(Some(&name)).await?.into_iter().filter(|manifest| manifest.leaf == leaf);
    let Some(manifest) = found.max_by_key(|manifest| manifest.version) else {
        let why = format!(
            "{} holds no archive of it: `dalp-indexer partitions archive list` shows what there is",
            archive.name()
        );
        return Err(unfit(why));
    };
    let bounds = Bounds::new(manifest.from, manifest.to).ok_or_else(|| unfit("its manifest has no times".into()))?;
    let catalog = read(client, table, manifest.key).await?;
    let parent = fitting_parent(table, &catalog, leaf, bounds).map_err(unfit)?;
    let entry = plan_table(client, table, &manifest, bounds, &parent).await?;
    fill(client, table, archive, &manifest, &entry).await?;
    let to = (bounds.to() < DateTime::<Utc>::MAX_UTC).then(|| bounds.to());
    let scope = Scope { key: Some(manifest.key), from: bounds.from(), to };
    let (hold, _) = place(client, table, &scope, reason, author).await?;
    let mut again = 0;
    while let Err(error) = attach(client, table, &manifest, &entry).await {
        again += 1;
        if !is_passing(&error) || again == TRIES {
            return Err(error);
        }
        tokio::time::sleep(pause(again)).await;
    }
    let floor = lower_floor(client, table, &entry).await?;
    Ok(Restored { leaf: leaf.to_owned(), rows: manifest.counted.rows, hold, floor })
}

/// The sub-parent, if nothing stands where the leaf belongs.
fn fitting_parent(table: &Table, catalog: &Catalog, leaf: &str, bounds: Bounds) -> Result<String, String> {
    let Some(parent) = &catalog.sub_parent else {
        return Err(format!("the table has no key {}: nothing can be attached to it", catalog.key));
    };
    if let Some(other) = catalog.leaves.iter().find(|other| other.bounds.overlaps(&bounds)) {
        return Err(format!("leaf \"{}\" holds some of its times: detach that first", other.name));
    }
    if catalog.names.contains(leaf) {
        return Err(
            "a table of this name stands: if it is the detached leaf, `dalp-indexer partitions undo` attaches it"
                .to_owned(),
        );
    }
    Ok(table.sibling(parent))
}

const PLANNED: &str = "
    INSERT INTO registry.leaf (table_schema, table_name, key, leaf_schema, leaf, relid, catalog, from_time, to_time, state, version)
    VALUES ($1, $2, $3, $1, $4, to_regclass($5), registry.catalog_identity(), $6, COALESCE($7, 'infinity'::timestamptz), 'PLANNED', $8)
    RETURNING leaf_id";

/// Makes the table, sealed against nobody yet, and says in the registry what it is for: one transaction.
async fn plan_table(
    client: &mut Client,
    table: &Table,
    manifest: &Manifest,
    bounds: Bounds,
    parent: &str,
) -> Result<Entry, Error> {
    let doing = || Error::doing("make the table of a restore", table);
    let leaf = table.sibling(&manifest.leaf);
    let transaction = client.transaction().await.map_err(doing())?;
    transaction.batch_execute(BEGIN).await.map_err(doing())?;
    let make = format!("CREATE TABLE {leaf} (LIKE {parent} {LIKE} INCLUDING INDEXES)");
    transaction.batch_execute(&make).await.map_err(doing())?;
    let (from, to) = (bounds.from(), (bounds.to() < DateTime::<Utc>::MAX_UTC).then(|| bounds.to()));
    let version = i32::try_from(manifest.version).unwrap_or(i32::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
        (&table.schema, Type::TEXT),
        (&table.name, Type::TEXT),
        (&manifest.key, Type::INT8),
        (&manifest.leaf, Type::TEXT),
        (&leaf, Type::TEXT),
        (&from, Type::TIMESTAMPTZ),
        (&to, Type::TIMESTAMPTZ),
        (&version, Type::INT4),
    ];
    let id: i64 = transaction.query_typed_one(&table.registered(PLANNED), &parameters).await.map_err(doing())?.get(0);
    transaction.commit().await.map_err(doing())?;
    let inventory = read_inventory(client, table).await?;
    let entry = inventory.entries.into_iter().find(|entry| entry.id == id);
    let entry = entry.map(|entry| Entry { parent: Some(parent.to_owned()), ..entry });
    entry.ok_or_else(|| Error::Refused { leaf, why: "its table went away".to_owned() })
}

/// Loads the rows, seals the table and proves its bounds, so that attaching it is a matter of milliseconds.
async fn fill(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    manifest: &Manifest,
    entry: &Entry,
) -> Result<(), Error> {
    let doing = || Error::doing("restore a leaf", table);
    let leaf = entry.relation();
    let transaction = locked(client, table, entry).await?;
    transaction
        .batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'")
        .await
        .map_err(doing())?;
    archive.load(&transaction, manifest, &leaf).await?;
    let parent = parent_of(table, entry);
    let row = transaction
        .query_typed_one(
            "SELECT pg_get_partition_constraintdef(to_regclass($1))",
            &[(&parent as &(dyn ToSql + Sync), Type::TEXT)],
        )
        .await
        .map_err(doing())?;
    let time = crate::catalog::quoted(&table.time_column);
    let mut proof = vec![format!("{time} IS NOT NULL"), format!("{time} < '{}'::timestamptz", manifest.to)];
    proof.extend(manifest.from.map(|from| format!("{time} >= '{from}'::timestamptz")));
    proof.extend(row.get::<_, Option<String>>(0));
    let mut statements = seal_statements(table, &leaf);
    statements.push(format!("ALTER TABLE {leaf} ADD CONSTRAINT dalp_restored CHECK ({})", proof.join(" AND ")));
    transaction.batch_execute(&statements.join("; ")).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    // Plans know nothing of a new table.
    client.batch_execute(&format!("ANALYZE {leaf}")).await.map_err(doing())
}

const ATTACHED: &str = "
    UPDATE registry.leaf AS e
    SET state = 'ARCHIVED', manifest = $2, rows = $3, archived_at = clock_timestamp(), sealed_at = clock_timestamp(),
        updated_at = clock_timestamp(), seal = ";

async fn attach(client: &mut Client, table: &Table, manifest: &Manifest, entry: &Entry) -> Result<(), Error> {
    let doing = || Error::doing("attach a restored leaf", table);
    let (leaf, parent) = (entry.relation(), parent_of(table, entry));
    let transaction = locked(client, table, entry).await?;
    let attach = format!(
        "SELECT pg_advisory_xact_lock({LANE_KEY}); SET LOCAL lock_timeout = '{PATIENCE}'; \
         LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE; \
         ALTER TABLE {parent} ATTACH PARTITION {leaf} FOR VALUES {}",
        entry.bounds
    );
    transaction.batch_execute(&attach).await.map_err(doing())?;
    drop_checks(&transaction, table, &leaf, &parent).await?;
    let json = serde_json::to_value(manifest).unwrap_or_default();
    let rows = i64::try_from(manifest.counted.rows).unwrap_or(i64::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&entry.id, Type::INT8), (&json, Type::JSONB), (&rows, Type::INT8)];
    transaction
        .query_typed(&table.registered(&format!("{ATTACHED} {MARK} WHERE leaf_id = $1")), &parameters)
        .await
        .map_err(doing())?;
    let deed = Deed::new("partition.restore", entry.to_string())
        .with_detail(serde_json::json!({ "key": entry.key, "rows": rows, "object": manifest.object }));
    record(&transaction, &deed).await?;
    transaction.commit().await.map_err(doing())?;
    debug_assert_eq!(entry.state, State::Planned);
    Ok(())
}
