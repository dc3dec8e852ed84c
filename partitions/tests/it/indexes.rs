//! Leaves that are made bare, and the indexes that they get afterwards.

use dalp_partitions::{Catalog, INDEXER_KEYS, Index, Indexed, Policy, Table, build, ensure, read, strip};
use tokio_postgres::Client;

use crate::{CHAIN, TRANSFER, as_role, database, days, now, strings, transfers};

const WAITS: &str = "SELECT count(*)::int8 FROM pg_stat_activity WHERE datname = current_database() \
                     AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'";

fn table() -> Table {
    transfers().with_leaf_indexes([Index::on(["token", "block_time"]), Index::on(["tx_hash"])])
}

/// Leaves of 19 and 20 March; leaves with times before the 20th are bare.
async fn half_bare(client: &mut Client) -> Catalog {
    let need = days(2).bare_before(Some(crate::at("2024-03-20T00:00:00Z")));
    ensure(client, &table(), CHAIN, &Policy::default(), now(), &need).await.unwrap().catalog
}

fn lacking(catalog: &Catalog) -> Vec<usize> {
    catalog.leaves.iter().map(|leaf| leaf.lacks(&table().leaf_indexes).len()).collect()
}

#[tokio::test]
async fn a_leaf_of_history_is_made_bare_and_gets_its_indexes_once() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let catalog = half_bare(&mut client).await;
    assert_eq!(lacking(&catalog), [2, 0]);
    for expected in [Indexed::Made(2), Indexed::Made(0)] {
        assert_eq!(build(&mut client, &table(), &catalog, &catalog.leaves[0].name, false).await.unwrap(), expected);
    }
    assert_eq!(lacking(&read(&mut client, &table(), CHAIN).await.unwrap()), [0, 0]);
    let locks = "SELECT mode FROM pg_locks JOIN pg_database AS d ON d.oid = database \
                 WHERE locktype = 'advisory' AND datname = current_database()";
    assert_eq!(strings(&admin, locks).await, [""; 0], "the lane is free again");

    // All leaves lack an index that is configured later; a missing leaf is no failure.
    let wider = transfers().with_leaf_indexes([Index::on(["to_address"])]);
    let found = read(&mut client, &wider, CHAIN).await.unwrap();
    assert!(found.leaves.iter().all(|leaf| leaf.lacks(&wider.leaf_indexes).len() == 1));
    admin.batch_execute("DROP TABLE dalp_indexed.erc20_transfer_31337_20240319").await.unwrap();
    assert_eq!(build(&mut client, &wider, &catalog, &catalog.leaves[0].name, false).await.unwrap(), Indexed::Gone);
}

#[tokio::test]
async fn a_leaf_in_use_is_stripped_of_the_indexes_that_build_makes_and_of_no_others() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let catalog = half_bare(&mut client).await;
    let leaf = &catalog.leaves[1].name;
    assert_eq!(lacking(&catalog), [2, 0]);
    // Those of others: of the table, which takes ours as its own; of other columns; of some rows.
    let others = format!(
        "CREATE INDEX ON dalp_indexed.erc20_transfer (token, block_time); CREATE INDEX ON dalp_indexed.{leaf} (to_address); \
         CREATE INDEX ON dalp_indexed.{leaf} (tx_hash) WHERE log_index = 0"
    );
    admin.batch_execute(&others).await.unwrap();
    let indexes = format!("SELECT indexdef FROM pg_indexes WHERE tablename = '{leaf}' ORDER BY 1");
    let before = strings(&admin, &indexes).await;
    let mut writer = as_role(&database, "dalp_writer").await;
    let writing = writer.transaction().await.unwrap();
    writing.execute(TRANSFER, &[&"2024-03-20Z"]).await.unwrap();
    let stripping = {
        let (catalog, leaf) = (catalog.clone(), leaf.clone());
        tokio::spawn(async move {
            let stripped = strip(&mut client, &table(), &catalog, &leaf).await.unwrap();
            (client, stripped)
        })
    };
    let waiting = "SELECT count(*)::int8 FROM pg_stat_activity WHERE datname = current_database() \
                   AND query LIKE 'DROP INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'";
    super::meanwhile::until(&database, waiting).await;
    writing.execute(&TRANSFER.replace("1, 0,", "3, 0,"), &[&"2024-03-20Z"]).await.unwrap();
    writing.commit().await.unwrap();
    let (mut client, stripped) = stripping.await.unwrap();
    assert_eq!(stripped, Indexed::Dropped(1));
    let left = strings(&admin, &indexes).await;
    assert_eq!(left.len() + 1, before.len(), "{left:#?}");
    assert!(left.iter().all(|index| before.contains(index)));
    assert_eq!(strip(&mut client, &table(), &catalog, leaf).await.unwrap(), Indexed::Dropped(0));
    assert_eq!(build(&mut client, &table(), &catalog, leaf, true).await.unwrap(), Indexed::Made(1));
    assert_eq!(strings(&admin, &indexes).await, before);
}

