//! What every command is given.

use crate::error::CliError;
use crate::kube::client::{Kube, KubeArgs};
use crate::printer::Printer;

/// Flags that all commands have, and where to write.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where reports go.
    pub printer: Printer,
    /// Which cluster, and who asks.
    pub kube: KubeArgs,
}

impl Context {
    /// A client of the cluster that the flags name. To be called inside of [`Self::block_on`].
    ///
    /// # Errors
    /// When nothing says where the cluster is.
    pub async fn kube(&self) -> Result<Kube, CliError> {
        Kube::connect(&self.kube).await
    }

    /// Runs something that waits for the network.
    ///
    /// # Errors
    /// Those of `work`, and when no runtime can be had.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| CliError::internal("cannot start a runtime").because(&error))?.block_on(work)
    }
}
