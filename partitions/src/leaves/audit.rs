//! Finds wrong states: gaps, leaves that differ from their parent, unfinished detaches.
//!
//! One query reads the catalog for all keys; a pure function decides which facts are findings.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::{
    Client, Row, Transaction,
    types::{ToSql, Type},
};

use super::catalog::bounds;
use super::shape::must_fit;
use crate::pg::session::{self, Kind};
use crate::pure::names::quoted;
use crate::{Advice, Bounds, Edge, Error, Finding, Index, Interval, Severity, Table};

/// A sub-parent or a leaf in the catalog, with its parent table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    parent: String,
    object: String,
    /// Both names as SQL, with their schemas.
    parent_sql: String,
    object_sql: String,
    /// `r` a table, `p` a partitioned one, `f` a foreign one.
    kind: String,
    printed: String,
    bounds: Option<Bounds>,
    pending: bool,
    unlogged: bool,
    other_owner: bool,
    granted: Option<String>,
    other_tablespace: bool,
    options: Option<String>,
    other_identity: bool,
    other_security: bool,
    /// Row security would hide rows of it from the current role.
    filtered: bool,
    /// Whether names, order, storage or compression of its columns differ from its parent's.
    other_layout: bool,
    /// Columns whose storage or compression differ.
    other_columns: Vec<String>,
    missing_indexes: i64,
    invalid_indexes: i64,
    /// The number of missing indexes that only leaves have.
    lacking_indexes: i64,
    triggers: Option<String>,
    foreign_keys: i64,
}

/// A detached leaf that was not dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Detached {
    key: i64,
    leaf: String,
    bounds: Bounds,
}

