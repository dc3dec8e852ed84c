//! An archive belongs to one database and one table, and to one life of a leaf.

use std::collections::BTreeMap;

use dalp_fixtures::{Cluster, cluster::Settings};
use dalp_partitions::{
    Act, Archive, Manifest, Outcome, Reference, Switches, Terms, adopt, look, restore, restore_into, retire, set_aside,
    survey,
};

use super::archive::{Folder, acts, request, retention, run};
use super::retire::{fill, filled};
use super::*;

const LEAF: &str = "logs_31337_20240312";

fn refused(outcome: &Outcome, why: &str) {
    assert_eq!(acts(outcome), [], "{:?}", outcome.done);
    let [(_, error)] = outcome.failed.as_slice() else { panic!("{:?}", outcome.failed) };
    assert!(error.to_string().contains(why), "{error}");
}

async fn stored(archive: &Archive) -> Vec<Manifest> {
    archive.list(None).await.unwrap().manifests
}

async fn count(client: &Client, sql: &str) -> String {
    strings(client, &format!("SELECT count(*)::text FROM {sql}")).await.remove(0)
}

#[tokio::test]
async fn a_place_of_another_database_is_refused_before_anything_is_sealed() {
    let ((_a, a_admin, mut a), (_b, b_admin, mut b)) = (filled().await, filled().await);
    let folder = Folder::new();
    b_admin.batch_execute("UPDATE dalp_indexed.logs SET log_index = 7").await.unwrap();
    assert!(run(&mut a, &folder.archive(), Switches::ALL).await.failed.is_empty());
    let before = stored(&folder.archive()).await;
    for _ in 0..2 {
        refused(&run(&mut b, &folder.archive(), Switches::ALL).await, "belongs to another installation");
    }
    assert_eq!(count(&b_admin, "pg_trigger WHERE starts_with(tgname::text, 'dalp_seal')").await, "0");
    assert_eq!((stored(&folder.archive()).await, folder.files("void")), (before, vec![]));
    let error = adopt(&mut b, &logs(), &folder.archive(), "ops").await.unwrap_err();
    assert!(error.to_string().contains("a separate place"), "{error}");
    // Nor does it return there, unless the request says so.
    let error = restore(&mut b, &logs(), &folder.archive(), &request(LEAF)).await.unwrap_err();
    assert!(error.to_string().contains("another installation"), "{error}");
    restore(&mut a, &logs(), &folder.archive(), &request(LEAF)).await.unwrap();
    assert_eq!(count(&a_admin, &format!("dalp_indexed.{LEAF} WHERE log_index = 0")).await, "24");
    // Both have a place of their own.
    let own = Folder::new();
    assert!(run(&mut b, &own.archive(), Switches::ALL).await.failed.is_empty());
}

