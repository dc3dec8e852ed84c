use super::*;

fn at(day: u32) -> DateTime<Utc> {
    format!("2024-01-{day:02}T00:00:00Z").parse().unwrap()
}

fn day(day: u32) -> Facts {
    Facts {
        parent: "logs_1".into(),
        object: format!("logs_1_{day}"),
        parent_sql: "s.logs_1".into(),
        object_sql: format!("s.logs_1_{day}"),
        kind: "r".into(),
        printed: "FOR VALUES FROM (..) TO (..)".into(),
        bounds: Bounds::new(Some(at(day)), at(day + 1)),
        pending: false,
        unlogged: false,
        other_owner: false,
        granted: None,
        other_tablespace: false,
        options: None,
        other_identity: false,
        other_security: false,
        filtered: false,
        other_layout: false,
        other_columns: Vec::new(),
        missing_indexes: 0,
        invalid_indexes: 0,
        lacking_indexes: 0,
        triggers: None,
        foreign_keys: 0,
    }
}

fn sub_parent(key: i64) -> Facts {
    Facts {
        parent: "logs".into(),
        object: format!("logs_{key}"),
        kind: "p".into(),
        printed: format!("FOR VALUES IN ('{key}')"),
        bounds: None,
        ..day(1)
    }
}

fn one(found: &[Finding], severity: Severity, what: &str) {
    let is_it = |found: &Finding| found.severity == severity && found.what.contains(what) && !found.next.is_empty();
    assert!(found.len() == 1 && is_it(&found[0]), "{severity} {what}: {found:?}");
}

#[test]
fn what_is_as_it_should_be_is_not_told() {
    let other = Facts { parent: "logs_2".into(), ..day(9) };
    let facts = [sub_parent(1), sub_parent(-2), day(1), day(2), other];
    assert_eq!(judge(&facts, &[], at(2)), [], "leaves of two parents have no gap between them");
    let reordered = Facts { other_layout: true, ..day(1) };
    assert_eq!(judge(&[reordered], &[], at(2)), [], "columns may stand in another order");
}

#[test]
fn what_should_not_be_is_told() {
    use Severity::{Error, Info, Warning};
    let some = |text: &str| Some(text.to_owned());
    for (facts, severity, what) in [
        (vec![day(2), day(2)], Error, "overlap"),
        (vec![Facts { bounds: None, printed: "DEFAULT".into(), ..day(1) }], Error, "DEFAULT"),
        (vec![Facts { printed: "DEFAULT".into(), ..sub_parent(1) }], Error, "DEFAULT"),
        (vec![Facts { kind: "f".into(), ..day(1) }], Error, "foreign table"),
        (vec![Facts { pending: true, ..day(1) }], Error, "detach"),
        (vec![Facts { bounds: Bounds::new(Some(at(1)), at(3)), ..day(1) }], Info, "not a whole interval"),
        (vec![Facts { unlogged: true, ..day(1) }], Error, "unlogged"),
        (vec![Facts { other_owner: true, ..day(1) }], Error, "another role"),
        (vec![Facts { other_owner: true, ..sub_parent(1) }], Error, "another role"),
        (vec![Facts { granted: some("{a=r/b}"), ..day(1) }], Warning, "granted on it directly: {a=r/b}"),
        (vec![Facts { missing_indexes: 1, ..day(1) }], Error, "missing"),
        (vec![Facts { invalid_indexes: 1, ..day(1) }], Warning, "every write still maintains them"),
        (vec![Facts { invalid_indexes: 1, ..sub_parent(1) }], Warning, "some leaves lack them"),
        (vec![Facts { lacking_indexes: 2, ..day(1) }], Warning, "2 of the indexes that only leaves have"),
        (vec![Facts { lacking_indexes: 2, other_layout: true, ..day(1) }], Info, "may lack"),
        (vec![Facts { triggers: some("audit"), ..day(1) }], Warning, "its parent lacks: audit"),
        (vec![Facts { foreign_keys: 1, ..day(1) }], Error, "foreign keys"),
        (vec![Facts { other_tablespace: true, ..day(1) }], Info, "tablespace"),
        (vec![Facts { options: some("{fillfactor=70}"), ..day(1) }], Info, "fillfactor"),
        (vec![Facts { options: some("{autovacuum_enabled=false}"), ..day(1) }], Warning, "autovacuum"),
        (vec![Facts { other_identity: true, ..day(1) }], Warning, "replica identity"),
        (vec![Facts { other_security: true, ..day(1) }], Warning, "its row security"),
        (vec![Facts { other_security: true, filtered: true, ..day(1) }], Error, "hide rows"),
        (vec![Facts { other_columns: vec!["data".into()], other_layout: true, ..day(1) }], Info, "parent's: data"),
    ] {
        one(&judge(&facts, &[], at(20)), severity, what);
    }
}

#[test]
fn a_gap_matters_where_rows_are_about_to_come() {
    let gap = |now: u32| judge(&[day(10), day(12)], &[], at(now));
    for (now, severity) in [
        (5, Severity::Info),
        (8, Severity::Warning),
        (10, Severity::Warning),
        (12, Severity::Warning),
        (13, Severity::Info),
        (20, Severity::Info),
    ] {
        one(&gap(now), severity, "no leaf from 2024-01-11 00:00:00 UTC to 2024-01-12");
    }
    let first = Facts { bounds: Bounds::new(None, at(1)), ..day(1) };
    one(&judge(&[first, day(3)], &[], at(3)), Severity::Info, "no leaf from 2024-01-01");
    let far = Facts { bounds: Bounds::new(Some(at(1) + TimeDelta::days(366)), at(2) + TimeDelta::days(366)), ..day(1) };
    one(&judge(&[day(10), far], &[], at(10)), Severity::Info, "no leaf from 2024-01-11");
}

#[test]
fn a_detached_leaf_whose_times_are_taken_is_told() {
    let detached = |key: i64, day: u32| {
        let bounds = Bounds::new(Some(at(day)), at(day + 1)).unwrap();
        Detached { key, leaf: "old".into(), bounds }
    };
    let facts = [sub_parent(1), sub_parent(2), day(1), day(2)];
    one(&judge(&facts, &[detached(1, 2)], at(2)), Severity::Warning, "\"logs_1_2\" has some of its times");
    assert_eq!(judge(&facts, &[detached(1, 3), detached(2, 2), detached(0, 2)], at(2)), []);
    one(&judge(&[day(1)], &[detached(0, 1)], at(2)), Severity::Warning, "cannot be attached again");
}
