//! `dalp-indexer run`.

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::Failure;
use crate::config::Config;
use crate::service::{Service, ServiceError};

/// Arguments of `run`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunArgs {
    /// Remove what is stored of a chain whose genesis block changed, as a devnet's does when it is started anew
    #[arg(long)]
    pub reset_on_chain_change: bool,
}

/// Indexes the configured chains until SIGINT or SIGTERM.
///
/// # Errors
/// What kept it from starting, or ended a chain.
pub async fn run(mut config: Config, args: RunArgs) -> Result<(), Failure> {
    for chain in &mut config.chains {
        chain.reset_on_chain_change |= args.reset_on_chain_change;
    }
    let mut service = Service::start(&config).await?;
    if let Some(address) = service.http() {
        info!("http://{address}/status");
    }
    let result = tokio::select! {
        error = service.failed() => Err(error.into()),
        result = stopped() => result,
    };
    info!("stopping");
    service.stop().await;
    result
}

/// Waits for Ctrl-C or the service manager's SIGTERM.
///
/// # Errors
/// Where signals cannot be received.
pub async fn stopped() -> Result<(), Failure> {
    let hook = |kind| signal(kind).map_err(|error| Failure::other(format!("signals cannot be received: {error}")));
    let (mut interrupt, mut terminate) = (hook(SignalKind::interrupt())?, hook(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Usage(message) => Self::usage(message),
            other => Self::other(other.to_string()),
        }
    }
}
