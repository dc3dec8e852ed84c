//! The intended and the present state of each leaf: rows of `registry.leaf` beside the facts of the catalog.

use tokio_postgres::{
    Client, Row, Transaction,
    types::{ToSql, Type},
};

use super::hindered::{NEEDED, of_leaf, of_parent};
use super::holds::standing;
use crate::leaves::shape::must_fit;
use crate::pg::session::{self, Kind};
use crate::pure::names::qualified;
use crate::{Bounds, Edge, Entry, Error, Inventory, Presence, Table, Time};

/// The leaves of a table in the catalog, and their registry rows, each with its present oid (`found`): for a WITH. $1 schema, $2
/// table, $3 whether it is flat, $4 the registry's ids of the relevant leaves, null for all.
///
/// A row of another catalog means the table of its name, if that table has its bounds and key, or has no parent. A leaf that we
/// detached is sealed: a table of that name without the seal belongs to another user.
const KNOWN: &str = r"
    parent AS (
        SELECT root.oid, root.relname, root.relnamespace, 0::int8 AS key, NULL::text AS bounds
        FROM pg_catalog.pg_class AS root
        WHERE root.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND root.relname = $2 AND $3
      UNION ALL
        SELECT sub.oid, sub.relname, sub.relnamespace,
               (regexp_match(pg_get_expr(sub.relpartbound, 0), '^FOR VALUES IN \(''?(-?[0-9]+)''?\)$'))[1]::int8,
               pg_get_expr(sub.relpartbound, 0)
        FROM pg_catalog.pg_class AS root
        JOIN pg_catalog.pg_inherits ON inhparent = root.oid JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid
        WHERE root.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND root.relname = $2 AND NOT $3
          AND NOT inhdetachpending
    ), standing AS (
        SELECT leaf.oid, space.nspname::text AS leaf_schema, leaf.relname::text AS leaf, parent.key, parent.oid AS parent,
               inhdetachpending AS pending,
               CASE WHEN part[1] <> 'MINVALUE' THEN trim('''' FROM part[1])::timestamptz END AS from_time,
               CASE WHEN part[2] IN ('MAXVALUE', '''infinity''') THEN 'infinity' ELSE trim('''' FROM part[2])::timestamptz END AS to_time
        FROM parent
        JOIN pg_catalog.pg_inherits ON inhparent = parent.oid JOIN pg_catalog.pg_class AS leaf ON leaf.oid = inhrelid
        JOIN pg_catalog.pg_namespace AS space ON space.oid = leaf.relnamespace,
             LATERAL string_to_array(left(substr(pg_get_expr(leaf.relpartbound, 0), 18), -1), ') TO (') AS part
        WHERE part[2] IS NOT NULL AND parent.key IS NOT NULL
          AND ($4::int8[] IS NULL OR inhrelid = ANY (ARRAY(SELECT relid FROM registry.leaf WHERE leaf_id = ANY ($4))))
    ), here AS MATERIALIZED (
        SELECT registry.catalog_identity() AS catalog
    ), known AS MATERIALIZED (
        SELECT e.*, COALESCE(e.leaf_schema, e.table_schema) AS of_schema,
               CASE WHEN e.catalog = here.catalog THEN e.relid ELSE alike.oid END AS found
        FROM registry.leaf AS e CROSS JOIN here LEFT JOIN LATERAL (
            SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            LEFT JOIN standing AS s ON s.oid = c.oid
            WHERE e.catalog <> here.catalog AND n.nspname = COALESCE(e.leaf_schema, e.table_schema) AND c.relname = e.leaf
              AND c.relkind IN ('r', 'f')
              AND CASE WHEN s.oid IS NOT NULL
                       THEN s.key = e.key AND s.from_time IS NOT DISTINCT FROM e.from_time AND s.to_time = e.to_time
                       ELSE e.state NOT IN ('PLANNED', 'DETACHING', 'DETACHED')
                            OR EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND tgname = 'dalp_seal_rows') END
        ) AS alike ON true
        WHERE e.table_schema = $1 AND e.table_name = $2 AND e.state <> 'DROPPED' AND ($4::int8[] IS NULL OR e.leaf_id = ANY ($4))
    )";