/// All partitions of both levels, in one query. $1 schema, $2 table, $3 whether it is flat, $4 the indexes that only leaves have,
/// each with its columns joined by U+001F. The server parses its own printed times, so they are exact.
///
/// The query is written for 5,000 leaves: each part uses an index on the oids of all children at once.
const FACTS: &str = r"
    WITH root AS (
        SELECT * FROM pg_catalog.pg_class
        WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND relname = $2 AND relkind = 'p'
    ), parent AS MATERIALIZED (
        SELECT * FROM root
      UNION ALL
        SELECT sub.* FROM root JOIN pg_catalog.pg_inherits ON inhparent = root.oid
        JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid WHERE NOT $3 AND sub.relkind = 'p'
    ), child AS MATERIALIZED (
        SELECT inhrelid AS oid, inhparent AS parent, inhdetachpending AS pending
        FROM pg_catalog.pg_inherits WHERE inhparent = ANY (ARRAY(SELECT oid FROM parent))
    ), wanted AS MATERIALIZED (
        SELECT indrelid AS parent, count(*) AS indexes, array_agg(indexrelid) AS oids
        FROM pg_catalog.pg_index WHERE indrelid = ANY (ARRAY(SELECT oid FROM parent)) GROUP BY 1
    ), attached AS MATERIALIZED (
        SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = ANY (ARRAY(SELECT unnest(oids) FROM wanted))
    ), index AS MATERIALIZED (
        SELECT indrelid AS oid, count(*) FILTER (WHERE indexrelid IN (SELECT inhrelid FROM attached)) AS inherited,
               count(*) FILTER (WHERE NOT indisvalid) AS invalid,
               CASE WHEN $4 <> '{}' THEN array_agg(indkey::text) FILTER (WHERE indisvalid AND indpred IS NULL AND indexprs IS NULL) END
                   AS keys
        FROM pg_catalog.pg_index WHERE indrelid = ANY (ARRAY(SELECT oid FROM child)) GROUP BY 1
    ), own AS MATERIALIZED (
        SELECT parent.oid AS parent, array_agg((
                   SELECT string_agg(attnum::text, ' ' ORDER BY place)
                   FROM unnest(string_to_array(columns, chr(31))) WITH ORDINALITY AS of_index (name, place)
                   JOIN pg_catalog.pg_attribute ON attrelid = parent.oid AND attname = of_index.name)) AS keys
        FROM parent, unnest($4) AS columns GROUP BY 1
    ), layout AS MATERIALIZED (
        SELECT attrelid AS oid,
               bit_xor(hashint8(hashname(attname)::int8 << 24 | attnum << 16 | attstorage::int4 << 8 | attcompression::int4)) AS hash
        FROM pg_catalog.pg_attribute
        WHERE attrelid = ANY (ARRAY(SELECT oid FROM child UNION SELECT oid FROM parent)) AND attnum > 0 GROUP BY 1
    ), trigger AS MATERIALIZED (
        SELECT tgrelid AS oid, string_agg(tgname::text, ', ' ORDER BY tgname) AS triggers FROM pg_catalog.pg_trigger
        WHERE NOT tgisinternal AND tgparentid = 0 AND NOT starts_with(tgname::text, 'dalp_seal') GROUP BY 1
    ), foreign_key AS MATERIALIZED (
        SELECT oid, count(*) AS keys
        FROM (SELECT conrelid AS oid FROM pg_catalog.pg_constraint WHERE contype = 'f'
              UNION ALL SELECT confrelid FROM pg_catalog.pg_constraint WHERE contype = 'f') AS key GROUP BY 1
    )
    SELECT p.relname::text, c.relname::text, c.relkind::text, printed,
           CASE WHEN whole AND NOT first THEN split_part(printed, '''', 2)::timestamptz END,
           CASE WHEN whole THEN NULLIF(split_part(printed, '''', CASE WHEN first THEN 2 ELSE 4 END), '')::timestamptz END,
           pending, c.relpersistence = 'u', c.relowner <> p.relowner, c.relacl::text, c.reltablespace <> p.reltablespace,
           c.reloptions::text, c.relreplident <> p.relreplident,
           c.relrowsecurity <> p.relrowsecurity OR c.relforcerowsecurity <> p.relforcerowsecurity,
           layout.hash IS DISTINCT FROM of_parent.hash, c.oid,
           COALESCE(wanted.indexes, 0) - COALESCE(index.inherited, 0), COALESCE(index.invalid, 0),
           CASE WHEN own.keys IS NULL OR c.relkind = 'p' THEN 0
                ELSE (SELECT count(*) FROM unnest(own.keys) AS key WHERE key <> ALL (COALESCE(index.keys, '{}'))) END,
           triggers, COALESCE(foreign_key.keys, 0),
           CASE WHEN c.relrowsecurity AND c.relkind <> 'p' THEN row_security_active(c.oid) ELSE false END,
           format('%s.%I', p.relnamespace::regnamespace, p.relname), format('%s.%I', c.relnamespace::regnamespace, c.relname)
    FROM child JOIN pg_catalog.pg_class AS c ON c.oid = child.oid JOIN parent AS p ON p.oid = child.parent
    LEFT JOIN layout ON layout.oid = child.oid LEFT JOIN layout AS of_parent ON of_parent.oid = child.parent
    LEFT JOIN index ON index.oid = child.oid LEFT JOIN wanted ON wanted.parent = child.parent
    LEFT JOIN own ON own.parent = child.parent
    LEFT JOIN trigger ON trigger.oid = child.oid LEFT JOIN foreign_key ON foreign_key.oid = child.oid,
         LATERAL pg_get_expr(c.relpartbound, 0) AS printed,
         LATERAL (SELECT starts_with(printed, 'FOR VALUES FROM'), starts_with(printed, 'FOR VALUES FROM (MINVALUE'))
             AS form (whole, first)
    ORDER BY 1, 6 NULLS LAST";

/// For partitions whose columns differ from their parent's: the columns with another storage. Used only if there are such
/// partitions.
const COLUMNS: &str = "
    SELECT c.oid, array_agg(own.attname::text ORDER BY own.attnum)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_inherits ON inhrelid = c.oid
    JOIN pg_catalog.pg_attribute AS own ON own.attrelid = c.oid AND own.attnum > 0 AND NOT own.attisdropped
    JOIN pg_catalog.pg_attribute AS of_parent ON of_parent.attrelid = inhparent AND of_parent.attname = own.attname
    WHERE c.oid = ANY ($1) AND (own.attstorage, own.attcompression) <> (of_parent.attstorage, of_parent.attcompression)
    GROUP BY 1";

/// Former leaves, from the registry.
const DETACHED: &str = "
    SELECT key, leaf, from_time, NULLIF(to_time, 'infinity') FROM registry.leaf
    WHERE table_schema = $1 AND table_name = $2 AND state = 'DETACHED'
      AND EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = relid AND NOT relispartition)";

