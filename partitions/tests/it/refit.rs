//! The restored rows equal the archived rows, in a table that has changed since: cast if exact, otherwise refused, with an
//! alternative.

use dalp_partitions::{Reference, Scope, Switches, Terms, add_hold, holds, restore, restore_into, retire, undo};

use super::archive::{Folder, request, retention};
use super::*;

fn own() -> Table {
    Table::flat("dalp_assets", "seen", "at").registered_in(registry())
}

const LEAF: &str = "seen_20240312";

/// Another user's table with a leaf of two days; the first is archived and dropped.
async fn archived(folder: &Folder, switches: Switches) -> (Database, Client, Client) {
    let (database, admin) = database().await;
    admin
        .batch_execute(
            "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; \
             CREATE TABLE dalp_assets.seen (at timestamptz NOT NULL, n bigint, v bigint NOT NULL, t text, w numeric(20,4), PRIMARY KEY (at, v)) \
             PARTITION BY RANGE (at); \
             CREATE TABLE dalp_assets.seen_20240312 PARTITION OF dalp_assets.seen FOR VALUES FROM ('2024-03-12 00:00+00') TO ('2024-03-13 00:00+00'); \
             CREATE TABLE dalp_assets.seen_later PARTITION OF dalp_assets.seen FOR VALUES FROM ('2024-03-13 00:00+00') TO ('2124-03-13 00:00+00'); \
             INSERT INTO dalp_assets.seen VALUES ('2024-03-12 01:00+00', 1, 1700000000, 'a', 1.5), ('2024-03-12 02:00+00', NULL, 2, NULL, 2); \
             RESET ROLE",
        )
        .await
        .unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let retention = retention();
    let reference = Reference::Final(std::collections::BTreeMap::from([(0, chrono::Utc::now())]));
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: true, allow_many: true };
    let outcome = retire(&mut client, &own(), &terms, Some(&folder.archive())).await.unwrap();
    assert!(outcome.failed.is_empty() && !outcome.done.is_empty(), "{:?}", outcome.failed);
    (database, admin, client)
}

async fn rows(admin: &Client, table: &str) -> Vec<String> {
    strings(admin, &format!("SELECT (to_jsonb(r) - 'at')::text FROM {table} AS r ORDER BY v::text")).await
}

