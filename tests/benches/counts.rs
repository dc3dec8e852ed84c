//! The cost of the indexer in counts, which are equal on fast and slow machines: round trips and statements, requests and calls,
//! allocations and instructions, bytes of WAL, buffers and bytes per row. Compared with the committed counts.
//!
//! `cargo bench --profile dev --locked -p dalp-tests --bench counts` fails if a count rose by more than counts.json allows, and
//! names it; with `-- --renew` it writes that file; with `-- --statements` it prints the sent statements. It counts code of the
//! dev profile, as in the tests: other profiles have other instructions.

#[path = "ingest/cluster.rs"]
mod cluster;
#[path = "counts/code.rs"]
mod code;
#[path = "counts/leaves.rs"]
mod leaves;
#[path = "counts/made.rs"]
mod made;
#[path = "counts/pages.rs"]
mod pages;
#[path = "counts/requests.rs"]
mod requests;
#[path = "counts/server.rs"]
mod server;
#[path = "../../indexer/benches/decode/way.rs"]
mod way;
#[path = "counts/wire.rs"]
mod wire;
#[path = "counts/writes.rs"]
mod writes;

use std::path::Path;
use std::process::ExitCode;

use dalp_tests::counts::{Baseline, Counts, Group};

use self::wire::Said;

/// Why the benchmark has no result.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

/// How it is run.
const COMMAND: &str = "cargo bench --profile dev --locked -p dalp-tests --bench counts";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.json");
/// The group of a server's writes and reads, and the group of its stored bytes.
const USED: &str = "written and looked at by the server";
const KEPT: &str = "kept by the server";

/// The action on the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Judge,
    Renew,
    Statements,
}

fn main() -> ExitCode {
    // cargo adds `--bench` to all arguments.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [code::WALK, ..] => code::repeat(&arguments[1..]),
        [] => bench(Mode::Judge),
        ["--renew"] => bench(Mode::Renew),
        ["--statements"] => bench(Mode::Statements),
        _ => {
            eprintln!("options: --renew, --statements");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let causes = std::iter::successors(failure.source(), |error| error.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            eprintln!("counts: {failure}{causes}");
            ExitCode::FAILURE
        }
    }
}

fn bench(mode: Mode) -> Outcome<()> {
    if !cfg!(debug_assertions) {
        return Err(format!("only the dev profile's counts are comparable: {COMMAND}").into());
    }
    let file = Path::new(FILE);
    let baseline = Baseline::read(file)?;
    // The allocations of all threads are counted: no other one has work yet.
    let allocations = code::allocations();
    let instructions = code::instructions()?;
    // One thread, on which a client that does nothing is one that waits: see wire.rs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Served { sent, said, mut groups } = runtime.block_on(served())?;
    if mode == Mode::Statements {
        for (what, texts) in &said {
            println!("{what}:\n  {}", texts.join("\n  "));
        }
    }
    groups.push(Group::new("sent and asked", 0.0, "programs decide it, and no clock", sent));
    let why = "the same to the byte in each run; the standard library decides how collections grow";
    groups.push(Group::new("allocated", 0.0, why, allocations).with(code::rustc()?));
    let why = "seeds of hash tables and addresses make a difference of thousandths of a percent; the rest is room for small changes";
    groups.push(Group::new("carried out by the processor", 1.0, why, instructions).with(code::machine()?));
    println!("{}", baseline.beside(&groups));
    if mode == Mode::Renew {
        println!("{FILE} is written: look at its difference, and commit it");
        return Ok(baseline.renewed(groups, &[USED, KEPT]).write(file)?);
    }
    let verdict = baseline.judge(&groups);
    verdict.told.iter().for_each(|line| println!("{line}"));
    match verdict.risen.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "more than is committed:\n  {}\nfind out why ({COMMAND} -- --statements tells what is sent); if it is meant, renew \
             the committed counts in the same commit: {COMMAND} -- --renew",
            verdict.risen.join("\n  ")
        )
        .into()),
    }
}

/// Counts with a server and a node.
struct Served {
    sent: Counts,
    /// The statements behind it.
    said: Said,
    /// Counts that depend on the server's version.
    groups: Vec<Group>,
}

async fn served() -> Outcome<Served> {
    let cluster = server::start().await?;
    let with = format!("PostgreSQL {}", server::major(&cluster).await?);
    let (mut sent, mut said) = (requests::measure().await?, Said::new());
    sent.extend(writes::measure(&cluster, &mut said).await?);
    let leaves = leaves::measure(&cluster, &mut said).await?;
    sent.extend(leaves.sent);
    let pages::Pages { mut used, kept } = pages::measure(&cluster).await?;
    used.extend(leaves.used);
    cluster.stop().await?;
    let why = "the server writes some small records by its own clock: a twentieth of a percent";
    let used = Group::new(USED, 1.0, why, used).with(with.clone());
    let kept = Group::new(KEPT, 0.0, "the same rows in the same order take the same pages", kept).with(with);
    Ok(Served { sent, said, groups: vec![used, kept] })
}
