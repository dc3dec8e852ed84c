//! The cost of retention, beside DELETE and beside pg_partman, and its effect on other sessions; the cost of making, planning,
//! reading and auditing with a thousand leaves and more.
//!
//! `cargo bench -p dalp-partitions --bench partitions -- [--part NAME] [--smoke]` prints Markdown with the bar beside each
//! figure. pg_partman takes part if the server has it (Debian: `apt-get install postgresql-15-partman`).

#![allow(clippy::unwrap_used, reason = "a benchmark ends by panic")]

#[path = "partitions/latency.rs"]
mod latency;
#[path = "partitions/many.rs"]
mod many;
#[path = "partitions/options.rs"]
mod options;
#[path = "partitions/retire.rs"]
mod retire;
#[path = "partitions/setup.rs"]
mod setup;
#[path = "partitions/stats.rs"]
mod stats;
#[path = "partitions/traffic.rs"]
mod traffic;
#[path = "partitions/way.rs"]
mod way;

use std::process::ExitCode;

use self::options::Options;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let machine = options::machine();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let report = runtime.block_on(measure(&options));
    let report = format!("{machine}{report}");
    println!("{report}");
    if let Some(file) = &options.write {
        options::write(file, &report);
    }
    ExitCode::SUCCESS
}

/// The wanted parts, one after the other; each says where it is on standard error.
async fn measure(options: &Options) -> String {
    let server = setup::Server::start().await;
    let mut report = format!("- {}\n- `{}`\n", server.versions().await, options.command());
    for part in options::PARTS.iter().filter(|part| options.wants(part)) {
        eprintln!("{part} …");
        report += "\n";
        report += &match *part {
            "retire" => retire::measure(&server, options).await,
            "latency" => latency::measure(&server, options).await,
            // The parts with many leaves share them.
            _ => many::measure(&server, options).await,
        };
    }
    server.stop().await;
    report
}
