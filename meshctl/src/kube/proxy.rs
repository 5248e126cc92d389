//! The admin interface of a proxy in a pod.

use bytes::Bytes;
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use mesh_api::names;

use super::client::Kube;
use super::portforward::PodPort;
use super::{exec, find};
use crate::error::CliError;

/// The container of the proxy, in sidecars and in gateways.
pub const CONTAINER: &str = "istio-proxy";

/// A proxy in a pod.
#[derive(Clone, Debug)]
pub struct PodProxy {
    /// Where it listens.
    pub admin: PodPort,
}

impl PodProxy {
    /// The proxy of the first pod that `target` names.
    ///
    /// # Errors
    /// When there is no pod, or it has no proxy.
    pub async fn find(kube: &Kube, target: &str, port: Option<u16>) -> Result<Self, CliError> {
        Self::of(&find::pod(kube, target).await?, port)
    }

    /// The proxy of a pod.
    ///
    /// # Errors
    /// When the pod has none.
    pub fn of(pod: &Pod, port: Option<u16>) -> Result<Self, CliError> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        if !has_proxy(pod) {
            return Err(CliError::user(format!("pod {name}.{namespace} has no container {CONTAINER}"))
                .hint(format!("meshctl check-inject {name}.{namespace} says why there is no sidecar")));
        }
        let port = port.unwrap_or(names::PROXY_ADMIN_PORT);
        Ok(Self { admin: PodPort { namespace, pod: name, port } })
    }

    /// `name.namespace`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.admin.pod, self.admin.namespace)
    }

    /// A page of the interface: through a port forward; where that is not allowed or does not work, by the proxy's own
    /// program in its container.
    ///
    /// # Errors
    /// When neither way leads there: why the first did not.
    pub async fn page(&self, kube: &Kube, method: Method, path: &str) -> Result<Bytes, CliError> {
        let error = match self.admin.ask(kube, method.clone(), path, Bytes::new()).await {
            Ok(answer) if answer.status == StatusCode::OK => return Ok(answer.body),
            Ok(answer) => {
                let said = String::from_utf8_lossy(&answer.body);
                return Err(CliError::user(format!(
                    "{} answered {path} with {}: {}",
                    self.admin,
                    answer.status,
                    said.trim()
                )));
            }
            Err(error) => error,
        };
        let port = format!("--debug-port={}", self.admin.port);
        let command = ["pilot-agent", "request", &port, method.as_str(), path];
        match exec::run(kube, &self.admin.namespace, &self.admin.pod, CONTAINER, &command).await {
            Ok(page) => Ok(Bytes::from(page)),
            Err(_) => Err(error),
        }
    }
}

/// Whether a container of the pod is a proxy, native sidecars included.
#[must_use]
pub fn has_proxy(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|container| container.name == CONTAINER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_sidecar_is_a_proxy_and_none_is_told() {
        let pod = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(
                serde_json::json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": spec }),
            )
            .unwrap()
        };
        let container = |name: &str| serde_json::json!([{ "name": name }]);
        let native = pod(serde_json::json!({ "containers": container("web"), "initContainers": container(CONTAINER) }));
        assert_eq!(PodProxy::of(&native, None).unwrap().admin.port, 15000);
        let bare = pod(serde_json::json!({ "containers": container("web") }));
        assert!(PodProxy::of(&bare, None).unwrap_err().to_string().contains("check-inject web.shop"));
    }
}
