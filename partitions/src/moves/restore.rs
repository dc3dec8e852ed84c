//! Restores a dropped leaf from its archive: loads it into a separate table, compares the rows there, and attaches it.

use chrono::{DateTime, Utc};
use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use super::exclusive::{begin_session, end_session};
use super::hold::{insert, refuse_unfit};
use super::refit;
use crate::leaves::blockers::blockers;
use crate::leaves::create::{LANE_KEY, LIKE};
use crate::pg::patience::{PATIENCE, TRIES, pause};
use crate::pg::session::{self, AS_WRITTEN, BEGIN, Kind};
use crate::pure::names::quoted;
use crate::registry::activity::{Deed, ensure_activity, record};
use crate::registry::floor::lower_floor;
use crate::registry::inventory::{read_inventory, register};
use crate::registry::seal::{MARK, seal_statements};
use crate::registry::survey::{Archived, survey};
use crate::registry::transition::discard;
use crate::{
    Advice, Archive, Bounds, Catalog, Edge, Entry, Error, Manifest, Presence, Scope, State, Table, Time, read,
};

/// The leaf to restore, and the reason.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The leaf.
    pub leaf: &'r str,
    /// The object of the archive to use, if several have a leaf of this name.
    pub object: Option<&'r str>,
    /// The reason.
    pub reason: &'r str,
    /// The author of the request.
    pub author: &'r str,
}

/// The result of [`restore`].
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// The leaf.
    pub leaf: String,
    /// Its rows.
    pub rows: u64,
    /// The columns whose values were cast exactly to another type.
    pub cast: Vec<String>,
    /// The hold that keeps it from being retired at the next run.
    pub hold: i64,
    /// The earliest time served now; `None` if all times are.
    pub floor: Option<DateTime<Utc>>,
    /// Whether its rows are served: if newer leaves are missing, the floor stays above it.
    pub is_served: bool,
}

/// Restores a dropped leaf from its newest archive. The leaf is sealed, because its archive stays valid. It has a hold, otherwise
/// the policy would retire it at its next run. The floor moves down to it if no newer leaf is missing.
///
/// Needs a separate direct connection whose current role owns the table; its session settings are changed. The restore is one
/// transaction: an interrupted restore leaves nothing behind, and the same call starts again.
pub async fn restore(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    request: &Request<'_>,
) -> Result<Restored, Error> {
    begin_session(client, table).await?;
    let restored = restore_leaf(client, table, archive, request).await;
    let ended = end_session(client, table).await;
    let restored = restored?;
    ended.map(|()| restored)
}

/// Loads an archive into a separate table with the archived columns. Returns the number of rows.
///
/// # Errors
/// As [`restore`]; then no table is made.
pub async fn restore_into(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    request: &Request<'_>,
    into: (&str, &str),
) -> Result<u64, Error> {
    begin_session(client, table).await?;
    let restored = load_into(client, table, archive, request, into).await;
    let ended = end_session(client, table).await;
    let restored = restored?;
    ended.map(|()| restored)
}

async fn load_into(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    request: &Request<'_>,
    (schema, name): (&str, &str),
) -> Result<u64, Error> {
    let doing = || Error::doing("restore into a table", table);
    ensure_activity(client, &table.registry).await?;
    let manifest = choose(client, table, archive, request).await?;
    let into = format!("{}.{}", quoted(schema), quoted(name));
    let transaction =
        session::begin(client, Kind::Write, &format!("{BEGIN}; {LONG}; {AS_WRITTEN}")).await.map_err(doing())?;
    let stands = transaction.query_typed_one("SELECT to_regclass($1) IS NOT NULL", &[(&into, Type::TEXT)]).await;
    if stands.map_err(doing())?.get(0) {
        let why = "it already exists: give the name of a new table with `--into`".to_owned();
        return Err(Error::Unfit { what: into, why });
    }
    transaction.batch_execute(&refit::archived_table(&manifest, &into)?).await.map_err(doing())?;
    archive.load(&transaction, &manifest, &into).await?;
    refit::prove(&transaction, &manifest, &into).await?;
    let deed = Deed::new("partition.restore", format!("{schema}.{name}")).with_detail(serde_json::json!({
        "key": manifest.key, "leaf": manifest.leaf, "rows": manifest.counted.rows, "object": manifest.object,
        "reason": request.reason, "author": request.author
    }));
    record(&transaction, &table.registry, &deed).await?;
    transaction.commit().await.map_err(doing())?;
    client.batch_execute(&format!("ANALYZE {into}")).await.map_err(doing())?;
    Ok(manifest.counted.rows)
}

const INSTALLATION: &str = "SELECT installation::text FROM registry.installation";

