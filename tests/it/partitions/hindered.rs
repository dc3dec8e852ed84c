//! Future obstacles of leaves, and their owners: reported before any move, each with the remedy.

use dalp_fixtures::AnvilOptions;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, anvil_with, stage};

use super::{made_by_the_partitioner, one, said};

/// Tables with a leaf of old rows and one of now, and an obstacle for the end of a leaf's way; the last table has none.
const HINDERED: &str = "
    DO $$ DECLARE name text; BEGIN
        FOREACH name IN ARRAY ARRAY['rest', 'pointed', 'viewed', 'free'] LOOP
            EXECUTE format('CREATE TABLE dalp_assets.%s (n int8 NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (n, at)) PARTITION BY RANGE (at)', name);
            EXECUTE format('CREATE TABLE dalp_assets.%s_old PARTITION OF dalp_assets.%1$s FOR VALUES FROM (MINVALUE) TO (%L)', name, '2020-01-01 00:00+00');
            EXECUTE format('CREATE TABLE dalp_assets.%s_now PARTITION OF dalp_assets.%1$s FOR VALUES FROM (%L) TO (%L)', name,
                           '2020-01-01 00:00+00', '2200-01-01 00:00+00');
            EXECUTE format('INSERT INTO dalp_assets.%s VALUES (1, %L), (2, now())', name, '2019-01-01');
        END LOOP;
    END $$;
    CREATE TABLE dalp_assets.several (n int8, at timestamptz) PARTITION BY LIST (n);
    CREATE TABLE dalp_assets.two PARTITION OF dalp_assets.several FOR VALUES IN (1, 2) PARTITION BY RANGE (at)";

/// Their obstacles, by another user.
const HINDERS: &str = "
    CREATE TABLE dalp_assets.rest_other PARTITION OF dalp_assets.rest DEFAULT;
    CREATE TABLE dalp_assets.pointing (n int8, at timestamptz, CONSTRAINT to_all FOREIGN KEY (n, at) REFERENCES dalp_assets.pointed);
    CREATE VIEW dalp_assets.of_old AS SELECT n FROM dalp_assets.viewed_old";

/// The report of each, with the command that helps.
const MENDED: [(&str, &str, &str); 3] = [
    (
        "rest",
        "dalp_assets.rest_other is a DEFAULT partition",
        "ALTER TABLE dalp_assets.rest DETACH PARTITION dalp_assets.rest_other",
    ),
    (
        "pointed",
        "foreign key to_all of dalp_assets.pointing",
        "ALTER TABLE dalp_assets.pointing DROP CONSTRAINT to_all",
    ),
    ("viewed", "view dalp_assets.of_old would be lost", "DROP VIEW dalp_assets.of_old"),
];

/// Told when nothing is due yet, and again when something is: nothing is sealed then, no floor is raised, and no table hides another.
#[test]
fn what_will_be_in_the_way_is_told_before_anything_is_begun() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let client = database.superuser().await;
        made_by_the_partitioner(&client, HINDERED).await;
        client.batch_execute(HINDERS).await.unwrap();
        let tables = |retention: &str| {
            let table = |name: &str, list: bool| {
                format!(
                    "[tables.{name}]\ntable = \"dalp_assets.{name}\"\ntime_column = \"at\"\nlist = {list}\naction = \"drop\"\n\
                     retention = \"{retention}\"\ngrace = \"0s\"\nmax_share_per_run = 100\n"
                )
            };
            let flat = ["rest", "pointed", "viewed", "free"].map(|name| table(name, false)).concat();
            Site { more: flat + &table("several", true), ..Site::new(&database, &anvil.http_url()) }
        };
        let early = tables("20000d");
        let said_early = [
            said(&early, &["partitions", "plan", "--json"], 1),
            said(&early, &["partitions", "doctor", "--json"], 1),
            said(&early, &["config", "check", "--connect"], 1),
        ];
        for said in said_early {
            for (_, what, next) in MENDED {
                assert!(said.contains(what) && said.contains(next), "{what}: {next}: {said}");
            }
            assert!(said.contains("FOR VALUES IN ('1', '2'), and a key is one number"), "{said}");
        }
        let checked = said(&early, &["config", "check", "--connect"], 1);
        assert!(checked.contains("ok      tables.free") && checked.contains("ok      tables.logs"), "{checked}");

        // Due: the leaf without an obstacle goes.
        let due = tables("30d");
        let applied = said(&due, &["partitions", "apply"], 1);
        let begun = "SELECT string_agg(DISTINCT object || ' ' || action, ' ' ORDER BY object || ' ' || action) FROM dalp_audit.activity \
                     WHERE action NOT IN ('partition.failed', 'partition.note')";
        let deeds = "dalp_assets.free_old partition.detach dalp_assets.free_old partition.drop dalp_assets.free_old partition.retire \
                     dalp_assets.free_old partition.seal";
        assert_eq!(client.query_one(begun, &[]).await.unwrap().get::<_, String>(0), deeds, "{applied}");
        assert_eq!(one(&client, "SELECT count(*) FROM dalp_indexed.retention_floor").await, 1);
        for (name, what, next) in MENDED {
            assert!(applied.contains(what), "{what}: {applied}");
            client.batch_execute(next).await.unwrap();
            let left = format!("SELECT count(*) FROM pg_class WHERE relname = '{name}_old'");
            assert_eq!(one(&client, &left).await, 1);
            said(&due, &["partitions", "apply", "--table", name], 0);
            assert_eq!(one(&client, &left).await, 0);
        }
    });
}

