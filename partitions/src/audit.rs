//! Looks for what should not be: gaps, leaves that drifted from their parent, detachings that did not end.

use std::fmt;

use chrono::{DateTime, Utc};
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use crate::{Bounds, Error, Interval, Table};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; may be meant.
    Info,
    /// Should be looked at.
    Warning,
    /// Must be mended: rows will be refused, or maintenance stands still.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The leaf or parent, without schema.
    pub object: String,
    /// What is so.
    pub what: String,
    /// What to do.
    pub next: String,
}

/// A leaf as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    parent: String,
    leaf: String,
    printed: String,
    bounds: Option<Bounds>,
    pending: bool,
    unlogged: bool,
    other_owner: bool,
    granted: bool,
    other_tablespace: bool,
    other_options: bool,
    missing_indexes: i64,
    invalid_indexes: i64,
    triggers: i64,
    foreign_keys: i64,
}

/// All leaves of all keys, in one look. The server reads back what it printed, so that times are exact.
const FACTS: &str = r"
    WITH root AS (
        SELECT oid, relname, relowner, reltablespace FROM pg_catalog.pg_class
        WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND relname = $2 AND relkind = 'p'
    ), parent AS (
        SELECT * FROM root WHERE $3
      UNION ALL
        SELECT sub.oid, sub.relname, root.relowner, sub.reltablespace FROM root JOIN pg_catalog.pg_inherits ON inhparent = root.oid
        JOIN pg_catalog.pg_class AS sub ON sub.oid = inhrelid WHERE NOT $3
    ), leaf AS (
        SELECT parent.oid AS parent, parent.relname AS parent_name, class.oid, class.relname, class.relpersistence, relpartbound,
               inhdetachpending, class.relowner <> parent.relowner AS other_owner, relacl IS NOT NULL AS granted,
               class.reltablespace <> parent.reltablespace AS other_tablespace, reloptions IS NOT NULL AS other_options
        FROM parent JOIN pg_catalog.pg_inherits ON inhparent = parent.oid JOIN pg_catalog.pg_class AS class ON class.oid = inhrelid
    ), wanted AS (
        SELECT indrelid AS parent, count(*) AS indexes FROM pg_catalog.pg_index JOIN parent ON indrelid = parent.oid
        WHERE indisvalid GROUP BY 1
    ), had AS (
        SELECT indrelid AS leaf, count(inhparent) AS inherited, count(*) FILTER (WHERE NOT indisvalid) AS invalid
        FROM pg_catalog.pg_index JOIN leaf ON indrelid = leaf.oid LEFT JOIN pg_catalog.pg_inherits ON inhrelid = indexrelid GROUP BY 1
    ), trigger AS (
        SELECT tgrelid AS leaf, count(*) AS triggers FROM pg_catalog.pg_trigger JOIN leaf ON tgrelid = leaf.oid
        WHERE NOT tgisinternal AND tgparentid = 0 AND NOT starts_with(tgname::text, 'dalp_seal') GROUP BY 1
    ), foreign_key AS (
        SELECT leaf.oid AS leaf, count(*) AS keys FROM pg_catalog.pg_constraint
        JOIN leaf ON leaf.oid = conrelid OR leaf.oid = confrelid WHERE contype = 'f' GROUP BY 1
    )
    SELECT parent_name::text, relname::text, printed,
           CASE WHEN part[1] <> 'MINVALUE' THEN trim('''' FROM part[1])::timestamptz END,
           CASE WHEN part[2] NOT IN ('MAXVALUE', '''infinity''') THEN trim('''' FROM part[2])::timestamptz END,
           inhdetachpending, relpersistence = 'u', other_owner, granted, other_tablespace, other_options,
           COALESCE(wanted.indexes, 0) - COALESCE(had.inherited, 0), COALESCE(had.invalid, 0), COALESCE(triggers, 0), COALESCE(keys, 0)
    FROM leaf LEFT JOIN wanted USING (parent) LEFT JOIN had ON had.leaf = leaf.oid LEFT JOIN trigger ON trigger.leaf = leaf.oid
    LEFT JOIN foreign_key ON foreign_key.leaf = leaf.oid,
         LATERAL pg_get_expr(relpartbound, 0) AS printed,
         LATERAL string_to_array(left(substr(printed, 18), -1), ') TO (') AS part
    ORDER BY 1, 5 NULLS LAST";

/// Looks at all leaves of a table. Changes nothing, and takes no lock but on the catalog.
pub async fn audit(client: &mut Client, table: &Table) -> Result<Vec<Finding>, Error> {
    let doing = || Error::doing("audit the partitions", table);
    let transaction = client.build_transaction().read_only(true).start().await.map_err(doing())?;
    let utc = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL jit = off";
    transaction.batch_execute(utc).await.map_err(doing())?;
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&table.flat, Type::BOOL)];
    let rows = transaction.query_typed(FACTS, &parameters).await.map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
    let facts = rows.iter().map(|row| {
        let (part, to): (String, Option<DateTime<Utc>>) = (row.get(2), row.get(4));
        let bounds = Bounds::new(row.get(3), to.unwrap_or(DateTime::<Utc>::MAX_UTC));
        Facts {
            parent: row.get(0),
            leaf: row.get(1),
            bounds: bounds.filter(|_| part.starts_with("FOR VALUES FROM")),
            printed: part,
            pending: row.get(5),
            unlogged: row.get(6),
            other_owner: row.get(7),
            granted: row.get(8),
            other_tablespace: row.get(9),
            other_options: row.get(10),
            missing_indexes: row.get(11),
            invalid_indexes: row.get(12),
            triggers: row.get(13),
            foreign_keys: row.get(14),
        }
    });
    Ok(judge(&facts.collect::<Vec<_>>()))
}

