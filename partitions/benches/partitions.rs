//! What retention costs, beside DELETE and beside pg_partman, and what others notice of it; what making, planning and auditing cost with
//! a thousand leaves and more.
//!
//! `cargo bench -p dalp-partitions --bench partitions -- [--part retire|latency|create|plan|audit] [--seconds N] [--smoke]` prints
//! Markdown with the bar beside each figure. pg_partman is compared with where the server has it (Debian: postgresql-15-partman).

#![allow(clippy::unwrap_used, reason = "a benchmark ends by panic")]

#[path = "partitions/latency.rs"]
mod latency;
#[path = "partitions/many.rs"]
mod many;
#[path = "partitions/retire.rs"]
mod retire;
#[path = "partitions/setup.rs"]
mod setup;

use std::time::Duration;

/// What is measured, and how long.
struct Options {
    part: Option<String>,
    smoke: bool,
    seconds: u64,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { part: None, smoke: false, seconds: 60 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--part" => options.part = Some(arguments.next().expect("--part wants a name")),
                "--seconds" => {
                    options.seconds = arguments.next().and_then(|n| n.parse().ok()).expect("--seconds wants a number")
                }
                "--smoke" => (options.smoke, options.seconds) = (true, 2),
                // cargo's own.
                "--bench" => {}
                other => panic!("{other}: --part retire|latency|create|plan|audit, --seconds N, --smoke"),
            }
        }
        options
    }

    fn wants(&self, part: &str) -> bool {
        self.part.as_ref().is_none_or(|wanted| wanted == part)
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The middle of several, and the least and the most.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let (least, most) = (times[0], times[times.len() - 1]);
    format!("{:.2} ({least:.2}-{most:.2})", times[times.len() / 2])
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let server = setup::Server::start().await;
        println!("PostgreSQL {}\n", server.version().await);
        if options.wants("retire") {
            retire::measure(&server, &options).await;
        }
        if options.wants("latency") {
            latency::measure(&server, &options).await;
        }
        if options.wants("create") {
            many::create(&server, &options).await;
        }
        if options.wants("plan") {
            many::plan(&server, &options).await;
        }
        if options.wants("audit") {
            many::audited(&server, &options).await;
        }
        server.stop().await;
    });
}
