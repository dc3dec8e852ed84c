//! The processor and allocator cost of the path from a node's answer to COPY bytes: calls and bytes of allocations, and
//! instructions, which valgrind counts while this program walks the path.

use dalp_tests::counts::Counts;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use super::Outcome;
use super::way::{LOGS_PER_BLOCK, Ruler, allocated, walk};

/// The argument that makes this program walk a stage; how often and which one follow.
pub const WALK: &str = "--walk";

/// Blocks of logs whose allocations are counted.
const BLOCKS: u64 = 100;
/// The same for instructions, of which a program under valgrind carries out some fifty times fewer a second.
const FEW_BLOCKS: u64 = 2;
/// The stages whose instructions are counted.
const STAGES: &[&str] =
    &["body → logs, as no node writes them", "**body → rows, typed**", "**body → rows, raw and typed**"];

/// The allocator's calls, stage by stage. No other thread may work meanwhile.
pub fn allocations() -> Counts {
    let mut ledger = Ledger(Counts::default());
    walk(BLOCKS, &mut ledger);
    ledger.0
}

struct Ledger(Counts);

impl Ruler for Ledger {
    fn stage<I, O>(&mut self, name: &'static str, input: impl Fn() -> I, work: impl Fn(I) -> O) {
        // The one-time setup is not part of the stage.
        drop(black_box(work(input())));
        let given = input();
        let (output, counted) = allocated(|| black_box(work(given)));
        drop(output);
        let (name, logs) = (plain(name), BLOCKS * LOGS_PER_BLOCK);
        self.0.put(format!("{name}: calls for {logs} logs"), (counted.allocations + counted.reallocations) as f64);
        self.0.put(format!("{name}: bytes a log"), counted.bytes_allocated as f64 / logs as f64);
    }
}

/// A stage's name without its emphasis.
fn plain(name: &str) -> &str {
    name.trim_matches('*')
}

/// Walks a stage this number of times, for a count from outside.
pub fn repeat(arguments: &[String]) -> Outcome<()> {
    let [times, stage] = arguments else { return Err(format!("{WALK} TIMES STAGE").into()) };
    walk(FEW_BLOCKS, &mut Again { times: times.parse()?, stage });
    Ok(())
}

struct Again<'s> {
    times: u64,
    stage: &'s str,
}

impl Ruler for Again<'_> {
    fn stage<I, O>(&mut self, name: &'static str, input: impl Fn() -> I, work: impl Fn(I) -> O) {
        if plain(name) == self.stage {
            for _ in 0..self.times {
                drop(black_box(work(input())));
            }
        }
    }
}

/// Instructions per log. One process walks a stage twice, another one three times, so that both include the program's start and
/// its one-time setup.
pub fn instructions() -> Outcome<Counts> {
    let (mut counts, folder) = (Counts::default(), tempfile::tempdir()?);
    for stage in STAGES.iter().map(|stage| plain(stage)) {
        let [once_more, once] = [3, 2].map(|times| executed(times, stage, folder.path()));
        let a_log = (once_more? - once?) / (FEW_BLOCKS * LOGS_PER_BLOCK) as f64;
        counts.put(format!("{stage}: instructions a log"), a_log.round());
    }
    Ok(counts)
}

/// Instructions of this whole program while it walks a stage so many times.
fn executed(times: u64, stage: &str, folder: &Path) -> Outcome<f64> {
    let profile = folder.join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(std::env::current_exe()?).args([WALK, &times.to_string(), stage]);
    let output =
        command.output().map_err(|error| format!("valgrind: {error}; it comes by: apt-get install valgrind"))?;
    if !output.status.success() {
        return Err(
            format!("valgrind ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    let text = std::fs::read_to_string(&profile)?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok());
    total.ok_or_else(|| "valgrind's profile has no summary".into())
}

/// The compiler, as it is on the PATH: cargo took the same one.
pub fn rustc() -> Outcome<String> {
    said("rustc", &["--version"])
}

/// The conditions of comparable instructions: the compiler, and the CPU features that libraries select their code by.
pub fn machine() -> Outcome<String> {
    let libc = said("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_else(|_unknown| "another libc".into());
    Ok(format!("{}, {libc}, {}{}", rustc()?, std::env::consts::ARCH, vectors()))
}

fn said(program: &str, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Valgrind shows a program a processor with AVX2 where the machine has it, and never a newer one.
#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    if std::is_x86_feature_detected!("avx2") { " with AVX2" } else { "" }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    ""
}