/// What of the facts is worth telling, by parent and time.
pub(crate) fn judge(facts: &[Facts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, leaf) in facts.iter().enumerate() {
        drift(leaf, &mut findings);
        let before = at.checked_sub(1).map(|at| &facts[at]).filter(|before| before.parent == leaf.parent);
        let (Some(before), Some(bounds)) = (before.and_then(|before| before.bounds), leaf.bounds) else { continue };
        match bounds.from() {
            Some(from) if from > before.to() => findings.push(Finding {
                severity: Severity::Info,
                object: leaf.parent.clone(),
                what: format!("no leaf from {} to {from}", before.to()),
                next: "nothing, if no row was ever needed there: one is made when a row is".to_owned(),
            }),
            // PostgreSQL does not allow it among attached ones.
            None => findings.push(overlap(leaf)),
            Some(from) if from < before.to() => findings.push(overlap(leaf)),
            Some(_) => {}
        }
    }
    findings
}

fn overlap(leaf: &Facts) -> Finding {
    Finding {
        severity: Severity::Error,
        object: leaf.leaf.clone(),
        what: "its times overlap those of the leaf before it".to_owned(),
        next: "the catalog is damaged: restore the database from a backup".to_owned(),
    }
}

/// Whether the bounds are those of some interval.
fn is_aligned(bounds: &Bounds) -> bool {
    let Some(from) = bounds.from() else { return true };
    [Interval::Hour, Interval::Day, Interval::Week, Interval::Month, Interval::Year]
        .iter()
        .any(|interval| interval.start_of(from) == Some(from) && interval.after(from) == Some(bounds.to()))
}

