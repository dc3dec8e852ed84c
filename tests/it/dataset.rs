//! A table is described in one place: an unknown table gets every operation of the indexer's own tables.

use dalp_fixtures::{Anvil, AnvilOptions, Deployed, deploy};
use dalp_indexer::dataset::{Dataset, Datasets, Groups, View, retained};
use dalp_tests::indexer::{Site, said};
use dalp_tests::made_up::{self, NOTE, TABLE};
use dalp_tests::stage::{Database, anvil_with, stage, until};
use serde_json::Value;
use tokio_postgres::Client;

use crate::{burst, caught_up, emit};

/// 2024-03-01 00:00 UTC.
const GENESIS: u64 = 1_709_251_200;
const DAY: u64 = 86_400;
const DAYS: u64 = 5;

const GROUPS: Groups<'_> = Groups { writer: "dalp_writer", partitioner: "dalp_partitioner", reader: "dalp_reader" };

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn table() -> String {
    format!("{}.{}", quoted(TABLE.0), quoted(TABLE.1))
}

/// The data of a note.
fn note(amount: u8, text: &str) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[31] = amount;
    data.extend(text.as_bytes());
    data
}

/// A chain of some days with a note in one of a thousand blocks.
async fn thousands() -> (Anvil, Deployed) {
    let anvil = anvil_with(AnvilOptions { genesis_timestamp: Some(GENESIS), ..AnvilOptions::default() }).await;
    let deployed = deploy(anvil.rpc()).await.unwrap();
    for day in 1..=DAYS {
        anvil.rpc().set_next_block_timestamp(GENESIS + day * DAY).await.unwrap();
        burst(anvil.rpc(), &deployed, 2, day).await;
        emit(anvil.rpc(), &deployed, &[NOTE], &note(day as u8, &"so it is ".repeat(day as usize))).await;
        anvil.rpc().mine(990, 60).await.unwrap();
    }
    (anvil, deployed)
}

