//! The figures as the Markdown that docs/benchmarks.md publishes.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::Outcome;
use super::case::{Case, Ingest, Run};
use super::cost::{Cost, Costs};
use super::deployed::{Beside, Deployed};
use super::latency::{Delays, Latency};
use super::options::{Indexes, Options};
use super::questions::{Asked, State};
use super::scale::Rate;
use super::stages::Stage;

/// The measured figures.
#[derive(Default)]
pub struct Figures {
    pub cases: Vec<Case>,
    pub situations: Vec<Case>,
    pub sparse: Vec<Case>,
    pub indexes: Vec<Case>,
    pub scale: Vec<Rate>,
    pub deployed: Vec<Deployed>,
    pub stages: Vec<Stage>,
    pub costs: Costs,
    pub latency: Vec<Latency>,
    pub questions: Vec<State>,
}

/// The whole report.
pub fn markdown(options: &Options, machine: &[String], versions: &str, figures: &Figures) -> String {
    let mut text = format!("- {versions}\n");
    for line in machine {
        let _ = writeln!(text, "- {line}");
    }
    let Options { runs, transfers, blocks, indexes, .. } = options;
    let _ = writeln!(text, "- {transfers} ERC-20 transfers in {blocks} blocks over 40 days; {runs} runs a case");
    if !figures.cases.is_empty() {
        let _ = writeln!(text, "- secondary indexes: {}", name(*indexes));
    }
    let _ = writeln!(text, "- `{}`", options.command());
    table(&mut text, "", &columns(&figures.cases), LINES);
    table(&mut text, "situations, ", &columns(&figures.situations), SITUATIONS);
    costs(&mut text, &figures.costs);
    table(&mut text, "", &columns(&figures.sparse), SPARSE);
    table(&mut text, "two secondary indexes, ", &columns(&figures.indexes), INDEXES);
    scale(&mut text, &figures.scale);
    let deployed = figures.deployed.iter().map(|each| (each.name, each.runs.as_slice()));
    table(&mut text, "deployed, ", &deployed.collect::<Vec<_>>(), DEPLOYED);
    latency(&mut text, &figures.latency);
    questions(&mut text, &figures.questions);
    stages(&mut text, &figures.stages);
    text
}

/// Puts the report between the heading "Figures" of `file` and its next heading; the words around it stay.
pub fn write(file: &Path, report: &str) -> Outcome<()> {
    const HEADING: &str = "## Figures\n";
    // cargo runs benchmarks in their package's folder; the name is meant from the repository's root.
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(file);
    let text = std::fs::read_to_string(&file)?;
    let missing = || format!("{} has no heading {:?} with another one below it", file.display(), HEADING.trim());
    let (head, rest) = text.split_once(HEADING).ok_or_else(missing)?;
    let tail = rest.find("\n## ").ok_or_else(missing)?;
    Ok(std::fs::write(&file, format!("{head}{HEADING}\n{report}{}", &rest[tail..]))?)
}

fn name(indexes: Indexes) -> &'static str {
    match indexes {
        Indexes::Shipped => "as shipped: key and BRIN while loading, the others built leaf by leaf afterwards",
        Indexes::Kept => "two a table, kept while loading",
        Indexes::Built => "two a table, built leaf by leaf after loading",
        Indexes::None => "none beside key and BRIN",
    }
}

/// The label, its value from a run, and its digits.
type Line<T> = (&'static str, fn(&T) -> Option<f64>, usize);
/// A case's name and runs.
type Column<'a, T> = (&'a str, &'a [T]);

fn columns(cases: &[Case]) -> Vec<Column<'_, Run>> {
    cases.iter().map(|case| (case.name.as_str(), case.runs.as_slice())).collect()
}

