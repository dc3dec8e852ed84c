//! What /metrics answers: the published status in Prometheus' text format 0.0.4. Labels name chains, nodes (scheme, host and
//! port) and levels, never an address or a hash: how many series there are is up to the configuration alone.

use std::fmt::Write as _;

use crate::status::{ChainStatus, NodeReport, Role, TableReport, TaskReport, TaskState};

/// The `Content-Type` that goes with [`render`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy)]
enum Kind {
    /// Goes up and down.
    Gauge,
    /// Counts since the process began; never falls while it runs.
    Counter,
}

/// One metric: its name without prefix, what it is, and its value of a `T`; none where it is not known.
struct Metric<T>(&'static str, Kind, &'static str, fn(&T) -> Option<f64>);

const CHAIN: &[Metric<ChainStatus>] = &[
    Metric("head_block", Kind::Gauge, "Newest block that the nodes report.", |c| number(c.head)),
    Metric("tail_block", Kind::Gauge, "Last block that the tail committed; history below may have gaps.", |c| {
        number(c.tail)
    }),
    Metric("complete_to_block", Kind::Gauge, "Last block up to which nothing is missing.", |c| number(c.complete_to)),
    Metric("gap_blocks", Kind::Gauge, "Blocks below the tail that are not stored yet.", |c| Some(c.gap_blocks as f64)),
    Metric("finalized_block", Kind::Gauge, "Newest block that is final.", |c| number(c.finalized)),
    Metric("lag_blocks", Kind::Gauge, "Blocks from the tail to the head.", |c| number(c.lag_blocks)),
    Metric("lag_seconds", Kind::Gauge, "Seconds of chain time from the tail to the head.", |c| c.lag_seconds),
    Metric("ready", Kind::Gauge, "1 if readers may rely on the chain.", |c| flag(c.ready)),
    Metric("leader", Kind::Gauge, "1 if this process writes the chain, 0 if it stands by.", |c| {
        flag(c.role == Role::Leader)
    }),
    Metric("events_per_second", Kind::Gauge, "Events committed each second, lately.", |c| Some(c.events_per_second)),
    Metric("leaves", Kind::Gauge, "Partitions of the chain.", |c| Some(c.leaves as f64)),
    Metric("bare_leaves", Kind::Gauge, "Partitions that lack indexes: loaded and not served yet.", |c| {
        Some(c.bare_leaves as f64)
    }),
    Metric("distrusted_answers_total", Kind::Counter, "Answers of nodes that receipts proved wrong.", |c| {
        Some(c.distrusted_answers as f64)
    }),
    Metric("reorgs_total", Kind::Counter, "Unwinds of orphaned blocks that were committed.", |c| Some(c.reorgs as f64)),
    Metric("stops_total", Kind::Counter, "Times that indexing ended for a failure and was begun anew.", |c| {
        Some(c.stops as f64)
    }),
    Metric("stalled_seconds", Kind::Gauge, "Seconds since anything moved, while there is something to do.", |c| {
        Some(c.stalled_seconds as f64)
    }),
    Metric("background_failures_total", Kind::Counter, "Statements beside the indexing that failed.", |c| {
        Some(c.background_failures as f64)
    }),
    Metric("orphaned_logs_total", Kind::Counter, "Logs that unwinds moved out of the tables.", |c| {
        Some(c.orphaned_logs as f64)
    }),
    Metric("untyped_logs", Kind::Gauge, "Logs since this process leads that no typed table takes.", |c| {
        Some(c.untyped_logs as f64)
    }),
    Metric("untyped_kinds", Kind::Gauge, "Their kinds, each a contract and a first topic.", |c| {
        Some(c.untyped_kinds as f64)
    }),
];

const NODE: &[Metric<NodeReport>] = &[
    Metric("node_up", Kind::Gauge, "1 if the node is used, 0 if it rests, is refused or not known yet.", |n| {
        flag(n.state == "up")
    }),
    Metric("node_latency_seconds", Kind::Gauge, "Time of the node's light calls, smoothed.", |n| {
        n.latency_ms.map(|latency| latency / 1_000.0)
    }),
    Metric("node_failures", Kind::Gauge, "Calls that failed and answers that were refused, in a row.", |n| {
        Some(n.failures as f64)
    }),
];

