//! Logs: one line an event, on stderr, in UTC.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` does not parse: a mistake of usage.
    #[error(
        "RUST_LOG is {given:?} and is not a log filter: {cause}. Write a level (error, warn, info, debug, trace), or \
         levels by module such as \"info,dalp_indexer=debug\""
    )]
    Filter {
        /// The value of `RUST_LOG`.
        given: String,
        /// The parser's message.
        cause: String,
    },
    /// This process has a logger already.
    #[error("logging was set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the process's logs. `rust_log` is the text of `RUST_LOG`, if set; `bars` are hidden while a line is written.
///
/// # Errors
/// A filter that does not parse, or a process that has a logger.
pub fn init(format: LogFormat, rust_log: Option<&str>, bars: Option<MultiProgress>) -> Result<(), TelemetryError> {
    let filter = filter(rust_log)?.and(filter_fn(may_be_shown));
    let lines = tracing_subscriber::fmt::layer().with_writer(Stderr { bars });
    // Colours are for terminals, unless the user declines them.
    let colours =
        io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let layer = match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?)
}

fn filter(rust_log: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let given =
        rust_log.filter(|text| !text.trim().is_empty()).unwrap_or("info,refinery_core=warn,tokio_postgres=warn");
    EnvFilter::try_new(given).map_err(|error| TelemetryError::Filter { given: given.into(), cause: error.to_string() })
}

/// Crates whose lines below `info` hold whole URLs (and so API keys) or whole statements (and so passwords).
const TELLTALES: &[&str] = &["alloy_", "reqwest", "hyper", "tungstenite", "tokio_tungstenite", "tokio_postgres"];

/// Crates that log a broken connection several times; our own line says it once.
const ECHOES: &[&str] = &["alloy_pubsub", "alloy_transport_ws"];

/// Removes secrets and repeated lines from the logs, under any filter of the user.
fn may_be_shown(metadata: &Metadata<'_>) -> bool {
    if ECHOES.iter().any(|name| metadata.target().starts_with(name)) {
        return false;
    }
    *metadata.level() <= Level::INFO || !TELLTALES.iter().any(|name| metadata.target().starts_with(name))
}

/// Stderr, which steps aside for a live status line.
#[derive(Clone)]
struct Stderr {
    bars: Option<MultiProgress>,
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The formatter writes each event as a whole, so the status line is never split by one.
        let write = || io::stderr().lock().write_all(line);
        match &self.bars {
            Some(bars) => bars.suspend(write)?,
            None => write()?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in [None, Some(""), Some(" "), Some("debug"), Some("info,dalp_indexer=trace"), Some("off")] {
            assert!(filter(good).is_ok(), "{good:?}");
        }
        let error = filter(Some("info,dalp_indexer=loud")).unwrap_err().to_string();
        assert!(error.contains("dalp_indexer=loud") && error.contains("such as"), "{error}");
    }
}
