use chrono::TimeDelta;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::Interval;

const NOW: &str = "2024-03-20T12:00:00Z";

/// `2024-03-20` or `2024-03-20T05`.
fn at(text: &str) -> DateTime<Utc> {
    let full = if text.contains('T') { format!("{text}:00:00Z") } else { format!("{text}T00:00:00Z") };
    full.parse().unwrap_or_else(|_| text.parse().unwrap())
}

/// `from..to`, `..to` for MINVALUE.
fn bounds(text: &str) -> Bounds {
    let (from, to) = text.split_once("..").unwrap();
    Bounds::new((!from.is_empty()).then(|| at(from)), at(to)).unwrap()
}

fn catalog(leaves: &[&str]) -> Catalog {
    let leaf =
        |text: &&str| Leaf { name: text.to_string(), bounds: bounds(text), detaching: false, indexes: Vec::new() };
    Catalog {
        table: "logs".to_owned(),
        key: 7,
        sub_parent: Some("logs_7".to_owned()),
        leaves: leaves.iter().map(leaf).collect(),
        names: BTreeSet::from(["logs_7".to_owned()]),
        stamp: String::new(),
        ..Catalog::default()
    }
}

fn policy() -> Policy {
    Policy { history_after: TimeDelta::days(30), premake: 2, ..Policy::default() }
}

fn need(times: &[&str]) -> Need {
    Need::rows(times.iter().map(|time| at(time)))
}

fn new_bounds(plan: &Plan) -> Vec<Bounds> {
    let of = |step: &Step| match step {
        Step::CreateLeaf { bounds, .. } => Some(*bounds),
        Step::CreateSubParent { .. } => None,
    };
    plan.steps.iter().filter_map(of).collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps
        .iter()
        .map(|step| match step {
            Step::CreateLeaf { name, .. } | Step::CreateSubParent { name } => name.as_str(),
        })
        .collect()
}

fn check(existing: &[&str], times: &[&str], expected: &[&str]) {
    let plan = plan(&catalog(existing), &policy(), at(NOW), &need(times)).unwrap();
    let expected: Vec<_> = expected.iter().map(|text| bounds(text)).collect();
    assert_eq!(new_bounds(&plan), expected, "existing {existing:?}, needed {times:?}");
}

#[test]
fn recent_times_get_days_and_old_times_months() {
    check(&[], &[], &[]);
    check(
        &[],
        &["2024-03-20T05", "2024-03-20T06", "2024-03-18"],
        &["2024-03-18..2024-03-19", "2024-03-20..2024-03-21"],
    );
    check(&[], &["2023-11-05", "2023-11-30T23"], &["2023-11-01..2023-12-01"]);
    check(&[], &["2024-01-31T23", "2024-03-19"], &["2024-01-01..2024-02-01", "2024-03-19..2024-03-20"]);
    // A month made for an old time holds a recent one of the same month, too.
    check(&[], &["2024-02-10", "2024-02-25"], &["2024-02-01..2024-03-01"]);
    check(&["2024-03-20..2024-03-21"], &["2024-03-20T23", "2024-03-21"], &["2024-03-21..2024-03-22"]);
}

#[test]
fn new_leaves_are_cut_at_their_neighbours() {
    check(&["2023-11-10..2023-11-11"], &["2023-11-05"], &["2023-11-01..2023-11-10"]);
    check(&["2023-11-10..2023-11-11"], &["2023-11-20"], &["2023-11-11..2023-12-01"]);
    check(&["2023-11-02..2023-11-03", "2023-11-10..2023-11-11"], &["2023-11-05"], &["2023-11-03..2023-11-10"]);
    check(
        &["2023-11-10..2023-11-11"],
        &["2023-11-05", "2023-11-20"],
        &["2023-11-01..2023-11-10", "2023-11-11..2023-12-01"],
    );
}

#[test]
fn times_before_the_first_share_one_leaf() {
    check(&[], &["1970-01-01", "2014-12-31T23"], &["..2015-01-01"]);
    check(&["..2015-01-01"], &["1970-01-01"], &[]);
    check(&["2001-01-01..2001-01-02"], &["1970-01-01", "2005-01-01"], &["..2001-01-01", "2001-01-02..2015-01-01"]);
    // The policy's first time may be inside an interval: that interval begins there.
    let policy = Policy { first: at("2016-06-15"), ..policy() };
    let plan = plan(&catalog(&[]), &policy, at(NOW), &need(&["2016-06-20"])).unwrap();
    assert_eq!(new_bounds(&plan), [bounds("2016-06-15..2016-07-01")]);
}

