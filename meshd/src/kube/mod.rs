//! The client of the Kubernetes API, which every part of the control plane that talks to it shares.
//!
//! How it is reached: `--kubeconfig`, else the files of `KUBECONFIG`, else the service account of the pod, else
//! `~/.kube/config`, as other clients of Kubernetes do it.

#[cfg(test)]
pub(crate) mod fake;

use std::path::Path;
use std::time::Duration;

use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::{Client, Config as ClientConfig};
use anyhow::Context as _;
use http::HeaderValue;
use http::header::USER_AGENT;

use crate::config::KubernetesConfig;

/// Time to reach the API server and to get through TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What we call ourselves; the part before the slash is the name in `managedFields`.
const AGENT: &str = concat!("meshd/", env!("CARGO_PKG_VERSION"));
/// Set in every pod by the kubelet.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// A client of the cluster. Nothing is sent yet: that the API server is away is for those to notice who need it, and to
/// try again.
///
/// # Errors
/// Settings that are missing or cannot be read.
pub(crate) async fn client(config: &KubernetesConfig) -> anyhow::Result<Client> {
    let mut settings = match &config.kubeconfig {
        Some(path) => from_file(path).await?,
        None => infer().await?,
    };
    settings.connect_timeout = Some(CONNECT_TIMEOUT);
    // The API server makes it the field manager of what we write: whose a field is must be told from Istio's beside us.
    settings.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let server = settings.cluster_url.to_string();
    let client = Client::try_from(settings).with_context(|| format!("making a client of {server}"))?;
    tracing::info!(server, "Using the Kubernetes API");
    Ok(client)
}

async fn from_file(path: &Path) -> anyhow::Result<ClientConfig> {
    let reading = || format!("reading {} (--kubeconfig)", path.display());
    let file = Kubeconfig::read_from(path).with_context(reading)?;
    ClientConfig::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(reading)
}

async fn infer() -> anyhow::Result<ClientConfig> {
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    // Charts set the variable to a file that is there only for a control plane outside its cluster.
    let present = std::env::split_paths(&named).any(|path| path.is_file());
    if !present && std::env::var_os(SERVICE_HOST).is_some() {
        return ClientConfig::incluster().context("reading the service account of this pod");
    }
    let options = KubeConfigOptions::default();
    ClientConfig::from_kubeconfig(&options).await.context(
        "finding a cluster: there is no --kubeconfig, no KUBECONFIG, no service account and no ~/.kube/config that works",
    )
}

/// What the API server, or the way to it, said: one line, without the structure around it.
pub(crate) fn said(error: &::kube::Error) -> String {
    match error {
        ::kube::Error::Api(status) => status.message.clone(),
        other => mesh_api_rt::report::Report::new(other).to_string(),
    }
}
