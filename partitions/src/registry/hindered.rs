//! Reads the obstacles for which the server would refuse a move of a leaf.

use tokio_postgres::Row;

use crate::Hindrance;

/// For a parent: its name, its DEFAULT partition, a foreign key that points to it, and the table of the key.
pub(crate) fn of_parent(row: &Row) -> Option<Hindrance> {
    let default: Option<String> = row.get(2);
    match (default, row.get(3), row.get(4)) {
        (Some(partition), ..) => Some(Hindrance::Default { parent: row.get(1), partition }),
        (None, Some(by), Some(of)) => Some(Hindrance::Referenced { by, of }),
        _ => None,
    }
}

/// For a leaf of this parent, both as SQL: its kind, its owner if it is another role, its dependent objects, the statements that
/// remove them, and the manager's role.
pub(crate) fn of_leaf(row: &Row, at: usize, leaf: &str, parent: Option<&str>) -> Option<Hindrance> {
    let (kind, owner): (Option<String>, Option<String>) = (row.get(at), row.get(at + 1));
    let of_kind = |kind| {
        let freed_by = format!("ALTER TABLE {} DETACH PARTITION {leaf}", parent.unwrap_or("…"));
        Some(Hindrance::Kind { kind, freed_by })
    };
    match (kind.as_deref(), owner, row.get(at + 2), row.get(at + 3)) {
        (Some("f"), ..) => of_kind("a foreign table"),
        (Some("p"), ..) => of_kind("partitioned again"),
        (_, Some(owner), ..) => {
            let manager: &str = row.get(at + 4);
            Some(Hindrance::Owner { owner, freed_by: format!("ALTER TABLE {leaf} OWNER TO {manager}") })
        }
        (_, _, Some(by), Some(freed_by)) => Some(Hindrance::Needed { by, freed_by }),
        _ => None,
    }
}

/// The dependent objects of each leaf of `standing` and `known`: the next part of a WITH RECURSIVE. As in a drop by the server,
/// the query collects all objects that go with the leaf; each other object that depends on one of them blocks the drop. A foreign
/// key that points to the parent has a copy per leaf, which ends with the leaf's detach.
pub(crate) const NEEDED: &str = "
    , gone AS (
        SELECT oid AS leaf, 'pg_catalog.pg_class'::regclass::oid AS classid, oid AS objid
        FROM (SELECT oid FROM standing UNION SELECT found FROM known WHERE found IS NOT NULL) AS of_leaf
      UNION
        SELECT gone.leaf, d.classid, d.objid FROM gone
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = gone.classid AND d.refobjid = gone.objid
        WHERE d.deptype IN ('a', 'i', 'P', 'S')
    ), dependent AS MATERIALIZED (
        SELECT DISTINCT gone.leaf,
               CASE WHEN rule.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::regclass END AS classid,
               COALESCE(rule.ev_class, d.objid) AS objid, d.objsubid
        FROM gone JOIN pg_catalog.pg_depend AS d ON d.refclassid = gone.classid AND d.refobjid = gone.objid AND d.deptype = 'n'
        LEFT JOIN pg_catalog.pg_rewrite AS rule
               ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND rule.oid = d.objid AND rule.rulename = '_RETURN'
        WHERE NOT EXISTS (SELECT FROM gone AS own WHERE (own.leaf, own.classid, own.objid) = (gone.leaf, d.classid, d.objid))
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS copy
                          WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND copy.oid = d.objid AND copy.conparentid <> 0)
    ), needed AS MATERIALIZED (
        SELECT leaf, string_agg(concat_ws(' ', of.type, of.identity), ', ' ORDER BY of.identity) AS by,
               string_agg(CASE of.type
                   WHEN 'table constraint' THEN format('ALTER TABLE %I.%I DROP CONSTRAINT %I', names[1], names[2], names[3])
                   WHEN 'default value' THEN format('ALTER TABLE %I.%I ALTER %I DROP DEFAULT', names[1], names[2], names[3])
                   WHEN 'table column' THEN format('ALTER TABLE %I.%I DROP COLUMN %I', names[1], names[2], names[3])
                   ELSE format('DROP %s %s', upper(of.type), of.identity) END, '; ' ORDER BY of.identity) AS freed_by
        FROM dependent, LATERAL pg_identify_object(classid, objid, objsubid) AS of,
             LATERAL pg_identify_object_as_address(classid, objid, objsubid) AS address (of_type, names, arguments)
        GROUP BY leaf
    )";