#[test]
fn one_far_time_makes_one_leaf() {
    check(&["2024-03-20..2024-03-21"], &["2090-01-01T05"], &["2090-01-01..2090-01-02"]);
    let policy = Policy { ahead_at_most: TimeDelta::MAX, ..policy() };
    let far = plan(&catalog(&["2024-03-20..2024-03-21"]), &policy, at(NOW), &need(&["+52217-05-06T07:08:09Z"]));
    assert_eq!(names(&far.unwrap()), ["logs_7_522170506"]);
}

#[test]
fn absurd_times_are_told_and_the_rest_gets_its_leaves() {
    let far = "+52217-05-06T07:08:09Z";
    let times: Vec<_> = [far, NOW, "1970-01-01", far].map(at).into_iter().chain([DateTime::<Utc>::MAX_UTC]).collect();
    let mixed = plan(&catalog(&[]), &policy(), at(NOW), &Need::rows(times)).unwrap();
    assert_eq!(new_bounds(&mixed), ["..2015-01-01", "2024-03-20..2024-03-21"].map(bounds));
    assert_eq!(mixed.quarantined, [at(far), DateTime::<Utc>::MAX_UTC]);
    // An existing leaf accepts its rows, unless it is being detached; then the plan reports them.
    let mut catalog = catalog(&["+52217-05-06T00:00:00Z..+52217-05-07T00:00:00Z"]);
    let plan_of = |catalog: &Catalog| plan(catalog, &policy(), at(NOW), &need(&[far])).unwrap();
    assert_eq!(plan_of(&catalog), Plan::default());
    catalog.leaves[0].detaching = true;
    assert_eq!(plan_of(&catalog), Plan { steps: Vec::new(), quarantined: vec![at(far)] });
}

#[test]
fn an_absurd_head_makes_nothing_and_one_near_the_limit_only_what_is_within() {
    let ahead = |head: &str| new_bounds(&plan(&catalog(&[]), &policy(), at(NOW), &Need::ahead_of(at(head))).unwrap());
    assert_eq!(ahead("+52217-05-06T07:08:09Z"), []);
    assert_eq!(ahead("2124-03-21T12:00:01Z"), [], "100 years are over");
    let limit = policy().ahead_at_most;
    assert_eq!(at(NOW) + limit, at("2124-03-21T12:00:00Z"));
    assert_eq!(ahead("2124-03-20T13:00:00Z").len(), 2, "the day after begins within, the next does not");
    assert_eq!(ahead("1970-01-01"), ["..2015-01-01", "2015-01-01..2015-02-01", "2015-02-01..2015-03-01"].map(bounds));
}

#[test]
fn leaves_are_made_ahead_of_the_head() {
    let ahead = |existing: &[&str]| {
        new_bounds(&plan(&catalog(existing), &policy(), at(NOW), &Need::ahead_of(at(NOW))).unwrap())
    };
    let days = ["2024-03-20..2024-03-21", "2024-03-21..2024-03-22", "2024-03-22..2024-03-23"].map(bounds);
    assert_eq!(ahead(&[]), days);
    assert_eq!(ahead(&["2024-03-20..2024-03-21", "2024-03-21..2024-03-22"]), days[2..]);
    assert_eq!(ahead(&["2024-01-01..2025-01-01"]), []);
    // A blocking leaf causes no gap behind it, and existing narrow leaves count too.
    assert_eq!(
        ahead(&["2024-03-21T05..2024-03-21T06"]),
        ["2024-03-20..2024-03-21", "2024-03-21..2024-03-21T05"].map(bounds)
    );
    assert_eq!(
        ahead(&["2024-03-20..2024-03-21", "2024-03-21T05..2024-03-22"]),
        ["2024-03-21..2024-03-21T05"].map(bounds)
    );
}