/// Block numbers lie far below 2^53: they are exact.
fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn flag(value: bool) -> Option<f64> {
    Some(f64::from(u8::from(value)))
}

/// The whole answer. What is not known has no sample, rather than a value that means something else.
pub(super) fn render(chains: &[ChainStatus], tables: &[TableReport], tasks: &[TaskReport]) -> String {
    let mut text = String::new();
    for Metric(name, kind, help, value) in CHAIN {
        let samples = chains.iter().filter_map(|chain| Some((vec![("chain", chain.name.as_str())], value(chain)?)));
        family(&mut text, name, *kind, help, samples);
    }
    let levels = chains.iter().flat_map(|chain| {
        let reached = chain.verified_to.levels().into_iter().filter_map(|(level, to)| Some((level, number(to)?)));
        reached.map(|(level, to)| (vec![("chain", chain.name.as_str()), ("level", level)], to))
    });
    let help = "Last block up to which every block has this level of verification or a stronger one.";
    family(&mut text, "verified_to_block", Kind::Gauge, help, levels);
    for Metric(name, kind, help, value) in NODE {
        let nodes = chains.iter().flat_map(|chain| chain.nodes.iter().map(move |node| (chain, node)));
        let samples = nodes.filter_map(|(chain, node)| {
            Some((vec![("chain", chain.name.as_str()), ("node", node.name.as_str())], value(node)?))
        });
        family(&mut text, name, *kind, help, samples);
    }
    for Metric(name, kind, help, value) in TASK {
        let samples = tasks.iter().filter_map(|task| Some((vec![("task", task.name)], value(task)?)));
        family(&mut text, name, *kind, help, samples);
    }
    for Metric(name, kind, help, value) in TABLE {
        let samples = tables.iter().filter_map(|table| Some((vec![("table", table.name.as_str())], value(table)?)));
        family(&mut text, name, *kind, help, samples);
    }
    for (name, help, value) in MOVES {
        let samples = tables.iter().flat_map(|table| {
            let moves = table.moves.iter();
            moves.map(|(act, sums)| (vec![("table", table.name.as_str()), ("move", *act)], value(*sums)))
        });
        family(&mut text, name, Kind::Counter, help, samples);
    }
    text
}

const TASK: &[Metric<TaskReport>] = &[
    Metric("task_up", Kind::Gauge, "1 if the last turn of a background task went well.", |t| {
        flag(t.state == TaskState::Well)
    }),
    Metric("task_failures_total", Kind::Counter, "Turns of a background task that failed.", |t| {
        Some(t.failures as f64)
    }),
];

const TABLE: &[Metric<TableReport>] = &[
    Metric("retention_failures_total", Kind::Counter, "Moves of partitions and runs of retention that failed.", |t| {
        Some(t.failures as f64)
    }),
    Metric("retention_blocked", Kind::Gauge, "Partitions that are due or on their way, and do not move.", |t| {
        Some(t.blocked as f64)
    }),
    Metric("retention_last_success_timestamp_seconds", Kind::Gauge, "Last run of retention without a failure.", |t| {
        t.succeeded_at.map(|at| at.timestamp() as f64)
    }),
];

/// A counter over moves by kind: its name, what it is, and its value of their number, their time and their wait.
type Moves = (&'static str, &'static str, fn((u64, f64, f64)) -> f64);

const MOVES: &[Moves] = &[
    ("partition_moves_total", "Moves of partitions on their way from attached to dropped.", |(count, ..)| count as f64),
    ("partition_move_seconds_total", "Time that they took.", |(_, seconds, _)| seconds),
    ("partition_lock_wait_seconds_total", "Time of it that they waited for their first lock.", |(.., waiting)| waiting),
];

/// One metric with all its samples, which the format wants together; nothing where there are none.
fn family<'a>(
    text: &mut String,
    name: &str,
    kind: Kind,
    help: &str,
    samples: impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    let mut samples = samples.peekable();
    if samples.peek().is_some() {
        // Writing to a string cannot fail.
        _ = writeln!(text, "# HELP dalp_indexer_{name} {help}\n# TYPE dalp_indexer_{name} {kind}");
    }
    for (labels, value) in samples {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        _ = writeln!(text, "dalp_indexer_{name}{{{}}} {value}", labels.join(","));
    }
}

