//! Builds missing indexes of leaves: after a load, or when the table gets a new index. Drops them before a load into a leaf in use.

use tokio_postgres::{Client, Row, types::Type};

use super::catalog::read_leaf;
use super::create::create_index;
use crate::pg::patience::PATIENCE;
use crate::pg::session::{self, BEGIN, Kind};
use crate::{Catalog, Error, Index, Leaf, Table};

/// Keys of the advisory locks of a database's builders. Each holds one, so two sessions build leaves' indexes at a time: a build
/// alone leaves a core idle while it merges and writes, and more of them would take the load's. The first is "dalpidx" in ASCII.
pub const INDEXER_KEYS: [i64; 2] = [0x64_616c_7069_6478, 0x64_616c_7069_6479];

/// The upper half of the advisory key of a leaf whose indexes are built or dropped, "dalx" in ASCII; its oid is the lower half.
const LEAF_KEYS: i64 = 0x6461_6c78 << 32;

/// The time that a build in a leaf in use waits for an older transaction. Only other maintenance of the leaf waits behind it. The
/// next build drops the remains of an abandoned one.
const OLDER_PATIENCE: &str = "10min";

/// The time that [`strip`] waits for an older transaction: the load goes on meanwhile, and nothing else is indexed.
const STRIP_PATIENCE: &str = "30s";

/// The end of [`build`] and [`strip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexed {
    /// The leaf has all indexes now; the number of new ones.
    Made(usize),
    /// The leaf is bare now; the number of dropped indexes.
    Dropped(usize),
    /// Another session holds a blocking lock or builds in this leaf, or two build already. Nothing was done: call again later.
    Busy,
    /// The leaf no longer exists.
    Gone,
}

/// Builds the missing indexes of a leaf of `catalog`. Safe to call again after a crash anywhere.
///
/// With `live`, writers may use the leaf meanwhile: each index is made CONCURRENTLY, which takes two passes and waits for older
/// transactions. Without `live`, one transaction makes all indexes, and writers of this leaf wait.
///
/// Needs a direct connection whose current role owns the table.
pub async fn build(
    client: &mut Client,
    table: &Table,
    catalog: &Catalog,
    leaf: &str,
    live: bool,
) -> Result<Indexed, Error> {
    let Some(keys) = lock(client, table, leaf).await? else { return Ok(Indexed::Busy) };
    let outcome = build_locked(client, table, catalog, leaf, live).await;
    unlock(client, table, keys, outcome).await
}

/// Drops the indexes of a leaf of `catalog` that [`Table::leaf_indexes`] names, CONCURRENTLY: before a load into a leaf in use,
/// which [`build`] indexes again. Other indexes stay, and so do indexes that belong to an index of the table. Safe to call again
/// after a crash anywhere.
///
/// Needs a direct connection whose current role owns the table.
pub async fn strip(client: &mut Client, table: &Table, catalog: &Catalog, leaf: &str) -> Result<Indexed, Error> {
    let Some(keys) = lock(client, table, leaf).await? else { return Ok(Indexed::Busy) };
    let outcome = strip_locked(client, table, catalog, leaf).await;
    unlock(client, table, keys, outcome).await
}

const LEAF_KEY: &str = "SELECT $2::int8 + coalesce(to_regclass($1)::oid::int8, 0)";
const LOCK: &str = "SELECT pg_try_advisory_lock($1)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(key) FROM unnest($1::int8[]) AS key";

/// Locks the leaf and one of [`INDEXER_KEYS`] against other builders, or returns `None` if they hold them.
async fn lock(client: &Client, table: &Table, leaf: &str) -> Result<Option<[i64; 2]>, Error> {
    let doing = || Error::doing("begin to build indexes", table);
    let leaf = table.sibling(leaf);
    let key = client.query_typed_one(LEAF_KEY, &[(&leaf, Type::TEXT), (&LEAF_KEYS, Type::INT8)]).await;
    let leaf = key.map_err(doing())?.get(0);
    if !try_lock(client, leaf).await.map_err(doing())? {
        return Ok(None);
    }
    for builder in INDEXER_KEYS {
        if try_lock(client, builder).await.map_err(doing())? {
            return Ok(Some([leaf, builder]));
        }
    }
    client.query_typed(UNLOCK, &[(&[leaf].as_slice(), Type::INT8_ARRAY)]).await.map_err(doing())?;
    Ok(None)
}

async fn try_lock(client: &Client, key: i64) -> Result<bool, tokio_postgres::Error> {
    Ok(client.query_typed_one(LOCK, &[(&key, Type::INT8)]).await?.get(0))
}

async fn unlock(
    client: &Client,
    table: &Table,
    keys: [i64; 2],
    outcome: Result<Indexed, Error>,
) -> Result<Indexed, Error> {
    let unlocked = client.query_typed(UNLOCK, &[(&keys.as_slice(), Type::INT8_ARRAY)]).await;
    let reset = client.batch_execute("RESET statement_timeout; RESET lock_timeout").await;
    let outcome = outcome?;
    unlocked.map(drop).and(reset).map_err(Error::doing("end building indexes", table))?;
    Ok(outcome)
}