#[test]
fn too_many_leaves_become_wider_ones() {
    let policy = |max_leaves| Policy { interval: Interval::Hour, history: Interval::Hour, max_leaves, ..policy() };
    let times = need(&["2024-01-01T01", "2024-01-01T02", "2024-01-02", "2024-02-01", "2025-01-01"]);
    let count = |max| plan(&catalog(&[]), &policy(max), at(NOW), &times).map(|plan| new_bounds(&plan).len());
    assert_eq!([5, 4, 3, 2].map(count), [Ok(5), Ok(4), Ok(3), Ok(2)]);
    assert!(matches!(count(1), Err(PlanError::TooMany { would_be: 2, max_leaves: 1, .. })));
    // Rows of now and of the head always get a leaf, one step wider.
    let full: Vec<String> = (10..20).map(|day| format!("2024-03-{day}..2024-03-{}", day + 1)).collect();
    let full = catalog(&full.iter().map(String::as_str).collect::<Vec<_>>());
    let made = plan(&full, &policy(10), at(NOW), &need(&[NOW])).unwrap();
    assert_eq!(new_bounds(&made), [bounds("2024-03-20..2024-03-21")]);
    let made = plan(&full, &policy(10), at(NOW), &Need::ahead_of(at(NOW))).unwrap();
    assert!(new_bounds(&made)[0].contains(at(NOW)) && new_bounds(&made).len() <= 4, "{made:?}");
    assert!(plan(&full, &policy(10), at(NOW), &need(&["2017-01-01"])).is_err(), "what is old waits for room");
    // Too many already, and nothing to add: no reason to fail.
    let full = catalog(&["2024-01-01..2024-01-02", "2024-01-02..2024-01-03"]);
    assert_eq!(plan(&full, &policy(1), at(NOW), &need(&["2024-01-01"])), Ok(Plan::default()));
}

#[test]
fn a_leaf_being_detached_holds_its_place_and_takes_no_rows() {
    let mut catalog = catalog(&["2024-03-20..2024-03-21"]);
    catalog.leaves[0].detaching = true;
    assert_eq!(catalog.uncovered([at(NOW), at(NOW)]), [at(NOW)]);
    let outcome = plan(&catalog, &policy(), at(NOW), &Need::rows([at(NOW)]));
    assert!(matches!(outcome, Err(PlanError::Detaching { .. })));
}

#[test]
fn names_are_labels_that_fit_and_differ() {
    let mut catalog = Catalog { sub_parent: None, ..catalog(&["2024-03-20..2024-03-20T05"]) };
    catalog.names = BTreeSet::from(["logs_7_2024032005".to_owned()]);
    let plan_of =
        |catalog: &Catalog| plan(catalog, &policy(), at(NOW), &need(&["1970-01-01", NOW, "2024-03-22"])).unwrap();
    assert_eq!(names(&plan_of(&catalog)), ["logs_7", "logs_7_first", "logs_7_2024032005_2", "logs_7_20240322"]);

    catalog.table = "é".repeat(31);
    let plan = plan_of(&catalog);
    let distinct: BTreeSet<_> = names(&plan).into_iter().collect();
    assert_eq!(distinct.len(), 4);
    assert!(distinct.iter().all(|name| name.len() <= 63 && name.starts_with("é")), "{distinct:?}");
}

/// Random needs on random catalogs: every need is covered, nothing overlaps, and no leaf is useless.
#[test]
fn any_need_is_covered_by_disjoint_leaves() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let intervals = [Interval::Hour, Interval::Day, Interval::Week, Interval::Month, Interval::Year];
        let mut catalog = Catalog { sub_parent: None, ..catalog(&[]) };
        for _ in 0..random.random_range(1..6) {
            let policy = Policy {
                interval: intervals[random.random_range(0..5)],
                history: intervals[random.random_range(0..5)],
                history_after: TimeDelta::days(random.random_range(0..400)),
                premake: random.random_range(0..4),
                max_leaves: random.random_range(40..80),
                first: at("2020-01-01") + TimeDelta::hours(random.random_range(0..9_000)),
                ..policy()
            };
            let now = at(NOW) + TimeDelta::hours(random.random_range(-5_000..5_000));
            let mut time = || at("2019-01-01") + TimeDelta::minutes(random.random_range(0..4_000_000));
            let (times, head) = ((0..15).map(|_| time()).collect(), Some(time()));
            let need = Need { times, head, bare_before: None, load: Bounds::new(Some(time()), time()) };
            let Ok(plan) = plan(&catalog, &policy, now, &need) else {
                assert!(catalog.leaves.len() > 5, "seed {seed}: refused an almost empty catalog");
                continue;
            };
            apply(&mut catalog, &plan, seed);
            let new = new_bounds(&plan).len();
            let of_now = need.times.iter().filter(|time| policy.is_of_now(**time, now)).count();
            let most_of_now = of_now + policy.premake as usize + 1;
            assert!(catalog.leaves.len() <= policy.max_leaves || new <= most_of_now, "seed {seed}");
            assert!(new <= 16 + 2 * MOST_ONWARD + policy.premake as usize, "seed {seed}: {new} leaves");
            let uncovered = catalog.uncovered(need.times.iter().copied().chain(need.head));
            assert!(uncovered.is_empty(), "seed {seed}: {uncovered:?}");
            assert_eq!(
                super::plan(&catalog, &policy, now, &Need::rows(need.times)),
                Ok(Plan::default()),
                "seed {seed}"
            );
        }
    }
}

