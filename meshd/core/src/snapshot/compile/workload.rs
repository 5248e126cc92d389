//! Pods and WorkloadEntries as endpoints see them.

use std::collections::HashMap;
use std::net::IpAddr;

use mesh_api::crd::core::pod::Pod;
use mesh_api::crd::networking::workload_entry::WorkloadEntry;
use mesh_api::ids::{ClusterId, Name, Namespace};
use mesh_api::labels::Labels;
use mesh_api::names::{
    APP_LABEL, CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL, K8S_APP_NAME_LABEL, K8S_APP_VERSION_LABEL,
    LOCALITY_LABEL, TLS_MODE_LABEL, VERSION_LABEL, WORKLOAD_NAME_LABEL,
};
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;

use crate::snapshot::endpoints::Workload;

/// Annotation that the injector leaves on a pod with a sidecar.
const SIDECAR_STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Newer name of the locality label.
const TOPOLOGY_LOCALITY_LABEL: &str = "topology.istio.io/locality";
/// Hash in the names of a Deployment's pods.
const POD_TEMPLATE_HASH_LABEL: &str = "pod-template-hash";
/// Region of a node, in its present form and its old one.
const REGION_LABELS: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
/// Zone of a node, likewise.
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
/// Part of a zone, which only Istio knows.
const SUBZONE_LABEL: &str = "topology.istio.io/subzone";
/// Set by StatefulSets.
const STATEFUL_SET_POD_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// What an endpoint takes over from its workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Pod or entry name.
    pub(crate) name: Name,
    /// Labels.
    pub(crate) labels: Labels,
    /// Service account; empty when unknown.
    pub(crate) account: Name,
    /// It takes mesh TLS.
    pub(crate) mesh_tls: bool,
    /// Where it is.
    pub(crate) locality: Locality,
    /// For metrics.
    pub(crate) workload: Workload,
    /// Container ports by name.
    pub(crate) ports: HashMap<Str, u16>,
    /// Addresses.
    pub(crate) ips: Vec<IpAddr>,
    /// Whether it is alive and wants to be an endpoint.
    pub(crate) running: bool,
}

/// Facts of a pod; `node` are the labels of the node it is on.
pub(crate) fn pod(object: &Object<Pod>, cluster: &ClusterId, node: Option<&Labels>) -> Facts {
    let labels = object.meta.labels.clone();
    let tls_mode = labels.get(TLS_MODE_LABEL).map(Str::as_str);
    let injected = object.meta.annotations.contains_key(SIDECAR_STATUS_ANNOTATION);
    let status = object.status.clone().unwrap_or_default();
    let ips = status.pod_ips.iter().map(|ip| &ip.ip).chain([&status.pod_ip]);
    let named = object.spec.containers.iter().flat_map(|container| &container.ports);
    let name = pod_workload(&object.meta.name, &labels);
    Facts {
        account: Name::from(object.spec.service_account()),
        mesh_tls: tls_mode == Some("istio") || (tls_mode.is_none() && injected),
        locality: locality(&labels).or_else(|| node.map(node_locality)).unwrap_or_default(),
        workload: workload(name, &object.meta.namespace, &labels, cluster),
        ports: named.filter_map(|port| Some((port.name.clone(), u16::try_from(port.container_port).ok()?))).collect(),
        ips: ips.filter_map(|ip| ip.parse().ok()).collect(),
        running: !matches!(status.phase.as_str(), "Succeeded" | "Failed"),
        name: object.meta.name.clone(),
        labels,
    }
}

/// Facts of a workload entry; `name` is that of the object that holds it.
pub(crate) fn entry(
    entry: &WorkloadEntry,
    name: &Name,
    namespace: &Namespace,
    meta: &Labels,
    cluster: &ClusterId,
) -> Facts {
    let labels = entry.labels.merged(meta);
    let mesh_tls = match labels.get(TLS_MODE_LABEL).map(Str::as_str) {
        Some(mode) => mode == "istio",
        None => !entry.service_account.is_empty(),
    };
    let workload_name = labels.get(WORKLOAD_NAME_LABEL).cloned().unwrap_or_else(|| name.0.clone());
    let locality =
        if entry.locality.is_empty() { locality(&labels) } else { Some(parse_locality(&entry.locality, '/')) };
    Facts {
        name: name.clone(),
        account: Name::from(&entry.service_account),
        mesh_tls,
        locality: locality.unwrap_or_default(),
        workload: workload(workload_name, namespace, &labels, cluster),
        ports: entry.ports.iter().filter_map(|(name, port)| Some((name.clone(), u16::try_from(*port).ok()?))).collect(),
        ips: entry.address.parse().ok().into_iter().collect(),
        running: true,
        labels,
    }
}

