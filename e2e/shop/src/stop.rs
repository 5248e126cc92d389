//! The order to stop.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true once, at the first SIGTERM or SIGINT.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts to listen for signals.
    pub(crate) fn on_signal() -> Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let (order, stop) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            order.send_replace(true);
            // Held, so that a second signal changes nothing and `wait` never sees a closed channel first.
            order.closed().await;
        });
        Ok(Self(stop))
    }

    /// A stop and the switch that gives the order.
    #[cfg(test)]
    pub(crate) fn manual() -> (watch::Sender<bool>, Self) {
        let (order, stop) = watch::channel(false);
        (order, Self(stop))
    }

    /// Returns when the order has come.
    pub(crate) async fn wait(&self) {
        // An error means that nobody is left to give the order: that is one too.
        _ = self.0.clone().wait_for(|stopped| *stopped).await;
    }
}
