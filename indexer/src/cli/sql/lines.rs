//! What a user types at a terminal, in a build without the line editor (feature `prompt`): as the terminal itself edits it, without history.

use std::io::{self, Write as _};

use super::statement;
use crate::cli::Failure;

/// The statements and commands a user types.
pub(super) struct Lines;

impl Lines {
    pub fn open() -> Result<Self, Failure> {
        Ok(Self)
    }

    /// The next one that is not empty; none when the user leaves.
    pub fn next(&mut self) -> Result<Option<String>, Failure> {
        let problem = |error| Failure::other(format!("the terminal cannot be read: {error}; use -c"));
        let mut text = String::new();
        loop {
            print!("{}", if text.is_empty() { "dalp=> " } else { "dalp-> " });
            io::stdout().flush().map_err(problem)?;
            if tokio::task::block_in_place(|| io::stdin().read_line(&mut text)).map_err(problem)? == 0 {
                return Ok(None);
            }
            match text.trim() {
                "" => text.clear(),
                typed if statement::is_sent(typed) => return Ok(Some(text)),
                _ => {}
            }
        }
    }
}
