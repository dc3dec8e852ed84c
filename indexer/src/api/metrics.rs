//! The answer of /metrics: the published status in Prometheus' text format 0.0.4. Labels name chains, nodes (scheme, host and
//! port) and levels, never an address or a hash: the configuration alone decides the number of series.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType as Kind;
use prometheus_client::registry::Registry;

use super::published::Published;
use crate::status::{ChainStatus, CommitReport, NodeReport, Role, TableReport, TaskReport, TaskState};

pub(super) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The value of a metric; none if it is unknown.
type Of<T> = fn(&T) -> Option<Value>;

/// One metric: its name without prefix, its meaning, and its value for a `T`.
struct Metric<T>(&'static str, Kind, &'static str, Of<T>);

/// A value in text form.
#[derive(Clone, Copy, Debug)]
enum Value {
    Whole(u64),
    Real(f64),
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Self::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

const CHAIN: &[Metric<ChainStatus>] = &[
    Metric("head_block", Kind::Gauge, "Newest block that the nodes report.", |c| c.head.map(Value::Whole)),
    Metric("tail_block", Kind::Gauge, "Last block that the tail committed; history below may have gaps.", |c| {
        c.tail.map(Value::Whole)
    }),
    Metric("complete_to_block", Kind::Gauge, "Last block up to which no block is missing.", |c| {
        c.complete_to.map(Value::Whole)
    }),
    Metric("gap_blocks", Kind::Gauge, "Blocks below the tail that are not stored yet.", |c| whole(c.gap_blocks)),
    Metric("finalized_block", Kind::Gauge, "Newest block that is final.", |c| c.finalized.map(Value::Whole)),
    Metric("lag_blocks", Kind::Gauge, "Blocks from the tail to the head.", |c| c.lag_blocks.map(Value::Whole)),
    Metric("lag_seconds", Kind::Gauge, "Seconds of chain time from the tail to the head.", |c| {
        c.lag_seconds.map(Value::Real)
    }),
    Metric("ready", Kind::Gauge, "1 if readers may rely on the chain.", |c| flag(c.ready)),
    Metric("leader", Kind::Gauge, "1 if this process writes the chain, 0 if it stands by.", |c| {
        flag(c.role == Role::Leader)
    }),
    Metric("events_per_second", Kind::Gauge, "Events committed per second, recently.", |c| {
        Some(Value::Real(c.events_per_second))
    }),
    Metric("leaves", Kind::Gauge, "Partitions of the chain.", |c| whole(c.leaves)),
    Metric("undecoded_contracts", Kind::Gauge, "Contracts whose stored logs are not all in their tables yet.", |c| {
        whole(c.undecoded_contracts)
    }),
    Metric("bare_leaves", Kind::Gauge, "Partitions that lack indexes: loaded and not served yet.", |c| {
        whole(c.bare_leaves)
    }),
    Metric("distrusted_answers_total", Kind::Counter, "Answers of nodes that receipts proved wrong.", |c| {
        whole(c.distrusted_answers)
    }),
    Metric("reorgs_total", Kind::Counter, "Unwinds of orphaned blocks that were committed.", |c| whole(c.reorgs)),
    Metric("stops_total", Kind::Counter, "Times that indexing ended with a failure and restarted.", |c| whole(c.stops)),
    Metric("stalled_seconds", Kind::Gauge, "Seconds without progress while work is waiting.", |c| {
        whole(c.stalled_seconds)
    }),
    Metric("background_failures_total", Kind::Counter, "Statements beside the indexing that failed.", |c| {
        whole(c.background_failures)
    }),
    Metric("orphaned_logs_total", Kind::Counter, "Logs that unwinds moved out of the tables.", |c| {
        whole(c.orphaned_logs)
    }),
    Metric("untyped_logs", Kind::Gauge, "Logs without a typed table since this process leads.", |c| {
        whole(c.untyped_logs)
    }),
    Metric("untyped_kinds", Kind::Gauge, "Kinds of logs without a typed table: contract and first topic.", |c| {
        whole(c.untyped_kinds)
    }),
];

const NODE: &[Metric<NodeReport>] = &[
    Metric("node_up", Kind::Gauge, "1 if the node is used, 0 if it rests, is refused or is not known yet.", |n| {
        flag(n.state == "up")
    }),
    Metric("node_latency_seconds", Kind::Gauge, "Time of the node's light calls, smoothed.", |n| {
        n.latency_ms.map(|latency| Value::Real(latency / 1_000.0))
    }),
    Metric("node_failures", Kind::Gauge, "Failed calls and refused answers in a row.", |n| whole(n.failures)),
];

#[expect(clippy::unnecessary_wraps, reason = "the shape that the tables want")]
fn whole(value: impl Into<u64>) -> Option<Value> {
    Some(Value::Whole(value.into()))
}

fn flag(value: bool) -> Option<Value> {
    whole(value)
}

/// The metrics of the published status, read again at each scrape.
pub(super) fn registry(published: Published) -> Registry {
    let mut registry = Registry::with_prefix("dalp_indexer");
    published.timings.register(&mut registry);
    registry.register_collector(Box::new(published));
    registry
}

/// The whole answer.
///
/// # Errors
/// None: writing to a string cannot fail.
pub(super) fn render(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

impl Collector for Published {
    /// An unknown value has no sample, because any number would mean something else.
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        of_chains(&mut encoder, &self.chains.borrow())?;
        of_tasks(&mut encoder, &self.tasks.borrow())?;
        of_tables(&mut encoder, &self.tables.borrow())?;
        of_commits(&mut encoder, &self.commits.borrow())
    }
}

fn of_chains(encoder: &mut DescriptorEncoder, chains: &[ChainStatus]) -> fmt::Result {
    for Metric(name, kind, help, value) in CHAIN {
        let samples = chains.iter().filter_map(|chain| Some(([("chain", chain.name.as_str())], value(chain)?)));
        family(encoder, name, *kind, help, samples)?;
    }
    let levels = chains.iter().flat_map(|chain| {
        let reached = chain.verified_to.levels().into_iter();
        reached.filter_map(|(level, to)| Some(([("chain", chain.name.as_str()), ("level", level)], Value::Whole(to?))))
    });
    let help = "Last block up to which every block has this level of verification or a stronger one.";
    family(encoder, "verified_to_block", Kind::Gauge, help, levels)?;
    for Metric(name, kind, help, value) in NODE {
        let nodes = chains.iter().flat_map(|chain| chain.nodes.iter().map(move |node| (chain, node)));
        let samples = nodes.filter_map(|(chain, node)| {
            Some(([("chain", chain.name.as_str()), ("node", node.name.as_str())], value(node)?))
        });
        family(encoder, name, *kind, help, samples)?;
    }
    Ok(())
}

fn of_tasks(encoder: &mut DescriptorEncoder, tasks: &[TaskReport]) -> fmt::Result {
    for Metric(name, kind, help, value) in TASK {
        let samples = tasks.iter().filter_map(|task| Some(([("task", task.name)], value(task)?)));
        family(encoder, name, *kind, help, samples)?;
    }
    Ok(())
}

fn of_tables(encoder: &mut DescriptorEncoder, tables: &[TableReport]) -> fmt::Result {
    for Metric(name, kind, help, value) in TABLE {
        let samples = tables.iter().filter_map(|table| Some(([("table", table.name.as_str())], value(table)?)));
        family(encoder, name, *kind, help, samples)?;
    }
    for (name, help, value) in MOVES {
        let samples = tables.iter().flat_map(|table| {
            let moves = table.moves.iter();
            moves.map(|(act, sums)| ([("table", table.name.as_str()), ("move", *act)], value(*sums)))
        });
        family(encoder, name, Kind::Counter, help, samples)?;
    }
    Ok(())
}

fn of_commits(encoder: &mut DescriptorEncoder, reports: &[CommitReport]) -> fmt::Result {
    let commits = reports.iter().flat_map(|of| {
        of.commits.iter().map(|(change, count)| ([("chain", &*of.chain), ("change", *change)], Value::Whole(*count)))
    });
    let help = "Committed changes of the chain: append, backfill, unwind, jump, repair, reset.";
    family(encoder, "commits_total", Kind::Counter, help, commits)?;
    let rows = reports.iter().flat_map(|of| {
        let labels = |table, change| [("chain", &*of.chain), ("table", table), ("change", change)];
        of.rows.iter().map(move |((table, change), rows)| (labels(&**table, *change), Value::Whole(*rows)))
    });
    let help = "Rows written; for an unwind, rows removed; for a repair, both.";
    family(encoder, "rows_total", Kind::Counter, help, rows)?;
    let gaps = reports.iter().map(|of| ([("chain", &*of.chain)], Value::Whole(of.gaps)));
    let help = "Times that an uncounted cause moved the epoch: retention, another process, a lost answer.";
    family(encoder, "commit_gaps_total", Kind::Counter, help, gaps)
}

const TASK: &[Metric<TaskReport>] = &[
    Metric("task_up", Kind::Gauge, "1 if the last turn of a background task went well.", |t| {
        flag(t.state == TaskState::Well)
    }),
    Metric("task_failures_total", Kind::Counter, "Turns of a background task that failed.", |t| whole(t.failures)),
];

const TABLE: &[Metric<TableReport>] = &[
    Metric("retention_failures_total", Kind::Counter, "Moves of partitions and runs of retention that failed.", |t| {
        whole(t.failures)
    }),
    Metric("retention_blocked", Kind::Gauge, "Partitions that are due or on their way, and do not move.", |t| {
        whole(t.blocked)
    }),
    Metric("retention_last_success_timestamp_seconds", Kind::Gauge, "Last run of retention without a failure.", |t| {
        t.succeeded_at.and_then(|at| u64::try_from(at.timestamp()).ok()).map(Value::Whole)
    }),
];

/// A counter over moves by kind: its name, its meaning, and its value from their number, time and wait.
type Moves = (&'static str, &'static str, fn((u64, f64, f64)) -> Value);

const MOVES: &[Moves] = &[
    ("partition_moves_total", "Moves of partitions on their way from attached to dropped.", |(count, ..)| {
        Value::Whole(count)
    }),
    ("partition_move_seconds_total", "Time of moves of partitions.", |(_, seconds, _)| Value::Real(seconds)),
    (
        "partition_lock_wait_seconds_total",
        "Part of the time of moves of partitions spent waiting for the first lock.",
        |(.., waiting)| Value::Real(waiting),
    ),
];

/// One metric with all its samples; nothing without samples.
fn family<'a, const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    kind: Kind,
    help: &str,
    samples: impl Iterator<Item = ([(&'a str, &'a str); N], Value)>,
) -> fmt::Result {
    let mut samples = samples.peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    // The library adds `_total` to a counter itself.
    let mut family = encoder.encode_descriptor(name.trim_end_matches("_total"), help, None, kind)?;
    for (labels, value) in samples {
        let mut sample = family.encode_family(&labels)?;
        match kind {
            Kind::Counter => sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            _ => sample.encode_gauge(&value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::status::VerifiedTo;
    use crate::timings::Timings;

    fn published(chains: &[ChainStatus], tables: &[TableReport], tasks: &[TaskReport]) -> Published {
        Published {
            chains: watch::channel(chains.to_vec()).1,
            tables: watch::channel(tables.to_vec()).1,
            tasks: watch::channel(tasks.to_vec()).1,
            commits: watch::channel(Vec::new()).1,
            timings: Timings::default(),
        }
    }

    fn text(chains: &[ChainStatus], tables: &[TableReport], tasks: &[TaskReport]) -> String {
        render(&registry(published(chains, tables, tasks))).unwrap()
    }

    fn commits() -> Vec<CommitReport> {
        let mut report = CommitReport::new(1, "main".into());
        report.commits.extend([("append", 7), ("unwind", 1)]);
        report.rows.extend([(("logs".to_owned(), "append"), 70), (("erc20_transfer".to_owned(), "unwind"), 3)]);
        vec![report]
    }

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
        text(chains, &[], &[])
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

    /// An answer in which every metric has a sample.
    fn all() -> String {
        let (some, name) = (Some(1), "all known".into());
        let known = ChainStatus { name, complete_to: some, finalized: some, lag_blocks: some, ..chain() };
        let mut table =
            TableReport { name: "logs".into(), succeeded_at: Some(chrono::Utc::now()), ..TableReport::default() };
        table.count("drop", std::time::Duration::from_millis(500), std::time::Duration::ZERO);
        let other = TableReport { name: "activity".into(), ..table.clone() };
        let task = TaskReport { name: "retention", state: TaskState::Down, failures: 1, error: None };
        let mut published = published(&[chain(), known], &[table, other], &[task]);
        published.commits = watch::channel(commits()).1;
        published.timings.of_chain("main").tail.fetched(std::time::Instant::now());
        render(&registry(published)).unwrap()
    }

    #[test]
    fn each_metric_is_declared_once_before_its_samples_and_no_series_comes_twice() {
        let text = all();
        let (mut declared, mut series) = (Vec::new(), std::collections::HashSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(!declared.contains(&name), "{name} is declared twice");
                declared.push(name);
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let of = name.split('{').next().unwrap();
                let parts = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| of.strip_suffix(part));
                let is_own = [Some(of), parts].contains(&declared.last().copied());
                assert!(is_own, "{line} stands below its own metric");
                assert!(value.parse::<f64>().unwrap().is_finite() && series.insert(name), "{line}");
            }
        }
        let known = CHAIN.len() + NODE.len() + 1 + TASK.len() + TABLE.len() + MOVES.len() + 2 + 3;
        assert_eq!(declared.len(), known, "{declared:?}");
    }

    /// A line of the documentation for each metric: name, type, labels, meaning.
    fn documented() -> Vec<String> {
        let text = all();
        let lines: Vec<&str> = text.lines().collect();
        let declared = lines.iter().enumerate().filter_map(|(at, line)| {
            let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
            let (_, kind) = lines.get(at + 1)?.strip_prefix("# TYPE ")?.split_once(' ')?;
            let sample = lines[at + 2..].iter().find(|line| line.starts_with(name) && line.contains("chain=\"main\""));
            let sample = sample.or(lines.get(at + 2))?;
            let labels = sample.split_once('{')?.1.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            let labels: Vec<_> = labels.filter(|label| *label != "le").map(|label| format!("`{label}`")).collect();
            Some(format!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")))
        });
        declared.collect()
    }

    #[test]
    fn the_documentation_lists_each_metric() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let listed: Vec<&str> = written.lines().filter(|line| line.starts_with("| `dalp_indexer_")).collect();
        assert_eq!(listed, documented(), "docs/metrics.md is to list these:\n{}", documented().join("\n"));
    }

    #[test]
    fn label_values_are_escaped() {
        let named = ChainStatus { name: "a\\b\"c\nd".into(), ..chain() };
        assert_eq!(samples(&[named], "gap_blocks"), [r#"{chain="a\\b\"c\nd"} 0"#]);
    }

    #[test]
    fn without_a_chain_there_is_nothing_to_tell() {
        assert_eq!(text(&[], &[], &[]), "");
    }

    #[test]
    fn what_was_committed_is_told_by_change_and_table() {
        let text = all();
        for sample in [
            r#"dalp_indexer_commits_total{chain="main",change="append"} 7"#,
            r#"dalp_indexer_rows_total{chain="main",table="erc20_transfer",change="unwind"} 3"#,
            r#"dalp_indexer_commit_gaps_total{chain="main"} 0"#,
        ] {
            assert!(text.contains(sample), "{sample}: {text}");
        }
    }
}
