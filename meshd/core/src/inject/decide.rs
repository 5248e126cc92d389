//! Whether a pod is injected. istio/istio: pkg/kube/inject/inject.go injectRequired.

use std::fmt;

use mesh_api::{inject::config::InjectorConfig, mesh_config::LabelSelector, text::Str};
use serde_json::Value;

use super::view;

/// Namespaces of Kubernetes itself, whose pods are never injected.
pub const IGNORED_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// The label, and the older annotation, by which a pod decides for itself.
const INJECT: &str = "sidecar.istio.io/inject";

/// What the decision is about.
#[derive(Clone, Copy, Debug)]
pub struct PodFacts<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// Its namespace, where the pod does not name it.
    pub namespace: &'a str,
}

/// Whether a pod is injected, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Inject(Cause),
    /// It is not.
    Skip(SkipReason),
}

/// Why a pod is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its label asks for it.
    Label,
    /// Its annotation asks for it.
    Annotation,
    /// It is selected by the item of `alwaysInjectSelector`, from 0.
    AlwaysSelector(usize),
    /// The policy is `enabled`.
    Policy,
}

/// Why a pod is not injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It has the network of its node, which must not be redirected.
    HostNetwork,
    /// It is in a namespace of Kubernetes itself.
    SystemNamespace(Str),
    /// Its label forbids it.
    Label,
    /// Its annotation forbids it.
    Annotation,
    /// It is selected by the item of `neverInjectSelector`, from 0.
    NeverSelector(usize),
    /// The policy is `disabled`, and nothing asks for injection.
    Policy,
    /// The policy is neither `enabled` nor `disabled`.
    UnknownPolicy(Str),
}

impl Decision {
    /// Whether the pod is injected.
    #[must_use]
    pub fn injects(&self) -> bool {
        matches!(self, Self::Inject(_))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inject(cause) => cause.fmt(f),
            Self::Skip(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label => write!(f, "pod label {INJECT} is true"),
            Self::Annotation => write!(f, "pod annotation {INJECT} is true"),
            Self::AlwaysSelector(index) => write!(f, "pod labels match alwaysInjectSelector[{index}]"),
            Self::Policy => f.write_str("the injection policy is enabled"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("the pod uses the network of its node (hostNetwork: true)"),
            Self::SystemNamespace(name) => write!(f, "namespace {name} belongs to Kubernetes itself"),
            Self::Label => write!(f, "pod label {INJECT} is false"),
            Self::Annotation => write!(f, "pod annotation {INJECT} is false"),
            Self::NeverSelector(index) => write!(f, "pod labels match neverInjectSelector[{index}]"),
            Self::Policy => write!(f, "the injection policy is disabled and no label {INJECT} asks for injection"),
            Self::UnknownPolicy(policy) => {
                write!(f, "the injection policy is {policy:?}; it must be enabled or disabled")
            }
        }
    }
}

/// Decides by configuration and pod.
pub(super) fn decide(config: &InjectorConfig, facts: &PodFacts<'_>) -> Decision {
    let pod = facts.pod;
    if pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Decision::Skip(SkipReason::HostNetwork);
    }
    let namespace = view::text(pod, "/metadata/namespace").filter(|name| !name.is_empty()).unwrap_or(facts.namespace);
    if IGNORED_NAMESPACES.contains(&namespace) {
        return Decision::Skip(SkipReason::SystemNamespace(namespace.into()));
    }
    let wish = explicit(pod).or_else(|| selected(config, pod));
    match (config.policy.as_deref().unwrap_or("enabled"), wish) {
        ("enabled" | "disabled", Some(decision)) => decision,
        ("enabled", None) => Decision::Inject(Cause::Policy),
        ("disabled", None) => Decision::Skip(SkipReason::Policy),
        (other, _) => Decision::Skip(SkipReason::UnknownPolicy(other.into())),
    }
}

/// What the pod says itself. The label counts before the annotation; other values than true and false say nothing.
fn explicit(pod: &Value) -> Option<Decision> {
    match (view::label(pod, INJECT), view::annotation(pod, INJECT)) {
        (Some("true"), _) => Some(Decision::Inject(Cause::Label)),
        (Some("false"), _) => Some(Decision::Skip(SkipReason::Label)),
        (None, Some("true")) => Some(Decision::Inject(Cause::Annotation)),
        (None, Some("false")) => Some(Decision::Skip(SkipReason::Annotation)),
        _ => None,
    }
}

/// What the selectors say: never counts before always.
fn selected(config: &InjectorConfig, pod: &Value) -> Option<Decision> {
    let first = |selectors: &[LabelSelector]| selectors.iter().position(|selector| selects(selector, pod));
    if let Some(index) = first(&config.never_inject_selector) {
        return Some(Decision::Skip(SkipReason::NeverSelector(index)));
    }
    first(&config.always_inject_selector).map(|index| Decision::Inject(Cause::AlwaysSelector(index)))
}

/// Whether a selector selects the pod. Here an empty selector selects nothing, as in Istio.
fn selects(selector: &LabelSelector, pod: &Value) -> bool {
    if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
        return false;
    }
    let labels = selector.match_labels.0.iter().all(|(key, value)| view::label(pod, key) == Some(value.as_str()));
    labels
        && selector.match_expressions.iter().all(|requirement| {
            let value = view::label(pod, &requirement.key);
            let listed = value.is_some_and(|value| requirement.values.iter().any(|wanted| wanted == value));
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                // Kubernetes refuses such a selector; it selects nothing.
                _ => false,
            }
        })
}
