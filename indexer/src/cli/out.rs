//! The only way to print. The reader may leave at any time (`… | head`): the command then ends without a failure.

use std::fmt;
use std::io::{self, Write as _};

use super::failure::Failure;

/// Prints a line on standard output; `?` ends the command quietly if its reader is gone.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::line(format_args!($($text)*)) };
}

/// Prints a line on standard error, for people; without a reader, nothing is lost.
macro_rules! tell {
    ($($text:tt)*) => { $crate::cli::out::note(format_args!($($text)*)) };
}

pub(crate) use {say, tell};

/// See [`say`].
///
/// # Errors
/// [`Failure::unread`], or any other error of standard output.
pub(crate) fn line(text: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::from)
}

/// See [`tell`].
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _unread = writeln!(io::stderr().lock(), "{text}");
}
