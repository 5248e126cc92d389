//! Sidecar injection: a pod and what is configured go in, the pod with its proxy comes out. istio/istio: pkg/kube/inject.
//!
//! ```text
//! pod ──► decide ──► annotations checked ──► templates, each merged on top ──► the user's own istio-proxy on top of them
//!             │                                                                              │
//!             └──► why not                 pod with its proxy ◄── order ◄── metadata ◄── probes ◄── metrics
//! ```
//!
//! Pure: called by the webhook ([`Injector::admit`]) and by `meshctl inject` ([`Injector::inject`]). The pod is JSON from
//! end to end, so that fields of a newer Kubernetes pass through untouched. Injecting an injected pod again renders it
//! anew and gives the same pod.

mod annotations;
mod custom;
mod decide;
mod image;
mod merge;
mod metrics;
mod order;
mod overrides;
mod owner;
mod patch;
mod platform;
mod probes;
mod proxy_configs;
mod render;
mod template;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use mesh_api::{
    finding::Finding,
    inject::{config::InjectorConfig, values::InjectValues},
    mesh_config::MeshConfig,
    parse::ParseError,
    text::Str,
};
use serde_json::Value;

use self::custom::Custom;
pub use self::{
    decide::{Cause, Decision, IGNORED_NAMESPACES, PodFacts, SkipReason},
    owner::Owner,
    patch::{apply, diff},
    proxy_configs::ProxyConfigs,
};

/// Name of the proxy's container.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// Name of the container that redirects traffic.
pub const INIT_CONTAINER: &str = "istio-init";
/// Name of the container that checks a redirection by CNI.
pub const VALIDATION_CONTAINER: &str = "istio-validation";
/// The revision without a suffix.
pub const DEFAULT_REVISION: &str = "default";

/// What cannot be used of an injector's configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Key `config`.
    #[error("the injector's configuration cannot be read")]
    Config(#[source] Box<ParseError>),
    /// Key `values`.
    #[error("the injector's values cannot be read")]
    Values(#[source] Box<ParseError>),
    /// A template of key `config`.
    #[error("template {name:?} of the injector's configuration cannot be read")]
    Template {
        /// Which.
        name: Str,
        /// Why.
        #[source]
        source: mesh_api_gotmpl::Error,
    },
}

/// Why a pod cannot be injected. Its text is for the author of the pod, and names the annotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong, with what, and what to do.
    pub message: String,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// What is known about a pod besides the pod.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The pod's namespace, where the pod does not name it.
    pub namespace: String,
    /// Annotations of that namespace, where they are known; OpenShift keeps the allowed users there.
    pub namespace_annotations: BTreeMap<String, String>,
    /// The workload that the pod belongs to; found from the pod's owner references when absent.
    pub owner: Option<Owner>,
    /// Variables that the webhook's path sets ([`env_of_path`]); they count before the values.
    pub env: BTreeMap<String, String>,
    /// Whether the nodes run native sidecars, and nobody asked for other.
    pub native_sidecar: bool,
    /// The ProxyConfigs of the cluster.
    pub proxy_configs: Arc<ProxyConfigs>,
}

/// A pod with its proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// What has no effect, each by name: for people.
    pub warnings: Vec<String>,
}

/// The answer to an admission request.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// The pod stays as it is.
    Skipped(SkipReason),
    /// The pod gets a proxy.
    Patched {
        /// A JSON patch (RFC 6902): an array of operations.
        patch: Value,
        /// What has no effect, each by name: for the response's warnings.
        warnings: Vec<String>,
    },
}

/// Injects by one configuration. Made anew when the configuration changes.
#[derive(Clone, Debug)]
pub struct Injector {
    config: InjectorConfig,
    custom: Custom,
    values: InjectValues,
    mesh: MeshConfig,
    revision: Str,
    findings: Vec<Finding>,
}