/// Block, amount, text and how many words it has, of each note.
async fn notes(client: &Client, from: &str) -> Vec<(i64, String, String, i32)> {
    let sql = format!(
        "SELECT block_number, COALESCE(amount::text, 'none'), COALESCE(note, 'none'), jsonb_array_length(detail -> 'words') \
         FROM {from} ORDER BY block_number"
    );
    let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[test]
fn a_table_that_is_described_in_one_place_is_treated_as_the_indexers_own() {
    dalp_tests::run(async {
        let (database, (anvil, deployed)) = (stage().await.database().await, thousands().await);
        let client = database.superuser().await;
        let dataset = made_up::datasets().get("made_up").unwrap().clone();
        client.batch_execute(&dataset.create(GROUPS)).await.unwrap();
        client
            .batch_execute(&dataset.views().iter().map(|view| view.create(GROUPS)).collect::<String>())
            .await
            .unwrap();
        let site = Site::new(&database, &anvil.http_url()).with("finality = \"depth:40\"");
        let site = Site { made_up: true, more: "[partitions]\nhistory_interval = \"day\"\n".into(), ..site };
        rows_come(&site, (&database, &anvil, &deployed), &client).await;
        what_differs_is_found_and_mended(&site, &client).await;
        old_days_are_archived_and_restored(&site, &client).await;
    });
}

/// Appended from history and at the head, refused by the decoder, and removed with their blocks.
async fn rows_come(site: &Site, (database, anvil, deployed): (&Database, &Anvil, &Deployed), client: &Client) {
    let mut indexer = site.spawn();
    caught_up(database, anvil).await;
    crate::history::no_gaps(client).await;
    let of_history = notes(client, &table()).await;
    let expected: Vec<_> =
        (1..=DAYS).map(|day| (day.to_string(), "so it is ".repeat(day as usize), 3 * day as i32)).collect();
    let found: Vec<_> =
        of_history.iter().map(|(_, amount, text, words)| (amount.clone(), text.clone(), *words)).collect();
    assert_eq!(found, expected, "{}", indexer.log());

    emit(anvil.rpc(), deployed, &[NOTE], &note(0, "")).await;
    emit(anvil.rpc(), deployed, &[NOTE], b"too short").await;
    emit(anvil.rpc(), deployed, &[NOTE, NOTE], &note(9, "another event")).await;
    caught_up(database, anvil).await;
    let at_head = notes(client, &table()).await;
    assert_eq!(at_head[..at_head.len() - 1], of_history[..]);
    assert_eq!(at_head.last().map(|(_, amount, text, words)| (&**amount, &**text, *words)), Some(("none", "none", 0)));
    let refused = "SELECT string_agg(decoder || ': ' || reason, ',') FROM dalp_indexed.quarantine";
    assert_eq!(client.query_one(refused, &[]).await.unwrap().get::<_, &str>(0), "made_up: there is no amount");

    // Of the three blocks that go, one has a note and one a log that was refused.
    anvil.rpc().reorg(3).await.unwrap();
    emit(anvil.rpc(), deployed, &[NOTE], &note(7, "on the other branch")).await;
    caught_up(database, anvil).await;
    let after = notes(client, &table()).await;
    assert_eq!(after[..after.len() - 1], of_history[..]);
    assert_eq!(after.last().map(|(_, amount, ..)| &**amount), Some("7"));
    let refused = "SELECT count(*) FROM dalp_indexed.quarantine";
    assert_eq!(client.query_one(refused, &[]).await.unwrap().get::<_, i64>(0), 0);
    indexer.stop().await;
}

/// Each column is compared, and a repaired row equals the original.
async fn what_differs_is_found_and_mended(site: &Site, client: &Client) {
    said(site, &["verify"], 0);
    let (right, of) = (notes(client, &table()).await, table());
    for change in [
        format!("UPDATE {of} SET detail = jsonb_set(detail, '{{bytes}}', '1') WHERE amount = 2"),
        format!("UPDATE {of} SET note = NULL, amount = 0 WHERE amount = 3"),
        format!("DELETE FROM {of} WHERE amount = 4"),
        format!(
            "INSERT INTO {of} SELECT \"Who \"\"it\"\" is\", 9, amount, note, detail, block_number, chain_id, block_time \
             FROM {of} WHERE amount = 5"
        ),
        format!("UPDATE {of} SET block_time = block_time + interval '1 hour' WHERE amount = 5 AND log_index <> 9"),
    ] {
        assert_eq!(client.execute(&change, &[]).await.unwrap_or_else(|error| panic!("{change}: {error:?}")), 1);
    }
    let verified: Value = serde_json::from_slice(&site.call(&["verify", "--json"]).stdout).unwrap();
    let differences = verified["chains"][0]["differences"].as_array().unwrap();
    let found: Vec<_> =
        differences.iter().map(|of| [&of["table"], &of["kind"]].map(|text| text.as_str().unwrap())).collect();
    let expected = ["missing", "extra", "moved", "altered amount", "altered detail", "altered note"];
    assert_eq!(found, expected.map(|kind| ["made_up", kind]));
    said(site, &["repair"], 0);
    said(site, &["verify"], 0);
    assert_eq!(notes(client, &of).await, right);
}

/// By the configuration's name, with its own floor, a view of the retained rows, and archives that restore the stored rows.
async fn old_days_are_archived_and_restored(site: &Site, client: &Client) {
    let folder = tempfile::tempdir().unwrap();
    let more = format!(
        "[partitions]\nhistory_interval = \"day\"\narchive_url = \"file://{}\"\n[indexes]\nmade_up = [\"amount+block_time\"]\n\
         [tables.made_up]\naction = \"archive\"\nretention = \"2d\"\ngrace = \"0s\"\nmax_share_per_run = 100\n",
        folder.path().display()
    );
    let site = Site { more, ..site.clone() };
    let all = notes(client, &table()).await;
    let view = format!("{}.{}", quoted(TABLE.0), quoted(&retained(TABLE.1)));
    assert_eq!(notes(client, &view).await, all, "before there is a floor");
    assert!(said(&site, &["config", "check", "--connect"], 0).contains("made_up"));
    let applied = said(&site, &["partitions", "apply", "--table", "made_up"], 0);
    assert!(applied.contains("drop"), "{applied}");
    let left = notes(client, &table()).await;
    assert!(!left.is_empty() && left.len() < all.len(), "{left:?}");
    assert_eq!(notes(client, &view).await, left);
    // Rows below the floor do not count as missing, and history does not store them again.
    said(&site, &["verify"], 0);
    said(&site, &["partitions", "archive", "verify"], 0);
    let leaves =
        "SELECT leaf FROM dalp_indexed.leaf WHERE state = 'DROPPED' AND manifest IS NOT NULL ORDER BY to_time DESC";
    for row in client.query(leaves, &[]).await.unwrap() {
        let leaf: String = row.get(0);
        said(&site, &["partitions", "restore", &leaf, "--reason", "audit", "--author", "ops"], 0);
    }
    assert_eq!(notes(client, &table()).await, all);
    said(&site, &["partitions", "audit"], 0);
}

/// The declared range of a chain's newest leaf of a table.
async fn newest_leaf(client: &Client, table: &str) -> Option<String> {
    let sql = format!(
        "SELECT max(substring(pg_get_expr(relpartbound, oid) FROM 'TO \\(''(.*)''\\)')) FROM pg_class \
         JOIN pg_partition_tree('{}') ON relid = oid WHERE isleaf AND relkind = 'r'",
        table.replace('\'', "''")
    );
    client.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// A hundred event tables of which one is busy have the leaves of one.
#[test]
fn leaves_are_made_for_a_tables_own_rows_and_ahead_for_those_that_had_some() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let anvil = anvil_with(AnvilOptions { genesis_timestamp: Some(GENESIS), ..AnvilOptions::default() }).await;
        let deployed = deploy(anvil.rpc()).await.unwrap();
        burst(anvil.rpc(), &deployed, 2, 1).await;
        // Ten days later, there are notes, and no transfers.
        anvil.rpc().set_next_block_timestamp(GENESIS + 10 * DAY).await.unwrap();
        emit(anvil.rpc(), &deployed, &[NOTE], &note(1, "")).await;
        let client = database.superuser().await;
        let datasets = made_up::datasets();
        client.batch_execute(&datasets.get("made_up").unwrap().create(GROUPS)).await.unwrap();
        let more = "[partitions]\nhistory_interval = \"day\"\npremake = 2\n".to_owned();
        let site = Site { made_up: true, more, ..Site::new(&database, &anvil.http_url()) };
        let mut indexer = site.spawn();
        caught_up(&database, &anvil).await;
        // Each turn handles the tables in their order: when the last one has its leaves, the turn of the others is over.
        assert_eq!(datasets.partitioned().last().map(|last| last.name()), Some("made_up"));
        until("leaves of notes ahead of the head", || async {
            newest_leaf(&client, &table()).await.is_some_and(|end| end.as_str() >= "2024-03-13")
        })
        .await;
        indexer.stop().await;
        let end = newest_leaf(&client, "dalp_indexed.erc20_transfer").await.unwrap();
        assert!(end.as_str() < "2024-03-03", "{end}");
        let planned = said(&site, &["partitions", "plan", "--table", "erc20_transfer"], 0);
        assert!(!planned.contains("2024"), "{planned}");

        // With its next row, it has leaves ahead as any other.
        burst(anvil.rpc(), &deployed, 1, 2).await;
        let mut indexer = site.spawn();
        until("leaves of transfers ahead of the head", || async {
            newest_leaf(&client, "dalp_indexed.erc20_transfer").await.is_some_and(|end| end.as_str() >= "2024-03-13")
        })
        .await;
        indexer.stop().await;
    });
}

