//! The audit of a catalog, against a real PostgreSQL.

use dalp_partitions::{Finding, Index, Severity, audit};

use super::said::heard;
use super::*;

fn table() -> Table {
    transfers().with_leaf_indexes([Index::on(["token", "block_time"]), Index::on(["tx_hash"])])
}

/// Objects with their findings, by name.
async fn found(client: &mut Client) -> Vec<(String, Severity, String)> {
    let findings: Vec<Finding> = audit(client, &table()).await.unwrap();
    let label = |object: &str| object.trim_start_matches("erc20_transfer_").replace("31337_202403", "");
    let mut found: Vec<_> = findings.into_iter().map(|f| (label(&f.object), f.severity, f.what)).collect();
    found.sort();
    found
}

/// All changes that a user may make to leaves by hand.
fn damage() -> Vec<String> {
    let leaf = |day: u32| format!("dalp_indexed.erc20_transfer_31337_202403{day:02}");
    vec![
        format!("ALTER TABLE {} SET UNLOGGED", leaf(7)),
        format!("ALTER TABLE {} OWNER TO CURRENT_USER", leaf(8)),
        format!("GRANT SELECT ON {} TO dalp_reader", leaf(9)),
        format!("ALTER TABLE {} SET (fillfactor = 70)", leaf(10)),
        format!("ALTER TABLE {} REPLICA IDENTITY FULL", leaf(11)),
        format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY", leaf(12)),
        format!("ALTER TABLE {} ALTER COLUMN tx_hash SET STORAGE EXTERNAL", leaf(13)),
        format!("DROP INDEX {}_tx_hash_idx", leaf(14)),
        format!(
            "CREATE TRIGGER stray BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION dalp_indexed.refuse_sealed(); \
             CREATE TRIGGER dalp_seal_x BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION dalp_indexed.refuse_sealed()",
            leaf(15)
        ),
        format!(
            "CREATE TABLE public.other (i int8 PRIMARY KEY); ALTER TABLE {} ADD FOREIGN KEY (log_index) REFERENCES public.other",
            leaf(16)
        ),
        format!("UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}_tx_hash_idx'::regclass", leaf(17)),
        format!("DROP TABLE {}", leaf(18)),
        format!("ALTER TABLE dalp_indexed.erc20_transfer_31337 DETACH PARTITION {}", leaf(20)),
        format!(
            "INSERT INTO dalp_indexed.leaf (table_schema, table_name, key, leaf, relid, from_time, to_time, state) \
             VALUES ('dalp_indexed', 'erc20_transfer', 31337, 'erc20_transfer_31337_20240320', '{}'::regclass, \
                     '2024-03-20 00:00Z', '2024-03-21 00:00Z', 'DETACHED'); \
             CREATE TABLE dalp_indexed.late (LIKE dalp_indexed.erc20_transfer_31337_20240319 INCLUDING INDEXES); \
             ALTER TABLE dalp_indexed.late OWNER TO dalp_partitioner; \
             ALTER TABLE dalp_indexed.erc20_transfer_31337 ATTACH PARTITION dalp_indexed.late \
                 FOR VALUES FROM ('2024-03-20 06:00Z') TO ('2024-03-20 07:00:01Z')",
            leaf(20)
        ),
        "CREATE TABLE dalp_indexed.rest PARTITION OF dalp_indexed.erc20_transfer DEFAULT; \
         ALTER TABLE dalp_indexed.rest OWNER TO dalp_partitioner"
            .to_owned(),
    ]
}

