//! The crate alone, in a database that no migration ever saw: its own registry, and the example of its README.

use dalp_partitions::{Act, Manager, Scope, Severity, install};

use super::archive::Folder;
use super::*;

#[path = "../../examples/readings.rs"]
#[expect(dead_code, reason = "its main is the example's own")]
mod readings;

/// An empty database, and its owner, who is no superuser.
async fn empty(owner: &str) -> (Database, Client) {
    let admin = Database::create().await.connect().await;
    admin.batch_execute(&format!("CREATE ROLE {owner} LOGIN")).await.unwrap();
    let database = Database::create_owned_by(owner).await;
    let superuser = database.connect().await;
    superuser.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {owner}")).await.unwrap();
    let client = database.connect_as(owner).await;
    (database, client)
}

#[tokio::test]
async fn the_example_looks_after_a_table_of_its_own() {
    let (_database, mut client) = empty("owner_of_readings").await;
    let folder = Folder::new();
    let lines = readings::look_after(&mut client, folder.archive().name()).await.unwrap();
    let told =
        |words: &str| lines.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {lines:?}"));
    let (written, dropped) = (told("rows were written"), told("archived and dropped"));
    let number = |line: &str| line.split(' ').next().unwrap().parse::<i64>().unwrap();
    // Of twenty-one days, a week and the part of a day that it began in are kept.
    assert_eq!((number(written), number(dropped)), (481, 13), "{lines:?}");
    assert_eq!(folder.paths("data").len(), 13);
    let count = |sql: &'static str| {
        let client = &client;
        async move { client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) }
    };
    let back: i64 = told("is back with").split(" with ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let young = "SELECT count(*) FROM public.readings WHERE at >= date_trunc('day', now() - interval '7 days', 'UTC')";
    assert_eq!(count("SELECT count(*) FROM public.readings").await, count(young).await + back, "{lines:?}");
    let recorded = "SELECT count(*) FROM partitions.activity WHERE action = 'partition.drop' AND outcome = 'done'";
    assert_eq!(count(recorded).await, 13);
    assert_eq!(strings(&client, "SELECT released_by FROM partitions.legal_hold").await, ["me"]);
}

/// The catalog's facts about a schema's tables and functions, without the schema's name.
const MADE: &str = r#"
    WITH of_table AS (
        SELECT c.oid, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE nspname = $1 AND c.relname = ANY ($2)
    )
    SELECT replace(replace(line, '"' || $1 || '".', 'S.'), $1 || '.', 'S.') FROM (
        SELECT format('%s.%s %s %s not null %s default %s identity %s', relname, attnum, attname, format_type(atttypid, atttypmod),
                      attnotnull, pg_get_expr(adbin, adrelid), attidentity) AS line
        FROM of_table JOIN pg_attribute ON attrelid = of_table.oid AND attnum > 0 AND NOT attisdropped
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
      UNION ALL
        SELECT format('%s %s %s', relname, conname, pg_get_constraintdef(c.oid)) FROM of_table JOIN pg_constraint AS c ON conrelid = of_table.oid
      UNION ALL
        SELECT pg_get_indexdef(indexrelid) FROM of_table JOIN pg_index ON indrelid = of_table.oid
      UNION ALL
        SELECT format('%s %s', relname, pg_get_partkeydef(oid)) FROM of_table
      UNION ALL
        SELECT regexp_replace(pg_get_functiondef(p.oid), 'HINT = [^\n]*', '') || COALESCE(proacl::text LIKE '%=X/%', true)
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = $1 AND proname = ANY ($2)
    ) AS made ORDER BY 1"#;