impl Injector {
    /// Reads the keys `config` and `values` of the ConfigMap `istio-sidecar-injector[-REV]`. Empty texts mean the
    /// defaults of the chart. `revision` is that of the control plane; empty means the default one.
    ///
    /// # Errors
    /// When one of the texts is not YAML or JSON, the configuration has a field of a wrong type, or a template is none.
    pub fn from_config(config: &str, values: &str, mesh: &MeshConfig, revision: &str) -> Result<Self, ConfigError> {
        let (config, mut findings) = InjectorConfig::parse(config).map_err(ConfigError::Config)?;
        let (values, more) = InjectValues::parse(values).map_err(ConfigError::Values)?;
        findings.extend(more);
        let custom = Custom::parse(&config)?;
        let revision = if revision.is_empty() { DEFAULT_REVISION } else { revision };
        Ok(Self { config, custom, values, mesh: mesh.clone(), revision: revision.into(), findings })
    }

    /// What was found in the configuration: unknown fields, values that do not act.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The Helm values.
    #[must_use]
    pub fn values(&self) -> &InjectValues {
        &self.values
    }

    /// The same injector for those who ask for injection: pods that do not say are injected, whatever the policy and
    /// the selectors are.
    #[must_use]
    pub fn on_demand(mut self) -> Self {
        self.config.policy = None;
        self.config.never_inject_selector.clear();
        self.config.always_inject_selector.clear();
        self
    }

    /// Whether a pod is injected, and why.
    #[must_use]
    pub fn decide(&self, facts: &PodFacts<'_>) -> Decision {
        decide::decide(&self.config, facts)
    }

    /// Injects a pod, whatever [`Self::decide`] says.
    ///
    /// # Errors
    /// When an annotation, a template or the pod itself makes it impossible.
    pub fn inject(&self, pod: &Value, facts: &Facts) -> Result<Injected, Refusal> {
        render::inject(self, pod, facts)
    }

    /// Answers the webhook: decides, injects, and says what to change.
    ///
    /// # Errors
    /// When the pod is to be refused.
    pub fn admit(&self, pod: &Value, facts: &Facts) -> Result<Admission, Refusal> {
        match self.decide(&PodFacts { pod, namespace: &facts.namespace }) {
            Decision::Skip(reason) => Ok(Admission::Skipped(reason)),
            Decision::Inject(_) => {
                let Injected { pod: injected, warnings } = self.inject(pod, facts)?;
                Ok(Admission::Patched { patch: diff(pod, &injected), warnings })
            }
        }
    }
}

/// Why a pod with this annotation would be refused for the annotation's value.
pub(crate) fn annotation_problem(name: &str, value: &str) -> Option<String> {
    annotations::problem(name, value)
}

/// The variables in the webhook's path: `/inject/cluster/NAME/net/NAME`, any `/inject/KEY/VALUE/…` (`--slash--` in a
/// value is a `/`), or the old `/inject/:ENV:KEY=VALUE…`. istio/istio: pkg/kube/inject/webhook.go parseInjectEnvs.
#[must_use]
pub fn env_of_path(path: &str) -> BTreeMap<String, String> {
    let path = path.trim_end_matches('/');
    let Some(rest) = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(_, rest)| rest) else {
        return BTreeMap::new();
    };
    let pairs: Vec<(String, String)> = if let Some(old) = rest.strip_prefix(":ENV:") {
        let pairs = old.split(":ENV:").filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    } else {
        let parts: Vec<&str> = rest.split('/').collect();
        let pairs = parts.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)));
        pairs.map(|(key, value)| (key.to_owned(), value.replace("--slash--", "/"))).collect()
    };
    let known = |key: String| match key.as_str() {
        "cluster" => "ISTIO_META_CLUSTER_ID".to_owned(),
        "net" => "ISTIO_META_NETWORK".to_owned(),
        _ => key.to_uppercase(),
    };
    pairs.into_iter().filter(|(key, _)| !key.is_empty()).map(|(key, value)| (known(key), value)).collect()
}

#[cfg(test)]
mod tests;