/// Every command names the blocking session with its statement; and a begun detach is finished even if rows are now kept.
#[test]
fn who_is_in_the_way_is_named_and_what_was_begun_is_ended() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let client = database.superuser().await;
        made_by_the_partitioner(
            &client,
            "CREATE TABLE dalp_assets.position (at timestamptz NOT NULL) PARTITION BY RANGE (at); \
             CREATE TABLE dalp_assets.first PARTITION OF dalp_assets.position FOR VALUES FROM (MINVALUE) TO ('2019-01-01 00:00+00'); \
             CREATE TABLE dalp_assets.second PARTITION OF dalp_assets.position FOR VALUES FROM ('2019-01-01 00:00+00') TO ('2020-01-01 00:00+00'); \
             CREATE TABLE dalp_assets.third PARTITION OF dalp_assets.position FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2200-01-01 00:00+00'); \
             INSERT INTO dalp_assets.position VALUES ('2018-01-01'), ('2019-02-02'), (now())",
        )
        .await;
        let with = |action: &str| {
            let more = format!(
                "[tables.position]\ntable = \"dalp_assets.position\"\ntime_column = \"at\"\n{action}\ngrace = \"0s\"\nmax_share_per_run = 100\n"
            );
            Site { more, ..Site::new(&database, &anvil.http_url()) }
        };
        let (drops, keeps) = (with("action = \"drop\"\nretention = \"30d\""), with("action = \"keep\""));
        // A session's statement is shown to members of its role.
        let reader = database.client(ADMIN).await;
        let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        reader.batch_execute("BEGIN; SELECT count(*) FROM dalp_assets.first").await.unwrap();
        let named = [format!("pid {pid} "), "SELECT count(*) FROM dalp_assets.first".to_owned()];
        let applied = said(&drops, &["partitions", "apply", "--table", "position"], 1);
        assert!(named.iter().all(|named| applied.matches(named).count() > 1), "the log and the error: {applied}");
        for command in [["partitions", "doctor", "--json"].as_slice(), &["partitions", "status", "--json"]] {
            let output = drops.call(command);
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(named.iter().all(|named| told.contains(named)), "{command:?}: {told}");
        }
        let left = "SELECT count(*) FROM pg_class WHERE relname IN ('first', 'second')";
        assert_eq!(one(&client, left).await, 1, "the other one is dropped");

        // Begun by another user, and not ended.
        reader.batch_execute("COMMIT; BEGIN; SELECT count(*) FROM dalp_assets.position").await.unwrap();
        let detach = "ALTER TABLE dalp_assets.position DETACH PARTITION dalp_assets.first CONCURRENTLY";
        client.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
        client.batch_execute(detach).await.unwrap_err();
        client.batch_execute("RESET lock_timeout").await.unwrap();
        reader.batch_execute("COMMIT").await.unwrap();
        let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
        assert_eq!(one(&client, pending).await, 1);
        assert!(
            said(&keeps, &["partitions", "audit", "--json"], 1).contains("`dalp-indexer partitions apply` ends it")
        );
        let applied = said(&keeps, &["partitions", "apply", "--table", "position"], 0);
        assert!(applied.contains("finalize"), "{applied}");
        assert_eq!(one(&client, pending).await, 0);
        said(&keeps, &["partitions", "audit", "--json"], 0);
    });
}

/// A key's sub-parent registered beside its table would have two policies: only the table's leaves go.
#[test]
fn a_table_that_is_a_part_of_another_one_is_refused() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil_with(AnvilOptions::default()).await);
        let client = database.superuser().await;
        made_by_the_partitioner(
            &client,
            "CREATE TABLE dalp_assets.whole (n int8, at timestamptz NOT NULL) PARTITION BY LIST (n); \
             CREATE TABLE dalp_assets.part PARTITION OF dalp_assets.whole FOR VALUES IN (1) PARTITION BY RANGE (at); \
             CREATE TABLE dalp_assets.old PARTITION OF dalp_assets.part FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00+00'); \
             CREATE TABLE dalp_assets.now PARTITION OF dalp_assets.part FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2200-01-01 00:00+00'); \
             INSERT INTO dalp_assets.whole VALUES (1, '2019-01-01'), (1, now())",
        )
        .await;
        let more = "[tables.whole]\ntable = \"dalp_assets.whole\"\ntime_column = \"at\"\nlist = true\n\
                    [tables.part]\ntable = \"dalp_assets.part\"\ntime_column = \"at\"\naction = \"drop\"\nretention = \"1d\"\ngrace = \"0s\"\n\
                    max_share_per_run = 100\n";
        let site = Site { more: more.to_owned(), ..Site::new(&database, &anvil.http_url()) };
        let checked = said(&site, &["config", "check", "--connect"], 1);
        assert!(checked.contains("failed  tables.part") && checked.contains("ok      tables.whole"), "{checked}");
        for command in ["plan", "doctor", "apply"] {
            let told = said(&site, &["partitions", command, "--json"], 1);
            assert!(told.contains("which tables.whole maintains; a leaf has one policy"), "{command}: {told}");
        }
        assert_eq!(one(&client, "SELECT count(*) FROM dalp_assets.whole").await, 2);
    });
}
