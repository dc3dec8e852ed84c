//! Tables of users: which ones are managed, and the inherited properties of their new leaves.

use dalp_partitions::{audit, nested, read_inventory, unfit};

use super::*;

/// A table that is not cut by time, or differs from its declaration, is refused with the reason by every command.
#[tokio::test]
async fn a_table_that_does_not_fit_is_refused_with_the_reason() {
    let (database, admin) = database().await;
    admin
        .batch_execute(
            "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; \
             CREATE TABLE dalp_assets.by_day (day int NOT NULL, at timestamptz) PARTITION BY RANGE (day); \
             CREATE TABLE dalp_assets.by_day_1 PARTITION OF dalp_assets.by_day FOR VALUES FROM (20240101) TO (20240102); \
             CREATE TABLE dalp_assets.by_tenant (tenant uuid, at timestamptz) PARTITION BY LIST (tenant); \
             CREATE TABLE dalp_assets.by_both (tenant int8, at timestamptz) PARTITION BY RANGE (at, tenant); RESET ROLE",
        )
        .await
        .unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let own = |flat, name: &str, time: &str| Table {
        flat,
        ..Table::new("dalp_assets", name, time).registered_in(registry())
    };
    for (table, why) in [
        (own(true, "by_day", "day"), "such as 20240131"),
        (own(true, "by_day", "at"), "partitioned by \"day\""),
        (own(true, "by_day", "when"), "no column \"when\": set time_column to one of its columns (at)"),
        (own(false, "by_tenant", "at"), "is uuid, and only whole numbers are supported"),
        (own(true, "by_both", "at"), "2 columns (at, tenant)"),
    ] {
        let told = unfit(&mut client, &table).await.unwrap().unwrap();
        assert!(told.contains(why), "{table}: {told}");
        for error in [
            ensure(&mut client, &table, 0, &Policy::default(), now(), &days(1)).await.map(drop).unwrap_err(),
            read_inventory(&mut client, &table).await.map(drop).unwrap_err(),
            audit(&mut client, &table).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(&error, Error::Unfit { .. }) && error.to_string().contains(&told), "{table}: {error}");
        }
    }
    assert_eq!(unfit(&mut client, &logs()).await.unwrap(), None);
    assert!(
        unfit(&mut client, &own(true, "nothing", "at")).await.unwrap().unwrap().contains("no such partitioned table")
    );
}

/// With dates, under any policy: a leaf of an hour would hold nothing.
#[tokio::test]
async fn leaves_of_dates_are_of_a_day_and_more() {
    let (database, admin) = database().await;
    admin
        .batch_execute(
            "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; \
             CREATE TABLE dalp_assets.by_date (at date NOT NULL) PARTITION BY RANGE (at); RESET ROLE",
        )
        .await
        .unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let table = Table::flat("dalp_assets", "by_date", "at");
    let hourly = Policy { interval: dalp_partitions::Interval::Hour, ..Policy::default() };
    let made = ensure(&mut client, &table, 0, &hourly, now(), &Need::ahead_of(now())).await.unwrap();
    assert_eq!(made.created.len(), 4);
    admin.batch_execute("INSERT INTO dalp_assets.by_date VALUES ('2024-03-20'), ('2024-03-23')").await.unwrap();
}

/// A table and its own partition, or the same table twice: a leaf of theirs would have two policies.
#[tokio::test]
async fn a_table_that_is_a_part_of_another_one_is_named() {
    let (database, _admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &logs(), &days(1)).await.unwrap();
    let of = |name: &str| Table::flat("dalp_indexed", name, "block_time");
    let (leaf, sub, absent) = (of("logs_31337_20240320"), of("logs_31337"), of("nothing"));
    let all = [&absent, &leaf, &transfers(), &sub, &logs()];
    assert_eq!(nested(&client, &all).await.unwrap(), [(1, 3), (3, 4)]);
    assert_eq!(nested(&client, &[&sub, &sub]).await.unwrap(), [(0, 1), (1, 0)]);
    assert_eq!(nested(&client, &[&logs(), &transfers()]).await.unwrap(), []);
}

/// Tablespace, storage options, replica identity and grants: as on the table, or as on its newest leaf.
#[tokio::test]
async fn new_leaves_are_made_like_the_newest() {
    let (database, admin) = database().await;
    let space = format!("dalp_{:016x}", rand::random::<u64>());
    admin.batch_execute("SET allow_in_place_tablespaces = on").await.unwrap();
    admin.batch_execute(&format!("CREATE TABLESPACE {space} LOCATION ''")).await.unwrap();
    let make = format!(
        "GRANT CREATE ON TABLESPACE {space} TO dalp_partitioner; \
         GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; \
         CREATE TABLE dalp_assets.seen (at timestamptz NOT NULL, n int8 NOT NULL, t text) PARTITION BY RANGE (at) TABLESPACE {space}; \
         CREATE UNIQUE INDEX by_n ON dalp_assets.seen (n, at); \
         CREATE TABLE dalp_assets.seen_1 PARTITION OF dalp_assets.seen FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00') \
             WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false); \
         ALTER TABLE dalp_assets.seen_1 REPLICA IDENTITY USING INDEX seen_1_n_at_idx; \
         GRANT SELECT ON dalp_assets.seen_1 TO dalp_reader; RESET ROLE"
    );
    admin.batch_execute(&make).await.unwrap();
    let mut client = as_role(&database, "dalp_partitioner").await;
    let seen = Table::flat("dalp_assets", "seen", "at");
    let made = ensure(&mut client, &seen, 0, &Policy::default(), now(), &Need::ahead_of(now())).await.unwrap();
    assert_eq!(made.created.len(), 4);
    let like = "SELECT concat_ws(' ', spcname, c.reloptions, toast.reloptions, c.relreplident, \
                   (SELECT count(*) FROM pg_index WHERE indrelid = c.oid AND indisreplident), c.relacl) \
                FROM pg_class AS c JOIN pg_tablespace AS s ON s.oid = c.reltablespace JOIN pg_class AS toast ON toast.oid = c.reltoastrelid \
                WHERE c.relname LIKE 'seen\\_%' AND c.relkind = 'r' AND c.relispartition";
    let leaves = strings(&admin, like).await;
    assert_eq!(leaves.len(), 5);
    assert!(
        leaves[0].contains("fillfactor=70") && leaves[0].contains(" i 1 ") && leaves[0].contains("dalp_reader"),
        "{leaves:?}"
    );
    assert!(leaves.iter().all(|leaf| *leaf == leaves[0]), "{leaves:#?}");
    admin.batch_execute("DROP TABLE dalp_assets.seen").await.unwrap();
    admin.batch_execute(&format!("DROP TABLESPACE {space}")).await.unwrap();
}