/// Leaves that another user detached from the table, by key. They need no repair.
const TAKEN: &str = "
    SELECT key, count(*), min(format('%s.%s', leaf_schema, leaf)) FROM registry.leaf
    WHERE table_schema = $1 AND table_name = $2 AND state = 'TAKEN' AND EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = relid)
    GROUP BY key ORDER BY key";

/// Whether a readable registry exists, and the server's clock.
const REGISTRY: &str = "SELECT COALESCE(has_table_privilege(to_regclass($1), 'SELECT'), false), clock_timestamp()";

/// Checks all partitions of a table, of all its keys. Changes nothing, and locks only the catalog. An index that only leaves have
/// is recognised by its columns, with any access method.
///
/// # Errors
/// If the server refuses. A table that does not exist, or is not partitioned, has no findings.
pub async fn audit(client: &mut Client, table: &Table) -> Result<Vec<Finding>, Error> {
    let doing = || Error::doing("audit the partitions", table);
    let settings = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL jit = off; \
                    SET LOCAL statement_timeout = '60s'";
    let transaction = session::begin(client, Kind::Read, settings).await.map_err(doing())?;
    must_fit(&transaction, table).await?;
    let facts = facts(&transaction, table).await.map_err(doing())?;
    let (detached, now) = detached(&transaction, table).await.map_err(doing())?;
    let taken = taken(&transaction, table).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    Ok([judge(&facts, &detached, now), taken].concat())
}

async fn taken(transaction: &Transaction<'_>, table: &Table) -> Result<Vec<Finding>, tokio_postgres::Error> {
    if !registry(transaction, table).await?.0 {
        return Ok(Vec::new());
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let rows = transaction.query_typed(&table.registered(TAKEN), &parameters).await?;
    let finding = |row: &Row| Finding {
        severity: Severity::Info,
        object: row.get(2),
        what: format!(
            "another user detached it from the table, or then moved or renamed it ({} leaves of key {}): it is left \
             alone, and no policy applies to it",
            row.get::<_, i64>(1),
            row.get::<_, i64>(0)
        ),
        next: format!(
            "nothing, if this is intended; otherwise {} attaches it again",
            Advice::Undo(Some(&row.get::<_, String>(2)))
        ),
    };
    Ok(rows.iter().map(finding).collect())
}

/// Whether a readable registry exists, and the server's clock.
async fn registry(
    transaction: &Transaction<'_>,
    table: &Table,
) -> Result<(bool, DateTime<Utc>), tokio_postgres::Error> {
    let registry = format!("{}.leaf", quoted(&table.registry.schema));
    let row = transaction.query_typed_one(REGISTRY, &[(&registry, Type::TEXT)]).await?;
    Ok((row.get(0), row.get(1)))
}

async fn facts(transaction: &Transaction<'_>, table: &Table) -> Result<Vec<Facts>, tokio_postgres::Error> {
    let columns = |index: &Index| index.columns().join("\u{1f}");
    let own: Vec<String> = table.leaf_indexes.iter().map(columns).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&table.flat, Type::BOOL), (&own, Type::TEXT_ARRAY)];
    let rows = transaction.query_typed(FACTS, &parameters).await?;
    let mut facts: Vec<Facts> = rows.iter().map(fact).collect();
    let oids: Vec<u32> = rows.iter().map(|row| row.get(15)).collect();
    let drifted = oids.iter().zip(&facts).filter(|(_, fact)| fact.other_layout);
    let drifted: Vec<u32> = drifted.map(|(oid, _)| *oid).collect();
    if !drifted.is_empty() {
        for row in transaction.query_typed(COLUMNS, &[(&drifted, Type::OID_ARRAY)]).await? {
            let oid: u32 = row.get(0);
            if let Some(place) = oids.iter().position(|other| *other == oid) {
                facts[place].other_columns = row.get(1);
            }
        }
    }
    Ok(facts)
}

