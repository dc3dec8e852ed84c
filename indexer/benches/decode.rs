//! From the bytes of an answer to the bytes of a COPY, stage by stage: time and allocations a log.
//!
//! `cargo bench -p dalp-indexer --bench decode`; a number after `--` is how many runs. The benchmark `ingest` publishes the same.

#[path = "decode/stages.rs"]
mod stages;
#[path = "decode/way.rs"]
mod way;

fn main() {
    // cargo says `--bench` to it.
    let runs = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(stages::RUNS);
    print!("{}", stages::markdown(&stages::measure(runs)));
}
