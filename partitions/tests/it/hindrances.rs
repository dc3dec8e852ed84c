//! Obstacles for the moves of a leaf: known, with the statement that removes them, before the leaf is sealed.

use dalp_partitions::{Act, Hindrance, Obstacle, Outcome, hindrances, read_inventory, retire};

use super::*;

fn own() -> Table {
    Table::flat("dalp_assets", "Seen \"it\"", "At").registered_in(registry())
}

/// A table with a leaf for each of so many days of March, the newest with a row, and names that must be quoted.
async fn days_of_march(database: &Database, admin: &Client, count: u32) -> Client {
    let make = "GRANT USAGE, CREATE ON SCHEMA dalp_assets TO dalp_partitioner; SET ROLE dalp_partitioner; \
                CREATE TABLE dalp_assets.\"Seen \"\"it\"\"\" (id int8 NOT NULL, \"At\" timestamptz NOT NULL, t text, PRIMARY KEY (id, \"At\")) \
                    PARTITION BY RANGE (\"At\")";
    admin.batch_execute(make).await.unwrap();
    for day in 1..=count {
        let leaf = format!(
            "CREATE TABLE dalp_assets.\"Day {day}\" PARTITION OF dalp_assets.\"Seen \"\"it\"\"\" \
             FOR VALUES FROM ('2024-03-{day:02} 00:00+00') TO ('2024-03-{:02} 00:00+00')",
            day + 1
        );
        admin.batch_execute(&leaf).await.unwrap();
    }
    let row = format!(
        "INSERT INTO dalp_assets.\"Seen \"\"it\"\"\" VALUES (1, '2024-03-{count:02} 12:00+00', 'x'); RESET ROLE"
    );
    admin.batch_execute(&row).await.unwrap();
    as_role(database, "dalp_partitioner").await
}

async fn run(client: &mut Client, action: Action) -> Outcome {
    let (keep, grace) = (TimeDelta::zero(), TimeDelta::zero());
    let retention = Retention { action, time: keep, grace, max_leaves: 100, max_share: 1.0 };
    let reference = Reference::Final(BTreeMap::from([(0, now())]));
    let terms = Terms {
        retention: &retention,
        switches: Switches::ALL,
        reference: &reference,
        can_archive: false,
        allow_many: true,
    };
    retire(client, &own(), &terms, None).await.unwrap()
}

/// The leaves that cannot go, with why, and that nothing was begun with any of them.
async fn kept(admin: &Client, outcome: &Outcome) -> BTreeMap<String, String> {
    let sealed = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'dalp_seal_rows'";
    assert_eq!(strings(admin, sealed).await, [""; 0]);
    outcome.failed.iter().map(|(next, error)| (next.entry.leaf.clone(), error.to_string())).collect()
}