fn fact(row: &Row) -> Facts {
    let printed: String = row.get(3);
    let bounds = bounds(row, 4, 5);
    Facts {
        parent: row.get(0),
        object: row.get(1),
        kind: row.get(2),
        bounds: bounds.filter(|_| printed.starts_with("FOR VALUES FROM")),
        printed,
        pending: row.get(6),
        unlogged: row.get(7),
        other_owner: row.get(8),
        granted: row.get(9),
        other_tablespace: row.get(10),
        options: row.get(11),
        other_identity: row.get(12),
        other_security: row.get(13),
        other_layout: row.get(14),
        other_columns: Vec::new(),
        missing_indexes: row.get(16),
        invalid_indexes: row.get(17),
        lacking_indexes: row.get(18),
        triggers: row.get(19),
        foreign_keys: row.get(20),
        filtered: row.get(21),
        parent_sql: row.get(22),
        object_sql: row.get(23),
    }
}

/// The detached leaves, and the server's clock.
async fn detached(
    transaction: &Transaction<'_>,
    table: &Table,
) -> Result<(Vec<Detached>, DateTime<Utc>), tokio_postgres::Error> {
    let (is_there, now) = registry(transaction, table).await?;
    if !is_there {
        return Ok((Vec::new(), now));
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let rows = transaction.query_typed(&table.registered(DETACHED), &parameters).await?;
    let detached = rows.iter().filter_map(|row| {
        let bounds = bounds(row, 2, 3)?;
        Some(Detached { key: row.get(0), leaf: row.get(1), bounds })
    });
    Ok((detached.collect(), now))
}

/// The findings in the facts, which are ordered by parent and time.
fn judge(facts: &[Facts], detached: &[Detached], now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, fact) in facts.iter().enumerate() {
        placed(fact, &mut findings);
        broken(fact, &mut findings);
        indexed(fact, &mut findings);
        drifted(fact, &mut findings);
        let before = at.checked_sub(1).map(|at| &facts[at]).filter(|before| before.parent == fact.parent);
        let (Some(before), Some(bounds)) = (before.and_then(|before| before.bounds), fact.bounds) else { continue };
        match bounds.from() {
            Some(from) if bounds.lower() > before.upper() => findings.push(gap(fact, before, from, now)),
            _ if bounds.lower() == before.upper() => {}
            // PostgreSQL does not allow overlaps of attached leaves.
            _ => findings.push(Finding {
                severity: Severity::Error,
                object: fact.object.clone(),
                what: "its times overlap the times of the previous leaf".to_owned(),
                next: "the catalog is damaged: restore the database from a backup".to_owned(),
            }),
        }
    }
    findings.extend(detached.iter().filter_map(|detached| replaced(detached, facts)));
    findings
}

/// Gaps are normal where no row ever was; around now, the next row may need the missing leaf.
fn gap(fact: &Facts, before: Bounds, from: DateTime<Utc>, now: DateTime<Utc>) -> Finding {
    let width = before.from().map_or(TimeDelta::zero(), |start| before.to() - start);
    let since = now.checked_sub_signed(width).unwrap_or(now);
    // The default range ahead: the leaf of the head and three more.
    let until = width.checked_mul(4).and_then(|ahead| now.checked_add_signed(ahead)).unwrap_or(now);
    let is_near = width > TimeDelta::zero() && from > since && from <= until;
    let (severity, next) = if is_near {
        (Severity::Warning, format!("{} makes the missing leaves ahead of the head", Advice::Apply))
    } else {
        (Severity::Info, "nothing, if no row belongs there: the leaf is made when a row needs it".to_owned())
    };
    let what = format!("no leaf from {} to {from}", before.to());
    Finding { severity, object: fact.parent.clone(), what, next }
}

