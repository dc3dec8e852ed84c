//! The machine, and the resources used by its processes. From `/proc`, so on Linux only.

use std::fs;
use std::process::Command;

use super::Outcome;

/// Clock ticks of `/proc/<pid>/stat` in a second: 100 on every Linux, for any clock of the kernel.
const TICKS: f64 = 100.0;

/// Cores, processor, load and commit, a line each.
pub fn describe() -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    vec![
        format!("{cores} cores, {model}; load average of the minute before: {load}"),
        format!("commit {}{}", git(&["rev-parse", "--short=12", "HEAD"]), if clean() { "" } else { " and changes" }),
    ]
}

fn clean() -> bool {
    // A report written into docs does not change the measured code.
    git(&["status", "--porcelain", "--untracked-files=no", "--", ":!/docs"]).is_empty()
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Largest resident memory of a process so far, in bytes.
pub fn peak_rss(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.ok_or("/proc knows no VmHWM")? * 1024)
}

/// Seconds of CPU that a process has used.
pub fn cpu(pid: u32) -> Outcome<f64> {
    Ok(Stat::read(pid).ok_or_else(|| format!("process {pid} is gone"))?.own)
}

/// Seconds of CPU that a process, its children and those that it has reaped have used.
pub fn cpu_of_family(pid: u32) -> Outcome<f64> {
    let parent = Stat::read(pid).ok_or_else(|| format!("process {pid} is gone"))?;
    Ok(parent.own + parent.reaped + children(pid).iter().map(|(_, child)| child.own).sum::<f64>())
}

/// A child of this process, by its command's name.
pub fn child_named(name: &str) -> Outcome<u32> {
    let found = children(std::process::id()).into_iter().find(|(_, stat)| stat.name.starts_with(name));
    Ok(found.ok_or_else(|| format!("no child process is called {name}"))?.0)
}

fn children(parent: u32) -> Vec<(u32, Stat)> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Stat::read(pid)?))).filter(|(_, stat)| stat.parent == parent).collect()
}

/// The fields of `/proc/<pid>/stat` that count here, times in seconds.
struct Stat {
    name: String,
    parent: u32,
    own: f64,
    reaped: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in brackets and may hold anything, brackets too.
        let (head, tail) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = tail.split(' ').collect();
        // Counted from the state, which is field 3 of proc(5): the parent is 4, user and system time are 14 and 15,
        // those of reaped children 16 and 17.
        let seconds = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
        Some(Self {
            name: head.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own: seconds(11)? + seconds(12)?,
            reaped: seconds(13)? + seconds(14)?,
        })
    }
}
