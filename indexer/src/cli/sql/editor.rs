//! The input of a user at a terminal: a line editor with history.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustyline::Editor;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;

use super::statement::{Typed, Typing};
use crate::cli::environment::state_dir;
use crate::cli::failure::Failure;

/// The statements and commands a user types.
pub(super) struct Lines {
    editor: Editor<(), FileHistory>,
    typing: Typing,
    history: Option<PathBuf>,
}

impl Lines {
    pub fn open() -> Result<Self, Failure> {
        let problem = |error| Failure::other(format!("the terminal cannot be used for a prompt: {error}; use -c"));
        let config = rustyline::Config::builder().max_history_size(2_000).map_err(problem)?;
        let config = config.history_ignore_space(true).build();
        let mut editor = Editor::with_config(config).map_err(problem)?;
        let history = history_file();
        if let Some(file) = &history {
            // The first run has none.
            editor.load_history(file).ok();
        }
        Ok(Self { editor, typing: Typing::default(), history })
    }

    /// The next one; none when the user leaves.
    pub fn next(&mut self) -> Result<Option<Typed>, Failure> {
        loop {
            let prompt = self.typing.prompt();
            // The editor waits for keys; the runtime's other work continues beside it.
            match tokio::task::block_in_place(|| self.editor.readline(prompt)) {
                Ok(line) => match self.typing.take(&line) {
                    Typed::More => {}
                    Typed::Sql(text) => {
                        self.remember(text.trim_end());
                        return Ok(Some(Typed::Sql(text)));
                    }
                    command @ Typed::Command(_) => {
                        self.remember(&line);
                        return Ok(Some(command));
                    }
                },
                // As in every shell, Ctrl-C clears the typed line.
                Err(ReadlineError::Interrupted) => self.typing.clear(),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(Failure::other(format!("the prompt cannot be read: {error}"))),
            }
        }
    }

    fn remember(&mut self, text: &str) {
        // ALTER ROLE … PASSWORD '…' must not be saved in a file.
        if text.to_ascii_lowercase().contains("password") {
            return;
        }
        let added = self.editor.add_history_entry(text).unwrap_or(false);
        if let Some(file) = self.history.as_ref().filter(|_| added) {
            // A full disk costs the history, not the prompt.
            self.editor.append_history(file).ok();
        }
    }
}

fn history_file() -> Option<PathBuf> {
    let folder = state_dir();
    let made = folder.as_deref().map(std::fs::create_dir_all);
    match (folder, made) {
        (Some(folder), Some(Ok(()))) => Some(folder.join("sql_history")),
        (Some(folder), Some(Err(error))) => {
            no_history(&folder, &error);
            None
        }
        _ => None,
    }
}

fn no_history(folder: &Path, error: &io::Error) {
    let _ = writeln!(io::stderr(), "notice: the history is not saved: {}: {error}", folder.display());
}
