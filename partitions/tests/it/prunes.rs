//! Which queries are planned over few leaves: as docs/partitions.md says.

use super::*;

/// Leaves that planning `sql` locked.
async fn planned_over(client: &Client, sql: &str) -> i64 {
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute(sql).await.unwrap();
    let locked = "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation \
                  WHERE l.pid = pg_backend_pid() AND c.relispartition AND c.relkind = 'r'";
    let leaves = client.query_one(locked, &[]).await.unwrap().get(0);
    client.batch_execute("ROLLBACK").await.unwrap();
    leaves
}

#[tokio::test]
async fn times_that_are_known_when_a_query_is_planned_leave_out_the_other_leaves() {
    let (_database, client) = database().await;
    client
        .batch_execute(
            "CREATE TABLE dalp_assets.many (at timestamptz NOT NULL, n int8) PARTITION BY RANGE (at); \
             DO $$ BEGIN FOR day IN 0..39 LOOP \
                 EXECUTE format('CREATE TABLE dalp_assets.many_%s PARTITION OF dalp_assets.many FOR VALUES FROM (%L) TO (%L)', day, \
                                '2026-03-01 00:00+00'::timestamptz + day * interval '24 hours', \
                                '2026-03-01 00:00+00'::timestamptz + (day + 1) * interval '24 hours'); \
             END LOOP; END $$; \
             CREATE FUNCTION dalp_assets.since(since timestamptz) RETURNS int8 LANGUAGE plpgsql AS \
                 $$ DECLARE found int8; BEGIN \
                    EXECUTE format('SELECT count(*) FROM dalp_assets.many WHERE at >= %L', since) INTO found; RETURN found; END $$; \
             PREPARE by_time (timestamptz) AS SELECT count(*) FROM dalp_assets.many WHERE at >= $1",
        )
        .await
        .unwrap();
    for (sql, leaves) in [
        ("SELECT count(*) FROM dalp_assets.many WHERE at >= now() - interval '1 day'", 40),
        ("SELECT count(*) FROM dalp_assets.many WHERE at >= '2026-04-09 00:00+00'", 1),
        ("SELECT dalp_assets.since('2026-04-09 00:00+00')", 1),
        ("SET plan_cache_mode = force_generic_plan; EXECUTE by_time ('2026-04-09 00:00+00')", 40),
        ("SET plan_cache_mode = force_custom_plan; EXECUTE by_time ('2026-04-09 00:00+00')", 1),
    ] {
        assert_eq!(planned_over(&client, sql).await, leaves, "{sql}");
    }
}