/// The archive to use: the given object, or the only complete archive of a leaf of this name.
async fn choose(client: &Client, table: &Table, archive: &Archive, request: &Request<'_>) -> Result<Manifest, Error> {
    let Request { leaf, object, .. } = *request;
    let unfit = |why: String| Error::Unfit { what: table.sibling(leaf), why };
    let installation = client.query_typed_one(&table.registered(INSTALLATION), &[]).await;
    let installation: String = installation.map_err(Error::doing("look up the installation", table))?.get(0);
    let mut found = survey(client, table, archive).await?.archives;
    found.retain(|archived| archived.manifest.leaf == leaf);
    if let Some(object) = object {
        let chosen = found.into_iter().find(|archived| archived.manifest.object == object);
        return chosen.map(|archived| archived.manifest).ok_or_else(|| {
            unfit(format!("there is no archive {object} of it: {} lists its archives", Advice::ListArchives))
        });
    }
    let mut candidates = candidates(&found, &installation);
    if candidates.len() > 1 {
        let mut whole = Vec::new();
        for manifest in candidates {
            if archive.check(&manifest).await.is_ok() {
                whole.push(manifest);
            }
        }
        candidates = whole;
    }
    match candidates.as_slice() {
        [manifest] => Ok(manifest.clone()),
        [] if found.is_empty() => Err(unfit(format!(
            "{} holds no archive of it: {} lists the archives",
            archive.name(),
            Advice::ListArchives
        ))),
        [] => Err(unfit(format!(
            "in {}, the archives of this name belong to another installation, or are missing: {}. `restore {leaf} \
             --archive OBJECT` uses one of them all the same",
            archive.name(),
            named(found.iter().map(|archived| &archived.manifest))
        ))),
        several => Err(unfit(format!(
            "several archives have a leaf of this name: {}. Choose one: `restore {leaf} --archive OBJECT`",
            named(several.iter())
        ))),
    }
}

/// The newest archive of each life of the leaf in this installation; otherwise the archives without a recorded owner.
fn candidates(found: &[Archived], installation: &str) -> Vec<Manifest> {
    let is_own = |archived: &&Archived| {
        let identity = archived.manifest.identity.as_ref();
        archived.is_registered() || identity.is_some_and(|identity| identity.installation == installation)
    };
    let mut own: Vec<&Archived> = found.iter().filter(is_own).collect();
    if own.is_empty() {
        own = found.iter().filter(|archived| archived.manifest.identity.is_none()).collect();
    }
    let mut lives: Vec<Manifest> = Vec::new();
    for Archived { manifest, .. } in own {
        match lives.iter_mut().find(|other| other.life() == manifest.life()) {
            Some(other) if other.version < manifest.version => *other = manifest.clone(),
            Some(_) => {}
            None => lives.push(manifest.clone()),
        }
    }
    lives
}

fn named<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> String {
    let name = |manifest: &Manifest| {
        let server = manifest.identity.as_ref().map(|identity| format!(", of {}", identity.server)).unwrap_or_default();
        let at = manifest.created_at.format("%Y-%m-%d %H:%M");
        format!("{} ({} rows, written {at}{server})", manifest.object, manifest.counted.rows)
    };
    manifests.map(name).collect::<Vec<_>>().join(", ")
}

async fn restore_leaf(
    client: &mut Client,
    table: &Table,
    archive: &Archive,
    request: &Request<'_>,
) -> Result<Restored, Error> {
    ensure_activity(client, &table.registry).await?;
    register(client, table).await?;
    let leaf = request.leaf;
    let unfit = |why: String| Error::Unfit { what: table.sibling(leaf), why };
    let manifest = choose(client, table, archive, request).await?;
    let bounds =
        Bounds::between(manifest.from, manifest.to).ok_or_else(|| unfit("its manifest has no times".into()))?;
    let scope = Scope::of(manifest.key, bounds.lower(), bounds.upper());
    refuse_unfit(client, table, &scope, request.reason, request.author).await?;
    take_back(client, table, leaf).await?;
    let catalog = read(client, table, manifest.key).await?;
    let is_detached = is_detached(client, table, leaf).await?;
    let parent = fitting_parent(table, &catalog, leaf, bounds, is_detached).map_err(unfit)?;
    let back = Back { table, archive, manifest: &manifest, bounds, parent: &parent, scope: &scope, request };
    back.bring(client).await
}

/// Drops the remains of an interrupted restore by an older program.
async fn take_back(client: &mut Client, table: &Table, leaf: &str) -> Result<(), Error> {
    let inventory = read_inventory(client, table).await?;
    let is_left = |entry: &&Entry| {
        let is_alone = matches!(entry.presence, Presence::Standalone | Presence::Absent);
        entry.state == State::Planned && is_alone && entry.is_called(leaf)
    };
    for entry in inventory.entries.iter().filter(is_left) {
        discard(client, table, entry).await?;
    }
    Ok(())
}