/// The registry's leaves with their state in the catalog, and the leaves that only the catalog has (with id 0).
///
/// The sizes of analyzed leaves are summed from the catalog. A size query per leaf would make the session load and keep its
/// knowledge of every leaf and index (2.4 s instead of 0.2 s for 5,000 leaves). It would also wait for a session that holds, or
/// is about to take, a leaf exclusively: the size of such a leaf is left out.
const ENTRIES: &str = r"
    , closed AS MATERIALIZED (
        SELECT COALESCE(indrelid, relation) AS oid FROM pg_catalog.pg_locks LEFT JOIN pg_catalog.pg_index ON indexrelid = relation
        WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid()
          AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    ), analyzed AS MATERIALIZED (
        SELECT class.oid, class.reltoastrelid AS toast, class.relpages FROM pg_catalog.pg_class AS class
        WHERE $4 IS NULL AND class.reltuples > 0
          AND class.oid = ANY (ARRAY(SELECT oid FROM standing UNION SELECT found FROM known WHERE found IS NOT NULL))
    ), pages AS MATERIALIZED (
        SELECT oid, sum(relpages) AS pages
        FROM (SELECT oid, relpages FROM analyzed
              UNION ALL SELECT analyzed.oid, toast.relpages
              FROM analyzed JOIN pg_catalog.pg_class AS toast ON toast.oid = analyzed.toast
              UNION ALL SELECT analyzed.oid, of_index.relpages
              FROM analyzed JOIN pg_catalog.pg_index ON indrelid = analyzed.oid OR indrelid = analyzed.toast
              JOIN pg_catalog.pg_class AS of_index ON of_index.oid = indexrelid) AS part
        GROUP BY oid
    )
    SELECT COALESCE(known.leaf_id, 0), COALESCE(standing.key, known.key), COALESCE(space.nspname::text, known.of_schema),
           COALESCE(class.relname::text, known.leaf),
           CASE WHEN standing.oid IS NOT NULL THEN standing.from_time ELSE known.from_time END,
           COALESCE(standing.to_time, known.to_time),
           COALESCE(known.state, 'ATTACHED'),
           CASE WHEN standing.pending THEN 'pending' WHEN standing.oid IS NOT NULL THEN 'attached' WHEN class.oid IS NULL THEN 'absent'
                WHEN class.relispartition OR (space.nspname, class.relname) <> (known.of_schema, known.leaf) THEN 'elsewhere'
                ELSE 'standalone' END,
           parent.relname::text, parent_space.nspname::text,
           COALESCE(known.version, 0),
           COALESCE(pages.pages * current_setting('block_size')::int8,
                    CASE WHEN class.oid NOT IN (SELECT oid FROM closed) THEN pg_total_relation_size(class.oid) END, known.bytes, 0)::int8,
           COALESCE(known.rows, NULLIF(class.reltuples, -1)::int8), known.manifest, known.seal, seal.mark, known.detached_at,
           CASE WHEN class.relrowsecurity THEN row_security_active(class.oid) ELSE false END,
           COALESCE(known.incarnation::text, ''), known.place, class.relkind::text,
           CASE WHEN NOT pg_has_role(class.relowner, 'USAGE') THEN pg_get_userbyid(class.relowner)::text END,
           needed.by, needed.freed_by, quote_ident(current_user)
    FROM known
    FULL JOIN standing ON standing.oid = known.found
    LEFT JOIN pg_catalog.pg_class AS class ON class.oid = COALESCE(standing.oid, known.found)
    LEFT JOIN pg_catalog.pg_namespace AS space ON space.oid = class.relnamespace
    LEFT JOIN parent AS of_key ON of_key.key = known.key
    LEFT JOIN parent ON parent.oid = COALESCE(standing.parent, of_key.oid)
    LEFT JOIN pg_catalog.pg_namespace AS parent_space ON parent_space.oid = parent.relnamespace
    LEFT JOIN pages ON pages.oid = class.oid
    LEFT JOIN needed ON needed.leaf = class.oid
    LEFT JOIN LATERAL (
        SELECT md5(string_agg(t.oid::text || ':' || t.xmin::text || ':' || t.tgenabled::text, ',' ORDER BY t.oid)
                   || ':' || class.relfilenode::text) AS mark
        FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = class.oid AND starts_with(t.tgname::text, 'dalp_seal')) AS seal ON true
    ORDER BY 2, 6 NULLS LAST";