async fn made(client: &Client, schema: &str, names: &[&str]) -> Vec<String> {
    client.query(MADE, &[&schema, &names]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn the_readme_shows_what_the_example_does() {
    let (readme, example) = (include_str!("../../README.md"), include_str!("../../examples/readings.rs"));
    let code = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(code.lines().count() > 5);
    for line in code.lines().map(str::trim) {
        assert!(example.contains(line), "{line}");
    }
}

#[tokio::test]
async fn what_is_installed_is_what_the_migrations_make() {
    const REGISTRY: &[&str] = &[
        "leaf",
        "retention_floor",
        "legal_hold",
        "partition_run",
        "installation",
        "archive_place",
        "catalog_identity",
        "refuse_sealed",
    ];
    let (_database, mut admin) = database().await;
    let own = Registry::new("own registry").recorded_in("own record");
    assert!(install(&mut admin, &own).await.unwrap());
    assert!(!install(&mut admin, &own).await.unwrap(), "what stands is left as it is");
    let installed = made(&admin, "own registry", REGISTRY).await;
    assert!(installed.len() > 80, "{installed:?}");
    assert_eq!(installed, made(&admin, "dalp_indexed", REGISTRY).await);
    let recorded = made(&admin, "own record", &["activity"]).await;
    assert!(recorded.len() > 10, "{recorded:?}");
    assert_eq!(recorded, made(&admin, "dalp_audit", &["activity"]).await);
    assert_eq!(strings(&admin, "SELECT count(*)::text FROM \"own registry\".installation").await, ["1"]);
}

#[tokio::test]
async fn what_is_held_stays_and_what_was_begun_is_taken_back() {
    let (_database, mut client) = empty("owner_of_ticks").await;
    client.batch_execute("CREATE TABLE ticks (at timestamptz NOT NULL) PARTITION BY RANGE (at)").await.unwrap();
    let day = Retention {
        action: Action::Detach,
        time: TimeDelta::days(1),
        max_leaves: 100,
        max_share: 1.0,
        ..Retention::default()
    };
    let table = Table::flat("public", "ticks", "at").registered_in(Registry::new("partitions"));
    let manager = Manager::new(table).with_retention(day);
    assert!(manager.install(&mut client).await.unwrap());
    let times: Vec<_> = (0..=4).map(|days| Utc::now() - TimeDelta::days(days)).collect();
    manager.ensure(&mut client, 0, &Need::rows(times)).await.unwrap();
    client
        .batch_execute("INSERT INTO ticks SELECT now() - make_interval(days => day) FROM generate_series(0, 4) AS day")
        .await
        .unwrap();
    let hold = manager.hold(&mut client, &Scope { key: None, from: None, to: None }, "a case", "me").await.unwrap();
    assert_eq!(manager.retire(&mut client).await.unwrap().done, []);
    assert_eq!(manager.plan(&mut client).await.unwrap().obstacles.len(), 3, "they are due, and held");
    manager.release(&mut client, hold, "me").await.unwrap();
    let outcome = manager.retire(&mut client).await.unwrap();
    let detached: Vec<_> = outcome.done.iter().filter(|done| done.act == Act::Detach).collect();
    assert_eq!((detached.len(), outcome.failed.len()), (3, 0));
    let undone = manager.undo(&mut client, &detached[0].leaf, "second thoughts", "me").await.unwrap();
    assert_eq!(undone.leaves.len(), 3);
    assert_eq!(strings(&client, "SELECT count(*)::text FROM public.ticks").await, ["5"]);
    let found = manager.audit(&mut client).await.unwrap();
    assert!(found.iter().all(|found| found.severity < Severity::Error), "{found:?}");
}

#[tokio::test]
async fn what_cannot_be_managed_gets_no_registry() {
    let (_database, mut client) = empty("owner_of_nothing").await;
    let manager = Manager::new(Table::flat("public", "nothing", "at").registered_in(Registry::new("partitions")));
    assert!(matches!(manager.install(&mut client).await, Err(Error::Unfit { .. })));
    assert!(matches!(install(&mut client, &Registry::new("o'dd")).await, Err(Error::Unfit { .. })));
    assert_eq!(strings(&client, "SELECT nspname::text FROM pg_namespace WHERE nspname = 'partitions'").await, [""; 0]);
}
