//! What makes a service misbehave on purpose.

use rand::RngExt;
use std::time::Duration;

use crate::cli;

/// Delay and failures of one service.
#[derive(Clone, Debug)]
pub(crate) struct Knobs {
    delay: Duration,
    fail_rate: f64,
    fail_status: u16,
}

impl Knobs {
    pub(crate) fn new(args: &cli::Service) -> Self {
        Self { delay: args.delay, fail_rate: args.fail_rate, fail_status: args.fail_status }
    }

    /// Waits as told; some status when this request has to fail.
    pub(crate) async fn turn(&self) -> Option<u16> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let fails = self.fail_rate > 0.0 && rand::rng().random_bool(self.fail_rate);
        fails.then_some(self.fail_status)
    }
}
