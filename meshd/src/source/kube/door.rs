//! What comes in of an object, and what stays outside: a mesh holds tens of thousands of them, and what nobody reads costs
//! memory and makes objects look different that are not.

use std::sync::Arc;

use mesh_api::crd::core::pod::PodStatus;
use mesh_api::kinds::Kind;
use mesh_api::labels::Labels;
use mesh_api::meta::Meta;
use mesh_api::names::SERVICE_NAME_LABEL;
use mesh_api::object::AnyObject;

/// The whole object once more, as `kubectl apply` keeps it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Contents of Secrets that gateways and destinations use: certificates, keys, roots, revocation lists. What has none of
/// them is none of ours, and keys of authorities have other names.
const CREDENTIAL_KEYS: [&str; 8] = ["tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"];
/// Types of Secrets that are no credentials of proxies, so that they are not even asked for.
const FOREIGN_SECRETS: [&str; 7] = [
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
    "kubernetes.io/basic-auth",
    "kubernetes.io/dockercfg",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/service-account-token",
    "kubernetes.io/ssh-auth",
];
/// Labels of nodes that say where they are.
const TOPOLOGY_PREFIXES: [&str; 3] =
    ["topology.kubernetes.io/", "topology.istio.io/", "failure-domain.beta.kubernetes.io/"];

/// Which objects of a kind are asked for, in the notation of field selectors; `None` is all.
pub(super) fn field_selector(kind: Kind) -> Option<String> {
    match kind {
        Kind::Secret => Some(FOREIGN_SECRETS.map(|foreign| format!("type!={foreign}")).join(",")),
        _ => None,
    }
}

/// Takes from an object what nobody reads. `false` when nothing of it is of use.
pub(super) fn admit(object: &mut AnyObject) -> bool {
    let meta = object.meta_mut();
    meta.resource_version = mesh_api::text::Str::default();
    if meta.annotations.contains_key(LAST_APPLIED) {
        meta.annotations = kept(&meta.annotations, |key| key != LAST_APPLIED);
    }
    match object {
        AnyObject::Pod(pod) => {
            let pod = Arc::make_mut(pod);
            istios_annotations(&mut pod.meta);
            let status = pod.status.get_or_insert_default();
            // Probes change conditions all the time; readiness comes with the endpoints.
            status.conditions = Vec::new();
            !is_over(status)
        }
        AnyObject::EndpointSlice(slice) => {
            let slice = Arc::make_mut(slice);
            slice.meta.annotations = Labels::default();
            slice.meta.labels = kept(&slice.meta.labels, |key| key == SERVICE_NAME_LABEL);
            slice.meta.labels.contains_key(SERVICE_NAME_LABEL)
        }
        AnyObject::Node(node) => {
            let node = Arc::make_mut(node);
            node.meta.annotations = Labels::default();
            node.meta.labels =
                kept(&node.meta.labels, |key| TOPOLOGY_PREFIXES.iter().any(|prefix| key.starts_with(prefix)));
            true
        }
        AnyObject::Namespace(namespace) => {
            istios_annotations(&mut Arc::make_mut(namespace).meta);
            true
        }
        AnyObject::Secret(secret) => {
            let secret = Arc::make_mut(secret);
            secret.meta.annotations = Labels::default();
            secret.spec.data.retain(|key, _| CREDENTIAL_KEYS.contains(&key.as_str()));
            !secret.spec.data.is_empty()
        }
        AnyObject::Service(_)
        | AnyObject::Ingress(_)
        | AnyObject::IngressClass(_)
        | AnyObject::ConfigMap(_)
        | AnyObject::VirtualService(_)
        | AnyObject::DestinationRule(_)
        | AnyObject::Gateway(_)
        | AnyObject::ServiceEntry(_)
        | AnyObject::WorkloadEntry(_)
        | AnyObject::WorkloadGroup(_)
        | AnyObject::ProxyConfig(_)
        | AnyObject::Sidecar(_)
        | AnyObject::PeerAuthentication(_)
        | AnyObject::AuthorizationPolicy(_) => true,
    }
}

/// Whether a pod has ended for good: its address may be another's by now.
fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase.as_str(), "Succeeded" | "Failed")
}

fn istios_annotations(meta: &mut Meta) {
    meta.annotations =
        kept(&meta.annotations, |key| key.split_once('/').is_some_and(|(at, _)| at.ends_with("istio.io")));
}

fn kept(labels: &Labels, keep: impl Fn(&str) -> bool) -> Labels {
    labels.iter().filter(|(key, _)| keep(key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use mesh_api::received::received;

    use super::*;

    #[track_caller]
    fn admitted(kind: Kind, json: &str) -> Option<String> {
        let mut object = received(kind, json).unwrap().object;
        admit(&mut object).then(|| serde_json::to_string(&object).unwrap())
    }

    #[test]
    fn what_nobody_reads_stays_outside() {
        let pod = admitted(
            Kind::Pod,
            r#"{"metadata":{"name":"p","resourceVersion":"7","annotations":{"sidecar.istio.io/status":"{}","cni/ip":"x",
                "kubectl.kubernetes.io/last-applied-configuration":"all"},"managedFields":[{"x":1}]},
                "spec":{"volumes":[]},"status":{"podIP":"10.0.0.1","phase":"Running",
                "conditions":[{"type":"Ready","status":"True"}]}}"#,
        );
        assert_eq!(
            pod.unwrap(),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","annotations":{"sidecar.istio.io/status":"{}"}},"spec":{},"status":{"podIP":"10.0.0.1","phase":"Running"}}"#
        );
        let slice = r#"{"metadata":{"name":"s","labels":{"kubernetes.io/service-name":"web","x":"y"},
            "annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"now"}},"addressType":"IPv4"}"#;
        let slice = admitted(Kind::EndpointSlice, slice).unwrap();
        assert!(slice.contains("service-name") && !slice.contains("trigger") && !slice.contains("\"x\""), "{slice}");
        let node = r#"{"metadata":{"name":"n","labels":{"topology.kubernetes.io/zone":"z","kubernetes.io/os":"linux"},
            "annotations":{"heart":"beat"}},"status":{"conditions":[]}}"#;
        let node = admitted(Kind::Node, node).unwrap();
        assert!(node.contains("\"z\"") && !node.contains("linux") && !node.contains("beat"), "{node}");
    }

    #[test]
    fn what_is_of_no_use_is_not_kept() {
        assert_eq!(admitted(Kind::Pod, r#"{"metadata":{"name":"job"},"status":{"phase":"Succeeded"}}"#), None);
        assert_eq!(admitted(Kind::EndpointSlice, r#"{"metadata":{"name":"orphan"}}"#), None);
        assert_eq!(admitted(Kind::Secret, r#"{"metadata":{"name":"s"},"data":{"password":"eA=="}}"#), None);
    }

    #[test]
    fn of_secrets_only_credentials_come_in() {
        let secret =
            r#"{"metadata":{"name":"s","annotations":{"a":"b"}},"data":{"tls.crt":"eA==","ca-key.pem":"eQ=="}}"#;
        let secret = admitted(Kind::Secret, secret).unwrap();
        assert!(secret.contains("eA==") && !secret.contains("eQ==") && !secret.contains("\"a\""), "{secret}");
        let selector = field_selector(Kind::Secret).unwrap();
        assert!(selector.starts_with("type!=") && selector.matches("type!=").count() == FOREIGN_SECRETS.len());
        assert_eq!(field_selector(Kind::Pod), None);
    }
}
