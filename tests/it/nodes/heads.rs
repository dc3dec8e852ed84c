//! Nodes' reports of the newest block: heads missed, repeated and swapped, sockets that die, an announced tip without a block, a
//! node that falls behind.

use dalp_fixtures::faulty::{Fault, Rule};

use super::{Case, Meanwhile, check_tip};

fn socket(name: &str, meanwhile: Meanwhile, rule: Rule, poll: &str) -> Case {
    let case = Case::new(name, meanwhile, vec![rule]).with(format!("poll_interval = \"{poll}\""));
    Case { socket: true, ..case }
}

#[test]
fn heads_that_are_missed_repeated_or_swapped_change_nothing() {
    dalp_tests::run(check_tip(|_| {
        vec![
            socket("some are missed", Meanwhile::Stored, Rule::new(Fault::HeadMissed).times(3), "1s"),
            socket("all are missed", Meanwhile::Stored, Rule::new(Fault::HeadMissed), "200ms"),
            socket("each two are swapped", Meanwhile::Stored, Rule::new(Fault::HeadsSwapped), "1s"),
            // Only the socket reports these heads.
            socket("each comes twice", Meanwhile::Stored, Rule::new(Fault::HeadRepeated), "10m"),
        ]
    }));
}

#[test]
fn a_socket_that_dies_delays_and_never_stops() {
    dalp_tests::run(check_tip(|_| {
        vec![
            socket("silent", Meanwhile::Stored, Rule::new(Fault::SocketSilent), "200ms"),
            socket("closed", Meanwhile::Stored, Rule::new(Fault::SocketClosed), "200ms"),
        ]
    }));
}

#[test]
fn a_node_that_falls_behind_makes_nothing_be_removed() {
    dalp_tests::run(check_tip(|_| {
        let finality = "finality = \"depth:64\"";
        let lag = |blocks| vec![Rule::new(Fault::Lag { blocks })];
        let case = |name, rules| Case::new(name, Meanwhile::True, rules).with(finality);
        let beside = case("3 blocks", lag(3)).beside_an_honest_node();
        vec![case("1 block", lag(1)), case("3 blocks", lag(3)), case("8 blocks", lag(8)), beside]
    }));
}

#[test]
fn a_tip_that_is_announced_before_it_is_there_is_waited_for() {
    let rules = vec![Rule::new(Fault::NullTip)];
    let alone = Case::new("null", Meanwhile::True, rules);
    let beside = alone.clone().beside_an_honest_node();
    dalp_tests::run(check_tip(|_| vec![alone, beside]));
}