async fn strip_locked(client: &mut Client, table: &Table, catalog: &Catalog, leaf: &str) -> Result<Indexed, Error> {
    let Some(leaf) = read_leaf(client, table, catalog, leaf).await?.filter(|leaf| !leaf.detaching) else {
        return Ok(Indexed::Gone);
    };
    match drop_concurrently(client, table, &leaf).await {
        Err(error) if error.is_passing() => Ok(Indexed::Busy),
        dropped => dropped.map(Indexed::Dropped),
    }
}

async fn drop_concurrently(client: &Client, table: &Table, leaf: &Leaf) -> Result<usize, Error> {
    let (doing, name) = (|| Error::doing("drop the indexes of a leaf in use", table), table.sibling(&leaf.name));
    begin_concurrently(client, &name, STRIP_PATIENCE).await.map_err(doing())?;
    let own = client.query_typed(OWN, &[(&name, Type::TEXT)]).await.map_err(doing())?;
    let is_ours = |row: &&Row| table.leaf_indexes.contains(&Index::on(row.get::<_, Vec<String>>(1)));
    let ours: Vec<String> = own.iter().filter(is_ours).map(|row| table.sibling(row.get(0))).collect();
    for index in &ours {
        client.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")).await.map_err(doing())?;
    }
    Ok(ours.len())
}

/// Plain indexes of a leaf alone, as [`build`] makes them, each with its columns.
const OWN: &str = "SELECT index.relname::text, \
                          ARRAY(SELECT attname::text FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (attnum, place) \
                                JOIN pg_catalog.pg_attribute AS a ON attrelid = indrelid AND a.attnum = key.attnum ORDER BY place) \
                   FROM pg_catalog.pg_index JOIN pg_catalog.pg_class AS index ON index.oid = indexrelid \
                   JOIN pg_catalog.pg_am AS method ON method.oid = index.relam AND amname = 'btree' \
                   WHERE indrelid = $1::text::regclass AND indisvalid AND NOT indisunique AND NOT index.relispartition \
                     AND indpred IS NULL AND indexprs IS NULL AND indnatts = indnkeyatts \
                     AND NOT EXISTS (SELECT FROM unnest(indoption::int2[]) AS option WHERE option <> 0)";

async fn build_locked(
    client: &mut Client,
    table: &Table,
    catalog: &Catalog,
    leaf: &str,
    live: bool,
) -> Result<Indexed, Error> {
    let Some(leaf) = read_leaf(client, table, catalog, leaf).await?.filter(|leaf| !leaf.detaching) else {
        return Ok(Indexed::Gone);
    };
    let built = if live { concurrently(client, table, &leaf).await } else { at_once(client, table, &leaf).await };
    match built {
        Err(error) if error.is_passing() => Ok(Indexed::Busy),
        built => built.map(Indexed::Made),
    }
}

async fn at_once(client: &mut Client, table: &Table, leaf: &Leaf) -> Result<usize, Error> {
    let (doing, name) = (|| Error::doing("build the indexes of a leaf", table), table.sibling(&leaf.name));
    let lacking = leaf.lacks(&table.leaf_indexes);
    let statements: Vec<String> = lacking.iter().map(|index| create_index(&name, index, "")).collect();
    // The time of a build depends on the size of the leaf; its lock is available at once or later.
    let settings = format!("{BEGIN}; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{PATIENCE}'");
    let transaction = session::begin(client, Kind::Write, &settings).await.map_err(doing())?;
    transaction.batch_execute(&statements.join(";\n")).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    Ok(statements.len())
}

/// The remains of an interrupted build are dropped first: no query uses them, and every write maintains them.
async fn concurrently(client: &Client, table: &Table, leaf: &Leaf) -> Result<usize, Error> {
    let (doing, name) = (|| Error::doing("build the indexes of a leaf in use", table), table.sibling(&leaf.name));
    begin_concurrently(client, &name, OLDER_PATIENCE).await.map_err(doing())?;
    let broken = client.query_typed(BROKEN, &[(&name, Type::TEXT)]).await.map_err(doing())?;
    for row in &broken {
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", table.sibling(row.get(0)));
        client.batch_execute(&drop).await.map_err(doing())?;
    }
    let lacking = leaf.lacks(&table.leaf_indexes);
    for index in &lacking {
        client.batch_execute(&create_index(&name, index, "CONCURRENTLY")).await.map_err(doing())?;
    }
    Ok(lacking.len())
}

/// Other maintenance of this leaf is detected here: the statements that follow do not wait for it as long as for older
/// transactions.
async fn begin_concurrently(client: &Client, leaf: &str, patience: &str) -> Result<(), tokio_postgres::Error> {
    let ask = format!(
        "BEGIN; SET LOCAL lock_timeout = '{PATIENCE}'; LOCK TABLE ONLY {leaf} IN SHARE UPDATE EXCLUSIVE MODE; COMMIT"
    );
    if let Err(error) = client.batch_execute(&ask).await {
        client.batch_execute("ROLLBACK").await?;
        return Err(error);
    }
    client.batch_execute(&format!("SET statement_timeout = 0; SET lock_timeout = '{patience}'")).await
}

const BROKEN: &str = "SELECT index.relname::text FROM pg_catalog.pg_index \
                      JOIN pg_catalog.pg_class AS index ON index.oid = indexrelid \
                      WHERE indrelid = $1::text::regclass AND NOT indisvalid";
