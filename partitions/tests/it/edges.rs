//! Partitions of times that no calendar of ours has: read as the server holds them, and brought back so.

use std::collections::BTreeMap;

use dalp_partitions::{
    Interval, Reference, Terms, audit, newest_rows, read_inventory, release_hold, restore, sizes, undo,
};

use super::archive::{Folder, request, retention};
use super::*;

fn own() -> Table {
    Table::flat("dalp_assets", "seen", "at").registered_in(registry())
}

/// Leaves from before all times to after all, with rows in the first two and at the end.
const TABLE: &str = "
    GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner;
    CREATE TABLE dalp_assets.seen (at timestamptz NOT NULL, n int8) PARTITION BY RANGE (at);
    CREATE TABLE dalp_assets.seen_never PARTITION OF dalp_assets.seen FOR VALUES FROM (MINVALUE) TO ('-infinity');
    CREATE TABLE dalp_assets.seen_old PARTITION OF dalp_assets.seen FOR VALUES FROM ('-infinity') TO ('2024-03-01 00:00+00');
    CREATE TABLE dalp_assets.seen_march PARTITION OF dalp_assets.seen FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-20 00:00+00');
    CREATE TABLE dalp_assets.seen_far PARTITION OF dalp_assets.seen FOR VALUES FROM ('290000-02-29 00:00+00') TO ('infinity');
    CREATE TABLE dalp_assets.seen_end PARTITION OF dalp_assets.seen FOR VALUES FROM ('infinity') TO (MAXVALUE);
    INSERT INTO dalp_assets.seen VALUES ('-infinity', 1), ('0044-03-15 BC', 2), ('2024-03-02', 3), ('290000-03-01', 4), ('infinity', 5);
    RESET ROLE";

const BOUNDS: &str = "SELECT relname || ' ' || pg_get_expr(relpartbound, oid) FROM pg_class \
                      WHERE relispartition AND relname LIKE 'seen%' ORDER BY 1";

#[tokio::test]
async fn partitions_of_any_time_are_read_kept_and_brought_back() {
    let (database, admin) = database().await;
    admin.batch_execute(TABLE).await.unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let mut before = strings(&admin, BOUNDS).await;
    // It is empty, and goes first.
    before.retain(|leaf| !leaf.starts_with("seen_never "));

    let catalog = read(&mut client, &own(), 0).await.unwrap();
    assert_eq!(catalog.leaves.len(), 5);
    assert_eq!(catalog.leaf_at(at("-0044-01-01T00:00:00Z")).unwrap().name, "seen_old");
    assert_eq!(sizes(&mut client, &own(), 0).await.unwrap().len(), 5);
    let said = audit(&mut client, &own()).await.unwrap();
    assert!(
        said.iter().any(|finding| finding.object == "seen_far" && finding.what.contains("290000-02-29")),
        "{said:?}"
    );
    // Leaves of now are made beside them.
    let policy = Policy { interval: Interval::Month, ..Policy::default() };
    let made = ensure(&mut client, &own(), 0, &policy, now(), &Need::ahead_of(now())).await.unwrap();
    assert_eq!((made.created.len(), made.catalog.leaves.len()), (4, 9));

    let newest = newest_rows(&mut client, &own(), TimeDelta::days(1)).await.unwrap();
    assert_eq!(newest, BTreeMap::from([(0, at("2024-03-02T00:00:00Z"))]));
    let folder = Folder::new();
    let (retention, reference) = (retention(), Reference::Final(BTreeMap::from([(0, chrono::Utc::now())])));
    let outcome = |switches| Terms {
        retention: &retention,
        switches,
        reference: &reference,
        can_archive: true,
        allow_many: true,
    };

    let kept = Switches { drop: false, ..Switches::ALL };
    let done = retire(&mut client, &own(), &outcome(kept), Some(&folder.archive())).await.unwrap();
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    let undone = undo(&mut client, &own(), "seen_old", "needed", "ops").await.unwrap();
    assert!(undone.leaves.contains(&"seen_march".to_owned()), "{undone:?}");
    let all = strings(&admin, BOUNDS).await;
    assert!(before.iter().all(|bounds| all.contains(bounds)), "{before:?} {all:?}");

    release_hold(&mut client, &registry(), undone.hold, "ops").await.unwrap();
    let done = retire(&mut client, &own(), &outcome(Switches::ALL), Some(&folder.archive())).await.unwrap();
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    for (leaf, rows) in [("seen_old", 2), ("seen_march", 1)] {
        let back = restore(&mut client, &own(), &folder.archive(), &request(leaf)).await.unwrap();
        assert_eq!(back.rows, rows);
    }
    let all = strings(&admin, BOUNDS).await;
    assert!(before.iter().all(|bounds| all.contains(bounds)), "{before:?} {all:?}");
    // A floor that nothing is above is read, too.
    admin
        .batch_execute("UPDATE dalp_indexed.retention_floor SET floor = 'infinity' WHERE table_name = 'seen'")
        .await
        .unwrap();
    assert!(read_inventory(&mut client, &own()).await.unwrap().floors[&0] > DateTime::<Utc>::MAX_UTC);
}