async fn is_detached(client: &mut Client, table: &Table, leaf: &str) -> Result<bool, Error> {
    let entries = read_inventory(client, table).await?.entries;
    let is_it =
        |entry: &Entry| entry.is_called(leaf) && entry.schema == table.schema && entry.presence == Presence::Standalone;
    Ok(entries.iter().any(is_it))
}

/// The sub-parent, if no leaf has the times of the restored one.
fn fitting_parent(
    table: &Table,
    catalog: &Catalog,
    leaf: &str,
    bounds: Bounds,
    is_detached: bool,
) -> Result<String, String> {
    let Some(parent) = &catalog.parent else {
        return Err(format!("the table has no key {}: no leaf can be attached to it", catalog.key));
    };
    if let Some(other) = catalog.leaves.iter().find(|other| other.bounds.overlaps(&bounds)) {
        if other.name == leaf {
            return Err(
                "it is already in its table; `restore --into TABLE` restores its archived rows into another table"
                    .to_owned(),
            );
        }
        return Err(format!(
            "leaf \"{}\" has some of its times: detach that leaf first, or run `restore --into TABLE`",
            other.name
        ));
    }
    if is_detached {
        return Err(format!("it is detached, not dropped: {} attaches it", Advice::Undo(Some(leaf))));
    }
    if catalog.names.contains(leaf) {
        return Err(format!(
            "another table has its name: run ALTER TABLE {} RENAME TO another name",
            table.sibling(leaf)
        ));
    }
    Ok(parent.clone())
}

const PLANNED: &str = "
    INSERT INTO registry.leaf (table_schema, table_name, key, leaf_schema, leaf, relid, catalog, from_time, to_time, state, version)
    VALUES ($1, $2, $3, $1, $4, to_regclass($5), registry.catalog_identity(), $6, $7, 'PLANNED', $8)
    RETURNING leaf_id";

const ATTACHED: &str = "
    UPDATE registry.leaf AS e
    SET state = 'ARCHIVED', manifest = $2, rows = $3, archived_at = clock_timestamp(), sealed_at = clock_timestamp(),
        updated_at = clock_timestamp(), verified_at = clock_timestamp(), place = $4, seal = ";

/// The time limits of a load.
const LONG: &str = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'";
/// The time limits of its end, with the parent locked.
const BRIEFLY: &str = "SET LOCAL statement_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '60s'; \
                       SET LOCAL lock_timeout = '2s'";

fn at(edge: Edge) -> Option<Time> {
    if let Edge::At(time) = edge { Some(time) } else { None }
}

/// A leaf during its restore.
struct Back<'b> {
    table: &'b Table,
    archive: &'b Archive,
    manifest: &'b Manifest,
    bounds: Bounds,
    /// The sub-parent, quoted.
    parent: &'b str,
    /// The number of its hold.
    scope: &'b Scope,
    request: &'b Request<'b>,
}

