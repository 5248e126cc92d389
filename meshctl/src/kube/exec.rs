//! Running a command in a container, and taking what it says.

use futures::future::try_join;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::client::{Kube, failed};
use crate::error::CliError;
use crate::http::{MAX_ANSWER_BYTES, TIMEOUT};

/// Bytes of the standard error that are told.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// The standard output of a command in a container.
///
/// # Errors
/// When it cannot be run, takes too long, or fails.
pub async fn run(
    kube: &Kube,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
) -> Result<Vec<u8>, CliError> {
    let what = || format!("cannot run {} in {pod}.{namespace}", command.first().copied().unwrap_or_default());
    let running = async {
        let api: Api<Pod> = Api::namespaced(kube.client.clone(), namespace);
        let params = AttachParams::default().container(container);
        let mut process =
            api.exec(pod, command.iter().copied(), &params).await.map_err(|error| failed(what(), &error))?;
        let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
        let read = try_join(drain(stdout, MAX_ANSWER_BYTES as u64), drain(stderr, MAX_ERROR_BYTES)).await;
        let (out, said) = read.map_err(|error| CliError::internal(what()).because(&error))?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        // A shell that ends without a status was cut off.
        let status = status.ok_or_else(|| CliError::internal(format!("{}: the connection broke", what())))?;
        if status.status.as_deref() == Some("Success") {
            return Ok(out);
        }
        let said = String::from_utf8_lossy(&said);
        let said = if said.trim().is_empty() { status.message.as_deref().unwrap_or("it failed") } else { said.trim() };
        Err(CliError::internal(format!("{}: {said}", what())))
    };
    match tokio::time::timeout(TIMEOUT, running).await {
        Ok(done) => done,
        Err(_) => Err(CliError::internal(format!("{}: no end within {TIMEOUT:?}", what()))),
    }
}

async fn drain(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