/// The dependent object, the leaf's day, and the statement that ends the dependency.
const NEEDED: [(u32, &str, &str, &str); 8] = [
    (
        1,
        "CREATE VIEW dalp_assets.\"The first\" AS SELECT count(*) FROM dalp_assets.\"Day 1\"",
        "view dalp_assets.\"The first\"",
        "DROP VIEW dalp_assets.\"The first\"",
    ),
    (
        2,
        "CREATE MATERIALIZED VIEW dalp_assets.second AS SELECT id, t FROM dalp_assets.\"Day 2\" GROUP BY id, \"At\"",
        "materialized view dalp_assets.second",
        "DROP MATERIALIZED VIEW dalp_assets.second",
    ),
    (
        3,
        "CREATE TABLE dalp_assets.pointing (a int8, b timestamptz, CONSTRAINT \"to it\" FOREIGN KEY (a, b) REFERENCES dalp_assets.\"Day 3\")",
        "table constraint \"to it\" on dalp_assets.pointing",
        "ALTER TABLE dalp_assets.pointing DROP CONSTRAINT \"to it\"",
    ),
    (
        4,
        "CREATE FUNCTION dalp_assets.fourth(int8) RETURNS int8 LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM dalp_assets.\"Day 4\"; END",
        "function dalp_assets.fourth(bigint)",
        "DROP FUNCTION dalp_assets.fourth(bigint)",
    ),
    (
        5,
        "CREATE TABLE dalp_assets.other (n int8); \
         CREATE POLICY few ON dalp_assets.other USING (n IN (SELECT id FROM dalp_assets.\"Day 5\"))",
        "policy few on dalp_assets.other",
        "DROP POLICY few on dalp_assets.other",
    ),
    (
        6,
        "SET ROLE dalp_partitioner; CREATE SEQUENCE dalp_assets.numbers OWNED BY dalp_assets.\"Day 6\".id; RESET ROLE; \
         CREATE TABLE dalp_assets.numbered (n int8 DEFAULT nextval('dalp_assets.numbers'))",
        "default value for dalp_assets.numbered.n",
        "ALTER TABLE dalp_assets.numbered ALTER n DROP DEFAULT",
    ),
    (
        7,
        "CREATE TABLE dalp_assets.rows (\"Row\" dalp_assets.\"Day 7\"[], n int8)",
        "table column dalp_assets.rows.\"Row\"",
        "ALTER TABLE dalp_assets.rows DROP COLUMN \"Row\"",
    ),
    (
        8,
        "CREATE TABLE dalp_assets.ruled (n int8); \
         CREATE RULE eighth AS ON INSERT TO dalp_assets.ruled DO ALSO DELETE FROM dalp_assets.\"Day 8\"",
        "rule eighth on dalp_assets.ruled",
        "DROP RULE eighth on dalp_assets.ruled",
    ),
];

/// An object that is dropped with the leaf blocks nothing.
const PARTS: &str = "
    ALTER TABLE dalp_assets.\"Day 9\" ADD CONSTRAINT few CHECK (id > 0 AND t <> ''), ADD UNIQUE (t),
        ADD EXCLUDE (id WITH =), ADD FOREIGN KEY (id, \"At\") REFERENCES dalp_assets.\"Day 9\";
    CREATE INDEX ON dalp_assets.\"Day 9\" (lower(t)) WHERE id > 1;
    CREATE STATISTICS dalp_assets.of_day (ndistinct) ON id, t FROM dalp_assets.\"Day 9\";
    CREATE POLICY own ON dalp_assets.\"Day 9\" USING (id > 0);
    CREATE RULE no_deletes AS ON DELETE TO dalp_assets.\"Day 9\" WHERE old.id < 0 DO INSTEAD NOTHING;
    CREATE TRIGGER quick BEFORE UPDATE ON dalp_assets.\"Day 9\" FOR EACH ROW WHEN (old.id = new.id)
        EXECUTE FUNCTION suppress_redundant_updates_trigger();
    SET ROLE dalp_partitioner; CREATE SEQUENCE dalp_assets.own OWNED BY dalp_assets.\"Day 9\".id; RESET ROLE;
    ALTER TABLE dalp_assets.\"Day 9\" ALTER id SET DEFAULT nextval('dalp_assets.own');
    CREATE PUBLICATION of_day FOR TABLE dalp_assets.\"Day 9\";
    CREATE VIEW dalp_assets.of_all AS SELECT * FROM dalp_assets.\"Seen \"\"it\"\"\"";

#[tokio::test]
async fn what_something_needs_is_not_begun_until_that_is_mended_as_told() {
    let (database, admin) = database().await;
    let mut client = days_of_march(&database, &admin, 11).await;
    for (_, sql, ..) in NEEDED {
        admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    admin.batch_execute(PARTS).await.unwrap();
    // Known before any leaf is due, for policies that drop.
    let inventory = read_inventory(&mut client, &own()).await.unwrap();
    assert_eq!(hindrances(&inventory, &own(), Action::Detach), []);
    let found: Vec<_> = hindrances(&inventory, &own(), Action::Drop);
    let told: Vec<_> =
        found.iter().map(|found| (found.object.clone(), found.what.as_str(), found.next.as_str())).collect();
    assert_eq!(told.len(), NEEDED.len(), "{told:#?}");
    for ((day, _, by, freed_by), (object, what, next)) in NEEDED.iter().zip(&told) {
        assert_eq!(*object, format!("dalp_assets.Day {day}"));
        assert!(what.starts_with(&format!("{by} would be lost")) && next.ends_with(freed_by), "{what}: {next}");
    }

    let outcome = run(&mut client, Action::Drop).await;
    let dropped: BTreeSet<_> =
        outcome.done.iter().filter(|done| done.act == Act::Drop).map(|done| done.leaf.as_str()).collect();
    assert_eq!(dropped, BTreeSet::from(["Day 10", "Day 9"]));
    let kept = kept(&admin, &outcome).await;
    assert_eq!(kept.len(), NEEDED.len(), "{kept:?}");
    for (day, _, by, freed_by) in NEEDED {
        let why = &kept[&format!("Day {day}")];
        assert!(why.contains(by) && why.contains(freed_by), "{why}");
        admin.batch_execute(freed_by).await.unwrap_or_else(|error| panic!("{freed_by}: {error:?}"));
    }
    let outcome = run(&mut client, Action::Drop).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), NEEDED.len());
}

