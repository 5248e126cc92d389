//! The user and group that the proxy runs as. istio/istio: pkg/kube/inject/openshift.go.

use serde_json::Value;

use super::{Facts, INIT_CONTAINER, PROXY_CONTAINER, VALIDATION_CONTAINER, view};

/// The proxy's user and group unless the platform gives others.
const PROXY_ID: u32 = 1337;
/// Containers of the mesh's own.
const OF_MESH: [&str; 3] = [PROXY_CONTAINER, INIT_CONTAINER, VALIDATION_CONTAINER];
/// Annotations of OpenShift's namespaces: which users and groups pods may have.
const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// User and group of the proxy: 1337, or the last of those that OpenShift gave to the namespace.
pub(super) fn proxy_ids(facts: &Facts) -> (u32, u32) {
    let range = |name: &str| facts.namespace_annotations.get(name).map(String::as_str);
    let uid = range(UID_RANGE).and_then(last).unwrap_or(PROXY_ID);
    let groups = range(GROUPS).or_else(|| range(UID_RANGE));
    let gid = groups.and_then(|list| list.split(',').next()).and_then(last).unwrap_or(PROXY_ID);
    (uid, gid)
}

/// What to know about applications that run as the proxy's user or group: the rules take their traffic for the proxy's, and
/// leave it alone. Istio says nothing of it here; `istioctl analyze` tells IST0144.
pub(super) fn shared_ids(pod: &Value, (uid, gid): (u32, u32)) -> Vec<String> {
    let has = |of: &Value, field: &str, id: u32| {
        of.pointer("/securityContext").and_then(|context| context.get(field)).and_then(Value::as_u64) == Some(id.into())
    };
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut warnings = Vec::new();
    for container in view::all_containers(pod).filter(|container| !OF_MESH.contains(&view::name(container))) {
        for (field, word, id) in [("runAsUser", "user", uid), ("runAsGroup", "group", gid)] {
            let own = container.pointer("/securityContext").and_then(|context| context.get(field));
            if has(container, field, id) || (own.is_none() && has(spec, field, id)) {
                warnings.push(format!(
                    "container {:?} runs as {word} {id}, the proxy's: its traffic passes the mesh by; give it another {word}",
                    view::name(container)
                ));
            }
        }
    }
    warnings
}

/// The last id of a block, `START/SIZE` or `START-END`.
fn last(block: &str) -> Option<u32> {
    if let Some((start, size)) = block.split_once('/') {
        let (start, size): (u32, u32) = (start.parse().ok()?, size.parse().ok()?);
        return start.checked_add(size.checked_sub(1)?);
    }
    block.split_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_the_proxys_ids_is_told() {
        let pod = serde_json::json!({ "spec": {
            "securityContext": { "runAsGroup": 1337 },
            "initContainers": [{ "name": "istio-init", "securityContext": { "runAsUser": 1337 } }],
            "containers": [
                { "name": "web", "securityContext": { "runAsUser": 1337 } },
                { "name": "own", "securityContext": { "runAsGroup": 1 } },
                { "name": "istio-proxy", "securityContext": { "runAsUser": 1337 } },
            ],
        } });
        let warnings = shared_ids(&pod, (1337, 1337));
        let start: Vec<&str> = warnings.iter().filter_map(|warning| warning.split(',').next()).collect();
        assert_eq!(start, ["container \"web\" runs as user 1337", "container \"web\" runs as group 1337"]);
        assert!(shared_ids(&pod, (5, 5)).is_empty());
    }

    #[test]
    fn the_last_id_of_the_namespace_is_the_proxys() {
        let mut facts = Facts::default();
        assert_eq!(proxy_ids(&facts), (1337, 1337));
        facts.namespace_annotations.insert(UID_RANGE.to_owned(), "1000620000/10000".to_owned());
        assert_eq!(proxy_ids(&facts), (1_000_629_999, 1_000_629_999));
        facts.namespace_annotations.insert(GROUPS.to_owned(), "100-199,300-399".to_owned());
        assert_eq!(proxy_ids(&facts), (1_000_629_999, 199));
    }
}
