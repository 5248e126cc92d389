//! Which webhooks the API server calls for a pod: by their selectors alone.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use mesh_api::names;

/// Labels of a pod or a namespace.
type Labels = BTreeMap<String, String>;

/// The end of the names of a mesh's webhooks.
const OF_MESH: &str = "istio.io";
/// The label that decides for a namespace.
const INJECTION: &str = "istio-injection";
/// The label that every namespace has; our webhooks leave those of Kubernetes itself alone by it.
const NAME: &str = "kubernetes.io/metadata.name";
/// The label that selectors of a switched off webhook ask for; nothing has it.
const DEACTIVATED: &str = "istio.io/deactivated";
/// The label of what we manage, and its value.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "lateen");

/// What a webhook does to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The webhook configuration.
    pub(super) webhook: String,
    /// Its revision.
    pub(super) revision: String,
    /// Whether it is that of a Lateen control plane.
    pub(super) ours: bool,
    /// Whether it injects.
    pub(super) injected: bool,
    /// Why, or why not.
    pub(super) reason: String,
}

/// The verdicts of all webhooks of a mesh, by name.
pub(super) fn all(configurations: &[MutatingWebhookConfiguration], pod: &Labels, namespace: &Labels) -> Vec<Verdict> {
    let of_mesh =
        configurations.iter().filter(|one| webhooks(one).iter().any(|webhook| webhook.name.ends_with(OF_MESH)));
    let mut verdicts: Vec<Verdict> = of_mesh
        .map(|one| {
            let (injected, reason) = verdict(webhooks(one), pod, namespace);
            let label = |name: &str| one.labels().get(name).cloned().unwrap_or_default();
            Verdict {
                webhook: one.name_any(),
                revision: label(names::REVISION_LABEL),
                ours: label(MANAGED_BY.0) == MANAGED_BY.1,
                injected,
                reason,
            }
        })
        .collect();
    verdicts.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    verdicts
}

fn webhooks(configuration: &MutatingWebhookConfiguration) -> &[MutatingWebhook] {
    configuration.webhooks.as_deref().unwrap_or_default()
}

fn verdict(webhooks: &[MutatingWebhook], pod: &Labels, namespace: &Labels) -> (bool, String) {
    let mut hindered = None;
    for webhook in webhooks {
        let by_namespace = webhook.namespace_selector.as_ref();
        let by_pod = webhook.object_selector.as_ref();
        match (matches(by_namespace, namespace), matches(by_pod, pod)) {
            (true, true) => return (true, matched(by_namespace, by_pod, namespace, pod)),
            (true, false) => {
                hindered = hindered.or_else(|| hindering(by_pod, pod).map(|label| format!("pod label {label}")))
            }
            (false, true) => {
                let disabled = namespace.get(INJECTION).filter(|value| *value != "enabled");
                let label = disabled.map(|value| format!("{INJECTION}={value}"));
                let label =
                    label.or_else(|| hindering(by_namespace, namespace).filter(|label| label.starts_with(NAME)));
                hindered = hindered.or_else(|| Some(format!("namespace label {}", label?)));
            }
            (false, false) => {}
        }
    }
    if let Some(label) = hindered {
        return (false, format!("{label} prevents injection"));
    }
    if webhooks
        .iter()
        .all(|webhook| never(webhook.namespace_selector.as_ref()) && never(webhook.object_selector.as_ref()))
    {
        return (false, "the webhook is switched off: it never matches".to_owned());
    }
    let wanted = |selector: fn(&MutatingWebhook) -> Option<&LabelSelector>| {
        let mut labels: Vec<String> = webhooks.iter().filter_map(selector).flat_map(wanted).collect();
        labels.dedup();
        labels.join(", ")
    };
    let namespace = wanted(|webhook| webhook.namespace_selector.as_ref());
    let pod = wanted(|webhook| webhook.object_selector.as_ref());
    (false, format!("no matching namespace labels ({namespace}) or pod labels ({pod})"))
}

