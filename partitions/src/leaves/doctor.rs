//! Finds obstacles for the manager: in the server, in other sessions, and in the tables.
//!
//! An [`crate::audit`] checks the leaves; this module checks their environment.

use std::time::Duration;

use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use crate::pure::names::quoted;
use crate::{Error, Finding, Severity, Table};

/// The limits of the doctor's findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The age of a transaction that is reported: a detach waits for older transactions.
    pub transaction: Duration,
    /// Leaves of one parent: planning without a range of time grows with them.
    pub leaves: i64,
}

impl Default for Limits {
    /// Five minutes, and 1,000 leaves.
    fn default() -> Self {
        Self { transaction: Duration::from_mins(5), leaves: 1_000 }
    }
}

/// The server's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    counts: bool,
    vacuums: bool,
    /// The number of locks in the server's lock table, for all sessions together.
    locks: i64,
    sees_others: bool,
    /// The current role, which is the manager's role, as SQL.
    role: String,
}

/// A transaction that has been open for a long time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    /// A session's `pid`, or the name of a prepared transaction.
    who: String,
    role: String,
    state: String,
    seconds: i64,
    is_prepared: bool,
}

/// A table as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whole {
    owned: bool,
    may_create: bool,
    /// The largest number of leaves of one parent.
    leaves: i64,
    /// Leaves and their indexes: the relations that a query without a range of time locks.
    relations: i64,
    /// Publications that name its leaves to subscribers, and not the table.
    publications: Vec<String>,
}

const SERVER: &str = "
    SELECT current_setting('track_counts')::bool, current_setting('autovacuum')::bool,
           current_setting('max_locks_per_transaction')::int8
               * (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8),
           pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), quote_ident(current_user)";

/// $1 seconds.
const OPEN: &str = "
    SELECT pid::text, COALESCE(usename::text, 'nobody any more'), COALESCE(state, 'hidden'),
           extract(epoch FROM clock_timestamp() - xact_start)::int8, false
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND xact_start <= clock_timestamp() - make_interval(secs => $1)
  UNION ALL
    SELECT gid, owner::text, 'prepared', extract(epoch FROM clock_timestamp() - prepared)::int8, true
    FROM pg_catalog.pg_prepared_xacts
    WHERE database = current_database() AND prepared <= clock_timestamp() - make_interval(secs => $1)
    ORDER BY 4 DESC LIMIT 10";

/// $1 schema, $2 table, $3 whether it is flat. No row if it does not exist, or is not partitioned.
const WHOLE: &str = "
    WITH root AS (
        SELECT class.* FROM pg_catalog.pg_class AS class JOIN pg_catalog.pg_namespace AS space ON space.oid = relnamespace
        WHERE nspname = $1 AND relname = $2 AND relkind = 'p'
    ), leaf AS MATERIALIZED (
        SELECT inhrelid AS oid, inhparent AS parent FROM pg_catalog.pg_inherits
        WHERE inhparent = ANY (ARRAY(SELECT oid FROM root WHERE $3
                                     UNION ALL SELECT inhrelid FROM pg_catalog.pg_inherits JOIN root ON inhparent = root.oid WHERE NOT $3))
    )
    SELECT pg_has_role(current_user, relowner, 'USAGE'), has_schema_privilege(relnamespace, 'CREATE'),
           (SELECT COALESCE(max(leaves), 0) FROM (SELECT count(*) AS leaves FROM leaf GROUP BY parent) AS counted),
           (SELECT count(*) FROM leaf)
               + (SELECT count(*) FROM pg_catalog.pg_index WHERE indrelid = ANY (ARRAY(SELECT oid FROM leaf))),
           ARRAY(SELECT pubname::text FROM pg_catalog.pg_publication AS p
                 WHERE NOT pubviaroot
                   AND (puballtables
                     OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel WHERE prpubid = p.oid AND prrelid = root.oid)
                     OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace
                                WHERE pnpubid = p.oid AND pnnspid = root.relnamespace))
                 ORDER BY 1)
    FROM root";

