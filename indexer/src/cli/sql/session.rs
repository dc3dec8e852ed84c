//! One connection that runs typed statements: results are streamed, Ctrl-C cancels, a lost connection is replaced.

use std::io::{self, Write};
use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt as _;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::hint;
use super::render::{self, ResultSet, View, printable};
use crate::cli::out::tell;
use crate::config::{Database, database_endpoint};
use crate::store::connect::{self, ConnectError, ConnectFault, MakeTls};

/// Why a statement did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    /// The database refused it; the text shows where.
    #[error("{0}")]
    Database(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The reader of our output is gone, or its disk is full.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Finds the indexer's tables without their schema. Sent at the begin of the session: SET would stay in a pooler's connection.
const SEARCH_PATH: &str = "-csearch_path=dalp_indexed,\"$user\",public";

pub(super) struct Session {
    config: tokio_postgres::Config,
    tls: MakeTls,
    client: Client,
}

impl Session {
    pub async fn open(database: &Database) -> Result<Self, ConnectError> {
        let (plain, tls) = connect::connector(database, &database.reader_url)?;
        let mut config = plain.clone();
        // The URL's options come later, and therefore win.
        config.options(format!("{SEARCH_PATH} {}", plain.get_options().unwrap_or_default()));
        let (config, client) = match connect::open(&config, tls.clone()).await {
            // A pooler that accepts no options: tables then need their schema.
            Err(error) if error.fault == ConnectFault::Other => {
                (plain.clone(), connect::open(&plain, tls.clone()).await?)
            }
            opened => (config, opened?),
        };
        Ok(Self { config, tls, client })
    }

    /// `postgres://host:port`.
    pub fn endpoint(&self) -> String {
        database_endpoint(&self.config)
    }

    /// Runs the text, one statement or several, and writes the results. Ctrl-C cancels it.
    pub async fn execute(&mut self, sql: &str, view: View, out: &mut impl Write) -> Result<(), SqlError> {
        if self.client.is_closed() {
            self.reconnect().await?;
        }
        let token = self.client.cancel_token();
        let result = {
            let mut work = pin!(stream(&self.client, sql, view, out));
            loop {
                tokio::select! {
                    result = &mut work => break result,
                    signal = tokio::signal::ctrl_c() => {
                        if signal.is_err() {
                            break work.await;
                        }
                        if let Err(error) = token.cancel_query(self.tls.clone()).await {
                            tell!("the query could not be cancelled: {}", connect::explain(&error));
                        }
                    }
                }
            }
        };
        match result {
            Err(StreamError::Sql(error)) if speaks_copy(&error) => {
                // On that connection, the server still waits for data, or sends it.
                self.reconnect().await?;
                Err(SqlError::Database(
                    "COPY with STDIN or STDOUT does not work here: use --format csv for output, psql for input".into(),
                ))
            }
            Err(StreamError::Sql(error)) => {
                Err(SqlError::Database(describe(sql, &error, hint::of(&self.client, sql, &error).await)))
            }
            Err(StreamError::Output(error)) => Err(error.into()),
            Ok(found) => {
                // Not into the data, and only if it may be the reason.
                if let Some(notice) = (!found).then(|| hint::of_nothing(sql)).flatten() {
                    tell!("{notice}");
                }
                Ok(())
            }
        }
    }

    async fn reconnect(&mut self) -> Result<(), ConnectError> {
        self.client = connect::open(&self.config, self.tls.clone()).await?;
        tell!("notice: reconnected; the state of the old session (an open transaction, SET) is lost");
        Ok(())
    }
}

enum StreamError {
    Sql(tokio_postgres::Error),
    Output(io::Error),
}

impl From<tokio_postgres::Error> for StreamError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Returns whether there were other values than nulls and zeros, such as the count of an empty set, or any change.
async fn stream(client: &Client, sql: &str, view: View, out: &mut impl Write) -> Result<bool, StreamError> {
    let (mut started, mut found) = (Instant::now(), false);
    let mut messages = pin!(client.simple_query_raw(sql).await?);
    let mut result: Option<ResultSet> = None;
    while let Some(message) = messages.next().await {
        match message? {
            SimpleQueryMessage::RowDescription(columns) => {
                let names = columns.iter().map(|column| column.name().to_owned()).collect();
                result = Some(ResultSet::new(view, names, out)?);
            }
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|index| row.try_get(index)).collect::<Result<Vec<_>, _>>()?;
                found |= values.iter().flatten().any(|value| *value != "0");
                if let Some(result) = &mut result {
                    result.push(&values, out)?;
                }
            }
            SimpleQueryMessage::CommandComplete(rows) => {
                match result.take() {
                    Some(result) => result.finish(started.elapsed(), out)?,
                    None => {
                        found |= rows > 0;
                        render::done(view, rows, started.elapsed(), out)?;
                    }
                }
                started = Instant::now();
            }
            _ => {}
        }
    }
    out.flush()?;
    Ok(found)
}

/// The driver's text for an answer that the simple protocol's reader does not expect; only COPY gives it.
fn speaks_copy(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none() && error.to_string() == "unexpected message from server"
}

/// The error, and the place in the text it points to.
fn describe(sql: &str, error: &tokio_postgres::Error, hint: Option<String>) -> String {
    let text = match (error.as_db_error(), hint) {
        (Some(db), Some(hint)) => format!("{}. {hint}", connect::said(db)),
        _ => connect::explain(error),
    };
    let mut text = printable(&text).into_owned();
    match error.as_db_error().and_then(|error| error.position()) {
        Some(ErrorPosition::Original(position)) => text.push_str(&pointer(sql, *position)),
        Some(ErrorPosition::Internal { position, query }) => text.push_str(&pointer(query, *position)),
        None => {}
    }
    text
}

/// The line that holds the character at `position` (from 1), and a caret below that character.
fn pointer(sql: &str, position: u32) -> String {
    let index = (position as usize).saturating_sub(1);
    let before: Vec<char> = sql.chars().take(index).collect();
    let number = before.iter().filter(|c| **c == '\n').count();
    let column = before.iter().rev().take_while(|c| **c != '\n').count();
    let line: Vec<char> = sql.split('\n').nth(number).unwrap_or("").chars().collect();
    // A long line is shown around the place.
    let start = column.saturating_sub(60).min(line.len());
    let shown: String =
        line[start..line.len().min(start + 120)].iter().map(|c| if c.is_control() { ' ' } else { *c }).collect();
    let label = format!("line {}: ", number + 1);
    format!("\n{label}{shown}\n{}^", " ".repeat(label.len() + column - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers() {
        for (sql, position, expected) in [
            ("selct 1", 1, "\nline 1: selct 1\n        ^"),
            ("select\n\tnope\nfrom x", 9, "\nline 2:  nope\n         ^"),
            ("select 'ß' + nope", 14, "\nline 1: select 'ß' + nope\n                     ^"),
            ("select 1", 99, "\nline 1: select 1\n                ^"),
        ] {
            assert_eq!(pointer(sql, position), expected, "{sql}");
        }
        let long = format!("{}nope{}", "x ".repeat(200), " y".repeat(200));
        assert!(pointer(&long, 401).lines().all(|line| line.chars().count() < 140));
    }
}
