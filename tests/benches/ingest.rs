//! End-to-end speed beside the ruler, on Anvil and on a replaying node, dense and sparse, with indexes, by database size and
//! deployment; the latency of following a head, idle and beside a load; analysts' questions, at the tip and beside a load; and the
//! cost of the indexer's own stages.
//!
//! `cargo bench -p dalp-tests --bench ingest -- --write docs/benchmarks.md` measures all published figures and writes them there.
//! Each run indexes with `run` as a process into a durable PostgreSQL and copies the same rows raw into the same tables.
//! `--smoke` is a small run, to test a change. Nothing here is judged: the gate compares a change by counts (counts.rs).

#[path = "ingest/asked.rs"]
mod asked;
#[path = "ingest/beside.rs"]
mod beside;
#[path = "ingest/case.rs"]
mod case;
#[path = "ingest/cluster.rs"]
mod cluster;
#[path = "ingest/cost.rs"]
mod cost;
#[path = "ingest/deployed.rs"]
mod deployed;
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
#[path = "ingest/questions.rs"]
mod questions;
#[path = "ingest/report.rs"]
mod report;
#[path = "ingest/ruler.rs"]
mod ruler;
#[path = "ingest/scale.rs"]
mod scale;
#[path = "ingest/servers.rs"]
mod servers;
#[path = "ingest/situations.rs"]
mod situations;
#[path = "../../indexer/benches/decode/stages.rs"]
mod stages;
#[path = "../../indexer/benches/decode/way.rs"]
mod way;

use std::process::ExitCode;

use self::case::Setup;
use self::node::Node;
use self::options::{Indexes, Options};
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
    if let Some(program) = &options.program {
        dalp_tests::indexer::use_program(program.clone());
    }
    // Before our work: the load of other programs on this machine.
    let machine = machine::describe();
    // The allocations of all threads are counted: no other one has work yet.
    let stages = if options.has_part("stages") { stages::measure(stages::RUNS) } else { Vec::new() };
    let mut servers = Servers::start().await?;
    let mut versions = vec![servers.version().await?];
    let mut figures = measure(&mut servers, &options, &mut versions).await?;
    figures.stages = stages;
    servers.stop().await?;
    if options.has_part("scale") {
        figures.scale = scale::measure(&options).await?;
    }
    let report = report::markdown(&options, &machine, &versions.join(", "), &figures);
    println!("{report}");
    if let Some(file) = &options.write {
        report::write(file, &report)?;
    }
    Ok(())
}

/// The wanted parts that share the server, one after the other, and the deployed ones; the rulers at the end.
async fn measure(servers: &mut Servers, options: &Options, versions: &mut Vec<String>) -> Outcome<Figures> {
    let (mut dense, mut sparse, mut figures) = (Vec::new(), Vec::new(), Figures::default());
    for name in ["anvil", "replay"] {
        if options.has_part("ingest") && options.has_node(name) {
            let node = match name {
                "anvil" => Node::anvil(options.transfers, options.blocks).await?,
                _ => Node::replay(options)?,
            };
            versions.push(node.version().await?);
            for raw in options.raws() {
                let name = if *raw { "raw + typed" } else { "typed" };
                dense.push(case::index(servers, &node, name, Setup::of(options, *raw), options.runs).await?);
            }
        }
    }
    let situations = situations::measure(servers, options).await?;
    if options.has_part("sparse") {
        let node = Node::sparse(options)?;
        sparse.push(case::index(servers, &node, "raw + typed", Setup::of(options, true), options.runs).await?);
    }
    let mut indexes = Vec::new();
    if options.has_part("indexes") {
        let node = Node::replay(options)?;
        for (name, choice) in
            [("typed, kept while loading", Indexes::Kept), ("typed, built after loading", Indexes::Built)]
        {
            let setup = Setup { indexes: choice, ..Setup::of(options, false) };
            indexes.push(case::index(servers, &node, name, setup, options.runs).await?);
        }
    }
    if options.has_part("cost") {
        figures.costs = cost::measure(servers, options).await?;
    }
    if options.has_part("latency") {
        figures.latency = latency::measure(servers, options).await?;
        figures.latency.extend(beside::measure(servers, options).await?);
    }
    if options.has_part("questions") {
        figures.questions = questions::measure(servers, options).await?;
    }
    if options.has_part("deployed") {
        figures.deployed = deployed::measure(options).await?;
    }
    for (indexed, ruled) in [
        (dense, &mut figures.cases),
        (situations, &mut figures.situations),
        (sparse, &mut figures.sparse),
        (indexes, &mut figures.indexes),
    ] {
        for case in indexed {
            ruled.push(case::rule(servers, case).await?);
        }
    }
    Ok(figures)
}

/// An error with its causes: PostgreSQL's message is in the last one.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
