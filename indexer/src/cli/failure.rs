//! Why a command failed, and its exit code.

use std::io;

use crate::config::ConfigErrors;
use crate::service::ServiceError;
use crate::store::StoreError;
use crate::store::connect::{ConnectError, ConnectFault};
use crate::telemetry::TelemetryError;

/// Why a command failed; its text says what happened, where, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code: 2 for usage and configuration, 1 for all other failures.
    pub code: u8,
    /// For the person at the terminal.
    pub message: String,
}

impl Failure {
    /// Wrong usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// The reader of the output is gone: there is no fault, and no more work.
    pub(crate) fn unread() -> Self {
        Self { code: 0, message: String::new() }
    }

    /// Any other failure.
    pub fn other(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(errors.to_string())
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::other(error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = if error.fault == ConnectFault::Config { 2 } else { 1 };
        Self { code, message: error.to_string() }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Usage(message) => Self::usage(message),
            other => Self::other(other.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    /// For errors of writing standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::unread(),
            _ => Self::other(format!("cannot write to standard output: {error}")),
        }
    }
}
