//! The indexer under test: its configuration, and its process.

use std::io::{Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use dalp_indexer::config::Config;
use dalp_indexer::dataset::Datasets;
use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::made_up;
use crate::stage::{ADMIN, Database, READER, WRITER, until_shown};

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Runs this program from now on, such as an older one; the first call of a process decides.
pub fn use_program(program: PathBuf) {
    PROGRAM.get_or_init(|| program);
}

/// The place of the program: beside the test binary's folder, where cargo puts the binaries of this package.
pub fn program() -> PathBuf {
    PROGRAM.get_or_init(beside_the_tests).clone()
}

fn beside_the_tests() -> PathBuf {
    let test = std::env::current_exe().expect("this binary has a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("cargo's target folder");
    folder.join("indexer-under-test")
}

/// A configuration file under construction.
#[derive(Clone, Debug)]
pub struct Site {
    /// `database.url`.
    pub url: String,
    /// `database.admin_url`.
    pub admin_url: String,
    /// `database.reader_url`.
    pub reader_url: String,
    /// `chains.it.rpc_urls`.
    pub rpc_urls: Vec<String>,
    /// `chains.it.chain_id`.
    pub chain_id: u64,
    /// Name of the chain.
    pub chain: String,
    /// Further lines of the database section.
    pub database_lines: Vec<String>,
    /// Further lines of the chain section.
    pub chain_lines: Vec<String>,
    /// Further lines at the end, with their section.
    pub more: String,
    /// Whether the invented table of [`crate::made_up`] exists.
    pub made_up: bool,
}

impl Site {
    /// Feeds `database` from the node at `rpc_url`; finality "never" and ten polls a second unless a line says otherwise.
    pub fn new(database: &Database, rpc_url: &str) -> Self {
        Self {
            url: database.url(WRITER),
            admin_url: database.direct_url(ADMIN),
            reader_url: database.direct_url(READER),
            rpc_urls: vec![rpc_url.to_owned()],
            chain_id: 31_337,
            chain: "it".into(),
            database_lines: Vec::new(),
            chain_lines: vec!["finality = \"never\"".into(), "poll_interval = \"100ms\"".into()],
            more: String::new(),
            made_up: false,
        }
    }

    /// With `line` in the chain section; it replaces a line with the same key.
    pub fn with(mut self, line: &str) -> Self {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        self.chain_lines.retain(|known| key(known) != key(line));
        self.chain_lines.push(line.to_owned());
        self
    }

    /// The file's text.
    pub fn toml(&self) -> String {
        let list: Vec<String> = self.rpc_urls.iter().map(|url| format!("{url:?}")).collect();
        format!(
            "[database]\nurl = {:?}\nadmin_url = {:?}\nreader_url = {:?}\n{}\n[http]\nlisten = \"off\"\n[chains.{}]\nchain_id = {}\n\
             rpc_urls = [{}]\n{}\n{}\n",
            self.url,
            self.admin_url,
            self.reader_url,
            self.database_lines.join("\n"),
            self.chain,
            self.chain_id,
            list.join(", "),
            self.chain_lines.join("\n"),
            self.more
        )
    }

    /// The file.
    pub fn file(&self) -> NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
        file.write_all(self.toml().as_bytes()).expect("the configuration is written");
        file
    }

    /// The typed configuration, for an indexer inside the test's own process.
    pub fn config(&self) -> Config {
        let datasets = if self.made_up { made_up::datasets() } else { Datasets::own() };
        Config::load_of(datasets, Some(self.file().path()), std::iter::empty())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        if self.made_up {
            command.env("DALP_TEST_MADE_UP", "1");
        }
        command
    }

    /// `run` as a process.
    pub fn spawn(&self) -> Running {
        self.start(&["run"], Stdio::null())
    }

    /// Any command as a process that prints into `stdout`.
    pub fn start(&self, arguments: &[&str], stdout: impl Into<Stdio>) -> Running {
        let file = self.file();
        let log = NamedTempFile::new().expect("a temporary file");
        let output = log.reopen().expect("the log opens");
        let child = self
            .command(arguments)
            .arg("--config")
            .arg(file.path())
            .stdout(stdout)
            .stderr(output)
            .spawn()
            .expect("the indexer starts");
        Running { child, log, _file: file }
    }

    /// Any command without a reader of its standard output: its exit code and its standard error.
    pub fn call_unread(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let file = self.file();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output =
            self.command(arguments).arg("--config").arg(file.path()).stdout(writer).output().expect("the indexer runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Any command that reads `input`, until it ends.
    pub fn call_with(&self, arguments: &[&str], input: &str) -> Output {
        let (file, mut given) = (self.file(), tempfile::tempfile().expect("a temporary file"));
        given.write_all(input.as_bytes()).and_then(|()| given.rewind()).expect("the input is written");
        self.command(arguments).arg("--config").arg(file.path()).stdin(given).output().expect("the indexer runs")
    }

    /// Any command with this configuration, until it ends.
    pub fn call(&self, arguments: &[&str]) -> Output {
        let file = self.file();
        self.command(arguments).arg("--config").arg(file.path()).output().expect("the indexer runs")
    }
}

/// The output of a command that ends with this code.
pub fn said(site: &Site, arguments: &[&str], code: i32) -> String {
    let output = site.call(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
    format!("{out}{err}")
}

/// The program with `arguments` and its own environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DALP_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running `run`. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: NamedTempFile,
    _file: NamedTempFile,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// SIGKILL, now.
    pub fn kill(&mut self) {
        // An error means that the process has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, then its end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix_pid(self.child.id()), signal).expect("it takes a signal");
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// With its log, if it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut ended = None;
        until_shown("a process to end", || {
            ended = self.child.try_wait().ok().flatten();
            std::future::ready(ended.map(drop).ok_or_else(|| self.log()))
        })
        .await;
        ended.expect("it was seen to end")
    }

    /// Whether a SIGKILL ended it.
    pub async fn was_killed(&mut self) -> bool {
        self.ended().await.signal() == Some(9)
    }
}

fn rustix_pid(pid: u32) -> rustix::process::Pid {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id")
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