/// The keys, and the obstacles for every detach of their leaves: a DEFAULT partition, and a foreign key that points here. The
/// key is null for a partition that does not have exactly one key.
const KEYS: &str = r"
    SELECT key, oid::regclass::text,
           (SELECT partdefid::regclass::text FROM pg_catalog.pg_partitioned_table WHERE partrelid = parent.oid AND partdefid <> 0),
           conname, conrelid::regclass::text, bounds
    FROM parent LEFT JOIN LATERAL (
        WITH RECURSIVE declared AS (
            SELECT * FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = parent.oid
          UNION ALL
            SELECT above.* FROM declared JOIN pg_catalog.pg_constraint AS above ON above.oid = declared.conparentid
        )
        SELECT quote_ident(conname) AS conname, conrelid FROM declared WHERE conparentid = 0 ORDER BY conname LIMIT 1
    ) AS key ON true";

const FLOORS: &str = "SELECT key, NULLIF(floor, '-infinity'), clock_timestamp() FROM registry.retention_floor \
                      WHERE table_schema = $1 AND table_name = $2";

/// Reads all facts that decide about the leaves of a table, in one snapshot. Changes nothing.
pub async fn read_inventory(client: &mut Client, table: &Table) -> Result<Inventory, Error> {
    read_some(client, table, None).await
}

/// Reads some entries of an inventory again, by their ids, and everything except entries: reading the sizes of thousands of
/// leaves takes a second, and they have not changed.
pub(crate) async fn refresh(
    client: &mut Client,
    table: &Table,
    inventory: &mut Inventory,
    ids: &[i64],
) -> Result<(), Error> {
    let renewed = read_some(client, table, Some(ids)).await?;
    let mut entries = std::mem::take(&mut inventory.entries);
    entries.retain(|entry| !ids.contains(&entry.id));
    entries.extend(renewed.entries.iter().cloned());
    entries.sort_by_key(|entry| (entry.key, entry.bounds.upper()));
    *inventory = Inventory { entries, ..renewed };
    Ok(())
}

async fn read_some(client: &mut Client, table: &Table, ids: Option<&[i64]>) -> Result<Inventory, Error> {
    let doing = || Error::doing("read the registry of leaves", table);
    let settings =
        "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL jit = off; SET LOCAL lock_timeout = '2s'";
    let transaction = session::begin(client, Kind::Snapshot, settings).await.map_err(doing())?;
    must_fit(&transaction, table).await?;
    let inventory = inventory_in(&transaction, table, ids).await?;
    transaction.commit().await.map_err(doing())?;
    Ok(inventory)
}

async fn inventory_in(transaction: &Transaction<'_>, table: &Table, ids: Option<&[i64]>) -> Result<Inventory, Error> {
    let doing = || Error::doing("read the registry of leaves", table);
    let rows = transaction
        .query_typed(&table.registered(&format!("WITH RECURSIVE {KNOWN} {NEEDED} {ENTRIES}")), &entries_of(table, &ids))
        .await
        .map_err(doing())?;
    let entries = rows.iter().filter_map(entry).collect();
    let rows = transaction
        .query_typed(&table.registered(&format!("WITH {KNOWN} {KEYS}")), &entries_of(table, &ids))
        .await
        .map_err(doing())?;
    let (known, strange): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.get::<_, Option<i64>>(0).is_some());
    let strangers = strange.iter().map(|row| (row.get(1), row.get(5))).collect();
    let keys = known.iter().map(|row| row.get(0)).collect();
    let hindrances = known.iter().filter_map(|row| Some((row.get(0), of_parent(row)?))).collect();
    let holds = standing(transaction, table).await?;
    let names = [(&table.schema as &(dyn ToSql + Sync), Type::TEXT), (&table.name, Type::TEXT)];
    let rows = transaction.query_typed(&table.registered(FLOORS), &names).await.map_err(doing())?;
    let floors = rows.iter().filter_map(|row| Some((row.get(0), row.get::<_, Option<Time>>(1)?))).collect();
    let now = transaction.query_typed_one("SELECT clock_timestamp()", &[]).await.map_err(doing())?.get(0);
    Ok(Inventory { entries, keys, hindrances, strangers, holds, floors, now })
}

fn entries_of<'e>(table: &'e Table, ids: &'e Option<&'e [i64]>) -> [(&'e (dyn ToSql + Sync), Type); 4] {
    [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&table.flat, Type::BOOL), (ids, Type::INT8_ARRAY)]
}

