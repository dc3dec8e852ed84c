//! The owner of a place, case by case.

use super::*;

fn server(oid: u32, timeline: &str) -> ServerIdentity {
    let system = Some("7".to_owned());
    ServerIdentity { database: "a".to_owned(), oid, system, timeline: timeline.to_owned(), port: Some(5432) }
}

fn known() -> Known {
    Known {
        installation: "i".to_owned(),
        server: server(5, "1"),
        claims: 0,
        token: None,
        pending: None,
        archives: 0,
        unplaced: Vec::new(),
    }
}

fn used() -> Known {
    Known { claims: 3, token: Some("t3".to_owned()), archives: 2, ..known() }
}

fn marked(installation: &str, token: &str, server: ServerIdentity) -> Found {
    let marker =
        Marker { format: FORMAT, installation: installation.to_owned(), server: server.clone(), made_at: Utc::now() };
    let claim = Claim { number: 3, token: token.to_owned(), server, claimed_at: Utc::now() };
    Found { marker: Some(marker), claim: Some(claim), objects: HashSet::new() }
}

fn holding(objects: &[&str]) -> Found {
    Found { objects: objects.iter().map(|object| (*object).to_owned()).collect(), ..Found::default() }
}

#[test]
fn a_place_without_a_marker_is_ours_only_the_first_time() {
    let unplaced =
        |objects: &[&str]| Known { unplaced: objects.iter().map(|object| (*object).to_owned()).collect(), ..known() };
    for (known, found, expected) in [
        (known(), holding(&[]), Ok(())),
        (Known { pending: Some("t".to_owned()), ..known() }, holding(&[]), Ok(())),
        (used(), holding(&[]), Err("mount it")),
        (Known { archives: 0, ..used() }, holding(&[]), Err("mount it")),
        (Known { archives: 1, ..known() }, holding(&["x"]), Err("mount it")),
        (known(), holding(&["x"]), Err("does not know")),
        // From versions without recorded places.
        (unplaced(&["x", "y"]), holding(&["y"]), Ok(())),
        (unplaced(&["x"]), holding(&[]), Err("mount it")),
        (unplaced(&["x"]), holding(&["x", "z"]), Err("does not know")),
    ] {
        match (judge(&known, &found), expected) {
            (Verdict::First, Ok(())) => {}
            (Verdict::Refused(why), Err(expected)) if why.contains(expected) => {}
            (verdict, expected) => panic!("{known:?}, {found:?}: {verdict:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_marked_place_is_written_by_the_database_of_its_newest_claim() {
    let begun = Known { pending: Some("t4".to_owned()), ..used() };
    let unknown = Known { server: ServerIdentity { system: None, ..server(5, "1") }, ..used() };
    let beside = ServerIdentity { port: Some(5433), ..server(5, "1") };
    let renamed = ServerIdentity { database: "b".to_owned(), ..server(5, "1") };
    for (known, found, expected) in [
        (used(), marked("i", "t3", server(5, "1")), Ok(4)),
        (used(), marked("i", "t3", renamed), Ok(4)),
        (unknown, marked("i", "t3", server(5, "1")), Ok(4)),
        (begun, marked("i", "t4", server(5, "1")), Ok(4)),
        (known(), Found { claim: None, ..marked("i", "", server(5, "1")) }, Ok(1)),
        (used(), Found { claim: None, ..marked("i", "", server(5, "1")) }, Ok(4)),
        (used(), Found { claim: None, ..marked("i", "", server(6, "1")) }, Err("adopt")),
        (used(), marked("other", "t3", server(5, "1")), Err("another installation")),
        // A restored dump, a promoted base backup, and two databases that differ only in their claim.
        (used(), marked("i", "t3", server(6, "1")), Err("adopt")),
        (used(), marked("i", "t3", server(5, "2")), Err("adopt")),
        (used(), marked("i", "t3", beside), Err("adopt")),
        (used(), marked("i", "t9", server(5, "1")), Err("adopt")),
        (known(), marked("i", "t3", server(5, "1")), Err("adopt")),
    ] {
        match (judge(&known, &found), expected) {
            (Verdict::Ours(number), Ok(expected)) if number == expected => {}
            (Verdict::Refused(why), Err(expected)) if why.contains(expected) => {}
            (verdict, expected) => panic!("{known:?}, {found:?}: {verdict:?}, not {expected:?}"),
        }
    }
}
