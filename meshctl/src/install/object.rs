//! Objects of an installation: what they are, their order, their YAML.

use std::cmp::Ordering;
use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};
use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};
use mesh_api_gotmpl::yaml;
use serde_json::Value;

/// Label of what an installation wrote: which part of it. What the control plane makes itself has none.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Label that all objects of ours carry, whoever installed them.
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
/// Label of a tag's webhooks.
pub const TAG_LABEL: &str = "istio.io/tag";

/// A kind that charts may make.
#[derive(Debug)]
pub struct Kind {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

const fn kind(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Kind {
    Kind { name, group, version, plural, namespaced }
}

/// Every kind that is installed or removed, in the order of installation: what others need first, webhooks last, so that
/// nothing is intercepted before there is somebody who answers.
pub const KINDS: &[Kind] = &[
    kind("Namespace", "", "v1", "namespaces", false),
    kind("CustomResourceDefinition", "apiextensions.k8s.io", "v1", "customresourcedefinitions", false),
    kind("ServiceAccount", "", "v1", "serviceaccounts", true),
    kind("Secret", "", "v1", "secrets", true),
    kind("ConfigMap", "", "v1", "configmaps", true),
    kind("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles", false),
    kind("ClusterRoleBinding", "rbac.authorization.k8s.io", "v1", "clusterrolebindings", false),
    kind("Role", "rbac.authorization.k8s.io", "v1", "roles", true),
    kind("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings", true),
    kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", true),
    kind("Service", "", "v1", "services", true),
    kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", true),
    kind("Deployment", "apps", "v1", "deployments", true),
    kind("DaemonSet", "apps", "v1", "daemonsets", true),
    kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers", true),
    kind("Lease", "coordination.k8s.io", "v1", "leases", true),
    kind("MutatingWebhookConfiguration", "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", false),
    kind(
        "ValidatingWebhookConfiguration",
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        false,
    ),
];

impl Kind {
    /// The kind of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What a client needs to know of it.
    #[must_use]
    pub fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.name);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

/// An object, as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

impl Object {
    /// A value that is an object: it has a kind and a name.
    #[must_use]
    pub fn new(value: Value) -> Option<Self> {
        let object = Self(value);
        (!object.kind().is_empty() && !object.name().is_empty()).then_some(object)
    }

    /// The whole of it.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.0
    }

    /// The whole of it, to be changed.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace; empty when it has none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// One of its labels; empty when it has not.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.0
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether it carries our mark.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.label(MANAGED_BY_LABEL) == MANAGED_BY
    }

    /// The revision that it belongs to.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.label(REVISION_LABEL)
    }

    /// Whether it intercepts requests to the API server.
    #[must_use]
    pub fn is_webhook(&self) -> bool {
        self.kind().ends_with("WebhookConfiguration")
    }

    /// Whether its pods must be ready.
    #[must_use]
    pub fn is_workload(&self) -> bool {
        matches!(self.kind(), "Deployment" | "DaemonSet")
    }

    /// Its YAML, as a document.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml::to_string(&self.0)
    }

    /// The order of installation, then by namespace and name: the same for the same objects always.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |object: &Self| KINDS.iter().position(|kind| kind.name == object.kind()).unwrap_or(KINDS.len());
        (rank(self), self.kind(), self.namespace(), self.name()).cmp(&(
            rank(other),
            other.kind(),
            other.namespace(),
            other.name(),
        ))
    }
}

/// `Kind namespace/name`
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            "" => write!(f, "{} {}", self.kind(), self.name()),
            namespace => write!(f, "{} {namespace}/{}", self.kind(), self.name()),
        }
    }
}

/// The suffix of a revision's names.
#[must_use]
pub fn suffix(revision: &str) -> String {
    if is_default(revision) { String::new() } else { format!("-{revision}") }
}

/// Whether it is the revision without a suffix.
#[must_use]
pub fn is_default(revision: &str) -> bool {
    revision.is_empty() || revision == DEFAULT_REVISION
}

/// The name of the revision without a suffix.
pub const DEFAULT_REVISION: &str = "default";
