//! The input of a user at a terminal, in a build without the line editor (feature `prompt`): edited by the terminal, without
//! history.

use std::io::{self, Write as _};

use super::statement::{Typed, Typing};
use crate::cli::failure::Failure;

/// The statements and commands a user types.
pub(super) struct Lines(Typing);

impl Lines {
    pub fn open() -> Result<Self, Failure> {
        Ok(Self(Typing::default()))
    }

    /// The next one; none when the user leaves.
    pub fn next(&mut self) -> Result<Option<Typed>, Failure> {
        let problem = |error| Failure::other(format!("the terminal cannot be read: {error}; use -c"));
        loop {
            let mut out = io::stdout();
            write!(out, "{}", self.0.prompt()).and_then(|()| out.flush())?;
            let mut line = String::new();
            if tokio::task::block_in_place(|| io::stdin().read_line(&mut line)).map_err(problem)? == 0 {
                return Ok(None);
            }
            match self.0.take(line.trim_end_matches(['\n', '\r'])) {
                Typed::More => {}
                typed => return Ok(Some(typed)),
            }
        }
    }
}
