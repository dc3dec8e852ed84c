//! The selected measurements, from the command line, and the target of the report.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Said beside a refusal.
pub const USAGE: &str = "options: --smoke, --part retire|latency|create|plan|inventory, --runs N, --rows N, --seconds N, \
                         --write FILE (N at least 1; without a choice, all)";

/// In the order they are measured. `create` stands for all that need many leaves.
pub const PARTS: &[&str] = &["retire", "latency", "many"];
const MANY: &[&str] = &["create", "plan", "inventory"];

/// The selected measurements.
pub struct Options {
    /// Everything small: whether it works at all, and whether the proportions are sane.
    pub smoke: bool,
    part: Option<String>,
    /// How often each case of `retire`, and of those with many leaves, is measured.
    pub runs: u32,
    /// Rows of the day that goes.
    pub rows: u32,
    /// How long the latencies of `latency` are taken, alone and beside.
    pub seconds: u64,
    /// Where the report goes, beside standard output.
    pub write: Option<PathBuf>,
    given: Vec<String>,
}

impl Options {
    /// # Errors
    /// Which argument cannot be understood.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        // cargo adds `--bench` to all arguments.
        let given: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
        let smoke = given.iter().any(|argument| argument == "--smoke");
        let (runs, rows, seconds) = if smoke { (1, 10_000, 2) } else { (3, 1_000_000, 60) };
        let mut options = Self { smoke, part: None, runs, rows, seconds, write: None, given: given.clone() };
        let mut rest = given.into_iter().filter(|argument| argument != "--smoke");
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse().ok().filter(|n: &u32| *n > 0).ok_or(format!("{name} needs a number"));
            match name.as_str() {
                "--part" if PARTS.iter().chain(MANY).any(|part| *part == value) => options.part = Some(value),
                "--part" => return Err(format!("there is no part {value:?}")),
                "--runs" => options.runs = number()?,
                "--rows" => options.rows = number()?,
                "--seconds" => options.seconds = u64::from(number()?),
                "--write" => options.write = Some(value.into()),
                _ => return Err(format!("unknown argument {name:?}")),
            }
        }
        Ok(options)
    }

    /// Whether it is measured, or a part of it is.
    pub fn wants(&self, part: &str) -> bool {
        let wanted = |wanted: &String| {
            wanted == part
                || (part == "many" && MANY.contains(&wanted.as_str()))
                || (wanted == "many" && MANY.contains(&part))
        };
        self.part.as_ref().is_none_or(wanted)
    }

    /// How to measure the same again.
    pub fn command(&self) -> String {
        let separator = if self.given.is_empty() { "" } else { " -- " };
        format!("cargo bench -p dalp-partitions --bench partitions{separator}{}", self.given.join(" "))
    }
}

/// Cores, processor, load and commit.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    // A report written into docs does not change the measured code.
    let clean = git(&["status", "--porcelain", "--untracked-files=no", "--", ":!/docs"]).is_empty();
    let changes = if clean { "" } else { " and changes" };
    format!("- {cores} cores, {model}; load average of the minute before: {load}\n- commit {commit}{changes}\n")
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Puts the report between its heading in `file` and the next one; the words around it stay.
pub fn write(file: &Path, report: &str) {
    const HEADING: &str = "### Figures of partitions\n";
    // cargo runs benchmarks in their package's folder; the name is meant from the repository's root.
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(file);
    let text = std::fs::read_to_string(&file).unwrap();
    let missing = || format!("{} has no heading {:?} with another one below it", file.display(), HEADING.trim());
    let (head, rest) = text.split_once(HEADING).unwrap_or_else(|| panic!("{}", missing()));
    let tail = rest.find("\n## ").or(rest.find("\n### ")).unwrap_or_else(|| panic!("{}", missing()));
    let tail = rest.find("\n### ").map_or(tail, |next| next.min(tail));
    std::fs::write(&file, format!("{head}{HEADING}\n{report}{}", &rest[tail..])).unwrap();
}
