//! The registry is the list of archives, and the store the proof: an archive that one of them lacks is named, and no leaf is
//! dropped for it.

use dalp_partitions::{
    Act, ArchiveError, State, Switches, look, missing, note_verified, restore, survey, verified, verify,
};
use dalp_partitions::{Archive, Outcome, read_inventory, repair};

use super::archive::{Folder, KEPT, acts, manifests, request, run};
use super::retire::filled;
use super::*;

/// The overview's entry for each archive.
async fn judged(client: &Client, archive: &Archive) -> Vec<Option<String>> {
    let survey = survey(client, &logs(), archive).await.unwrap();
    let mut judged = Vec::new();
    for archived in &survey.archives {
        judged.push(verify(archive, archived).await.err().map(|error| error.to_string()));
    }
    judged
}

fn manifest_path(folder: &Folder, object: &str) -> std::path::PathBuf {
    let stem = object.rsplit('/').next().unwrap().strip_suffix(".parquet").unwrap();
    folder.path_of(&format!("manifests/dalp_indexed.logs/key=31337/{stem}.json"))
}

#[tokio::test]
async fn every_archive_that_the_registry_lists_and_the_store_lacks_is_named() {
    let (_database, _admin, mut client) = filled().await;
    let folder = Folder::new();
    let archive = folder.archive();
    assert!(run(&mut client, &archive, Switches::ALL).await.failed.is_empty());
    assert_eq!(judged(&client, &archive).await, [const { None }; 6]);
    assert_eq!(missing(&client, &logs(), Some(&archive)).await.unwrap(), []);
    let all = survey(&client, &logs(), &archive).await.unwrap().archives;
    let before = verified(&client, &logs()).await.unwrap()[&CHAIN];
    assert_eq!((before.archives, before.verified), (6, 6), "archiving reads back");
    note_verified(&client, &logs(), &all[0]).await.unwrap();
    assert!(verified(&client, &logs()).await.unwrap()[&CHAIN].since > before.since, "the oldest was read again");

    std::fs::remove_file(folder.path(&all[1].manifest)).unwrap();
    std::fs::remove_file(manifest_path(&folder, &all[2].manifest.object)).unwrap();
    let found = missing(&client, &logs(), Some(&archive)).await.unwrap();
    assert_eq!(
        found.iter().map(|finding| &finding.object).collect::<Vec<_>>(),
        [&all[1].manifest.leaf, &all[2].manifest.leaf]
    );
    let said = judged(&client, &archive).await;
    assert!(said[1].as_ref().unwrap().contains(&all[1].manifest.object), "{said:?}");
    assert!(said[2].as_ref().unwrap().contains(".json is missing"), "{said:?}");
    assert_eq!(said.iter().flatten().count(), 2, "{said:?}");
    assert_eq!(missing(&client, &logs(), None).await.unwrap().len(), 1, "no archive is configured");

    // All of it is gone, and the folder, too.
    std::fs::remove_dir_all(folder.path_of("")).unwrap();
    let said = judged(&client, &archive).await;
    assert!(said.len() == 6 && said.iter().all(Option::is_some), "{said:?}");
    assert_eq!(missing(&client, &logs(), Some(&archive)).await.unwrap().len(), 6);
    assert!(!folder.path_of("").exists());
}

fn refused(outcome: &Outcome, why: &str) {
    assert_eq!(acts(outcome), [], "{:?}", outcome.done);
    let [(_, error)] = outcome.failed.as_slice() else { panic!("{:?}", outcome.failed) };
    assert!(error.to_string().contains(why), "{error}");
}

#[tokio::test]
async fn a_place_that_is_not_mounted_is_not_written_to_and_not_made_again() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let place = Archive::open(&format!("file://{}", folder.path_of("mount").display()), []).unwrap();
    // The first use makes it.
    let hold = "INSERT INTO dalp_indexed.legal_hold (table_schema, table_name, from_time, reason, author) \
                VALUES ('dalp_indexed', 'logs', '2024-03-12', 'r', 'a')";
    admin.batch_execute(hold).await.unwrap();
    assert_eq!(look(&client, &logs(), &place).await.unwrap(), None);
    assert_eq!(
        acts(&run(&mut client, &place, Switches::ALL).await),
        [Act::Seal, Act::Archive, Act::Retire, Act::Detach, Act::Drop]
    );
    admin.batch_execute("UPDATE dalp_indexed.legal_hold SET released_at = now(), released_by = 'a'").await.unwrap();
    std::fs::rename(folder.path_of("mount"), folder.path_of("elsewhere")).unwrap();
    for is_empty_there in [false, true] {
        if is_empty_there {
            std::fs::create_dir(folder.path_of("mount")).unwrap();
        }
        refused(&run(&mut client, &place, Switches::ALL).await, "mount it");
        assert!(look(&client, &logs(), &place).await.unwrap().unwrap().contains("mount it"));
        let entries = read_inventory(&mut client, &logs()).await.unwrap().entries;
        assert!(entries.iter().all(|entry| entry.state == State::Attached), "nothing was sealed");
        assert_eq!(folder.files("mount"), [""; 0]);
        assert_eq!(folder.path_of("mount").exists(), is_empty_there);
    }
    // Mounted again, it is as before.
    std::fs::remove_dir(folder.path_of("mount")).unwrap();
    std::fs::rename(folder.path_of("elsewhere"), folder.path_of("mount")).unwrap();
    let outcome = run(&mut client, &place, Switches::ALL).await;
    assert_eq!(acts(&outcome), [Act::Seal, Act::Archive, Act::Retire, Act::Detach, Act::Drop], "{:?}", outcome.failed);
}