/// `None` for a state of a newer binary, which is left alone.
fn entry(row: &Row) -> Option<Entry> {
    let lower = row.get::<_, Option<Time>>(4).map_or(Edge::MinValue, Edge::At);
    // Infinity also means MAXVALUE, which includes infinity.
    let upper = row.get::<_, Option<Time>>(5).filter(|time| *time < Time::INFINITY).map_or(Edge::MaxValue, Edge::At);
    let parent: (Option<&str>, Option<&str>) = (row.get(9), row.get(8));
    let parent = parent.0.zip(parent.1).map(|(schema, name)| qualified(schema, name));
    Some(Entry {
        id: row.get(0),
        key: row.get(1),
        schema: row.get(2),
        leaf: row.get(3),
        bounds: Bounds::between(lower, upper)?,
        state: row.get::<_, String>(6).parse().ok()?,
        presence: match row.get::<_, String>(7).as_str() {
            "attached" => Presence::Attached,
            "pending" => Presence::Pending,
            "standalone" => Presence::Standalone,
            "elsewhere" => Presence::Elsewhere,
            _ => Presence::Absent,
        },
        hindrance: of_leaf(row, 20, &qualified(row.get(2), row.get(3)), parent.as_deref()),
        parent,
        version: row.get(10),
        bytes: row.get(11),
        rows: row.get(12),
        manifest: row.get(13),
        seal: row.get(14),
        seal_now: row.get(15),
        detached_at: row.get(16),
        filtered: row.get(17),
        incarnation: row.get(18),
        place: row.get(19),
    })
}

const BEGUN: &str = "
    SELECT EXISTS (SELECT FROM standing WHERE pending)
        OR EXISTS (SELECT FROM registry.leaf WHERE table_schema = $1 AND table_name = $2 AND state IN ('PLANNED', 'DETACHING'))";

/// Whether a detach or a restore has begun that must be finished or reverted, under any policy.
pub async fn is_begun(client: &Client, table: &Table) -> Result<bool, Error> {
    let sql = table.registered(&format!("WITH {KNOWN} {BEGUN}"));
    let row = client.query_typed_one(&sql, &entries_of(table, &None)).await;
    Ok(row.map_err(Error::doing("look up the moves under way", table))?.get(0))
}

/// Copies the catalog's facts about existing leaves into the registry, and the oids of a new catalog. A table without a parent
/// keeps its registered name: another name shows that a user renamed it.
const RECOGNISE: &str = "
    UPDATE registry.leaf AS e
    SET relid = k.found, catalog = here.catalog, key = COALESCE(s.key, e.key),
        leaf_schema = COALESCE(s.leaf_schema, k.of_schema), leaf = COALESCE(s.leaf, e.leaf),
        from_time = CASE WHEN s.oid IS NULL THEN e.from_time ELSE s.from_time END, to_time = COALESCE(s.to_time, e.to_time),
        updated_at = clock_timestamp()
    FROM here, known AS k LEFT JOIN standing AS s ON s.oid = k.found
    WHERE e.leaf_id = k.leaf_id
      AND (e.catalog <> here.catalog OR e.leaf_schema IS NULL
        OR s.oid IS NOT NULL
           AND (s.key, s.leaf_schema, s.leaf, s.to_time) IS DISTINCT FROM (e.key, e.leaf_schema, e.leaf, e.to_time)
        OR s.oid IS NOT NULL AND s.from_time IS DISTINCT FROM e.from_time)
    RETURNING e.leaf_id";

/// Registers each existing leaf without a row.
const REGISTER: &str = "
    INSERT INTO registry.leaf (table_schema, table_name, key, leaf_schema, leaf, relid, catalog, from_time, to_time)
    SELECT $1, $2, key, leaf_schema, leaf, oid, here.catalog, from_time, to_time FROM standing, here
    WHERE NOT EXISTS (SELECT FROM known WHERE known.found = standing.oid)
    ON CONFLICT DO NOTHING RETURNING leaf_id";

/// Recognises the existing leaves, and registers new ones. Code that uses the registry's oids calls this first.
pub(crate) async fn register(client: &Client, table: &Table) -> Result<(), Error> {
    for statement in [RECOGNISE, REGISTER] {
        let sql = table.registered(&format!("WITH {KNOWN} {statement}"));
        client.query_typed(&sql, &entries_of(table, &None)).await.map_err(Error::doing("register leaves", table))?;
    }
    Ok(())
}
