//! The interactive prompt: statements over several lines, and backslash commands.

use std::io;

use super::lines::Lines;
use super::meta::{self, Meta};
use super::render::View;
use super::session::{Session, SqlError};
use crate::cli::Failure;

/// Asks, runs and shows until the user leaves.
pub(super) async fn run(mut session: Session, mut view: View) -> Result<(), Failure> {
    let mut lines = Lines::open()?;
    println!("Connected to {}. \\? for help, \\q or Ctrl-D to leave.", session.endpoint());
    let mut out = io::stdout();
    while let Some(text) = lines.next()? {
        let result = match Meta::parse(&text) {
            Some(Meta::Quit) => break,
            Some(command) => meta::run(&command, &mut session, &mut view, &mut out).await,
            None => session.execute(&text, view, &mut out).await,
        };
        match result {
            // The terminal itself is gone.
            Err(SqlError::Output(_)) => break,
            Err(error) => eprintln!("error: {error}"),
            Ok(()) => {}
        }
    }
    Ok(())
}