#[tokio::test]
async fn a_leaf_in_use_is_indexed_beside_its_writers_and_otherwise_they_are_waited_for() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let catalog = half_bare(&mut client).await;
    let mut writer = as_role(&database, "dalp_writer").await;
    let writing = writer.transaction().await.unwrap();
    writing.execute(TRANSFER, &[&"2024-03-19Z"]).await.unwrap();
    let leaf = catalog.leaves[0].name.clone();
    let busy = build(&mut client, &table(), &catalog, &leaf, false).await.unwrap();
    assert_eq!(busy, Indexed::Busy, "a writer is not made to wait, and we do not wait for it");

    let building = {
        let (catalog, leaf) = (catalog.clone(), leaf.clone());
        tokio::spawn(async move { build(&mut client, &table(), &catalog, &leaf, true).await.unwrap() })
    };
    super::meanwhile::until(&database, WAITS).await;
    // It waits for our transaction; other sessions write meanwhile, and so do we: their lock is available.
    let ask = format!("BEGIN; LOCK TABLE ONLY dalp_indexed.{leaf} IN ROW EXCLUSIVE MODE NOWAIT; COMMIT");
    admin.batch_execute(&ask).await.unwrap();
    let other = as_role(&database, "dalp_writer").await;
    let row = "INSERT INTO dalp_indexed.erc20_transfer VALUES (31337, '2024-03-19Z', 2, 0, '', '', '', 1, '')";
    other.batch_execute(row).await.unwrap();
    writing.execute(&TRANSFER.replace("1, 0,", "3, 0,"), &[&"2024-03-19Z"]).await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(building.await.unwrap(), Indexed::Made(2));
}

#[tokio::test]
async fn what_a_build_that_was_cut_short_left_is_made_anew() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let catalog = half_bare(&mut client).await;
    admin
        .batch_execute(
            "CREATE INDEX broken ON dalp_indexed.erc20_transfer_31337_20240319 (token, block_time);
             UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'dalp_indexed.broken'::regclass",
        )
        .await
        .unwrap();
    assert_eq!(lacking(&read(&mut client, &table(), CHAIN).await.unwrap()), [2, 0], "it does not count");
    assert_eq!(build(&mut client, &table(), &catalog, &catalog.leaves[0].name, true).await.unwrap(), Indexed::Made(2));
    assert_eq!(strings(&admin, "SELECT relname::text FROM pg_class WHERE relname = 'broken'").await, [""; 0]);
}

#[tokio::test]
async fn two_sessions_build_at_a_time_and_one_in_a_leaf() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let need = days(2).bare_before(Some(crate::at("2024-03-21T00:00:00Z")));
    let catalog = ensure(&mut client, &table(), CHAIN, &Policy::default(), now(), &need).await.unwrap().catalog;
    assert_eq!(lacking(&catalog), [2, 2]);
    let mut writer = as_role(&database, "dalp_writer").await;
    let writing = writer.transaction().await.unwrap();
    writing.execute(TRANSFER, &[&"2024-03-19Z"]).await.unwrap();
    let (leaf, other) = (catalog.leaves[0].name.clone(), catalog.leaves[1].name.clone());
    let (mut first, known) = (as_role(&database, "dalp_partitioner").await, catalog.clone());
    let building = tokio::spawn(async move { build(&mut first, &table(), &known, &leaf, true).await.unwrap() });
    super::meanwhile::until(&database, WAITS).await;
    let leaf = &catalog.leaves[0].name;
    assert_eq!(build(&mut client, &table(), &catalog, leaf, true).await.unwrap(), Indexed::Busy, "the same leaf");
    assert_eq!(strip(&mut client, &table(), &catalog, leaf).await.unwrap(), Indexed::Busy, "the same leaf");
    let call = |call: &str| format!("SELECT {call}({})", INDEXER_KEYS[1]);
    admin.batch_execute(&call("pg_advisory_lock")).await.unwrap();
    assert_eq!(build(&mut client, &table(), &catalog, &other, true).await.unwrap(), Indexed::Busy, "a third session");
    admin.batch_execute(&call("pg_advisory_unlock")).await.unwrap();
    let built = build(&mut client, &table(), &catalog, &other, false).await.unwrap();
    assert_eq!(built, Indexed::Made(2), "another leaf");
    writing.commit().await.unwrap();
    assert_eq!(building.await.unwrap(), Indexed::Made(2));
}
