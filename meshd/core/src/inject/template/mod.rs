//! The built-in templates: what a pod gets, before anything of the pod's own counts. istio/istio: the files
//! injection-template.yaml and gateway-injection-template.yaml of the chart istio-discovery.

pub(super) mod environment;
mod gateway;
mod init;
mod sidecar;
mod volumes;

use mesh_api::{
    inject::config::{GATEWAY_TEMPLATE, SIDECAR_TEMPLATE},
    mesh_config::proxy::{InterceptionMode, ProxyConfig},
};
use serde_json::{Map, Value, json};

use super::{Injector, Owner, PROXY_CONTAINER, Refusal, view};

/// Names of the built-in templates.
pub(super) const BUILT_IN: [&str; 2] = [SIDECAR_TEMPLATE, GATEWAY_TEMPLATE];

pub(super) use self::sidecar::with_network;

/// Longest value of a label, in bytes.
const MAX_LABEL: usize = 63;

/// What a template sees.
#[derive(Debug)]
pub(super) struct Data<'a> {
    pub(super) injector: &'a Injector,
    /// The pod, without what an earlier injection added.
    pub(super) pod: &'a Value,
    pub(super) owner: &'a Owner,
    /// The mesh's configuration of proxies with the pod's own on top.
    pub(super) proxy: &'a ProxyConfig,
    /// Whether the proxy runs as a native sidecar.
    pub(super) native: bool,
    /// User and group of the proxy.
    pub(super) ids: (u32, u32),
    pub(super) proxy_image: String,
    pub(super) init_image: String,
}

/// Renders a built-in template; `None` when there is none of that name.
pub(super) fn render(name: &str, data: &Data<'_>) -> Option<Result<Value, Refusal>> {
    match name {
        SIDECAR_TEMPLATE => Some(sidecar::render(data)),
        GATEWAY_TEMPLATE => Some(Ok(gateway::render(data))),
        _ => None,
    }
}

impl Data<'_> {
    /// The annotation, or what counts without it.
    fn annotation_or(&self, name: &str, default: &str) -> String {
        view::annotation(self.pod, name).unwrap_or(default).to_owned()
    }

    /// How traffic is captured.
    fn interception(&self) -> String {
        let configured = match self.proxy.interception_mode() {
            InterceptionMode::Redirect => "REDIRECT",
            InterceptionMode::Tproxy => "TPROXY",
            InterceptionMode::None => "NONE",
        };
        self.annotation_or("sidecar.istio.io/interceptionMode", configured)
    }

    /// The port of the agent, as it is written in arguments; `0` for none.
    fn status_port(&self) -> String {
        let configured = match self.proxy.status_port {
            Some(port) => port.to_string(),
            None => self.injector.values.proxy.status_port.to_string(),
        };
        self.annotation_or("status.sidecar.istio.io/port", &configured).trim().to_owned()
    }

    /// The containers of the workload.
    fn app_containers(&self) -> impl Iterator<Item = &Value> {
        view::list(self.pod, "containers").iter().filter(|container| view::name(container) != PROXY_CONTAINER)
    }

    /// Labels and annotations that both templates write.
    fn metadata(&self) -> (Map<String, Value>, Map<String, Value>) {
        let label = |names: [&str; 3]| names.into_iter().find_map(|name| view::filled_label(self.pod, name));
        let name = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision = label(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        let mut labels = Map::new();
        labels.insert("service.istio.io/canonical-name".into(), name.unwrap_or(&self.owner.name).into());
        labels.insert("service.istio.io/canonical-revision".into(), revision.unwrap_or("latest").into());
        let mut annotations = Map::new();
        annotations.insert("istio.io/rev".into(), self.injector.revision.as_str().into());
        if let Some(first) = self.app_containers().next() {
            for name in ["kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container"] {
                if view::annotation(self.pod, name).is_none() {
                    annotations.insert(name.into(), view::name(first).into());
                }
            }
        }
        (labels, annotations)
    }

    /// The first arguments of the proxy.
    fn proxy_args(&self, role: &str) -> Vec<String> {
        let values = &self.injector.values;
        let level = |name: &str, default: &str| self.annotation_or(name, default);
        let mut args = vec![
            "proxy".to_owned(),
            role.to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", values.proxy.cluster_domain),
            format!("--proxyLogLevel={}", level("sidecar.istio.io/logLevel", &values.proxy.log_level)),
            format!(
                "--proxyComponentLogLevel={}",
                level("sidecar.istio.io/componentLogLevel", &values.proxy.component_log_level)
            ),
            format!("--log_output_level={}", level("sidecar.istio.io/agentLogLevel", &values.log_level)),
        ];
        if values.log_as_json {
            args.push("--log_as_json".to_owned());
        }
        args
    }

    /// Members of a container that depend on values alone.
    fn finish(&self, container: &mut Value) {
        let values = &self.injector.values;
        let container = view::as_object(container);
        if !values.image_pull_policy.is_empty() {
            container.insert("imagePullPolicy".into(), values.image_pull_policy.as_str().into());
        }
    }

    /// The secrets that images are pulled with, where there are some.
    fn pull_secrets(&self) -> Option<Value> {
        let secrets = &self.injector.values.image_pull_secrets;
        (!secrets.is_empty()).then(|| secrets.iter().map(|name| json!({ "name": name })).collect())
    }

    /// Requests and limits of injected containers: all from annotations when there is one of them, else from the values.
    fn resources(&self) -> Option<Value> {
        let annotated = [
            ("requests", "cpu", "sidecar.istio.io/proxyCPU"),
            ("requests", "memory", "sidecar.istio.io/proxyMemory"),
            ("limits", "cpu", "sidecar.istio.io/proxyCPULimit"),
            ("limits", "memory", "sidecar.istio.io/proxyMemoryLimit"),
        ];
        let mut own = json!({});
        for (group, resource, name) in annotated {
            if let Some(value) = view::annotation(self.pod, name) {
                view::object_mut(&mut own, group).insert(resource.to_owned(), value.into());
            }
        }
        if own == json!({}) { self.injector.values.proxy.resources.clone() } else { Some(own) }
    }
}

/// A name cut to the length of a label, without punctuation at its ends.
fn as_label(name: &str) -> String {
    let end = (0..=MAX_LABEL.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    name.get(..end).unwrap_or_default().trim_matches(['-', '_', '.']).to_owned()
}

/// A volume that is an empty folder.
fn empty_dir(name: &str) -> Value {
    json!({ "name": name, "emptyDir": {} })
}

/// A mount of a volume.
fn mount(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path })
}

/// A variable with a value.
fn variable(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}