const LINES: &[Line<Run>] = &[
    ("**events/s, end to end**", |run| Some(per_second(run, run.ingest.took)), 0),
    ("ruler: the same rows copied raw, events/s", |run| Some(ruled(run, run.marks.ruler())), 0),
    ("**end to end / ruler, %**", |run| Some(ratio(run)), 0),
    ("ruler of typed rows only, rows/s", |run| Some(ruled(run, run.marks.typed)), 0),
    ("seconds from start to last row", |run| Some(run.ingest.took.as_secs_f64()), 2),
    ("seconds from there to the last index", |run| Some(run.ingest.served?.as_secs_f64()), 2),
    ("indexer: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.indexer)), 2),
    ("PostgreSQL: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.database.server)), 2),
    ("node: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.node)), 2),
    ("indexer: peak RSS, MB", |run| Some(run.ingest.peak_rss as f64 / 1e6), 0),
    (
        "bytes an event when loaded, with key and BRIN",
        |run| Some(run.ingest.loaded as f64 / run.ingest.events as f64),
        0,
    ),
    ("bytes an event, with all indexes", |run| Some(run.ingest.bytes as f64 / run.ingest.events as f64), 0),
    ("leaves, both tables", |run| Some(run.ingest.leaves as f64), 0),
    ("requests to the node", |run| Some(run.ingest.requests?[0] as f64), 0),
];

const SITUATIONS: &[Line<Run>] = &[
    ("**events/s, to the last row**", |run| Some(per_second(run, run.ingest.took)), 0),
    ("events/s, to the last index", |run| Some(per_second(run, run.ingest.indexed())), 0),
    ("ruler: the same rows copied raw, events/s", |run| Some(ruled(run, run.marks.ruler())), 0),
    ("**to the last row / ruler, %**", |run| Some(ratio(run)), 0),
    ("seconds from start to last row", |run| Some(run.ingest.took.as_secs_f64()), 2),
    ("seconds from there to the last index", |run| Some(run.ingest.served?.as_secs_f64()), 2),
    ("indexer: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.indexer)), 2),
    (
        "PostgreSQL: CPU to the last row, µs an event",
        |run| Some(per_event(&run.ingest, run.ingest.cpu.database.server)),
        2,
    ),
    (
        "PostgreSQL: CPU to the last index and a VACUUM, µs an event",
        |run| Some(per_event(&run.ingest, run.ingest.settled)),
        2,
    ),
    ("bytes an event, with all indexes", |run| Some(run.ingest.bytes as f64 / run.marks.rows as f64), 0),
    ("leaves, both tables", |run| Some(run.ingest.leaves as f64), 0),
];

const SPARSE: &[Line<Run>] = &[
    ("**blocks/s, end to end**", |run| Some(run.ingest.blocks as f64 / run.ingest.took.as_secs_f64()), 0),
    (
        "requests for logs in 50,000 blocks",
        |run| Some(run.ingest.requests?[1] as f64 * 5e4 / run.ingest.blocks as f64),
        2,
    ),
    ("requests to the node", |run| Some(run.ingest.requests?[0] as f64), 0),
    ("seconds from start to last row", |run| Some(run.ingest.took.as_secs_f64()), 2),
    ("indexer: CPU, µs a block", |run| Some(run.ingest.cpu.indexer * 1e6 / run.ingest.blocks as f64), 2),
    ("PostgreSQL: CPU, µs a block", |run| Some(run.ingest.cpu.database.server * 1e6 / run.ingest.blocks as f64), 2),
    ("indexer: peak RSS, MB", |run| Some(run.ingest.peak_rss as f64 / 1e6), 0),
];

const INDEXES: &[Line<Run>] = &[
    ("**events/s, until the last index is there**", |run| Some(per_second(run, run.ingest.indexed())), 0),
    ("ruler: the same rows copied raw and indexed, events/s", |run| Some(ruled(run, run.marks.ruler())), 0),
    ("**ours / ruler, %**", |run| Some(ratio(run)), 0),
    ("seconds from start to last row", |run| Some(run.ingest.took.as_secs_f64()), 2),
    ("seconds from there to the last index", |run| Some(run.ingest.served?.as_secs_f64()), 2),
    ("ruler: seconds of building the indexes", |run| Some(run.marks.indexes?.as_secs_f64()), 2),
    ("bytes an event, with all indexes", |run| Some(run.ingest.bytes as f64 / run.ingest.events as f64), 0),
];

const DEPLOYED: &[Line<Beside>] = &[
    ("**events/s, end to end**", |run| Some(run.ingest.rate()), 0),
    ("**of plain, % (bar: 80)**", |run| Some(100.0 * run.ingest.rate() / run.plain), 0),
    ("indexer: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.indexer)), 2),
    ("PgBouncer: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.database.pooler?)), 2),
    ("primary: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.database.server)), 2),
    ("standby: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.database.standby?)), 2),
    ("node: CPU, µs an event", |run| Some(per_event(&run.ingest, run.ingest.cpu.node)), 2),
];

fn per_second(run: &Run, took: Duration) -> f64 {
    run.ingest.events as f64 / took.as_secs_f64()
}

fn ruled(run: &Run, took: Duration) -> f64 {
    run.marks.rows as f64 / took.as_secs_f64()
}

fn per_event(ingest: &Ingest, seconds: f64) -> f64 {
    seconds * 1e6 / ingest.events as f64
}

/// For the ruler's figures: rows, and its indexes if it builds some.
fn ratio(run: &Run) -> f64 {
    let ours = if run.marks.indexes.is_some() { run.ingest.indexed() } else { run.ingest.took };
    100.0 * per_second(run, ours) / ruled(run, run.marks.ruler())
}

fn sorted<T>(runs: &[T], value: fn(&T) -> Option<f64>) -> Vec<f64> {
    in_order(runs.iter().filter_map(value))
}

fn in_order(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A column for each case: the median of its runs, and their least and greatest.
fn table<T>(text: &mut String, what: &str, columns: &[Column<'_, T>], lines: &[Line<T>]) {
    if columns.is_empty() {
        return;
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(text, "\n| {what}median (least to greatest) | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(columns.len()));
    for (label, value, digits) in lines {
        let cells: Vec<String> = columns.iter().map(|(_, runs)| cell(&sorted(runs, *value), *digits)).collect();
        let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
    }
}

/// A line for each rate, beside the one that it is held against.
fn scale(text: &mut String, rates: &[Rate]) {
    if rates.is_empty() {
        return;
    }
    let _ =
        writeln!(text, "\n| replay, typed, key and BRIN only | events/s | of | % | bar, % |\n|---|---:|---|---:|---:|");
    for Rate { name, rates, against } in rates {
        let rate = cell(&in_order(rates.iter().copied()), 0);
        let against = against.as_ref().map_or_else(
            || "| |".to_owned(),
            |other| format!("{} | {} | {}", other.name, cell(&in_order(other.percent.iter().copied()), 0), other.bar),
        );
        let _ = writeln!(text, "| {name} | {rate} | {against} |");
    }
}

/// The parts of PostgreSQL's CPU, and their sums beside the indexer's runs.
fn costs(text: &mut String, costs: &Costs) {
    let Some(events) = costs.ingests.first().map(|ingest| ingest.events as f64) else { return };
    let _ = writeln!(
        text,
        "\n| PostgreSQL: CPU of all processes, raw + typed, default indexes | µs an event |\n|---|---:|"
    );
    let mut line = |name: &str, seconds: &[f64]| {
        let micros = in_order(seconds.iter().map(|seconds| seconds * 1e6 / events));
        let _ = writeln!(text, "| {name} | {} |", cell(&micros, 2));
    };
    for part in &costs.parts {
        line(&part.name, &part.seconds);
    }
    let runs = 0..costs.ingests.len();
    let sum = |run: usize, kinds: &[&str]| -> f64 {
        let of = |part: &&Cost| kinds.iter().any(|kind| part.name.ends_with(kind));
        costs.parts.iter().filter(of).map(|part| part.seconds[run]).sum()
    };
    let loaded = [": rows", ": key", ": BRIN"];
    let settled = [&loaded[..], &[": secondary, built after the load", ": VACUUM", ": checkpoint"]].concat();
    let ours: Vec<f64> = costs.ingests.iter().map(|ingest| ingest.cpu.database.server).collect();
    let all: Vec<f64> = costs.ingests.iter().map(|ingest| ingest.settled).collect();
    line("**sum of rows, key and BRIN**", &runs.clone().map(|run| sum(run, &loaded)).collect::<Vec<_>>());
    line("**indexer, to the last row**", &ours);
    line("**sum of all but the kept indexes**", &runs.map(|run| sum(run, &settled)).collect::<Vec<_>>());
    line("**indexer, to the last index, a VACUUM and a checkpoint**", &all);
}

fn stages(text: &mut String, all: &[Stage]) {
    if !all.is_empty() {
        let _ = write!(text, "\n{}", super::stages::markdown(all));
    }
}

fn cell(values: &[f64], digits: usize) -> String {
    let (Some(least), Some(greatest)) = (values.first(), values.last()) else { return String::new() };
    let [least, median, greatest] = [*least, values[values.len() / 2], *greatest].map(|value| number(value, digits));
    if least == greatest { median } else { format!("{median} ({least} to {greatest})") }
}

/// With a separator for thousands.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let from_end = |at: usize| whole.len() - at;
    let grouped = whole.chars().enumerate().flat_map(|(at, digit)| {
        let comma = (at > 0 && from_end(at).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    });
    grouped.collect::<String>() + fraction
}

fn latency(text: &mut String, all: &[Latency]) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n| mined block to visible rows, ms | p50 | p99 | max | floor: p50 | p99 | max |");
    let _ = writeln!(text, "|---|{}", "---:|".repeat(6));
    let cells = |delays: &Delays| {
        let ms = |share| format!("{:.1}", delays.quantile(share).as_secs_f64() * 1e3);
        [0.5, 0.99, 1.0].map(ms).join(" | ")
    };
    for Latency { events, spacing, beside, ours, floor } in all {
        let a_second = 1.0 / spacing.as_secs_f64();
        let events = if *events == 1 { "1 event".to_owned() } else { format!("{events} events") };
        let beside = beside.map_or_else(String::new, |rate| {
            format!(", beside a load of {} events/s ({} samples)", number(rate, 0), ours.count())
        });
        let (ours, floor) = (cells(ours), cells(floor));
        let _ = writeln!(text, "| {events} a block, {a_second:.0} a second{beside} | {ours} | {floor} |");
    }
}

/// A table for each state, with a line for each question.
fn questions(text: &mut String, states: &[State]) {
    for State { name, asked, beside } in states {
        let rates = in_order(beside.iter().copied());
        let rate = if rates.is_empty() { String::new() } else { format!(" at {} events/s", cell(&rates, 0)) };
        let _ = writeln!(text, "\n| {name}{rate}: ms | rows | samples | p50 | p95 | p99 | max |");
        let _ = writeln!(text, "|---|{}", "---:|".repeat(6));
        for Asked { name, rows, delays } in asked {
            let ms = [0.5, 0.95, 0.99, 1.0].map(|share| format!("{:.1}", delays.quantile(share).as_secs_f64() * 1e3));
            let [rows, samples] = [*rows, delays.count()].map(|count| number(count as f64, 0));
            let _ = writeln!(text, "| {name} | {rows} | {samples} | {} |", ms.join(" | "));
        }
    }
}
