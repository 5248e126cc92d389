//! Reaching a port of a pod through the API server: pages of admin and debug interfaces, and ports of this machine that
//! lead into the cluster.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::client::{Kube, failed};
use crate::error::CliError;
use crate::http::{self as client, Answer, HttpError};

/// Connections forwarded at the same time by one listener.
const MAX_CONNECTIONS: usize = 64;

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The port, as the pod's own network has it: loopback of the pod is reached, too.
    pub port: u16,
}

impl std::fmt::Display for PodPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} port {}", self.pod, self.namespace, self.port)
    }
}

impl PodPort {
    /// Asks once for a page.
    ///
    /// # Errors
    /// When the port cannot be reached, or does not answer. An answer with an error status is one.
    pub async fn ask(&self, kube: &Kube, method: Method, path: &str, body: Bytes) -> Result<Answer, CliError> {
        let name = self.to_string();
        let unreachable = || CliError::internal(format!("cannot reach {name}"));
        let asked = async {
            let api: Api<Pod> = Api::namespaced(kube.client.clone(), &self.namespace);
            let forward = api.portforward(&self.pod, &[self.port]).await;
            let mut forward = forward.map_err(|error| failed(format!("cannot reach {name}"), &error))?;
            let stream = forward.take_stream(self.port).ok_or_else(unreachable)?;
            let refused = forward.take_error(self.port);
            let answer = client::over(stream, &name, method, path, body).await;
            let answer = match (answer, refused) {
                (Ok(answer), _) => Ok(answer),
                // The kubelet says why on a channel of its own; the stream has just ended.
                (Err(error), Some(refused)) => {
                    let waited = tokio::time::timeout(client::GRACE, refused).await;
                    let why = waited.ok().flatten().unwrap_or_default();
                    let hint = if why.contains("refused") { "nothing listens there" } else { why.trim() };
                    let failure = unreachable().because(&error);
                    Err(if hint.is_empty() { failure } else { failure.hint(hint) })
                }
                (Err(error), None) => Err(unreachable().because(&error)),
            };
            forward.abort();
            answer
        };
        match tokio::time::timeout(client::TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                let late = HttpError::Timeout { address: name.clone(), path: path.to_owned() };
                Err(unreachable().because(&late))
            }
        }
    }

    /// The body of a page.
    ///
    /// # Errors
    /// When there is no answer, and when its status is no success.
    pub async fn page(&self, kube: &Kube, path: &str) -> Result<Bytes, CliError> {
        let answer = self.ask(kube, Method::GET, path, Bytes::new()).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let status = HttpError::Status { address: self.to_string(), path: path.to_owned(), status: answer.status };
        Err(CliError::internal(format!("cannot read {path}")).because(&status))
    }

    /// Listens at `address` and leads every connection into the pod, until the future is dropped.
    ///
    /// # Errors
    /// When connections can no longer be accepted.
    pub async fn serve(&self, kube: &Kube, listener: TcpListener) -> Result<(), CliError> {
        let api: Api<Pod> = Api::namespaced(kube.client.clone(), &self.namespace);
        let mut connections = JoinSet::new();
        loop {
            let (mut near, _) = listener
                .accept()
                .await
                .map_err(|error| CliError::internal("cannot accept connections").because(&error))?;
            while connections.try_join_next().is_some() {}
            if connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let (api, to) = (api.clone(), self.clone());
            connections.spawn(async move {
                // A browser sees a closed connection and tries again: nothing else can be told to it.
                let Ok(mut forward) = api.portforward(&to.pod, &[to.port]).await else { return };
                let Some(mut far) = forward.take_stream(to.port) else { return };
                let _ = copy_bidirectional(&mut near, &mut far).await;
                forward.abort();
            });
        }
    }
}

/// Opens the listener of a forward.
///
/// # Errors
/// When the port is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        CliError::user(format!("cannot listen at {address}")).because(&error).hint("--port 0 takes a free one")
    })
}
