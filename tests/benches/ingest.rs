//! End-to-end speed beside the ruler, and the latency of following a head.
//!
//! `cargo bench -p dalp-tests --bench ingest -- [--smoke] [--runs N] [--transfers N] [--blocks N] [--samples N]` loads an
//! Anvil, indexes it with `run` as a process into a durable PostgreSQL, copies the same rows raw into the same tables, and
//! prints what docs/benchmarks.md publishes.

#[path = "ingest/case.rs"]
mod case;
#[path = "ingest/cluster.rs"]
mod cluster;
#[path = "ingest/latency.rs"]
mod latency;
#[path = "ingest/machine.rs"]
mod machine;
#[path = "ingest/options.rs"]
mod options;
#[path = "ingest/report.rs"]
mod report;
#[path = "ingest/ruler.rs"]
mod ruler;
#[path = "ingest/servers.rs"]
mod servers;

use std::process::ExitCode;

use self::case::Indexes;
use self::options::Options;
use self::servers::Servers;

/// Why the benchmark has no result.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match dalp_tests::run(bench(options)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("no result: {}", causes(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: Options) -> Outcome<String> {
    // Before anything of ours runs: what others did to this machine meanwhile.
    let machine = machine::describe();
    let mut servers = Servers::start(&options).await?;
    let default = case::ingest(&mut servers, Indexes::Default, options.runs).await?;
    let key_only = case::ingest(&mut servers, Indexes::KeyOnly, options.runs).await?;
    let cases = [
        case::rule(&servers, Indexes::Default, default).await?,
        case::rule(&servers, Indexes::KeyOnly, key_only).await?,
    ];
    let delays = latency::measure(&mut servers, options.samples).await?;
    let versions = servers.versions().await?;
    servers.stop().await?;
    Ok(report::markdown(&options, &machine, &versions, &cases, &delays))
}

/// An error with its causes: what PostgreSQL said is in the last one.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