/// Reports obstacles in the server and in other sessions. Changes nothing.
///
/// # Errors
/// If the server refuses.
pub async fn doctor_server(client: &Client, limits: &Limits) -> Result<Vec<Finding>, Error> {
    let server = server(client).await.map_err(Error::doing("look at the settings", "the server"))?;
    let open = open(client, limits).await.map_err(Error::doing("look at the transactions", "the database"))?;
    let mut findings = judge_server(&server);
    findings.extend(open.iter().map(judge_open));
    Ok(findings)
}

/// Reports obstacles in a table.
///
/// # Errors
/// If the server refuses.
pub async fn doctor_table(client: &Client, table: &Table, limits: &Limits) -> Result<Vec<Finding>, Error> {
    let server = server(client).await.map_err(Error::doing("look at the settings", "the server"))?;
    let whole = whole(client, table).await.map_err(Error::doing("read the catalog", table))?;
    Ok(judge_table(table, whole.as_ref(), &server, limits))
}

async fn server(client: &Client) -> Result<Server, tokio_postgres::Error> {
    let row = client.query_typed_one(SERVER, &[]).await?;
    Ok(Server { counts: row.get(0), vacuums: row.get(1), locks: row.get(2), sees_others: row.get(3), role: row.get(4) })
}

async fn open(client: &Client, limits: &Limits) -> Result<Vec<Open>, tokio_postgres::Error> {
    let rows = client.query_typed(OPEN, &[(&limits.transaction.as_secs_f64(), Type::FLOAT8)]).await?;
    let open = |row: &Row| Open {
        who: row.get(0),
        role: row.get(1),
        state: row.get(2),
        seconds: row.get(3),
        is_prepared: row.get(4),
    };
    Ok(rows.iter().map(open).collect())
}

async fn whole(client: &Client, table: &Table) -> Result<Option<Whole>, tokio_postgres::Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&table.flat, Type::BOOL)];
    let rows = client.query_typed(WHOLE, &parameters).await?;
    Ok(rows.first().map(|row| Whole {
        owned: row.get(0),
        may_create: row.get(1),
        leaves: row.get(2),
        relations: row.get(3),
        publications: row.get(4),
    }))
}

fn finding(severity: Severity, object: &str, what: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { severity, object: object.to_owned(), what: what.into(), next: next.into() }
}

fn judge_server(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !server.counts || !server.vacuums {
        let what =
            "autovacuum or track_counts is off: leaves are neither frozen nor analyzed, and their sizes are unknown";
        findings.push(finding(
            Severity::Error,
            "server",
            what,
            "as a superuser: ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf();",
        ));
    }
    if !server.sees_others {
        let what = "this role does not see the sessions of other roles: it cannot say how long they have been blocking";
        let next = format!("as a superuser: GRANT pg_read_all_stats TO {};", server.role);
        findings.push(finding(Severity::Info, "server", what, next));
    }
    findings
}

/// Only a detach waits for it: a warning.
fn judge_open(open: &Open) -> Finding {
    let Open { who, role, state, seconds, is_prepared } = open;
    if *is_prepared {
        let what = format!("{role} prepared it {seconds} s ago: it blocks the end of a detach");
        let gid = who.replace('\'', "''");
        let next =
            format!("ask its transaction manager, then run COMMIT PREPARED '{gid}'; or ROLLBACK PREPARED '{gid}';");
        return finding(Severity::Warning, &format!("transaction {who}"), what, next);
    }
    let what = format!("{role}'s transaction has been open for {seconds} s ({state}): a detach waits for it");
    let next = format!(
        "idle_in_transaction_session_timeout ends such transactions; if nobody needs this one: SELECT \
         pg_terminate_backend({who});"
    );
    finding(Severity::Warning, &format!("session {who}"), what, next)
}

