use super::*;
use crate::dataset::Datasets;
use crate::events::abi::Abi;

fn views(abi: &str) -> Vec<View> {
    let events = Abi::read(abi).unwrap().events;
    crate::dataset::tables("bond", &events)[0].0.views()
}

fn names(view: &View) -> Vec<&str> {
    view.columns.iter().map(|column| column.name.as_str()).collect()
}

#[test]
fn columns_beside_a_number_have_names_of_their_own() {
    let views = views(
        "event Paid(uint256 amount, string amountText, string amount_2_text, uint64 value, uint256 amountScaled)",
    );
    let expected = [
        "chain_id",
        "block_time",
        "block_number",
        "log_index",
        "address",
        "tx_hash",
        "amount",
        "amount_3_text",
        "amount_2_scaled",
        "amount_text",
        "amount_text_bytes",
        "amount_2_text",
        "amount_2_text_bytes",
        "value",
        "value_text",
        "amount_scaled",
        "amount_scaled_text",
    ];
    assert_eq!(names(&views[0]), expected);
    assert_eq!(names(&views[1]), expected);
    let distinct: HashSet<&str> = names(&views[0]).into_iter().collect();
    assert_eq!(distinct.len(), expected.len());
}

#[test]
fn long_names_fit_and_differ() {
    let mut taken = HashSet::from(["é".repeat(31)]);
    let mut all = Vec::new();
    for name in ["é".repeat(31), "a".repeat(63), format!("{}b", "a".repeat(62)), "a".repeat(63), "x".into(), "x".into()]
    {
        for suffix in ["_text", "_scaled"] {
            all.push(beside(&name, suffix, &mut taken));
        }
    }
    assert!(all.iter().all(|name| name.len() <= NAME), "{all:?}");
    assert_eq!(taken.len(), 13, "{all:?}");
    assert_eq!(all[8..], ["x_text", "x_scaled", "x_2_text", "x_2_scaled"]);
    for table in ["é".repeat(31), "t".repeat(63), format!("{}_final", "t".repeat(57))] {
        assert!(name_of(&table).len() <= NAME && name_of_final(&table).len() <= NAME, "{table}");
    }
}

#[test]
fn the_view_of_one_table_is_not_the_final_view_of_another() {
    assert_eq!([name_of("bond_paid"), name_of_final("bond_paid")], ["bond_paid", "bond_paid_final"]);
    let other = name_of("bond_paid_final");
    assert!(other.starts_with("bond_paid_final_") && other.len() == "bond_paid_final_".len() + 8, "{other}");
    assert_eq!(name_of_final("bond_paid_final"), "bond_paid_final_final");
}

#[test]
fn an_amount_is_scaled_by_its_emitter_and_other_numbers_are_not() {
    let scaled = |view: &View| names(view).iter().any(|name| name.ends_with("_scaled"));
    for (abi, expected) in [
        ("event A(uint256 value)", true),
        ("event A(uint256 indexed amount)", true),
        ("event A(uint128 amount)", true),
        ("event A(uint64 amount)", false),
        ("event A(uint256 price)", false),
        ("event A(string amount)", false),
    ] {
        let view = &views(abi)[0];
        assert_eq!((scaled(view), view.from.contains("dalp_indexed.token")), (expected, expected), "{abi}");
    }
    let own = Datasets::own();
    assert!(!scaled(&own.every().views()[0]) && scaled(&own.get("erc20_transfer").unwrap().views()[0]));
    assert!(own.refused().views().is_empty());
}

#[test]
fn the_comment_tells_one_definition_from_another() {
    let about = |abi: &str| views(abi)[0].about();
    let (one, other) = (about("event A(uint256 value)"), about("event A(uint256 value, bool x)"));
    assert!(one.len() > 9 && one[one.len() - 9..] != other[other.len() - 9..], "{one} {other}");
    assert_eq!(one, about("event A(uint256 value)"));
}