impl Back<'_> {
    /// One transaction: table, rows, hold and floor appear together, or not at all. Before its end, it locks nothing that other
    /// sessions see. If a lock is not available, only the end is retried, without loading the rows again.
    async fn bring(&self, client: &mut Client) -> Result<Restored, Error> {
        let doing = || Error::doing("restore a leaf", self.table);
        let transaction =
            session::begin(client, Kind::Write, &format!("{BEGIN}; {LONG}; {AS_WRITTEN}")).await.map_err(doing())?;
        let (id, cast) = self.fill(&transaction).await?;
        let mut again = 1;
        let (hold, floor) = loop {
            transaction.batch_execute("SAVEPOINT filled").await.map_err(doing())?;
            match self.attach(&transaction, id).await {
                Ok(kept) => break kept,
                Err(error) if !error.is_passing() => return Err(error),
                Err(_) if again == TRIES => {
                    transaction.rollback().await.map_err(doing())?;
                    let holders = blockers(client, &[self.parent.to_owned()], false).await?;
                    return Err(Error::Locked { table: self.parent.to_owned(), tries: TRIES, holders });
                }
                Err(_) => transaction.batch_execute("ROLLBACK TO filled; RELEASE filled").await.map_err(doing())?,
            }
            tokio::time::sleep(pause(again)).await;
            again += 1;
        };
        transaction.commit().await.map_err(doing())?;
        let (leaf, rows) = (self.manifest.leaf.clone(), self.manifest.counted.rows);
        let is_served = floor.is_none_or(|floor| Edge::from(floor) <= self.bounds.lower());
        Ok(Restored { leaf, rows, cast, hold, floor, is_served })
    }

    fn leaf(&self) -> String {
        self.table.sibling(&self.manifest.leaf)
    }

    /// Makes the table, loads and counts its rows, seals it and proves its bounds, so that its attach takes milliseconds. Returns
    /// its registry row, and the cast columns.
    async fn fill(&self, transaction: &Transaction<'_>) -> Result<(i64, Vec<String>), Error> {
        let (table, manifest, parent, leaf) = (self.table, self.manifest, self.parent, self.leaf());
        let doing = || Error::doing("restore a leaf", table);
        let make = format!("CREATE TABLE {leaf} (LIKE {parent} {LIKE} INCLUDING INDEXES)");
        transaction.batch_execute(&make).await.map_err(doing())?;
        let id = self.plan(transaction).await.map_err(doing())?;
        let cast = refit::load(transaction, table, self.archive, manifest, &leaf).await?;
        let row = transaction
            .query_typed_one(
                "SELECT pg_get_partition_constraintdef(to_regclass($1))",
                &[(&parent as &(dyn ToSql + Sync), Type::TEXT)],
            )
            .await
            .map_err(doing())?;
        let time = quoted(&table.time_column);
        let mut proof = vec![format!("{time} IS NOT NULL")];
        proof.extend(at(manifest.from).map(|from| format!("{time} >= '{from}'::timestamptz")));
        proof.extend(at(manifest.to).map(|to| format!("{time} < '{to}'::timestamptz")));
        proof.extend(row.get::<_, Option<String>>(0));
        let mut statements = seal_statements(table, &leaf);
        statements.push(format!("ALTER TABLE {leaf} ADD CONSTRAINT dalp_restored CHECK ({})", proof.join(" AND ")));
        // The statistics know nothing about a new table.
        statements.push(format!("ANALYZE {leaf}; {BRIEFLY}"));
        transaction.batch_execute(&statements.join("; ")).await.map_err(doing())?;
        Ok((id, cast))
    }

    /// The registry row of a new table. Returns its id.
    async fn plan(&self, transaction: &Transaction<'_>) -> Result<i64, tokio_postgres::Error> {
        let (table, manifest, bounds) = (self.table, self.manifest, self.bounds);
        let from = (bounds.lower() > Edge::MinValue).then(|| bounds.lower().time());
        let to = bounds.upper().time();
        let version = i32::try_from(manifest.version).unwrap_or(i32::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 8] = [
            (&table.schema, Type::TEXT),
            (&table.name, Type::TEXT),
            (&manifest.key, Type::INT8),
            (&manifest.leaf, Type::TEXT),
            (&self.leaf(), Type::TEXT),
            (&from, Type::TIMESTAMPTZ),
            (&to, Type::TIMESTAMPTZ),
            (&version, Type::INT4),
        ];
        Ok(transaction.query_typed_one(&table.registered(PLANNED), &parameters).await?.get(0))
    }

    /// Returns the hold, and the new floor.
    async fn attach(&self, transaction: &Transaction<'_>, id: i64) -> Result<(i64, Option<DateTime<Utc>>), Error> {
        let (table, manifest, parent, leaf) = (self.table, self.manifest, self.parent, self.leaf());
        let doing = || Error::doing("attach a restored leaf", table);
        let attach = format!(
            "SELECT pg_advisory_xact_lock({LANE_KEY}); SET LOCAL lock_timeout = '{PATIENCE}'; \
             LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE; \
             ALTER TABLE {parent} ATTACH PARTITION {leaf} FOR VALUES {}; ALTER TABLE {leaf} DROP CONSTRAINT dalp_restored",
            self.bounds
        );
        transaction.batch_execute(&attach).await.map_err(doing())?;
        let json = serde_json::to_value(manifest).unwrap_or_default();
        let rows = i64::try_from(manifest.counted.rows).unwrap_or(i64::MAX);
        let place = self.archive.name();
        let parameters: [(&(dyn ToSql + Sync), Type); 4] =
            [(&id, Type::INT8), (&json, Type::JSONB), (&rows, Type::INT8), (&place, Type::TEXT)];
        transaction
            .query_typed(&table.registered(&format!("{ATTACHED} {MARK} WHERE leaf_id = $1")), &parameters)
            .await
            .map_err(doing())?;
        let deed = Deed::new("partition.restore", format!("{}.{}", table.schema, manifest.leaf))
            .with_detail(serde_json::json!({ "key": manifest.key, "rows": rows, "object": manifest.object }));
        record(transaction, &table.registry, &deed).await?;
        let hold = insert(transaction, table, self.scope, self.request.reason, self.request.author).await?.id;
        let floor = lower_floor(transaction, table, manifest.key, self.bounds).await?;
        Ok((hold, floor))
    }
}