/// A detached leaf whose times now belong to another leaf.
fn replaced(detached: &Detached, facts: &[Facts]) -> Option<Finding> {
    let of_key = |fact: &&Facts| fact.kind == "p" && value(&fact.printed) == Some(detached.key);
    let parent = facts.iter().find(of_key).map(|fact| &fact.object);
    // Without a list level, all leaves have one parent.
    let is_flat = !facts.iter().any(|fact| value(&fact.printed).is_some());
    let is_sibling = |fact: &&Facts| parent.map_or(is_flat, |parent| fact.parent == *parent);
    let overlaps = |fact: &&Facts| fact.bounds.is_some_and(|bounds| bounds.overlaps(&detached.bounds));
    let over = facts.iter().filter(is_sibling).find(overlaps)?;
    Some(Finding {
        severity: Severity::Warning,
        object: detached.leaf.clone(),
        what: format!("it is detached, and \"{}\" has some of its times: it cannot be attached again", over.object),
        next: "move its rows into the table, or check that they are archived; then drop it".to_owned(),
    })
}

/// The number in `FOR VALUES IN ('7')`.
fn value(printed: &str) -> Option<i64> {
    printed.strip_prefix("FOR VALUES IN (")?.strip_suffix(')')?.trim_matches('\'').parse().ok()
}

/// Whether the bounds are the bounds of some interval.
fn is_aligned(bounds: &Bounds) -> bool {
    let Some(from) = bounds.from() else { return true };
    let is = |interval: &Interval| interval.start_of(from) == Some(from) && interval.after(from) == Some(bounds.to());
    Interval::ALL.iter().any(is)
}

/// Adds findings about one object.
fn finder<'f>(fact: &'f Facts, findings: &'f mut Vec<Finding>) -> impl FnMut(Severity, String, String) + 'f {
    |severity, what, next| findings.push(Finding { severity, object: fact.object.clone(), what, next })
}

/// The text of the finding, and its object.
fn placed(fact: &Facts, findings: &mut Vec<Finding>) {
    use Severity::{Error, Info};
    let (parent, name) = (&fact.parent_sql, &fact.object_sql);
    let mut found = finder(fact, findings);
    let is_sub_parent = fact.kind == "p" && value(&fact.printed).is_some();
    if fact.bounds.is_none() && !is_sub_parent {
        let next = "move its rows to other leaves, and detach it: every attach locks and scans it";
        found(Error, format!("it is {}, and such partitions are not managed", fact.printed), next.to_owned());
    } else if fact.kind == "f" {
        let next = "detach it: every query without pruning waits for the other server";
        found(Error, "it is a foreign table".to_owned(), next.to_owned());
    }
    if fact.pending {
        let next = format!("{} ends it, or run ALTER TABLE {parent} DETACH PARTITION {name} FINALIZE;", Advice::Apply);
        found(Error, "its detach began and did not end: it accepts no rows and blocks its times".to_owned(), next);
    }
    let beyond = |edge: Edge| matches!(edge, Edge::At(time) if time.finite().is_none_or(|near| time != near));
    if fact.bounds.is_some_and(|bounds| beyond(bounds.lower()) || beyond(bounds.upper())) {
        let next = "nothing, if this is intended: it is kept, retired and archived like the others".to_owned();
        found(Info, format!("its bounds ({}) are infinite, or their year is outside our calendar", fact.printed), next);
    } else if fact.bounds.is_some_and(|bounds| !is_aligned(&bounds)) {
        let next = "nothing: a neighbour leaf limited it when it was made".to_owned();
        found(Info, format!("its bounds ({}) are not a whole interval in UTC", fact.printed), next);
    }
    if fact.other_tablespace {
        found(Info, "its tablespace differs from its parent's".to_owned(), "nothing, if this is intended".to_owned());
    }
}