fn drift(leaf: &Facts, findings: &mut Vec<Finding>) {
    let parent = &leaf.parent;
    let name = crate::catalog::quoted(&leaf.leaf);
    let mut found = |severity, what: String, next: String| {
        findings.push(Finding { severity, object: leaf.leaf.clone(), what, next });
    };
    use Severity::{Error, Info, Warning};
    if leaf.bounds.is_none() {
        let next = "move its rows to leaves of their own, and detach it: it makes every attaching lock and scan it";
        found(Error, format!("it is {}, which is not managed", leaf.printed), next.to_owned());
    }
    if leaf.pending {
        let next = format!(
            "`dalp-indexer partitions apply` ends it, or: ALTER TABLE {parent} DETACH PARTITION {name} FINALIZE"
        );
        found(Error, "its detaching began and did not end: it takes no rows and holds its place".to_owned(), next);
    }
    if leaf.bounds.is_some_and(|bounds| !is_aligned(&bounds)) {
        let next = "nothing: a neighbour stood in the way when it was made".to_owned();
        found(Info, format!("its bounds ({}) are no whole interval", leaf.printed), next);
    }
    if leaf.unlogged {
        found(Error, "it is unlogged: a crash empties it".to_owned(), format!("ALTER TABLE {name} SET LOGGED"));
    }
    if leaf.other_owner {
        let next = format!("as a superuser: ALTER TABLE {name} OWNER TO the owner of {parent}");
        found(Error, "another role owns it: it cannot be maintained".to_owned(), next);
    }
    if leaf.granted {
        let next = format!("REVOKE what is granted on {name}: rights on the table are enough");
        found(Warning, "rights are granted on it directly".to_owned(), next);
    }
    if leaf.missing_indexes > 0 {
        let next = format!("make them on {name} CONCURRENTLY, then ALTER INDEX .. ATTACH PARTITION");
        found(Error, format!("{} of its parent's indexes are missing", leaf.missing_indexes), next);
    }
    if leaf.invalid_indexes > 0 {
        let next = "drop them CONCURRENTLY: the next maintenance makes them anew".to_owned();
        found(
            Warning,
            format!("{} of its indexes are invalid, and kept up by every write", leaf.invalid_indexes),
            next,
        );
    }
    if leaf.triggers > 0 {
        let next = "drop them, or make them on the table".to_owned();
        found(Warning, format!("it has {} triggers that its parent has not", leaf.triggers), next);
    }
    if leaf.foreign_keys > 0 {
        let next = "drop them: detaching and dropping would lock the other table".to_owned();
        found(Error, format!("{} foreign keys lead from or to it", leaf.foreign_keys), next);
    }
    if leaf.other_tablespace {
        found(
            Info,
            "it stands in another tablespace than its parent".to_owned(),
            "nothing, if that is meant".to_owned(),
        );
    }
    if leaf.other_options {
        let next = format!("nothing, if that is meant; else ALTER TABLE {name} RESET (..)");
        found(Info, "it has storage options of its own".to_owned(), next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u32) -> Facts {
        let at = |day: u32| format!("2024-01-{day:02}T00:00:00Z").parse::<DateTime<Utc>>().unwrap();
        Facts {
            parent: "logs_1".into(),
            leaf: format!("logs_1_{day}"),
            printed: "FOR VALUES FROM (..) TO (..)".into(),
            bounds: Bounds::new(Some(at(day)), at(day + 1)),
            pending: false,
            unlogged: false,
            other_owner: false,
            granted: false,
            other_tablespace: false,
            other_options: false,
            missing_indexes: 0,
            invalid_indexes: 0,
            triggers: 0,
            foreign_keys: 0,
        }
    }

    #[test]
    fn what_should_not_be_is_told() {
        let none = judge(&[day(1), day(2), Facts { parent: "logs_2".into(), ..day(9) }]);
        assert_eq!(none, [], "leaves of two parents have no gap between them");
        for (facts, severity, what) in [
            (vec![day(1), day(3)], Severity::Info, "no leaf from 2024-01-02"),
            (vec![day(2), day(2)], Severity::Error, "overlap"),
            (vec![Facts { bounds: None, printed: "DEFAULT".into(), ..day(1) }], Severity::Error, "DEFAULT"),
            (vec![Facts { pending: true, ..day(1) }], Severity::Error, "detaching"),
            (vec![Facts { unlogged: true, ..day(1) }], Severity::Error, "unlogged"),
            (vec![Facts { other_owner: true, ..day(1) }], Severity::Error, "another role"),
            (vec![Facts { granted: true, ..day(1) }], Severity::Warning, "granted"),
            (vec![Facts { missing_indexes: 1, ..day(1) }], Severity::Error, "missing"),
            (vec![Facts { invalid_indexes: 1, ..day(1) }], Severity::Warning, "invalid"),
            (vec![Facts { triggers: 1, ..day(1) }], Severity::Warning, "triggers"),
            (vec![Facts { foreign_keys: 1, ..day(1) }], Severity::Error, "foreign keys"),
            (vec![Facts { other_tablespace: true, ..day(1) }], Severity::Info, "tablespace"),
            (vec![Facts { other_options: true, ..day(1) }], Severity::Info, "options"),
        ] {
            let found = judge(&facts);
            assert!(found.len() == 1 && found[0].severity == severity && found[0].what.contains(what), "{found:?}");
        }
    }
}