/// A label's value as the format writes it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::VerifiedTo;

    fn chain() -> ChainStatus {
        let node = |name: &str, state: &str, latency_ms| NodeReport {
            name: name.into(),
            state: state.into(),
            latency_ms,
            failures: 2,
            ..NodeReport::default()
        };
        ChainStatus {
            role: Role::Leader,
            head: Some(21_000_000),
            tail: Some(20_999_999),
            lag_seconds: Some(12.5),
            events_per_second: 0.1,
            reorgs: 3,
            verified_to: VerifiedTo { returned: Some(7), bloom: Some(5), ..VerifiedTo::default() },
            nodes: vec![
                node("https://a.example:1", "up", Some(250.0)),
                node("https://b.example:2", "resting", None),
                node("https://a.example:1#2", "up", None),
            ],
            ..ChainStatus::new("main".into(), 1)
        }
    }

    /// The samples of `chains`, without the lines about them.
    fn samples(chains: &[ChainStatus], metric: &str) -> Vec<String> {
        let start = format!("dalp_indexer_{metric}{{");
        render(chains, &[], &[])
            .lines()
            .filter_map(|line| line.strip_prefix(&start).map(|rest| format!("{{{rest}")))
            .collect()
    }

    #[test]
    fn samples_have_their_chains_values() {
        let check = |metric: &str, expected: &[&str]| assert_eq!(samples(&[chain()], metric), expected, "{metric}");
        check("head_block", &[r#"{chain="main"} 21000000"#]);
        check("tail_block", &[r#"{chain="main"} 20999999"#]);
        check("complete_to_block", &[]);
        check("finalized_block", &[]);
        check("gap_blocks", &[r#"{chain="main"} 0"#]);
        check("lag_seconds", &[r#"{chain="main"} 12.5"#]);
        check("ready", &[r#"{chain="main"} 0"#]);
        check("leader", &[r#"{chain="main"} 1"#]);
        check("events_per_second", &[r#"{chain="main"} 0.1"#]);
        check("reorgs_total", &[r#"{chain="main"} 3"#]);
        check("verified_to_block", &[r#"{chain="main",level="returned"} 7"#, r#"{chain="main",level="bloom"} 5"#]);
        check("node_latency_seconds", &[r#"{chain="main",node="https://a.example:1"} 0.25"#]);
        check(
            "node_up",
            &[
                r#"{chain="main",node="https://a.example:1"} 1"#,
                r#"{chain="main",node="https://b.example:2"} 0"#,
                r#"{chain="main",node="https://a.example:1#2"} 1"#,
            ],
        );
    }

    #[test]
    fn each_metric_is_declared_once_before_its_samples_and_no_series_comes_twice() {
        let (some, name) = (Some(1), "all known".into());
        let known = ChainStatus { name, complete_to: some, finalized: some, lag_blocks: some, ..chain() };
        let mut table =
            TableReport { name: "logs".into(), succeeded_at: Some(chrono::Utc::now()), ..TableReport::default() };
        table.count("drop", std::time::Duration::from_millis(500), std::time::Duration::ZERO);
        let other = TableReport { name: "activity".into(), ..table.clone() };
        let task = TaskReport { name: "retention", state: TaskState::Down, failures: 1, error: None };
        let text = render(&[chain(), known], &[table, other], &[task]);
        let (mut declared, mut series) = (Vec::new(), std::collections::HashSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(!declared.contains(&name), "{name} is declared twice");
                declared.push(name);
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next(), declared.last().copied(), "{line} stands below its own metric");
                assert!(value.parse::<f64>().unwrap().is_finite() && series.insert(name), "{line}");
            }
        }
        assert_eq!(
            declared.len(),
            CHAIN.len() + NODE.len() + 1 + TASK.len() + TABLE.len() + MOVES.len(),
            "{declared:?}"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let named = ChainStatus { name: "a\\b\"c\nd".into(), ..chain() };
        assert_eq!(samples(&[named], "gap_blocks"), [r#"{chain="a\\b\"c\nd"} 0"#]);
    }

    #[test]
    fn without_a_chain_there_is_nothing_to_tell() {
        assert_eq!(render(&[], &[], &[]), "");
    }
}
