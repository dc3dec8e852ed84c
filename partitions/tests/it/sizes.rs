//! Sizes of leaves from the server, and the interval chosen from them.

use dalp_partitions::{Interval, Target, sizes};

use super::said::heard;
use super::*;

#[tokio::test]
async fn sizes_are_read_in_one_look_and_choose_the_next_interval() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let catalog = make(&mut client, &transfers(), &days(9)).await.unwrap().catalog;
    make(&mut client, &logs(), &days(2)).await.unwrap();
    let rows = "INSERT INTO dalp_indexed.erc20_transfer \
                SELECT 31337, t, 1, 0, sha256(t::text::bytea), '', '', 1, repeat('x', 500)::bytea \
                FROM generate_series('2024-03-12 00:00Z'::timestamptz, '2024-03-19 23:59Z', '1 minute') AS t";
    admin.batch_execute(rows).await.unwrap();
    // Read by any role, in any time zone.
    let mut reader = as_role(&database, "dalp_reader").await;
    reader.batch_execute("SET TimeZone = 'Australia/Lord_Howe'; SET DateStyle = 'SQL, DMY'").await.unwrap();
    let found = sizes(&mut reader, &transfers(), CHAIN).await.unwrap();
    let bounds: Vec<_> = catalog.leaves.iter().map(|leaf| leaf.bounds).collect();
    assert_eq!(found.iter().map(|size| size.bounds).collect::<Vec<_>>(), bounds);
    let (full, head) = found.split_at(8);
    assert!(full.iter().all(|size| (1_000_000..2_000_000).contains(&size.bytes)), "{found:?}");
    assert!(head[0].bytes < 100_000, "{found:?}");
    assert_eq!(sizes(&mut reader, &transfers(), 1).await.unwrap(), []);

    // About 1.2 MB per day: a week is nearer to 10 MB than a day, and begins at the end of the days.
    let target = Target { bytes: 10_000_000, least: 5_000_000, most: 20_000_000, ..Target::default() };
    let choice = Policy::default().sized(&found, &target, now());
    assert_eq!(choice.interval, Interval::Week, "{choice:?}");
    let weekly = Policy { interval: choice.interval, ..Policy::default() };
    assert_eq!(weekly.sized(&found, &target, now()).interval, Interval::Week, "it stays");
    let ahead = Need::ahead_of(now());
    let report = ensure(&mut client, &transfers(), CHAIN, &weekly, now(), &ahead).await.unwrap();
    let leaves = &report.catalog.leaves;
    assert_eq!(&leaves.iter().take(9).map(|leaf| leaf.bounds).collect::<Vec<_>>(), &bounds, "those stay as they are");
    assert!(leaves.windows(2).all(|pair| pair[1].bounds.from() == Some(pair[0].bounds.to())), "{leaves:?}");
    let ends: Vec<_> = leaves.iter().skip(9).map(|leaf| leaf.bounds.to().to_string()).collect();
    assert_eq!(ends, ["03-25", "04-01", "04-08", "04-15"].map(|day| format!("2024-{day} 00:00:00 UTC"))[..ends.len()]);
}

#[tokio::test]
async fn a_leaf_that_is_locked_is_not_waited_for() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &transfers(), &days(2)).await.unwrap();
    admin.batch_execute("BEGIN; LOCK TABLE dalp_indexed.erc20_transfer_31337_20240319").await.unwrap();
    let (mut client, said) = heard(&database, "dalp_partitioner").await;
    let error = sizes(&mut client, &transfers(), CHAIN).await.unwrap_err();
    assert!(error.to_string().contains("lock timeout"), "{error}");
    let look = said.since(0, &["pg_total_relation_size"]);
    assert_eq!(look.iter().map(|said| said.lock_timeout).collect::<Vec<_>>(), [Duration::from_millis(200)]);
    admin.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(sizes(&mut client, &transfers(), CHAIN).await.unwrap().len(), 2);
}
