//! The interactive prompt: statements over several lines, and backslash commands.

use std::io;

use super::lines::Lines;
use super::meta::Meta;
use super::perform;
use super::render::View;
use super::session::{Session, SqlError};
use super::statement::Typed;
use crate::cli::failure::Failure;
use crate::cli::out::{say, tell};

/// Asks, runs and shows until the user leaves.
pub(super) async fn run(mut session: Session, mut view: View) -> Result<(), Failure> {
    let mut lines = Lines::open()?;
    say!("Connected to {}. \\? or help for help, \\q or Ctrl-D to leave.", session.endpoint())?;
    let mut out = io::stdout();
    while let Some(typed) = lines.next()? {
        let result = match typed {
            Typed::More => continue,
            Typed::Command(Meta::Quit) => break,
            Typed::Command(command) => perform::run(&command, &mut session, &mut view, &mut out).await,
            Typed::Sql(text) => session.execute(&text, view, &mut out).await,
        };
        match result {
            // The terminal itself is gone.
            Err(SqlError::Output(_)) => break,
            Err(error) => tell!("error: {error}"),
            Ok(()) => {}
        }
    }
    Ok(())
}