/// Findings that may lose rows or stop maintenance.
fn broken(fact: &Facts, findings: &mut Vec<Finding>) {
    use Severity::Error;
    let (parent, name) = (&fact.parent_sql, &fact.object_sql);
    let mut found = finder(fact, findings);
    if fact.unlogged {
        found(Error, "it is unlogged: a crash empties it".to_owned(), format!("ALTER TABLE {name} SET LOGGED;"));
    }
    if fact.other_owner {
        let next = format!("as a superuser: ALTER TABLE {name} OWNER TO the owner of {parent}");
        found(Error, "another role owns it: it cannot be maintained".to_owned(), next);
    }
    if fact.filtered {
        let what = "row security would hide rows of it from this role: it can be neither counted nor archived";
        found(
            Error,
            what.to_owned(),
            format!("queries of the table use the table's policies: ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY;"),
        );
    }
    if fact.foreign_keys > 0 {
        let next = "drop them: a detach or a drop would lock the other table".to_owned();
        found(Error, format!("{} foreign keys point from or to it", fact.foreign_keys), next);
    }
}

/// Its indexes, compared with the indexes that it should have.
fn indexed(fact: &Facts, findings: &mut Vec<Finding>) {
    use Severity::{Error, Info, Warning};
    let (name, is_parent) = (&fact.object_sql, fact.kind == "p");
    let mut found = finder(fact, findings);
    if fact.missing_indexes > 0 {
        let next = format!("make them on {name} CONCURRENTLY, then ALTER INDEX .. ATTACH PARTITION");
        found(Error, format!("{} of its parent's indexes are missing", fact.missing_indexes), next);
    }
    if fact.invalid_indexes > 0 && is_parent {
        let next = "find the leaves without the index, and make it there".to_owned();
        found(Warning, format!("{} of its indexes are not valid: some leaves lack them", fact.invalid_indexes), next);
    } else if fact.invalid_indexes > 0 {
        let next = "drop them CONCURRENTLY: the next maintenance makes them again".to_owned();
        found(
            Warning,
            format!("{} of its indexes are invalid, and every write still maintains them", fact.invalid_indexes),
            next,
        );
    }
    if fact.bounds.is_none() {
        return;
    }
    if fact.lacking_indexes > 0 && fact.other_layout {
        let next = "read them with \\d: with columns in another order, the audit cannot compare them".to_owned();
        found(Info, "it may lack indexes that only leaves have".to_owned(), next);
    } else if fact.lacking_indexes > 0 {
        let next = format!("nothing while it is loaded: {}", Advice::AwaitIndexes);
        let what = format!("{} of the indexes that only leaves have are missing", fact.lacking_indexes);
        found(Warning, what, next);
    }
}

/// Other differences from its parent table.
fn drifted(fact: &Facts, findings: &mut Vec<Finding>) {
    use Severity::{Info, Warning};
    let (parent, name) = (&fact.parent_sql, &fact.object_sql);
    let mut found = finder(fact, findings);
    if let Some(granted) = &fact.granted {
        let next = format!("REVOKE the rights on {name}: rights on the table are enough");
        found(Warning, format!("rights are granted on it directly: {granted}"), next);
    }
    if let Some(triggers) = &fact.triggers {
        let next = "drop them, or make them on the table".to_owned();
        found(Warning, format!("it has triggers that its parent lacks: {triggers}"), next);
    }
    if fact.other_security && !fact.filtered {
        let next =
            "nothing for queries of the table, which use the table's policies; check the rights on the leaf itself";
        found(Warning, "its row security differs from its parent's".to_owned(), next.to_owned());
    }
    if fact.other_identity {
        let next = format!("ALTER TABLE {name} REPLICA IDENTITY as on {parent}, or subscribers miss its changes");
        found(Warning, "its replica identity differs from its parent's".to_owned(), next);
    }
    if !fact.other_columns.is_empty() {
        let columns = fact.other_columns.join(", ");
        let next = format!(
            "ALTER TABLE {name} ALTER COLUMN .. SET STORAGE or SET COMPRESSION as on {parent}; new rows follow"
        );
        found(Info, format!("storage or compression differ from its parent's: {columns}"), next);
    }
    if let Some(options) = &fact.options {
        let severity = if options.contains("autovacuum_enabled=false") { Warning } else { Info };
        let next = format!("nothing, if this is intended; otherwise ALTER TABLE {name} RESET (..)");
        found(severity, format!("it has storage options of its own: {options}"), next);
    }
}

#[cfg(test)]
mod tests;
