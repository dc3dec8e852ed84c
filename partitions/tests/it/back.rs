//! The ways back: the restored rows, and the remains of an interrupted restore.

use dalp_partitions::{Advice, Error, Switches, holds, read_inventory, restore, undo};

use super::archive::{Folder, request, run};
use super::meanwhile::{pid, until};
use super::retire::filled;
use super::*;

const LEAF: &str = "logs_31337_20240312";

/// The user's CHECKs stay, also one that repeats the bounds; ours is dropped.
#[tokio::test]
async fn a_leaf_keeps_the_checks_that_it_had() {
    let (database, admin, mut client) = filled().await;
    let owner = as_role(&database, "dalp_partitioner").await;
    let bounds = "SELECT pg_get_partition_constraintdef('dalp_indexed.logs_31337_20240313'::regclass)";
    let bounds = &strings(&owner, bounds).await[0];
    let add = format!(
        "ALTER TABLE dalp_indexed.{LEAF} ADD CONSTRAINT of_the_user CHECK (log_index >= 0); \
         ALTER TABLE dalp_indexed.logs_31337_20240313 ADD CONSTRAINT as_the_bounds CHECK ({bounds})"
    );
    owner.batch_execute(&add).await.unwrap();
    let folder = Folder::new();
    run(&mut client, &folder.archive(), Switches { drop: false, ..Switches::ALL }).await;
    // A user adds one more a day after the detach.
    owner
        .batch_execute(&format!("ALTER TABLE dalp_indexed.{LEAF} ADD CONSTRAINT later CHECK (tx_index >= 0)"))
        .await
        .unwrap();
    undo(&mut client, &logs(), LEAF, "needed", "ops").await.unwrap();
    let checks = "SELECT conrelid::regclass || ' ' || conname FROM pg_constraint WHERE contype = 'c' AND conrelid IN \
                  (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'dalp_indexed.logs_31337'::regclass) ORDER BY 1";
    let expected =
        ["12 later", "12 of_the_user", "13 as_the_bounds"].map(|end| format!("dalp_indexed.logs_31337_202403{end}"));
    assert_eq!(strings(&admin, checks).await, expected);
}

/// The parts of a restored leaf: its table, the served rows, holds, and its registry rows.
const FACTS: &str = "SELECT concat_ws(' ', (SELECT count(*) FROM pg_class WHERE relname = 'logs_31337_20240312'), \
                       (SELECT count(*) FROM dalp_indexed.logs WHERE block_time < '2024-03-13'), \
                       (SELECT count(*) FROM dalp_indexed.legal_hold), \
                       (SELECT string_agg(state, ' ' ORDER BY leaf_id) FROM dalp_indexed.leaf WHERE leaf = 'logs_31337_20240312'))";

/// Cancelled at one await after another, it leaves nothing behind, and the same command starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_short_leaves_nothing() {
    let (database, admin, mut client) = filled().await;
    let folder = Folder::new();
    run(&mut client, &folder.archive(), Switches::ALL).await;
    let (mut awaits, mut cuts, mut whole) = (1, 0, false);
    while !whole {
        let mut client = as_role(&database, "dalp_partitioner").await;
        let ours = pid(&client).await;
        let (logs, archive) = (logs(), folder.archive());
        let restored = cut(awaits, restore(&mut client, &logs, &archive, &request(LEAF))).await;
        drop(client);
        until(&database, &format!("SELECT 1 - count(*) FROM pg_stat_activity WHERE pid = {ours}")).await;
        match &restored {
            // Cut after the commit: the leaf has its hold and its floor.
            Some(Err(error)) => assert!(error.to_string().contains("it is already in its table"), "{error}"),
            Some(Ok(_)) => {}
            None => {
                let facts = strings(&admin, FACTS).await;
                assert!(facts == ["0 0 0 DROPPED"] || facts == ["1 24 1 DROPPED ARCHIVED"], "{facts:?}");
                cuts += 1;
            }
        }
        whole = restored.is_some();
        awaits += 9;
    }
    assert!(cuts > 3, "only {cuts} cuts struck");
    assert_eq!(strings(&admin, FACTS).await, ["1 24 1 DROPPED ARCHIVED"]);
}

/// A failed one changes nothing; the message names the command that works.
#[tokio::test]
async fn a_restore_that_fails_leaves_nothing_behind() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    run(&mut client, &folder.archive(), Switches::ALL).await;
    admin
        .batch_execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no hold today'; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON dalp_indexed.legal_hold FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        )
        .await
        .unwrap();
    let error = restore(&mut client, &logs(), &folder.archive(), &request(LEAF)).await.unwrap_err();
    assert!(error.to_string().contains("no hold today"), "{error}");
    assert_eq!(strings(&admin, FACTS).await, ["0 0 0 DROPPED"]);
    let entries = read_inventory(&mut client, &logs()).await.unwrap().entries;
    assert!(entries.iter().all(|entry| entry.leaf != LEAF), "{entries:?}");
    assert_eq!(holds(&client, &logs(), true).await.unwrap(), []);

    // Another user's table with this name.
    admin
        .batch_execute(&format!(
            "DROP TRIGGER refuse ON dalp_indexed.legal_hold; CREATE TABLE dalp_indexed.{LEAF} (n int8)"
        ))
        .await
        .unwrap();
    let error = restore(&mut client, &logs(), &folder.archive(), &request(LEAF)).await.unwrap_err();
    assert!(matches!(&error, Error::Unfit { why, .. } if why.contains("RENAME TO")), "{error}");

    // The same, made by a restore of an older program, which was two transactions.
    let planned = format!(
        "ALTER TABLE dalp_indexed.{LEAF} OWNER TO dalp_partitioner; \
         INSERT INTO dalp_indexed.leaf (table_schema, table_name, key, leaf_schema, leaf, relid, catalog, from_time, to_time, state) \
         VALUES ('dalp_indexed', 'logs', {CHAIN}, 'dalp_indexed', '{LEAF}', 'dalp_indexed.{LEAF}'::regclass, \
                 dalp_indexed.catalog_identity(), '2024-03-12', '2024-03-13', 'PLANNED')"
    );
    admin.batch_execute(&planned).await.unwrap();
    let said = undo(&mut client, &logs(), LEAF, "r", "a").await.unwrap_err().to_string();
    assert!(said.contains(&Advice::Restore(Some(LEAF)).to_string()), "{said}");
    restore(&mut client, &logs(), &folder.archive(), &request(LEAF)).await.unwrap();
    assert_eq!(strings(&admin, FACTS).await, ["1 24 1 DROPPED DROPPED ARCHIVED"]);
}