#[tokio::test]
async fn a_leaf_is_dropped_for_what_both_store_and_registry_have() {
    let (_database, _admin, mut client) = filled().await;
    let folder = Folder::new();
    run(&mut client, &folder.archive(), KEPT).await;
    let kept = manifests(&mut client).await;
    let (gone, edited) = (manifest_path(&folder, &kept[0].object), manifest_path(&folder, &kept[1].object));
    let (whole, text) = (std::fs::read(&gone).unwrap(), std::fs::read_to_string(&edited).unwrap());
    std::fs::remove_file(&gone).unwrap();
    std::fs::write(&edited, text.replace("\"rows\": 24", "\"rows\": 25")).unwrap();
    std::fs::write(manifest_path(&folder, &kept[2].object), "{").unwrap();
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    let failed: Vec<_> = outcome.failed.iter().map(|(next, error)| (next.act, error.to_string())).collect();
    assert!(failed.len() == 3 && failed.iter().all(|(act, _)| *act == Act::Drop), "{failed:?}");
    assert!(failed[0].1.contains("is missing from the archive"), "{failed:?}");
    assert!(failed[1].1.contains("\"rows\" is 25 there, and 24 in the registry"), "{failed:?}");
    assert!(failed[2].1.contains("it is not a manifest"), "{failed:?}");
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 3, "the others go");
    // Put back, they go.
    std::fs::write(&gone, whole).unwrap();
    std::fs::write(&edited, text).unwrap();
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 2);
}

#[tokio::test]
async fn one_manifest_that_is_lost_or_cannot_be_read_is_named_and_the_others_work() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    let archive = folder.archive();
    run(&mut client, &archive, Switches::ALL).await;
    let all = survey(&client, &logs(), &archive).await.unwrap().archives;
    std::fs::write(manifest_path(&folder, &all[0].manifest.object), "not json").unwrap();
    std::fs::remove_file(manifest_path(&folder, &all[1].manifest.object)).unwrap();
    std::fs::create_dir_all(folder.path_of("manifests/dalp_indexed.logs/key=31337/a folder.json")).unwrap();
    let listing = archive.list(None).await.unwrap();
    assert_eq!((listing.manifests.len(), listing.unreadable.len()), (4, 1));
    assert!(listing.unreadable[0].to_string().contains(&all[0].manifest.leaf), "{:?}", listing.unreadable);
    let said = judged(&client, &archive).await;
    assert!(
        said.len() == 6 && said[0].is_some() && said[1].is_some() && said[2..].iter().all(Option::is_none),
        "{said:?}"
    );
    // Another leaf is restored; and so are these, by the manifests in the registry, because their files are intact.
    let rows = "SELECT count(*)::text FROM dalp_indexed.logs";
    for (at, left) in [(5, 85 + 24), (0, 85 + 48), (1, 85 + 72)] {
        let restored = restore(&mut client, &logs(), &archive, &request(&all[at].manifest.leaf)).await.unwrap();
        assert_eq!((restored.rows, strings(&admin, rows).await), (24, vec![left.to_string()]));
    }
    // Written again from the registry, all manifests are as before.
    for archived in &all {
        let was_bad = [&all[0], &all[1]].contains(&archived);
        assert_eq!(repair(&client, &logs(), &archive, archived).await.unwrap(), was_bad);
    }
    assert_eq!(judged(&client, &archive).await, [const { None }; 6]);
    assert_eq!(folder.files("void").len(), 1, "the damaged one is kept");
}

#[tokio::test]
async fn a_restore_that_is_refused_leaves_no_trace() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    run(&mut client, &folder.archive(), Switches::ALL).await;
    let all = survey(&client, &logs(), &folder.archive()).await.unwrap().archives;
    let file = folder.path(&all[0].manifest);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let trace = "SELECT concat((SELECT string_agg(format('%s %s', leaf, state), ',' ORDER BY leaf_id) FROM dalp_indexed.leaf), ' ', \
                 (SELECT count(*) FROM dalp_indexed.legal_hold), ' ', (SELECT count(*) FROM pg_class WHERE relname LIKE 'logs%'))";
    let before = strings(&admin, trace).await;
    let error = restore(&mut client, &logs(), &folder.archive(), &request(&all[0].manifest.leaf)).await.unwrap_err();
    assert!(matches!(error, Error::Archive(ArchiveError::Corrupt { .. })), "{error}");
    assert_eq!(strings(&admin, trace).await, before);
    assert_eq!(acts(&run(&mut client, &folder.archive(), Switches::ALL).await), []);
    assert_eq!(strings(&admin, trace).await, before);
}
