//! End-to-end speed beside the ruler, on Anvil and on a replaying node, dense and sparse; and the latency of following a head.
//!
//! `cargo bench -p dalp-tests --bench ingest -- --write docs/benchmarks.md` measures all that is published and writes it there.
//! Each run indexes with `run` as a process into a durable PostgreSQL and copies the same rows raw into the same tables.
//! With `--smoke`, the ratio of both is held against `baseline.json`, which says how to renew it.

#[path = "ingest/baseline.rs"]
mod baseline;
#[path = "ingest/case.rs"]
mod case;
#[path = "ingest/cluster.rs"]
mod cluster;
#[path = "ingest/floor.rs"]
mod floor;
#[path = "ingest/latency.rs"]
mod latency;
#[path = "ingest/machine.rs"]
mod machine;
#[path = "ingest/node.rs"]
mod node;
#[path = "ingest/options.rs"]
mod options;
#[path = "ingest/report.rs"]
mod report;
#[path = "ingest/ruler.rs"]
mod ruler;
#[path = "ingest/servers.rs"]
mod servers;

use std::process::ExitCode;

use self::node::Node;
use self::options::Options;
use self::report::Figures;
use self::servers::Servers;

/// Why the benchmark has no result.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, plan)) if first == node::REPLAY => node::serve(plan),
        _ => match Options::parse(arguments.into_iter()) {
            Ok(options) => dalp_tests::run(bench(options)),
            Err(why) => {
                eprintln!("{why}\n{}", options::USAGE);
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("no result: {}", causes(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: Options) -> Outcome<()> {
    // Before anything of ours runs: what others did to this machine meanwhile.
    let machine = machine::describe();
    let mut servers = Servers::start().await?;
    let mut versions = vec![servers.version().await?];
    let (mut dense, mut sparse, mut figures) = (Vec::new(), Vec::new(), Figures::default());
    for name in ["anvil", "replay"] {
        if options.has_part("ingest") && options.has_node(name) {
            let node = match name {
                "anvil" => Node::anvil(options.transfers, options.blocks).await?,
                _ => Node::replay(&options)?,
            };
            versions.push(node.version().await?);
            for raw in options.raws() {
                dense.push(case::index(&mut servers, &node, *raw, &options).await?);
            }
        }
    }
    if options.has_part("sparse") {
        let node = Node::sparse(&options)?;
        sparse.push(case::index(&mut servers, &node, true, &options).await?);
    }
    if options.has_part("latency") {
        figures.latency = latency::measure(&mut servers, &options).await?;
    }
    for (indexed, ruled) in [(dense, &mut figures.cases), (sparse, &mut figures.sparse)] {
        for case in indexed {
            ruled.push(case::rule(&servers, case).await?);
        }
    }
    servers.stop().await?;
    let report = report::markdown(&options, &machine, &versions.join(", "), &figures);
    println!("{report}");
    if let Some(file) = &options.write {
        report::write(file, &report)?;
    }
    match (options.renew, options.smoke) {
        (true, _) => baseline::renew(&figures.cases),
        (false, true) => baseline::hold(&figures.cases),
        (false, false) => Ok(()),
    }
}

/// An error with its causes: what PostgreSQL said is in the last one.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