#[tokio::test]
async fn what_drifted_is_found_in_one_look_and_nothing_else() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    for key in [CHAIN, 5] {
        ensure(&mut client, &table(), key, &Policy::default(), now(), &days(14)).await.unwrap();
    }
    client.batch_execute("SET TimeZone = 'Australia/Lord_Howe'; SET DateStyle = 'SQL, DMY'").await.unwrap();
    assert_eq!(found(&mut client).await, [], "what was made is as it should be");

    for sql in &damage() {
        admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    use Severity::{Error, Info, Warning};
    let expected = [
        ("07", Error, "it is unlogged"),
        ("08", Error, "another role owns it"),
        ("09", Warning, "rights are granted on it directly: {"),
        ("10", Info, "it has storage options of its own: {fillfactor=70}"),
        ("11", Warning, "its replica identity"),
        ("12", Warning, "its row security"),
        ("13", Info, "storage or compression differ from its parent's: tx_hash"),
        ("14", Warning, "1 of the indexes that only leaves have"),
        ("15", Warning, "it has triggers that its parent lacks: stray"),
        ("16", Error, "1 foreign keys"),
        ("17", Warning, "1 of its indexes are invalid"),
        ("17", Warning, "1 of the indexes that only leaves have"),
        ("20", Warning, "it is detached, and \"late\" has some of its times"),
        ("31337", Info, "no leaf from 2024-03-18 00:00:00 UTC to 2024-03-19"),
        ("31337", Info, "no leaf from 2024-03-20 00:00:00 UTC to 2024-03-20 06:00:00"),
        ("late", Info, "its bounds (FOR VALUES FROM ('2024-03-20 06:00:00+00')"),
        ("rest", Error, "it is DEFAULT"),
    ];
    let found = found(&mut client).await;
    let matches = found
        .iter()
        .zip(expected)
        .filter(|(found, expected)| found.0 == expected.0 && found.1 == expected.1 && found.2.starts_with(expected.2));
    assert_eq!((matches.count(), found.len()), (expected.len(), expected.len()), "{found:#?}");
}

#[tokio::test]
async fn a_detaching_that_did_not_end_is_found() {
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &transfers(), &days(3)).await.unwrap();
    let mut reader = as_role(&database, "dalp_reader").await;
    let reading = reader.transaction().await.unwrap();
    reading.query("SELECT count(*) FROM dalp_indexed.erc20_transfer", &[]).await.unwrap();
    let (pid, looking) = (meanwhile::pid(&admin).await, database.connect().await);
    let detach = "ALTER TABLE dalp_indexed.erc20_transfer_31337 DETACH PARTITION dalp_indexed.erc20_transfer_31337_20240319 CONCURRENTLY";
    let detaching = tokio::spawn(async move { admin.batch_execute(detach).await });
    // It waits for the reader, having said so in the catalog.
    meanwhile::until(&database, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending").await;
    looking.batch_execute(&format!("SELECT pg_cancel_backend({pid})")).await.unwrap();
    detaching.await.unwrap().unwrap_err();
    let findings = audit(&mut client, &transfers()).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].severity == Severity::Error && findings[0].next.contains("FINALIZE"), "{findings:?}");
    // No role may read the registry: only the catalog is judged.
    let mut reader = as_role(&database, "dalp_writer").await;
    assert_eq!(audit(&mut reader, &transfers()).await.unwrap(), findings);
    let absent = Table::new("dalp_indexed", "nothing", "block_time");
    assert_eq!(audit(&mut client, &absent).await.unwrap(), []);
}

/// Sub-parents of keys from 1 on, with as many leaves each.
async fn grow(admin: &Client, keys: u32, leaves: u32) {
    let make = format!(
        "DO $$ BEGIN FOR key IN 1..{keys} LOOP
            EXECUTE format('CREATE TABLE dalp_indexed.logs_%s PARTITION OF dalp_indexed.logs FOR VALUES IN (%s) \
                            PARTITION BY RANGE (block_time)', key, key);
            EXECUTE format('ALTER TABLE dalp_indexed.logs_%s OWNER TO dalp_partitioner', key);
            FOR day IN 1..{leaves} LOOP
                EXECUTE format('CREATE TABLE dalp_indexed.logs_%s_%s PARTITION OF dalp_indexed.logs_%s FOR VALUES FROM (%L) TO (%L)',
                               key, day, key, timestamptz '2024-01-01 00:00Z' + day * interval '1 day',
                               timestamptz '2024-01-02 00:00Z' + day * interval '1 day');
                EXECUTE format('ALTER TABLE dalp_indexed.logs_%s_%s OWNER TO dalp_partitioner', key, day);
            END LOOP;
        END LOOP; END $$"
    );
    admin.batch_execute(&make).await.unwrap();
}

/// `cargo bench -p dalp-partitions --bench partitions -- --part inventory` reports the time with 5,000 leaves.
#[tokio::test]
async fn an_audit_of_many_leaves_asks_no_more_than_one_of_few() {
    let mut said = Vec::new();
    for (keys, leaves) in [(1, 2), (5, 40)] {
        let (database, admin) = database().await;
        grow(&admin, keys, leaves).await;
        let (mut client, audited) = heard(&database, "dalp_partitioner").await;
        let before = audited.count();
        assert_eq!(audit(&mut client, &logs()).await.unwrap(), []);
        said.push(audited.since(before, &[]));
        assert!(said[0].len() > 1, "{said:?}");
    }
    assert_eq!(said[0], said[1]);
}