fn workload(name: Str, namespace: &Namespace, labels: &Labels, cluster: &ClusterId) -> Workload {
    let first = |keys: [&str; 3]| keys.into_iter().find_map(|key| labels.get(key).cloned());
    Workload {
        service: first([CANONICAL_NAME_LABEL, K8S_APP_NAME_LABEL, APP_LABEL]).unwrap_or_else(|| name.clone()),
        revision: first([CANONICAL_REVISION_LABEL, K8S_APP_VERSION_LABEL, VERSION_LABEL])
            .unwrap_or_else(|| Str::from("latest")),
        name,
        namespace: namespace.0.clone(),
        cluster: cluster.0.clone(),
    }
}

/// The name of what made a pod, as far as its own labels tell: the Deployment or the StatefulSet.
fn pod_workload(pod: &Name, labels: &Labels) -> Str {
    if let Some(name) = labels.get(WORKLOAD_NAME_LABEL) {
        return name.clone();
    }
    if let Some(hash) = labels.get(POD_TEMPLATE_HASH_LABEL)
        && let Some((deployment, _)) = pod.split_once(&format!("-{hash}"))
    {
        return Str::from(deployment);
    }
    match pod.rsplit_once('-') {
        Some((set, _)) if labels.contains_key(STATEFUL_SET_POD_LABEL) => Str::from(set),
        _ => pod.0.clone(),
    }
}

fn locality(labels: &Labels) -> Option<Locality> {
    let text = labels.get(TOPOLOGY_LOCALITY_LABEL).or_else(|| labels.get(LOCALITY_LABEL))?;
    // A label cannot hold a slash, so that Istio writes dots, unless somebody wrote slashes all the same.
    Some(parse_locality(text, if text.contains('/') { '/' } else { '.' }))
}

/// Where a node is, as its provider labels it.
fn node_locality(labels: &Labels) -> Locality {
    let first = |keys: [&str; 2]| keys.into_iter().find_map(|key| labels.get(key).cloned()).unwrap_or_default();
    Locality {
        region: first(REGION_LABELS),
        zone: first(ZONE_LABELS),
        subzone: labels.get(SUBZONE_LABEL).cloned().unwrap_or_default(),
    }
}

/// `region/zone/subzone`, with what is missing left empty.
pub(crate) fn parse_locality(text: &str, separator: char) -> Locality {
    let mut parts = text.splitn(3, separator).map(Str::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality { region: next(), zone: next(), subzone: next() }
}

#[cfg(test)]
mod tests {
    use mesh_api::meta::Meta;

    use super::*;

    fn mk_pod(name: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Object<Pod> {
        let mut meta = Meta::new("shop", name);
        meta.labels = labels.iter().copied().collect();
        meta.annotations = annotations.iter().copied().collect();
        Object::new(meta, Pod::default())
    }

    #[test]
    fn mesh_tls_follows_the_label_then_the_sidecar() {
        let check = |labels: &[(&str, &str)], annotations: &[(&str, &str)], expect: bool| {
            assert_eq!(pod(&mk_pod("a", labels, annotations), &ClusterId::default(), None).mesh_tls, expect);
        };
        check(&[], &[], false);
        check(&[(TLS_MODE_LABEL, "istio")], &[], true);
        check(&[], &[(SIDECAR_STATUS_ANNOTATION, "{}")], true);
        check(&[(TLS_MODE_LABEL, "disabled")], &[(SIDECAR_STATUS_ANNOTATION, "{}")], false);
    }

    #[test]
    fn a_pod_is_named_after_what_made_it() {
        let check = |name: &str, labels: &[(&str, &str)], expect: &str| {
            assert_eq!(pod(&mk_pod(name, labels, &[]), &ClusterId::default(), None).workload.name, expect);
        };
        check("web-5d4f8-abcde", &[(POD_TEMPLATE_HASH_LABEL, "5d4f8")], "web");
        check("db-0", &[(STATEFUL_SET_POD_LABEL, "db-0")], "db");
        check("plain-x", &[], "plain-x");
        check("x-5d4f8-abcde", &[(POD_TEMPLATE_HASH_LABEL, "5d4f8"), (WORKLOAD_NAME_LABEL, "web")], "web");
    }

    #[test]
    fn localities_are_read_from_labels_and_entries() {
        let expect = Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() };
        let node = Labels::from([("topology.kubernetes.io/region", "r2"), (ZONE_LABELS[1], "z2")]);
        let placed =
            |labels: &[(&str, &str)]| pod(&mk_pod("a", labels, &[]), &ClusterId::default(), Some(&node)).locality;
        assert_eq!(placed(&[(LOCALITY_LABEL, "r.z.s")]), expect);
        assert_eq!(placed(&[]), Locality { region: "r2".into(), zone: "z2".into(), subzone: Str::empty() });
        let spec = WorkloadEntry { locality: "r/z".into(), ..WorkloadEntry::default() };
        let facts = entry(&spec, &Name::from("a"), &Namespace::from("b"), &Labels::default(), &ClusterId::default());
        assert_eq!(facts.locality, Locality { subzone: Str::empty(), ..expect });
    }
}