fn judge_table(table: &Table, whole: Option<&Whole>, server: &Server, limits: &Limits) -> Vec<Finding> {
    let object = format!("{}.{}", table.schema, table.name);
    let name = format!("{}.{}", quoted(&table.schema), quoted(&table.name));
    let mut findings = Vec::new();
    let mut found = |severity, what: String, next: String| findings.push(finding(severity, &object, what, next));
    let Some(whole) = whole else {
        let next = "create it with PARTITION BY, or remove it from the configuration".to_owned();
        return vec![finding(Severity::Error, &object, "there is no such partitioned table", next)];
    };
    if !whole.owned {
        let next = format!("as its owner: ALTER TABLE {name} OWNER TO {};", server.role);
        found(Severity::Error, "another role owns it: no leaf can be made, detached or dropped".to_owned(), next);
    }
    if !whole.may_create {
        let next = format!("as its owner: GRANT CREATE ON SCHEMA {} TO {};", quoted(&table.schema), server.role);
        found(Severity::Error, "no table may be created in its schema: no leaf can be made".to_owned(), next);
    }
    if whole.leaves > limits.leaves {
        let what = format!(
            "a parent has {} leaves: the server plans each query without a range of time over all leaves",
            whole.leaves
        );
        found(Severity::Warning, what, "choose a longer interval, or a shorter retention".to_owned());
    }
    // Other sessions need locks too.
    if whole.relations > server.locks / 2 {
        let what = format!(
            "a query without a range of time, or a dump, locks {} relations, and the server has room for {} locks in total",
            whole.relations, server.locks
        );
        let next = "raise max_locks_per_transaction (it needs a restart), or choose a longer interval".to_owned();
        found(Severity::Warning, what, next);
    }
    for publication in &whole.publications {
        let what = format!(
            "publication {publication} names its leaves: a subscriber gets rows of new leaves only after a refresh"
        );
        let next = format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", quoted(publication));
        found(Severity::Warning, what, next);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server { counts: true, vacuums: true, locks: 6_400, sees_others: true, role: "manager".to_owned() }
    }

    fn whole() -> Whole {
        Whole { owned: true, may_create: true, leaves: 1_000, relations: 3_200, publications: Vec::new() }
    }

    fn said(whole: Option<&Whole>, server: &Server) -> Vec<(Severity, String)> {
        let table = Table::new("s", "t", "at");
        let findings = judge_table(&table, whole, server, &Limits::default());
        assert!(findings.iter().all(|finding| finding.object == "s.t" && !finding.next.is_empty()));
        findings.into_iter().map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn a_table_is_judged_by_what_it_stands_on() {
        assert_eq!(said(Some(&whole()), &server()), [], "at its limits all is well");
        let bad = Whole {
            owned: false,
            may_create: false,
            leaves: 1_001,
            relations: 3_201,
            publications: vec!["feed".to_owned()],
        };
        let said_of_bad = said(Some(&bad), &server());
        let next = |table| judge_table(&table, Some(&bad), &server(), &Limits::default());
        let next: Vec<String> = next(Table::new("s", "t", "at")).into_iter().map(|finding| finding.next).collect();
        assert!(next[0].ends_with("ALTER TABLE \"s\".\"t\" OWNER TO manager;"), "{next:?}");
        assert!(next[1].ends_with("GRANT CREATE ON SCHEMA \"s\" TO manager;"), "{next:?}");
        let severities: Vec<_> = said_of_bad.iter().map(|(severity, _)| *severity).collect();
        use Severity::{Error, Warning};
        assert_eq!(severities, [Error, Error, Warning, Warning, Warning]);
        assert!(said_of_bad[3].1.contains("3201") && said_of_bad[4].1.contains("feed"), "{said_of_bad:?}");
        assert_eq!(said(None, &server()).len(), 1);
    }

    #[test]
    fn a_server_is_judged_by_its_settings() {
        assert_eq!(judge_server(&server()), []);
        let severity = |server| judge_server(&server).iter().map(|finding| finding.severity).collect::<Vec<_>>();
        assert_eq!(severity(Server { counts: false, ..server() }), [Severity::Error]);
        assert_eq!(
            severity(Server { vacuums: false, sees_others: false, ..server() }),
            [Severity::Error, Severity::Info]
        );
    }
}
