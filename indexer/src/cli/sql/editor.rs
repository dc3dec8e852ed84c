//! What a user types at a terminal: a line editor with history.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Editor, Helper};

use super::statement;
use crate::cli::{Failure, state_dir};

/// The statements and commands a user types.
pub(super) struct Lines {
    editor: Editor<Statements, FileHistory>,
    history: Option<PathBuf>,
}

impl Lines {
    pub fn open() -> Result<Self, Failure> {
        let problem = |error| Failure::other(format!("the terminal cannot be used for a prompt: {error}; use -c"));
        let config = rustyline::Config::builder().max_history_size(2_000).map_err(problem)?;
        let config = config.history_ignore_space(true).build();
        let mut editor = Editor::with_config(config).map_err(problem)?;
        editor.set_helper(Some(Statements));
        let history = history_file();
        if let Some(file) = &history {
            // There is none the first time.
            editor.load_history(file).ok();
        }
        Ok(Self { editor, history })
    }

    /// The next one that is not empty; none when the user leaves.
    pub fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            // The editor waits for keys; the runtime's other work goes on beside it.
            match tokio::task::block_in_place(|| self.editor.readline("dalp=> ")) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    self.remember(&text);
                    return Ok(Some(text));
                }
                // As in every shell, Ctrl-C drops what is being typed.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(Failure::other(format!("the prompt cannot be read: {error}"))),
            }
        }
    }

    fn remember(&mut self, text: &str) {
        // ALTER ROLE … PASSWORD '…' must not lie about in a file.
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
    let _ = writeln!(io::stderr(), "notice: no history is kept: {}: {error}", folder.display());
}

/// Tells the editor whether Enter sends a text or begins its next line.
struct Statements;

impl Validator for Statements {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let whole = statement::is_sent(context.input().trim());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Statements {
    type Candidate = String;
}

impl Hinter for Statements {
    type Hint = String;
}

impl Highlighter for Statements {}
impl Helper for Statements {}