#[tokio::test]
async fn a_type_that_holds_the_values_is_cast_to_and_another_is_refused() {
    let folder = Folder::new();
    let (_database, admin, mut client) = archived(&folder, Switches::ALL).await;
    let trace = "SELECT concat((SELECT string_agg(state, ',' ORDER BY leaf_id) FROM dalp_indexed.leaf WHERE table_name = 'seen'), ' ', \
                 (SELECT count(*) FROM pg_class WHERE relnamespace = 'dalp_assets'::regnamespace), ' ', \
                 (SELECT count(*) FROM dalp_indexed.legal_hold))";
    let before = strings(&admin, trace).await;
    for (change, named) in [
        ("ALTER v TYPE timestamptz USING to_timestamp(v)", "\"v\"|timestamp with time zone"),
        ("ALTER v TYPE smallint USING 1", "column \"v\" was bigint and is now smallint"),
        ("ALTER w TYPE numeric(20,0)", "column \"w\" was numeric(20,4) and is now numeric(20,0)"),
        ("DROP COLUMN t", "column \"t\" was archived"),
        ("RENAME COLUMN t TO text", "column \"t\" was archived"),
        ("ADD COLUMN more int NOT NULL", "column \"more\" accepts no NULL"),
        ("ALTER n SET NOT NULL", "\"n\""),
        ("ADD CONSTRAINT small CHECK (v < 10) NOT VALID", "small"),
    ] {
        // Each change alone, beside the original table.
        admin.batch_execute(&format!("BEGIN; ALTER TABLE dalp_assets.seen {change}; COMMIT")).await.unwrap();
        let error = restore(&mut client, &own(), &folder.archive(), &request(LEAF)).await.unwrap_err().to_string();
        assert!(named.split('|').all(|named| error.contains(named)) && error.contains("--into"), "{change}: {error}");
        let back = match change {
            "ALTER v TYPE timestamptz USING to_timestamp(v)" | "ALTER v TYPE smallint USING 1" => {
                "ALTER v TYPE bigint USING 1"
            }
            "ALTER w TYPE numeric(20,0)" => "ALTER w TYPE numeric(20,4)",
            "DROP COLUMN t" => "ADD COLUMN t text",
            "RENAME COLUMN t TO text" => "RENAME COLUMN text TO t",
            "ADD COLUMN more int NOT NULL" => "DROP COLUMN more",
            "ALTER n SET NOT NULL" => "ALTER n DROP NOT NULL",
            _ => "DROP CONSTRAINT small",
        };
        admin.batch_execute(&format!("ALTER TABLE dalp_assets.seen {back}")).await.unwrap();
        assert_eq!(strings(&admin, trace).await, before, "{change} leaves no trace");
    }
    // Under the archived schema, for any present columns.
    admin.batch_execute("ALTER TABLE dalp_assets.seen DROP COLUMN t").await.unwrap();
    let into = ("dalp_assets", "seen as it was");
    assert_eq!(restore_into(&mut client, &own(), &folder.archive(), &request(LEAF), into).await.unwrap(), 2);
    let was = [r#"{"n": 1, "t": "a", "v": 1700000000, "w": 1.5000}"#, r#"{"n": null, "t": null, "v": 2, "w": 2.0000}"#];
    assert_eq!(rows(&admin, "dalp_assets.\"seen as it was\"").await, was);
    let again = restore_into(&mut client, &own(), &folder.archive(), &request(LEAF), into).await.unwrap_err();
    assert!(again.to_string().contains("it already exists"), "{again}");
    // Values are cast to types that hold all of them; a later column has its default.
    admin
        .batch_execute(
            "ALTER TABLE dalp_assets.seen ADD COLUMN t varchar(9), ALTER v TYPE numeric(78,0), ALTER w TYPE numeric(30,6), \
             ALTER n TYPE text, ADD COLUMN kind text NOT NULL DEFAULT 'old'",
        )
        .await
        .unwrap();
    let restored = restore(&mut client, &own(), &folder.archive(), &request(LEAF)).await.unwrap();
    assert_eq!((restored.rows, restored.cast.as_slice()), (2, ["n", "v", "t", "w"].map(str::to_owned).as_slice()));
    let now = [
        r#"{"n": "1", "t": "a", "v": 1700000000, "w": 1.500000, "kind": "old"}"#,
        r#"{"n": null, "t": null, "v": 2, "w": 2.000000, "kind": "old"}"#,
    ];
    assert_eq!(rows(&admin, "dalp_assets.seen").await, now);
}

#[tokio::test]
async fn undo_into_a_table_that_changed_says_so_and_leaves_no_hold() {
    let folder = Folder::new();
    let (_database, admin, mut client) = archived(&folder, Switches { drop: false, ..Switches::ALL }).await;
    admin.batch_execute("ALTER TABLE dalp_assets.seen ADD COLUMN more int").await.unwrap();
    let error = undo(&mut client, &own(), LEAF, "wrong", "ops").await.unwrap_err().to_string();
    assert!(error.contains("more") && error.contains("changed since the detach"), "{error}");
    assert_eq!(holds(&client, &own(), false).await.unwrap(), []);
    // Another user's hold stays.
    let all = Scope { key: None, from: None, to: None };
    add_hold(&mut client, &own(), &all, "case", "counsel").await.unwrap();
    undo(&mut client, &own(), LEAF, "wrong", "ops").await.unwrap_err();
    assert_eq!(holds(&client, &own(), false).await.unwrap().len(), 1);
    admin.batch_execute(&format!("ALTER TABLE dalp_assets.{LEAF} ADD COLUMN more int")).await.unwrap();
    assert_eq!(undo(&mut client, &own(), LEAF, "wrong", "ops").await.unwrap().leaves, [LEAF]);
}

/// Computed columns are archived too: they are computed again and compared, or restored if the column is no longer computed.
#[tokio::test]
async fn a_computed_column_comes_back_with_the_values_that_it_had() {
    let (database, admin) = database().await;
    admin
        .batch_execute(
            "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; \
             CREATE TABLE dalp_assets.seen (at timestamptz NOT NULL, n int8, twice int8 GENERATED ALWAYS AS (n * 2) STORED) PARTITION BY RANGE (at); \
             CREATE TABLE dalp_assets.old PARTITION OF dalp_assets.seen FOR VALUES FROM (MINVALUE) TO ('2024-03-02 00:00+00'); \
             CREATE TABLE dalp_assets.new PARTITION OF dalp_assets.seen FOR VALUES FROM ('2024-03-02 00:00+00') TO (MAXVALUE); \
             INSERT INTO dalp_assets.seen VALUES ('2024-03-01 01:00+00', 1), ('2024-03-01 02:00+00', 2), ('2024-03-20', 3); RESET ROLE",
        )
        .await
        .unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let (folder, retention) = (Folder::new(), retention());
    let reference = Reference::Final(std::collections::BTreeMap::from([(0, now())]));
    let switches = Switches::ALL;
    let terms = Terms { retention: &retention, switches, reference: &reference, can_archive: true, allow_many: true };
    let outcome = retire(&mut client, &own(), &terms, Some(&folder.archive())).await.unwrap();
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let archived = folder.archive().list(None).await.unwrap().manifests.remove(0);
    assert_eq!(archived.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["at", "n", "twice"]);

    let other =
        "ALTER TABLE dalp_assets.seen DROP COLUMN twice, ADD COLUMN twice int8 GENERATED ALWAYS AS (n * 3) STORED";
    admin.batch_execute(other).await.unwrap();
    let error = restore(&mut client, &own(), &folder.archive(), &request("old")).await.unwrap_err().to_string();
    assert!(error.contains("it now computes \"twice\"") && error.contains("--into"), "{error}");
    admin.batch_execute("ALTER TABLE dalp_assets.seen ALTER twice DROP EXPRESSION").await.unwrap();
    restore(&mut client, &own(), &folder.archive(), &request("old")).await.unwrap();
    let values = "SELECT n || ' ' || twice FROM dalp_assets.seen ORDER BY n";
    assert_eq!(strings(&admin, values).await, ["1 2", "2 4", "3 9"]);
}