/// Columns with their types, NULLs and comments; the key; the table's comment; the rights of the groups.
const SHAPE: &str = "
    SELECT concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(a.attrelid, a.attnum))
    FROM pg_attribute AS a WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef
  UNION ALL
    SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'p'
  UNION ALL
    SELECT concat_ws(' ', partstrat, obj_description($1::text::regclass, 'pg_class')) FROM (SELECT) AS one
    LEFT JOIN pg_partitioned_table ON partrelid = $1::text::regclass
  UNION ALL
    SELECT * FROM (SELECT concat_ws(' ', grantee, privilege_type) FROM pg_class, aclexplode(relacl) AS acl (grantor, of, privilege_type, grantable),
                   LATERAL (SELECT of::regrole::text AS grantee) AS name
                   WHERE pg_class.oid = $1::text::regclass AND grantee IN ('dalp_writer', 'dalp_reader') ORDER BY 1) AS rights";

async fn shape(client: &Client, table: &str) -> Vec<String> {
    let rows = client.query(SHAPE, &[&table]).await.unwrap_or_else(|error| panic!("{table}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// The migrations repeat a description: this test compares the two.
#[test]
fn the_indexers_own_tables_are_as_they_are_described() {
    dalp_tests::run(async {
        let client = stage().await.database().await.superuser().await;
        for dataset in Datasets::own().iter() {
            let twin = dataset.clone().in_schema("twin");
            client.batch_execute(&twin.create(GROUPS)).await.unwrap();
            let of = |schema: &str| format!("{schema}.{}", dataset.table());
            let (described, made) = (shape(&client, &of("twin")).await, shape(&client, &of("dalp_indexed")).await);
            assert_eq!(described, made, "{}", dataset.name());
            assert!(made.len() > dataset.columns().len() + 4, "{made:?}");
        }
    });
}

/// Each view: its text, owner and rights, and its comments.
const VIEWS: &str = "
    SELECT concat_ws(' ', c.relname, pg_get_viewdef(c.oid), relowner::regrole, relacl, obj_description(c.oid, 'pg_class'),
                     (SELECT string_agg(col_description(c.oid, attnum), ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid))
    FROM pg_class AS c WHERE relnamespace = 'dalp_views'::regnamespace ORDER BY relname";

/// The migrations repeat the text of the views: making them anew changes nothing.
#[test]
fn the_views_of_the_indexers_own_tables_are_as_they_are_described() {
    dalp_tests::run(async {
        let client = stage().await.database().await.superuser().await;
        let views =
            async || -> Vec<String> { client.query(VIEWS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect() };
        let made = views().await;
        let described: Vec<View> = Datasets::own().iter().flat_map(Dataset::views).collect();
        for view in &described {
            client.batch_execute(&view.create(GROUPS)).await.unwrap_or_else(|error| panic!("{view:?}: {error:?}"));
        }
        assert_eq!(views().await, made);
        assert_eq!((made.len(), described.len()), (4, 4));
    });
}