#[tokio::test]
async fn a_copy_of_a_database_reads_and_does_not_write_until_it_takes_over() {
    let (database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let archive = folder.archive();
    let no_further = Switches { detach: false, ..Switches::ALL };
    assert!(run(&mut client, &archive, no_further).await.failed.is_empty());
    drop((admin, client));
    let copy = database.copy().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    let (mut other, other_admin) = (as_role(&copy, "dalp_partitioner").await, copy.connect().await);
    let before = stored(&archive).await;
    let late =
        "INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-12 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')";
    let void = dalp_partitions::unseal(&mut other, &logs(), LEAF).await.unwrap().unwrap();
    other_admin.batch_execute(late).await.unwrap();
    let kept = set_aside(&other, &logs(), &archive, &void).await.unwrap_err();
    assert!(kept.to_string().contains("a copy of the writer"), "{kept}");
    refused(&run(&mut other, &archive, no_further).await, "`adopt`");
    assert_eq!((stored(&archive).await, folder.files("void")), (before.clone(), vec![]));

    adopt(&mut other, &logs(), &archive, "ops").await.unwrap();
    assert_eq!(acts(&run(&mut other, &archive, no_further).await), [Act::Seal, Act::Archive]);
    let both: Vec<_> = stored(&archive).await.into_iter().filter(|manifest| manifest.leaf == LEAF).collect();
    assert_eq!(both.iter().map(|manifest| manifest.counted.rows).collect::<Vec<_>>(), [24, 25], "side by side");
    assert_eq!(folder.files("void"), [""; 0], "what the original has is valid there");
    assert!(look(&client, &logs(), &archive).await.unwrap().unwrap().contains("adopt"), "the original writes no more");
    // And it still reads: its leaves are dropped by its earlier archives.
    let outcome = run(&mut client, &archive, Switches::ALL).await;
    assert_eq!(acts(&outcome), [Act::Retire, Act::Detach, Act::Drop], "{:?}", outcome.failed);
}

/// A base backup has all of the original's rows, its system identifier and oid; promoted, another timeline.
#[tokio::test]
async fn a_base_backup_that_was_promoted_reads_and_does_not_write_until_it_takes_over() {
    let tools = dalp_fixtures::tools::postgres(dalp_fixtures::tools::say_stderr).await.unwrap();
    let settings = || Settings::throwaway().with("wal_level", "replica");
    let original = Cluster::temporary(&tools, settings()).await.unwrap();
    let mut admin = superuser_of(&original).await;
    dalp_migrations::migrate(&mut admin, &dalp_migrations::Roles::default()).await.unwrap();
    let mut client = superuser_of(&original).await;
    client.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
    fill(&admin, &mut client).await;
    let folder = Folder::new();
    let archive = folder.archive();
    let no_further = Switches { detach: false, ..Switches::ALL };
    assert!(run(&mut client, &archive, no_further).await.failed.is_empty());
    let before = stored(&archive).await;

    let copy = original.standby(&tools, settings(), None).await.unwrap();
    let copied = superuser_of(&copy).await;
    assert!(copied.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    let mut other = superuser_of(&copy).await;
    other.batch_execute("SET ROLE dalp_partitioner").await.unwrap();
    dalp_partitions::unseal(&mut other, &logs(), LEAF).await.unwrap().unwrap();
    refused(&run(&mut other, &archive, no_further).await, "`adopt`");
    assert_eq!((stored(&archive).await, folder.files("void")), (before, vec![]));
    for manifest in stored(&archive).await {
        archive.verify(&manifest).await.unwrap();
    }

    // After a failover the copy continues; a returning original does not.
    adopt(&mut other, &logs(), &archive, "ops").await.unwrap();
    assert_eq!(acts(&run(&mut other, &archive, no_further).await), [Act::Seal, Act::Archive]);
    dalp_partitions::unseal(&mut client, &logs(), LEAF).await.unwrap().unwrap();
    refused(&run(&mut client, &archive, no_further).await, "`adopt`");
}

async fn superuser_of(cluster: &Cluster) -> Client {
    let (client, connection) = cluster.superuser_config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A database reset to an earlier state has the same oid, and knows an older claim.
#[tokio::test]
async fn a_database_that_was_set_back_finds_newer_archives_and_keeps_both() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let archive = folder.archive();
    let no_further = Switches { detach: false, ..Switches::ALL };
    assert_eq!(look(&client, &logs(), &archive).await.unwrap(), None);
    assert!(run(&mut client, &archive, no_further).await.failed.is_empty());
    admin
        .batch_execute(
            "UPDATE dalp_indexed.leaf SET state = 'ATTACHED', version = 0, manifest = NULL, seal = NULL, place = NULL; \
             DELETE FROM dalp_indexed.archive_place; \
             DO $$ DECLARE leaf regclass; BEGIN \
               FOR leaf IN SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = 'dalp_seal_rows' LOOP \
                 EXECUTE format('DROP TRIGGER dalp_seal_rows ON %s', leaf); EXECUTE format('DROP TRIGGER dalp_seal_truncate ON %s', leaf); \
               END LOOP; END $$",
        )
        .await
        .unwrap();
    refused(&run(&mut client, &archive, no_further).await, "reset to an earlier time");
    adopt(&mut client, &logs(), &archive, "ops").await.unwrap();
    assert_eq!(acts(&run(&mut client, &archive, no_further).await), [Act::Seal, Act::Archive]);
    assert_eq!((stored(&archive).await.len(), folder.files("void").len()), (12, 0));
}

#[tokio::test]
async fn a_leaf_that_is_made_again_under_its_name_has_an_archive_of_its_own() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    run(&mut client, &folder.archive(), Switches::ALL).await;
    // Late rows, for which a leaf is made again.
    admin
        .batch_execute(&format!(
            "SET ROLE dalp_partitioner; \
             CREATE TABLE dalp_indexed.{LEAF} PARTITION OF dalp_indexed.logs_31337 FOR VALUES FROM ('2024-03-12 00:00+00') TO ('2024-03-13 00:00+00'); \
             RESET ROLE; \
             INSERT INTO dalp_indexed.logs VALUES (31337, '2024-03-12 00:30+00', 9, 0, 0, '', '', '', '', '', '', '', '')"
        ))
        .await
        .unwrap();
    for _ in 0..2 {
        assert!(run(&mut client, &folder.archive(), Switches::ALL).await.failed.is_empty());
    }
    assert_eq!(folder.files("void"), [""; 0]);
    let both: Vec<_> = stored(&folder.archive()).await.into_iter().filter(|manifest| manifest.leaf == LEAF).collect();
    assert_eq!(both.iter().map(|manifest| manifest.counted.rows).collect::<Vec<_>>(), [24, 1]);
    for manifest in &both {
        folder.archive().verify(manifest).await.unwrap();
    }
    let error = restore(&mut client, &logs(), &folder.archive(), &request(LEAF)).await.unwrap_err().to_string();
    assert!(both.iter().all(|manifest| error.contains(&manifest.object)) && error.contains("--archive"), "{error}");
    let chosen = dalp_partitions::Request { object: Some(&both[0].object), ..request(LEAF) };
    assert_eq!(restore(&mut client, &logs(), &folder.archive(), &chosen).await.unwrap().rows, 24);
    let other = dalp_partitions::Request { object: Some(&both[1].object), ..request(LEAF) };
    let error = restore(&mut client, &logs(), &folder.archive(), &other).await.unwrap_err();
    assert!(error.to_string().contains("--into"), "{error}");
    let into = ("dalp_indexed", "late rows");
    assert_eq!(restore_into(&mut client, &logs(), &folder.archive(), &other, into).await.unwrap(), 1);
    assert_eq!(count(&admin, "dalp_indexed.\"late rows\"").await, "1");
}

/// Archives from before archives named their owner, in folders of the older names, are found in place, verified, accepted for
/// drops, and restored.
#[tokio::test]
async fn archives_of_the_older_form_stay_ours() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let archive = folder.archive();
    let first = Reference::Final(BTreeMap::from([(CHAIN, at("2024-03-16T12:00:00Z"))]));
    let terms = |switches| Terms {
        retention: Box::leak(Box::new(retention())),
        switches,
        reference: Box::leak(Box::new(first.clone())),
        can_archive: true,
        allow_many: false,
    };
    let kept = Switches { drop: false, ..Switches::ALL };
    assert!(retire(&mut client, &logs(), &terms(kept), Some(&archive)).await.unwrap().failed.is_empty());
    // As the version before wrote it.
    std::fs::remove_file(folder.path_of("archive.json")).unwrap();
    std::fs::remove_dir_all(folder.path_of("claims")).unwrap();
    admin
        .batch_execute("DELETE FROM dalp_indexed.archive_place; UPDATE dalp_indexed.leaf SET place = NULL")
        .await
        .unwrap();
    for manifest in stored(&archive).await {
        let stem = manifest.object.rsplit('/').next().unwrap().strip_suffix(".parquet").unwrap().to_owned();
        let file = format!("{}.v0001", manifest.leaf);
        let start = dalp_partitions::Bounds::between(manifest.from, manifest.to).unwrap().from().unwrap();
        let place = format!("data/dalp_indexed.logs/key=31337/from={}", start.format("%Y%m%dT%H%M%SZ"));
        std::fs::create_dir_all(folder.path_of(&place)).unwrap();
        let old = Manifest { object: format!("{place}/{file}.parquet"), identity: None, ..manifest.clone() };
        let json = serde_json::to_string(&old).unwrap();
        assert!(!json.contains("identity"), "{json}");
        std::fs::rename(folder.path(&manifest), folder.path(&old)).unwrap();
        let manifests = folder.path_of("manifests/dalp_indexed.logs/key=31337");
        std::fs::remove_file(manifests.join(format!("{stem}.json"))).unwrap();
        std::fs::write(manifests.join(format!("{file}.json")), &json).unwrap();
        let update = "UPDATE dalp_indexed.leaf SET manifest = $1::text::jsonb WHERE leaf = $2";
        admin.execute(update, &[&json, &manifest.leaf]).await.unwrap();
    }
    assert!(
        !folder
            .path_of("data/dalp_indexed.logs/chain_id=31337")
            .read_dir()
            .unwrap()
            .any(|folder| { folder.unwrap().path().read_dir().unwrap().next().is_some() })
    );
    for archived in survey(&client, &logs(), &archive).await.unwrap().archives {
        assert!(archived.stands && archived.is_registered(), "{archived:?}");
        assert_eq!(dalp_partitions::verify(&archive, &archived).await.unwrap(), 24);
    }
    // These go, and the next ones are archived beside them.
    let outcome = run(&mut client, &archive, Switches::ALL).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    let all = survey(&client, &logs(), &archive).await.unwrap().archives;
    let old = all.iter().filter(|archived| archived.manifest.identity.is_none()).count();
    assert!(all.len() == 6 && old == 2 && all.iter().all(|archived| archived.is_registered()), "{all:?}");
    let leaf = &all.iter().find(|archived| archived.manifest.identity.is_none()).unwrap().manifest.leaf;
    assert_eq!(restore(&mut client, &logs(), &archive, &request(leaf)).await.unwrap().rows, 24);
}