/// A detached leaf may be needed by then: it waits, and says so before its archive is read again for nothing.
#[tokio::test]
async fn what_came_to_need_a_detached_leaf_is_told_too() {
    let (database, admin) = database().await;
    let mut client = days_of_march(&database, &admin, 2).await;
    let outcome = run(&mut client, Action::Detach).await;
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    admin.batch_execute("CREATE VIEW dalp_assets.of_one AS SELECT id FROM dalp_assets.\"Day 1\"").await.unwrap();
    let outcome = run(&mut client, Action::Drop).await;
    assert!(outcome.failed[0].1.to_string().contains("DROP VIEW dalp_assets.of_one"), "{:?}", outcome.failed);
    admin.batch_execute("DROP VIEW dalp_assets.of_one").await.unwrap();
    assert_eq!(run(&mut client, Action::Drop).await.done[0].act, Act::Drop);
}

/// For a leaf that is not a plain table, or not the manager's, no move begins either; the others go.
#[tokio::test]
async fn what_is_no_plain_table_of_ours_is_left_and_told() {
    let (database, admin) = database().await;
    let mut client = days_of_march(&database, &admin, 5).await;
    let odd = "ALTER TABLE dalp_assets.\"Seen \"\"it\"\"\" DROP CONSTRAINT \"Seen \"\"it\"\"_pkey\"; \
               DROP TABLE dalp_assets.\"Day 1\"; DROP TABLE dalp_assets.\"Day 2\"; \
               CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; \
               CREATE FOREIGN TABLE dalp_assets.\"Day 1\" PARTITION OF dalp_assets.\"Seen \"\"it\"\"\" \
                   FOR VALUES FROM ('2024-03-01 00:00+00') TO ('2024-03-02 00:00+00') SERVER far; \
               CREATE TABLE dalp_assets.\"Day 2\" PARTITION OF dalp_assets.\"Seen \"\"it\"\"\" \
                   FOR VALUES FROM ('2024-03-02 00:00+00') TO ('2024-03-03 00:00+00') PARTITION BY HASH (id); \
               CREATE TABLE dalp_assets.below PARTITION OF dalp_assets.\"Day 2\" FOR VALUES WITH (MODULUS 1, REMAINDER 0); \
               ALTER FOREIGN TABLE dalp_assets.\"Day 1\" OWNER TO dalp_partitioner; \
               ALTER TABLE dalp_assets.\"Day 2\" OWNER TO dalp_partitioner; \
               ALTER TABLE dalp_assets.\"Day 3\" OWNER TO CURRENT_USER";
    for sql in odd.split("; ") {
        admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    let outcome = run(&mut client, Action::Detach).await;
    let gone: BTreeSet<_> = outcome.done.iter().map(|done| done.leaf.as_str()).collect();
    assert_eq!(gone, BTreeSet::from(["Day 4"]));
    let kept = kept_but(&admin, &outcome, "Day 4").await;
    let expected = [("Day 1", "a foreign table"), ("Day 2", "partitioned again"), ("Day 3", "postgres owns it")];
    assert_eq!(kept.len(), expected.len(), "{kept:?}");
    for (leaf, why) in expected {
        assert!(kept[leaf].contains(why), "{kept:?}");
    }
    // The advice is pasted unchanged.
    let inventory = read_inventory(&mut client, &own()).await.unwrap();
    let found = hindrances(&inventory, &own(), Action::Detach);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for finding in &found {
        let next = finding.next.trim_start_matches("it is left alone after ");
        admin.batch_execute(next).await.unwrap_or_else(|error| panic!("{finding:?}: {error:?}"));
    }
    let outcome = run(&mut client, Action::Detach).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let detached: BTreeSet<_> =
        outcome.done.iter().filter(|done| done.act == Act::Detach).map(|done| done.leaf.as_str()).collect();
    assert_eq!(detached, BTreeSet::from(["Day 3"]));
}

async fn kept_but(admin: &Client, outcome: &Outcome, gone: &str) -> BTreeMap<String, String> {
    let seal = format!(
        "SELECT count(*)::text FROM pg_trigger WHERE tgname = 'dalp_seal_rows' AND tgrelid <> 'dalp_assets.\"{gone}\"'::regclass"
    );
    assert_eq!(strings(admin, &seal).await, ["0"]);
    outcome.failed.iter().map(|(next, error)| (next.entry.leaf.clone(), error.to_string())).collect()
}

/// For a parent: a DEFAULT partition, and a foreign key that points to it or to its own parent.
#[tokio::test]
async fn what_hinders_every_leaf_of_a_key_is_told_once() {
    let (database, admin) = database().await;
    let mut client = days_of_march(&database, &admin, 4).await;
    let key = "CREATE TABLE dalp_assets.pointing (a int8, b timestamptz, \
                   CONSTRAINT \"to all\" FOREIGN KEY (a, b) REFERENCES dalp_assets.\"Seen \"\"it\"\"\")";
    admin.batch_execute(key).await.unwrap();
    let inventory = read_inventory(&mut client, &own()).await.unwrap();
    let [found] = &hindrances(&inventory, &own(), Action::Drop)[..] else { panic!("{:?}", inventory.hindrances) };
    let mend = "ALTER TABLE dalp_assets.pointing DROP CONSTRAINT \"to all\"";
    assert_eq!(found.next, mend);
    let outcome = run(&mut client, Action::Drop).await;
    assert_eq!((outcome.done.len(), kept(&admin, &outcome).await.len()), (0, 3), "{outcome:?}");
    assert_eq!(hindrances(&inventory, &own(), Action::Keep), [], "nothing is to be detached");
    admin.batch_execute(mend).await.unwrap();

    admin
        .batch_execute("CREATE TABLE dalp_assets.\"The rest\" PARTITION OF dalp_assets.\"Seen \"\"it\"\"\" DEFAULT")
        .await
        .unwrap();
    let inventory = read_inventory(&mut client, &own()).await.unwrap();
    // Beside it, no leaf is made either, under any policy for old ones.
    let [found] = &hindrances(&inventory, &own(), Action::Keep)[..] else { panic!("{:?}", inventory.hindrances) };
    let mend = found.next.split(", then ").last().unwrap();
    let by = Hindrance::Default {
        parent: "dalp_assets.\"Seen \"\"it\"\"\"".to_owned(),
        partition: "dalp_assets.\"The rest\"".to_owned(),
    };
    let outcome = run(&mut client, Action::Drop).await;
    assert!(
        kept(&admin, &outcome)
            .await
            .values()
            .all(|why| why.contains(&Obstacle::Hindered { by: by.clone() }.to_string()))
    );
    admin.batch_execute(mend).await.unwrap();
    let outcome = run(&mut client, Action::Drop).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 3);
}
