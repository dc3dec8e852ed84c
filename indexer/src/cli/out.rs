//! The door of everything that is printed. Who reads it may leave at any time (`… | head`): that is no failure of the command,
//! and the end of it.

use std::fmt;
use std::io::{self, Write as _};

use super::failure::Failure;

/// Prints a line on standard output; `?` ends the command, quietly, where its reader has left.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::line(format_args!($($text)*)) };
}

/// Prints a line on standard error, for people; where nobody reads it, nothing is lost.
macro_rules! tell {
    ($($text:tt)*) => { $crate::cli::out::note(format_args!($($text)*)) };
}

pub(crate) use {say, tell};

/// See [`say`].
///
/// # Errors
/// [`Failure::unread`], or what else keeps standard output from being written.
pub(crate) fn line(text: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::from)
}

/// See [`tell`].
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _unread = writeln!(io::stderr().lock(), "{text}");
}
