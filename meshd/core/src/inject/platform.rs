//! The user and group that the proxy runs as. istio/istio: pkg/kube/inject/openshift.go.

use super::Facts;

/// The proxy's user and group unless the platform gives others.
const PROXY_ID: u32 = 1337;
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
    fn the_last_id_of_the_namespace_is_the_proxys() {
        let mut facts = Facts::default();
        assert_eq!(proxy_ids(&facts), (1337, 1337));
        facts.namespace_annotations.insert(UID_RANGE.to_owned(), "1000620000/10000".to_owned());
        assert_eq!(proxy_ids(&facts), (1_000_629_999, 1_000_629_999));
        facts.namespace_annotations.insert(GROUPS.to_owned(), "100-199,300-399".to_owned());
        assert_eq!(proxy_ids(&facts), (1_000_629_999, 199));
    }
}
