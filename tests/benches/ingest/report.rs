//! The figures as the Markdown that docs/benchmarks.md publishes.

use std::fmt::Write as _;
use std::time::Duration;

use super::case::{Case, Indexes, Run};
use super::latency::Delays;
use super::options::Options;

/// The bars of a block's way to its row: p50 and p99.
const BARS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

/// The whole report.
pub fn markdown(options: &Options, machine: &[String], versions: &str, cases: &[Case], delays: &Delays) -> String {
    let mut text = format!("- {versions}\n");
    for line in machine {
        let _ = writeln!(text, "- {line}");
    }
    let Options { runs, transfers, blocks, .. } = options;
    let _ = writeln!(text, "- {transfers} ERC-20 transfers in {blocks} blocks over 40 days; {runs} runs a case");
    let _ = writeln!(text, "- `{}`\n", options.command());
    table(&mut text, cases);
    for case in cases {
        let _ = writeln!(text, "\nSecondary indexes of *{}*: {}.", name(case.indexes), case.secondary.join(", "));
    }
    latency(&mut text, delays);
    text
}

fn name(indexes: Indexes) -> &'static str {
    match indexes {
        Indexes::Default => "default indexes",
        Indexes::KeyOnly => "key only",
    }
}

/// What is shown, and how it comes from a run.
type Line = (&'static str, fn(&Run) -> f64, usize);

const LINES: &[Line] = &[
    ("**events/s, end to end**", |run| per_second(run, run.ingest.took), 0),
    ("ruler: typed rows only, rows/s", |run| per_second(run, run.marks.typed), 0),
    ("ruler: raw rows only, rows/s", |run| per_second(run, run.marks.raw), 0),
    ("ruler: typed + raw, events/s", |run| per_second(run, run.marks.both), 0),
    (
        "**end to end / ruler of both, %**",
        |run| 100.0 * run.marks.both.as_secs_f64() / run.ingest.took.as_secs_f64(),
        0,
    ),
    ("seconds from start to last row", |run| run.ingest.took.as_secs_f64(), 2),
    ("indexer: peak RSS, MB", |run| run.ingest.peak_rss as f64 / 1e6, 0),
    ("indexer: CPU, µs an event", |run| per_event(run, run.ingest.cpu), 2),
    ("PostgreSQL: CPU, µs an event", |run| per_event(run, run.ingest.servers.postgres), 2),
    ("Anvil: CPU, µs an event", |run| per_event(run, run.ingest.servers.anvil), 2),
    ("leaves made, both tables", |run| run.ingest.leaves as f64, 0),
];

fn per_second(run: &Run, took: Duration) -> f64 {
    run.ingest.events as f64 / took.as_secs_f64()
}

fn per_event(run: &Run, seconds: f64) -> f64 {
    seconds * 1e6 / run.ingest.events as f64
}

/// A column for each case: the median of its runs, and their least and greatest.
fn table(text: &mut String, cases: &[Case]) {
    let names: Vec<&str> = cases.iter().map(|case| name(case.indexes)).collect();
    let _ = writeln!(text, "| median (least to greatest) | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(cases.len()));
    for (label, value, digits) in LINES {
        let cells: Vec<String> = cases.iter().map(|case| cell(case, *value, *digits)).collect();
        let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
    }
}

fn cell(case: &Case, value: fn(&Run) -> f64, digits: usize) -> String {
    let mut values: Vec<f64> = case.runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let at = |place: usize| number(values.get(place).copied().unwrap_or(f64::NAN), digits);
    let (least, greatest) = (at(0), at(values.len() - 1));
    let median = at(values.len() / 2);
    if least == greatest { median } else { format!("{median} ({least} to {greatest})") }
}

/// With a separator for thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let from_end = |at: usize| whole.len() - at;
    let grouped = whole.chars().enumerate().flat_map(|(at, digit)| {
        let comma = (at > 0 && from_end(at).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    });
    grouped.collect::<String>() + fraction
}

fn latency(text: &mut String, delays: &Delays) {
    let (p50, p99) = (delays.quantile(0.5), delays.quantile(0.99));
    let ms = |delay: Duration| format!("{:.1}", delay.as_secs_f64() * 1e3);
    let verdict = |met: bool| if met { "met" } else { "**missed**" };
    let _ =
        writeln!(text, "\n| mined block to visible row, ms | p50 | p99 | max | samples |\n|---|---:|---:|---:|---:|");
    let (p50_ms, p99_ms, max) = (ms(p50), ms(p99), ms(delays.max()));
    let _ = writeln!(text, "| following by WebSocket | {p50_ms} | {p99_ms} | {max} | {} |", delays.samples());
    let (bar, far) = (ms(BARS.0), ms(BARS.1));
    let _ = writeln!(text, "| bar | {bar} ({}) | {far} ({}) | | |", verdict(p50 < BARS.0), verdict(p99 < BARS.1));
}
