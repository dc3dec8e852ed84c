//! Every count, copy and comparison sees all rows: row security hides none from the manager.

use dalp_partitions::archive::count;
use dalp_partitions::{Act, ArchiveError, Error, Severity, State, Switches, audit, plan_moves, read_inventory};

use super::archive::{Folder, acts, run, with_terms, write};
use super::retire::filled;
use super::*;

const LEAF: &str = "logs_31337_20240312";

async fn bind(admin: &Client) {
    admin
        .batch_execute(&format!(
            "CREATE POLICY half ON dalp_indexed.{LEAF} USING (block_number % 2 = 0); \
             ALTER TABLE dalp_indexed.{LEAF} ENABLE ROW LEVEL SECURITY; ALTER TABLE dalp_indexed.{LEAF} FORCE ROW LEVEL SECURITY"
        ))
        .await
        .unwrap();
}

async fn state(client: &mut Client) -> State {
    let entries = read_inventory(client, &logs()).await.unwrap().entries;
    entries.into_iter().find(|entry| entry.leaf == LEAF).unwrap().state
}

#[tokio::test]
async fn a_leaf_whose_rows_are_hidden_from_us_is_refused_before_it_is_sealed() {
    let (_database, admin, mut client) = filled().await;
    bind(&admin).await;
    let folder = Folder::new();
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    let [(next, error)] = outcome.failed.as_slice() else { panic!("{:?}", outcome.failed) };
    assert!(next.entry.leaf == LEAF && error.to_string().contains("NO FORCE ROW LEVEL SECURITY"), "{error}");
    assert_eq!(outcome.done.iter().filter(|done| done.act == Act::Drop).count(), 5, "the others go");
    assert_eq!(state(&mut client).await, State::Attached, "it was not even sealed");
    assert_eq!(folder.files("data").len(), 5);
    let inventory = read_inventory(&mut client, &logs()).await.unwrap();
    let planned = with_terms(|terms| plan_moves(&inventory, terms));
    assert_eq!(planned.moves, [], "a plan says so, too");
    assert!(planned.obstacles[0].1.to_string().contains("row security"), "{:?}", planned.obstacles);
    let found = audit(&mut client, &logs()).await.unwrap();
    let about: Vec<_> =
        found.iter().filter(|finding| finding.object == LEAF && finding.severity == Severity::Error).collect();
    assert!(about.len() == 1 && about[0].next.contains(&format!("{LEAF} NO FORCE")), "{found:?}");

    // The audit's advice works.
    let (_, statement) = about[0].next.split_once(": ").unwrap();
    admin.batch_execute(statement).await.unwrap();
    let outcome = run(&mut client, &folder.archive(), Switches::ALL).await;
    assert_eq!(acts(&outcome), [Act::Seal, Act::Archive, Act::Retire, Act::Detach, Act::Drop], "{:?}", outcome.failed);
    let manifests = folder.archive().list(None).await.unwrap().manifests;
    assert_eq!(manifests.iter().find(|manifest| manifest.leaf == LEAF).unwrap().counted.rows, 24);
}

#[tokio::test]
async fn rows_that_are_hidden_after_the_seal_are_neither_counted_nor_archived() {
    let (_database, admin, mut client) = filled().await;
    let folder = Folder::new();
    bind(&admin).await;
    // The session's own setting is of no importance.
    client.batch_execute("SET row_security = on").await.unwrap();
    let bounds = dalp_partitions::Bounds::new(None, at("2030-01-01T00:00:00Z")).unwrap();
    let error = write(&folder.archive(), &mut client, &logs(), LEAF, bounds, 1).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Filtered { .. }), "{error}");
    assert!(error.to_string().contains("NO FORCE ROW LEVEL SECURITY"), "{error}");
    assert_eq!(folder.files(""), [""; 0]);
    client.batch_execute("SET row_security = off").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let error = Error::from(count(&transaction, &logs(), LEAF).await.unwrap_err());
    assert!(error.to_string().contains("hide some of its rows"), "{error}");
}