/// Whether a selector selects; none selects everything.
fn matches(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    exact
        && selector.match_expressions.iter().flatten().all(|term| {
            let value = labels.get(&term.key);
            let listed = value.is_some_and(|value| term.values.iter().flatten().any(|wanted| wanted == value));
            match term.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// The label by which a selector selected: the first that it asks for and the object has.
fn deciding(selector: Option<&LabelSelector>, labels: &Labels) -> Option<String> {
    let selector = selector?;
    let keys = selector.match_labels.iter().flatten().map(|(key, _)| key);
    let terms =
        selector.match_expressions.iter().flatten().filter(|term| matches!(term.operator.as_str(), "In" | "Exists"));
    keys.chain(terms.map(|term| &term.key)).find_map(|key| Some(format!("{key}={}", labels.get(key)?)))
}

fn matched(
    by_namespace: Option<&LabelSelector>,
    by_pod: Option<&LabelSelector>,
    namespace: &Labels,
    pod: &Labels,
) -> String {
    let everywhere = |label: &String| label.starts_with(NAME);
    match (deciding(by_namespace, namespace).filter(|label| !everywhere(label)), deciding(by_pod, pod)) {
        (Some(namespace), Some(pod)) => format!("namespace label {namespace} matches, and pod label {pod} matches"),
        (Some(namespace), None) => format!("namespace label {namespace} matches"),
        (None, Some(pod)) => format!("pod label {pod} matches"),
        (None, None) => "injection is on in all namespaces".to_owned(),
    }
}

/// The label of a pod that keeps a selector from selecting it.
fn hindering(selector: Option<&LabelSelector>, labels: &Labels) -> Option<String> {
    selector?.match_expressions.iter().flatten().find_map(|term| {
        let value = labels.get(&term.key)?;
        let hinders = match term.operator.as_str() {
            "DoesNotExist" => true,
            "NotIn" => term.values.iter().flatten().any(|unwanted| unwanted == value),
            _ => false,
        };
        hinders.then(|| format!("{}={value}", term.key))
    })
}

/// Whether a selector is that of a webhook that was switched off.
fn never(selector: Option<&LabelSelector>) -> bool {
    selector.is_some_and(|selector| selector.match_labels.iter().flatten().any(|(key, _)| key == DEACTIVATED))
}

/// The labels that a selector asks for.
fn wanted(selector: &LabelSelector) -> Vec<String> {
    let exact = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let terms = selector.match_expressions.iter().flatten().filter(|term| term.operator == "In");
    exact
        .chain(terms.flat_map(|term| term.values.iter().flatten().map(|value| format!("{}={value}", term.key))))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn term(key: &str, operator: &str, values: &[&str]) -> Value {
        if values.is_empty() {
            json!({"key": key, "operator": operator})
        } else {
            json!({"key": key, "operator": operator, "values": values})
        }
    }

    fn hook(name: &str, namespace: &[Value], pod: &[Value]) -> Value {
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {},
            "namespaceSelector": {"matchExpressions": namespace}, "objectSelector": {"matchExpressions": pod},
        })
    }

    /// The webhooks of a revision as Istio lays them out; the default one has those for `istio-injection`, too.
    fn configuration(name: &str, revision: &str, default: bool) -> MutatingWebhookConfiguration {
        let (rev, injection, inject) = ("istio.io/rev", "istio-injection", "sidecar.istio.io/inject");
        let wanted = term(inject, "NotIn", &["false"]);
        let mut hooks = vec![
            hook(
                "rev.namespace",
                &[term(rev, "In", &[revision]), term(injection, "DoesNotExist", &[])],
                std::slice::from_ref(&wanted),
            ),
            hook(
                "rev.object",
                &[term(rev, "DoesNotExist", &[]), term(injection, "DoesNotExist", &[])],
                &[wanted.clone(), term(rev, "In", &[revision])],
            ),
        ];
        if default {
            hooks.push(hook("namespace", &[term(injection, "In", &["enabled"])], &[wanted]));
            hooks.push(hook(
                "object",
                &[term(injection, "DoesNotExist", &[]), term(rev, "DoesNotExist", &[])],
                &[term(inject, "In", &["true"]), term(rev, "DoesNotExist", &[])],
            ));
        }
        let labels = json!({"istio.io/rev": revision, "app.kubernetes.io/managed-by": "lateen"});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "webhooks": hooks})).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn check(namespace: &[(&str, &str)], pod: &[(&str, &str)], default: (bool, &str), canary: (bool, &str)) {
        let both = [
            configuration("istio-sidecar-injector", "default", true),
            configuration("istio-sidecar-injector-canary", "canary", false),
        ];
        let verdicts = all(&both, &labels(pod), &labels(namespace));
        let found: Vec<(bool, &str)> = verdicts.iter().map(|one| (one.injected, one.reason.as_str())).collect();
        assert_eq!(found, [default, canary]);
        assert!(verdicts.iter().all(|verdict| verdict.ours));
    }

    const NO_DEFAULT: &str = "no matching namespace labels (istio.io/rev=default, istio-injection=enabled) or pod labels \
        (istio.io/rev=default, sidecar.istio.io/inject=true)";
    const NO_CANARY: &str = "no matching namespace labels (istio.io/rev=canary) or pod labels (istio.io/rev=canary)";

    #[test]
    fn labels_of_namespace_and_pod_choose_the_revision() {
        check(&[], &[], (false, NO_DEFAULT), (false, NO_CANARY));
        let by_namespace = "namespace label istio-injection=enabled matches";
        check(&[("istio-injection", "enabled")], &[], (true, by_namespace), (false, NO_CANARY));
        check(
            &[("istio.io/rev", "canary")],
            &[],
            (false, NO_DEFAULT),
            (true, "namespace label istio.io/rev=canary matches"),
        );
        check(
            &[],
            &[("istio.io/rev", "canary")],
            (false, "pod label istio.io/rev=canary prevents injection"),
            (true, "pod label istio.io/rev=canary matches"),
        );
        let by_pod = "pod label sidecar.istio.io/inject=true matches";
        check(&[], &[("sidecar.istio.io/inject", "true")], (true, by_pod), (false, NO_CANARY));
    }

    #[test]
    fn what_prevents_injection_is_named() {
        let no = "pod label sidecar.istio.io/inject=false prevents injection";
        check(
            &[("istio-injection", "enabled")],
            &[("sidecar.istio.io/inject", "false")],
            (false, no),
            (false, NO_CANARY),
        );
        let off = "namespace label istio-injection=disabled prevents injection";
        check(&[("istio-injection", "disabled")], &[("sidecar.istio.io/inject", "true")], (false, off), (false, off));
    }

    #[test]
    fn a_namespace_of_kubernetes_is_named() {
        let mut one = configuration("istio-sidecar-injector", "default", true);
        let system = term("kubernetes.io/metadata.name", "NotIn", &["kube-system"]);
        for webhook in one.webhooks.iter_mut().flatten() {
            let terms = webhook.namespace_selector.as_mut().unwrap().match_expressions.as_mut().unwrap();
            terms.push(serde_json::from_value(system.clone()).unwrap());
        }
        let namespace = labels(&[("istio-injection", "enabled"), ("kubernetes.io/metadata.name", "kube-system")]);
        let verdict = &all(&[one], &Labels::new(), &namespace)[0];
        assert_eq!(verdict.reason, "namespace label kubernetes.io/metadata.name=kube-system prevents injection");
    }

    #[test]
    fn a_webhook_that_is_switched_off_says_so() {
        let mut off = configuration("istio-sidecar-injector", "default", false);
        let never: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"istio.io/deactivated": "never-match"}})).unwrap();
        for webhook in off.webhooks.iter_mut().flatten() {
            webhook.namespace_selector = Some(never.clone());
            webhook.object_selector = Some(never.clone());
        }
        let verdict = &all(&[off], &Labels::new(), &Labels::new())[0];
        assert_eq!(
            (verdict.injected, verdict.reason.as_str()),
            (false, "the webhook is switched off: it never matches")
        );
    }

    #[test]
    fn other_webhooks_are_no_matter() {
        let mut other = configuration("cert-manager", "x", false);
        other.webhooks.iter_mut().flatten().for_each(|webhook| webhook.name = "webhook.cert-manager.io".to_owned());
        assert!(all(&[other], &Labels::new(), &Labels::new()).is_empty());
    }
}
