//! The stages between the bytes of an answer and the bytes of a COPY: nanoseconds and allocations per log. Each time is the least
//! of many runs, because other programs can only add to it; the number of allocations is constant.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::way::{LOGS_PER_BLOCK, Ruler, allocated, walk};

const BLOCKS: u64 = 100;
const LOGS: u64 = BLOCKS * LOGS_PER_BLOCK;
/// How often each stage is run, unless said otherwise.
pub const RUNS: usize = 200;

/// The cost of one stage.
pub struct Stage {
    /// Its input and output.
    pub name: &'static str,
    /// Nanoseconds a log.
    pub nanoseconds: f64,
    /// Allocations a log, with those that grow one.
    pub allocations: f64,
}

/// All stages, and the whole way.
pub fn measure(runs: usize) -> Vec<Stage> {
    let mut clock = Clock { runs, stages: Vec::new() };
    walk(BLOCKS, &mut clock);
    clock.stages
}

/// The stages as a table, a line each.
pub fn markdown(stages: &[Stage]) -> String {
    let mut text =
        format!("| {LOGS} logs in {BLOCKS} blocks, one thread | ns a log | allocations a log |\n|---|---:|---:|\n");
    for Stage { name, nanoseconds, allocations } in stages {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {nanoseconds:.1} | {allocations:.4} |");
    }
    text
}

struct Clock {
    runs: usize,
    stages: Vec<Stage>,
}

impl Ruler for Clock {
    fn stage<I, O>(&mut self, name: &'static str, input: impl Fn() -> I, work: impl Fn(I) -> O) {
        let time = |_| {
            let input = input();
            let began = Instant::now();
            let output = black_box(work(input));
            let took = began.elapsed();
            drop(output);
            took
        };
        let least: Duration = (0..self.runs).map(time).min().unwrap_or_default();
        let given = input();
        let (output, counted) = allocated(|| black_box(work(given)));
        drop(output);
        let allocations = counted.allocations + counted.reallocations;
        let a_log = |total: f64| total / LOGS as f64;
        let (nanoseconds, allocations) = (a_log(least.as_nanos() as f64), a_log(allocations as f64));
        self.stages.push(Stage { name, nanoseconds, allocations });
    }
}
