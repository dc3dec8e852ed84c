//! `dalp-indexer run`.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::failure::Failure;
use crate::config::Config;
use crate::service::Service;

/// Arguments of `run`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunArgs {
    /// Remove the stored blocks of a chain whose genesis block changed, as after a restart of a devnet
    #[arg(long)]
    pub reset_on_chain_change: bool,
}

/// Indexes the configured chains until SIGINT or SIGTERM.
///
/// # Errors
/// The error that prevented the start, or ended a chain.
pub async fn run(mut config: Config, args: RunArgs) -> Result<(), Failure> {
    for chain in &mut config.chains {
        chain.reset_on_chain_change |= args.reset_on_chain_change;
    }
    let mut signals = Signals::listen()?;
    let mut service = tokio::select! {
        service = Service::start(&config) => service?,
        () = signals.stop() => {
            info!("stopping before the start is complete");
            return Ok(());
        }
    };
    if let Some(address) = service.http() {
        info!("http://{address}/status");
    }
    let result = tokio::select! {
        error = service.failed() => Err(error.into()),
        () = signals.stop() => Ok(()),
    };
    info!("stopping");
    service.stop().await;
    result
}

/// Ctrl-C, and the service manager's SIGTERM: received from its creation on, so that none ends the process like a failure.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Receives them from now on.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub fn listen() -> Result<Self, Failure> {
        let hook = |kind| signal(kind).map_err(|error| Failure::other(format!("cannot receive signals: {error}")));
        Ok(Self { interrupt: hook(SignalKind::interrupt())?, terminate: hook(SignalKind::terminate())? })
    }

    /// Waits for one of them. Cancel-safe.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
