//! `dalp-indexer sql`: a prompt, because a fresh machine may have no psql; `-c` for scripts.

mod hint;
#[cfg_attr(feature = "prompt", path = "editor.rs")]
#[cfg_attr(not(feature = "prompt"), path = "lines.rs")]
mod lines;
mod meta;
mod perform;
mod prompt;
mod render;
mod session;
mod statement;

use std::io::{self, IsTerminal as _, Read as _};

use super::failure::Failure;
use super::grid;
use crate::config::Config;
use meta::Meta;
use render::{Format, View};
use session::{Session, SqlError};
use statement::Part;

/// Rows of a table that are shown by default.
const TABLE_ROWS: u64 = 1_000;

/// Arguments of `sql`.
#[derive(Clone, Debug, clap::Args)]
pub struct SqlArgs {
    /// Run these statements and exit; may be given several times. Each -c is one transaction
    #[arg(short, long, value_name = "SQL")]
    command: Vec<String>,
    /// Format of results
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Rows shown of one result, 0 for all [default: 1000 for tables, all for csv and json]
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<u64>,
}

impl SqlArgs {
    fn view(&self, timing: bool) -> View {
        let max_rows = self.max_rows.or((self.format == Format::Table).then_some(TABLE_ROWS)).filter(|rows| *rows > 0);
        View { format: self.format, expanded: false, timing, max_rows, width: grid::terminal() }
    }
}

/// Runs the commands, or standard input, or the prompt.
///
/// # Errors
/// No connection, or the first failed statement.
pub async fn run(config: Config, args: SqlArgs) -> Result<(), Failure> {
    let session = Session::open(&config.database).await?;
    if args.command.is_empty() && io::stdin().is_terminal() {
        return prompt::run(session, args.view(true)).await;
    }
    let mut parts: Vec<Part> = args.command.iter().map(|text| statement::part(text)).collect();
    if args.command.is_empty() {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::other(format!("standard input cannot be read: {error}")))?;
        parts = statement::parts(&text);
    }
    match run_all(session, args.view(true), &parts).await {
        // `… | head` has read enough.
        Err(SqlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(SqlError::Connect(error)) => Err(error.into()),
        Err(error) => Err(Failure::other(error.to_string())),
        Ok(()) => Ok(()),
    }
}

async fn run_all(mut session: Session, mut view: View, parts: &[Part]) -> Result<(), SqlError> {
    let mut out = io::BufWriter::new(io::stdout());
    for part in parts {
        match part {
            Part::Command(Meta::Quit) => break,
            Part::Command(command) => perform::run(command, &mut session, &mut view, &mut out).await?,
            Part::Sql(text) => session.execute(text, view, &mut out).await?,
        }
    }
    Ok(io::Write::flush(&mut out)?)
}