fn apply(catalog: &mut Catalog, plan: &Plan, seed: u64) {
    for step in &plan.steps {
        let (Step::CreateLeaf { name, .. } | Step::CreateSubParent { name }) = step;
        assert!(catalog.names.insert(name.clone()), "seed {seed}: {name} twice");
        match step {
            Step::CreateSubParent { name } => assert_eq!(catalog.sub_parent.replace(name.clone()), None, "seed {seed}"),
            Step::CreateLeaf { name, bounds, .. } => {
                assert!(!catalog.leaves.iter().any(|leaf| leaf.bounds.overlaps(bounds)), "seed {seed}: {bounds}");
                let (name, bounds) = (name.clone(), *bounds);
                catalog.leaves.push(Leaf { name, bounds, detaching: false, indexes: Vec::new() });
            }
        }
    }
    catalog.leaves.sort_by_key(|leaf| leaf.bounds.to());
}

#[test]
fn a_load_makes_as_many_leaves_as_it_needed_in_a_row() {
    let load = bounds("2024-03-05..2024-03-20T12");
    let made = |existing: &[&str], times: &[&str]| {
        let plan = plan(&catalog(existing), &policy(), at(NOW), &need(times).of_load(Some(load))).unwrap();
        new_bounds(&plan)
    };
    let days = |days: &[&str]| days.iter().map(|day| bounds(day)).collect::<Vec<_>>();
    assert_eq!(made(&[], &["2024-03-15"]), days(&["2024-03-15..2024-03-16"]), "which way is not known");
    assert_eq!(
        made(&["2024-03-16..2024-03-17", "2024-03-17..2024-03-18"], &["2024-03-15T05"]),
        days(&["2024-03-13..2024-03-14", "2024-03-14..2024-03-15", "2024-03-15..2024-03-16"]),
        "downwards"
    );
    assert_eq!(
        made(&["2024-03-13..2024-03-14"], &["2024-03-14"]),
        days(&["2024-03-14..2024-03-15", "2024-03-15..2024-03-16"]),
        "upwards"
    );
    assert_eq!(made(&["2024-03-17..2024-03-18"], &["2024-03-15"]), days(&["2024-03-15..2024-03-16"]), "not in a row");
    let long: Vec<String> = (14..20).map(|day| format!("2024-03-{day}..2024-03-{}", day + 1)).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    assert_eq!(made(&long, &["2024-03-13"]).first(), Some(&bounds("2024-03-07..2024-03-08")), "six in a row");
    assert_eq!(made(&long, &["2024-03-06"]), days(&["2024-03-06..2024-03-07"]));
    assert_eq!(
        made(&["2024-03-06..2024-03-07", "2024-03-07..2024-03-08"], &["2024-03-05T03"]),
        days(&["2024-03-05..2024-03-06"]),
        "not beyond the load"
    );
}

#[test]
fn a_leaf_with_times_before_the_given_one_is_bare() {
    let bare = |time: Option<&str>| {
        let need = need(&["2010-01-01", "2024-03-19", "2024-03-20"]).bare_before(time.map(at));
        let plan = plan(&catalog(&[]), &policy(), at(NOW), &need).unwrap();
        let of = |step: &Step| match step {
            Step::CreateLeaf { bare, .. } => Some(*bare),
            Step::CreateSubParent { .. } => None,
        };
        plan.steps.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(bare(None), [false, false, false]);
    assert_eq!(bare(Some("2024-03-20")), [true, true, false], "the first leaf has no beginning; the last begins there");
    assert_eq!(bare(Some("2024-03-20T01")), [true, true, true], "a part of its times is enough");
    assert_eq!(bare(Some("2024-03-18")), [true, false, false]);
}
