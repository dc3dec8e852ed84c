//! Statistics of leaves and parents, against a real PostgreSQL.

use dalp_partitions::{ANALYZER_KEY, Analyzed, analyze};

use super::said::heard;
use super::*;

const LIMIT: Duration = Duration::from_secs(30);
const SUB_PARENT: &str = "erc20_transfer_31337";
const ROOT: &str = "erc20_transfer";

/// Leaves of three days, and the superuser's connection.
async fn three_days() -> (Database, Client, Client) {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &transfers(), &days(3)).await.unwrap();
    (database, admin, client)
}

/// Writes rows of a day; the counts that the server keeps know of them at once.
async fn write(admin: &Client, day: u32, rows: std::ops::Range<i64>) {
    let sql = format!(
        "INSERT INTO dalp_indexed.erc20_transfer SELECT 31337, '2024-03-{day} 01:00Z', i, 0, sha256(i::text::bytea), '', '', 1, '' \
         FROM generate_series({}::int8, {}) AS i; SELECT pg_stat_force_next_flush()",
        rows.start,
        rows.end - 1
    );
    admin.batch_execute(&sql).await.unwrap();
    admin.batch_execute("SELECT 1").await.unwrap();
}

fn done(names: &[&str]) -> Analyzed {
    Analyzed::Done(names.iter().map(ToString::to_string).collect())
}

async fn run(client: &mut Client, leaves: &[&str], limit: Duration) -> Analyzed {
    analyze(client, &transfers(), CHAIN, leaves, limit).await.unwrap()
}

async fn rows_known(admin: &Client, name: &str) -> String {
    let sql = format!("SELECT reltuples::int8::text FROM pg_class WHERE oid = 'dalp_indexed.{name}'::regclass");
    strings(admin, &sql).await.remove(0)
}

#[tokio::test]
async fn a_leaf_that_was_loaded_and_its_parents_are_analyzed_and_then_when_rows_grew_by_a_tenth() {
    let (_database, admin, mut client) = three_days().await;
    assert_eq!(run(&mut client, &[], LIMIT).await, done(&[]), "nothing is there");
    write(&admin, 20, 0..1_000).await;
    write(&admin, 19, 0..1_000).await;
    let (leaf, gone) = ("erc20_transfer_31337_20240320", "erc20_transfer_31337_19990101");
    assert_eq!(run(&mut client, &[gone, leaf], LIMIT).await, done(&[leaf, SUB_PARENT, ROOT]));
    for (name, rows) in [(leaf, "1000"), (SUB_PARENT, "2000"), (ROOT, "2000")] {
        assert_eq!(rows_known(&admin, name).await, rows, "{name}");
    }
    // Before 18, a parent's leaves are along with it.
    let version: i32 = strings(&admin, "SHOW server_version_num").await[0].parse().unwrap();
    let other = rows_known(&admin, "erc20_transfer_31337_20240319").await;
    assert_eq!(other, if version >= 180_000 { "-1" } else { "1000" });
    let inherited =
        "SELECT DISTINCT tablename::text FROM pg_stats WHERE inherited AND attname = 'block_time' ORDER BY 1";
    assert_eq!(strings(&admin, inherited).await, [ROOT, SUB_PARENT]);

    assert_eq!(run(&mut client, &[], LIMIT).await, done(&[]), "not due");
    write(&admin, 18, 0..199).await;
    assert_eq!(run(&mut client, &[], LIMIT).await, done(&[]), "not yet a tenth");
    write(&admin, 18, 199..200).await;
    assert_eq!(run(&mut client, &[], LIMIT).await, done(&[SUB_PARENT, ROOT]));
    assert_eq!(rows_known(&admin, SUB_PARENT).await, "2200");
    assert_eq!(run(&mut client, &[], LIMIT).await, done(&[]));
}

#[tokio::test]
async fn whoever_is_first_is_not_waited_for() {
    let (database, admin, _) = three_days().await;
    write(&admin, 20, 0..1_000).await;
    let leaf = "erc20_transfer_31337_20240320";
    let (mut client, said) = heard(&database, "dalp_partitioner").await;
    let mut other = as_role(&database, "dalp_partitioner").await;
    let ddl = other.transaction().await.unwrap();
    let lock = format!("LOCK TABLE ONLY dalp_indexed.{SUB_PARENT} IN SHARE UPDATE EXCLUSIVE MODE");
    ddl.batch_execute(&lock).await.unwrap();
    assert_eq!(run(&mut client, &[leaf], LIMIT).await, Analyzed::Busy(vec![leaf.to_owned()]));
    // A fifth of a second, and once.
    said.kept_to_budgets("analyze");
    assert_eq!(said.since(0, &["ANALYZE", &format!("{SUB_PARENT}\"")]).len(), 1);
    ddl.commit().await.unwrap();

    // Nothing stays behind: neither the lock nor the timeouts.
    let set = "SELECT name || setting FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout') ORDER BY 1";
    assert_eq!(strings(&client, set).await, ["lock_timeout0", "statement_timeout0"]);
    let (key, locked) = (format!("SELECT pg_try_advisory_lock({ANALYZER_KEY})"), Analyzed::Busy(Vec::new()));
    assert!(other.query_one(&key, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(run(&mut client, &[leaf], LIMIT).await, locked, "one session at a time");
    other.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    assert_eq!(run(&mut client, &[leaf], LIMIT).await, done(&[leaf, SUB_PARENT, ROOT]));
}

/// An ANALYZE of the leaf takes an hour: it calls this function for each row of its sample.
const ENDLESS: &str = "
    CREATE FUNCTION public.sleep_over(at timestamptz) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM pg_sleep(3600); RETURN 1; END $$;
    CREATE STATISTICS dalp_indexed.endless ON (public.sleep_over(block_time)) FROM dalp_indexed.erc20_transfer_31337_20240320";

#[tokio::test]
async fn an_analyze_ends_when_its_time_is_over_and_strangers_may_not() {
    let (database, admin, mut client) = three_days().await;
    write(&admin, 20, 0..1_000).await;
    let leaf = "erc20_transfer_31337_20240320";
    admin.batch_execute(ENDLESS).await.unwrap();
    assert_eq!(run(&mut client, &[leaf], Duration::from_secs(3)).await, Analyzed::OutOfTime(Vec::new()));
    admin.batch_execute("DROP STATISTICS dalp_indexed.endless").await.unwrap();
    assert_eq!(run(&mut client, &[leaf], LIMIT).await, done(&[leaf, SUB_PARENT, ROOT]));

    let absent = Table::new("dalp_indexed", "nothing", "block_time");
    let error = analyze(&mut client, &absent, CHAIN, &[], LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::NotManaged { .. }), "{error}");
    // PostgreSQL only warns when it skips another owner's table: a skipped table must not count as analyzed.
    let mut writer = as_role(&database, "dalp_writer").await;
    let outcome = analyze(&mut writer, &transfers(), CHAIN, &[leaf], LIMIT).await;
    assert!(matches!(outcome, Err(Error::NotOwner { .. })), "{outcome:?}");
}
