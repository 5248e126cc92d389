//! Virtual addresses for ServiceEntries that name none, so that each host can be told from others by address and DNS capture
//! has something to answer. istio/istio: pilot/pkg/networking/serviceentry ipallocate. Pure: the shell writes the outcome into
//! `status.addresses`.
//!
//! An address that is in a status stays there: clients hold it. A new one begins at a place that follows from namespace and
//! host, so that replicas, and a control plane that starts anew, come to the same. Two that hold the same address (written
//! by two control planes at once) are told apart by age: the older keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_api::crd::networking::service_entry::{AllocatedAddress, Resolution, ServiceEntry};
use mesh_api::meta::Meta;
use mesh_api::object::Object;
use mesh_api::text::Str;

/// The label that says `false` where no address is wanted, and `true` where one is by exception.
pub const LABEL: &str = "networking.istio.io/enable-autoallocate-ip";
/// First address of each range; Istio's `PILOT_IP_AUTOALLOCATE_IPV4_PREFIX` 240.240.0.0/16 and `…_IPV6_PREFIX` 2001:2::/48.
const V4: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
/// Addresses of a range that are given away: all of the last sixteen bits but the first and the last.
const SIZE: u32 = (1 << 16) - 2;

/// An entry whose addresses change.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// All of its addresses, as they shall be.
    pub addresses: Vec<AllocatedAddress>,
}

/// Whether an entry gets addresses: it names none, has endpoints of some kind, and does not object.
#[must_use]
pub fn wants(entry: &Object<ServiceEntry>) -> bool {
    let ServiceEntry { addresses, resolution, hosts, .. } = &entry.spec;
    if entry.meta.labels.get(LABEL).is_some_and(|value| value.eq_ignore_ascii_case("false")) {
        return false;
    }
    addresses.is_empty() && *resolution != Resolution::None && hosts.iter().any(|host| gets_one(resolution, host))
}

/// A wildcard stands for many hosts; only one that is resolved by the name in the request can do with one address.
fn gets_one(resolution: &Resolution, host: &str) -> bool {
    !host.starts_with('*') || *resolution == Resolution::DynamicDns
}

/// The entries whose addresses must be written, out of all. The order of `entries` does not matter.
#[must_use]
pub fn allocate<'a>(entries: impl IntoIterator<Item = &'a Object<ServiceEntry>>) -> Vec<Allocation> {
    let mut entries: Vec<&Object<ServiceEntry>> = entries.into_iter().filter(|entry| wants(entry)).collect();
    entries.sort_by(|a, b| Meta::by_age(&a.meta, &b.meta));
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    // First all that is kept, so that nothing new lands on it.
    let kept: Vec<BTreeMap<(&Str, bool), IpAddr>> = entries.iter().map(|entry| keep(entry, &mut taken)).collect();
    let mut changed = Vec::new();
    for (entry, kept) in entries.iter().zip(kept) {
        let mut addresses = Vec::new();
        for host in entry.spec.hosts.iter().filter(|host| gets_one(&entry.spec.resolution, host)) {
            for v6 in [false, true] {
                let found = kept.get(&(host, v6)).copied();
                if let Some(ip) = found.or_else(|| next(&entry.meta.namespace, host, v6, &mut taken)) {
                    addresses.push(AllocatedAddress { value: Str::from(ip.to_string()), host: host.clone() });
                }
            }
        }
        let now = entry.status.as_ref().map(|status| status.addresses.as_slice()).unwrap_or_default();
        if now != addresses {
            let (namespace, name) = (entry.meta.namespace.as_str(), entry.meta.name.as_str());
            changed.push(Allocation { namespace: namespace.into(), name: name.into(), addresses });
        }
    }
    changed
}

/// The addresses that an entry has and nobody older has: by host and family.
fn keep<'a>(entry: &'a Object<ServiceEntry>, taken: &mut BTreeSet<IpAddr>) -> BTreeMap<(&'a Str, bool), IpAddr> {
    let mut kept = BTreeMap::new();
    for address in entry.status.iter().flat_map(|status| &status.addresses) {
        let Ok(ip) = address.value.parse::<IpAddr>() else { continue };
        let host = entry.spec.hosts.iter().find(|host| **host == address.host);
        let Some(host) = host.filter(|host| !kept.contains_key(&(*host, ip.is_ipv6()))) else { continue };
        if taken.insert(ip) {
            kept.insert((host, ip.is_ipv6()), ip);
        }
    }
    kept
}

/// A free address; `None` when the range is full.
fn next(namespace: &str, host: &str, v6: bool, taken: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
    let begin = hash(namespace, host) % SIZE;
    let ip = (0..SIZE).map(|step| at((begin + step) % SIZE, v6)).find(|ip| !taken.contains(ip))?;
    taken.insert(ip);
    Some(ip)
}

fn at(index: u32, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from(u128::from(V6) + u128::from(index) + 1).into()
    } else {
        Ipv4Addr::from(u32::from(V4) + index + 1).into()
    }
}

/// FNV-1a (draft-eastlake-fnv): the same on every machine and in every release.
fn hash(namespace: &str, host: &str) -> u32 {
    let bytes = namespace.bytes().chain([b'/']).chain(host.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use mesh_api::crd::networking::service_entry::ServiceEntryStatus;
    use mesh_api::meta::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn mk_entry(name: &str, created: i64, hosts: &[&str]) -> Object<ServiceEntry> {
        let hosts = hosts.iter().map(|host| Str::from(*host)).collect();
        let spec = ServiceEntry { hosts, resolution: Resolution::Dns, ..ServiceEntry::default() };
        let meta = Meta { creation_timestamp: Some(Timestamp(created)), ..Meta::new("shop", name) };
        Object::new(meta, spec)
    }

    fn with(mut entry: Object<ServiceEntry>, allocation: &Allocation) -> Object<ServiceEntry> {
        entry.status = Some(ServiceEntryStatus { addresses: allocation.addresses.clone(), ..Default::default() });
        entry
    }

    #[test]
    fn each_host_gets_an_address_of_each_family_and_keeps_it() {
        let entry = mk_entry("a", 1, &["a.example", "b.example", "*.example"]);
        let [allocation] = allocate([&entry]).try_into().unwrap();
        let hosts: Vec<&str> = allocation.addresses.iter().map(|address| address.host.as_str()).collect();
        assert_eq!(hosts, ["a.example", "a.example", "b.example", "b.example"]);
        let (v4, v6) = (&allocation.addresses[0].value, &allocation.addresses[1].value);
        assert!(v4.starts_with("240.240.") && v6.starts_with("2001:2::"), "{v4} {v6}");
        let written = with(entry, &allocation);
        assert!(allocate([&written]).is_empty());
        let more = mk_entry("b", 0, &["c.example"]);
        assert_eq!(allocate([&more, &written]).len(), 1, "an older newcomer changes nothing for it");
    }

    #[test]
    fn who_names_addresses_or_wants_none_gets_none() {
        let plain = || mk_entry("a", 1, &["a.example"]);
        assert!(wants(&plain()));
        let mut entry = plain();
        entry.spec.addresses = vec!["10.0.0.1".into()];
        assert!(!wants(&entry));
        let mut entry = plain();
        entry.spec.resolution = Resolution::None;
        assert!(!wants(&entry));
        let mut entry = plain();
        entry.meta.labels = serde_json::from_value(serde_json::json!({LABEL: "false"})).unwrap();
        assert!(!wants(&entry));
        assert!(!wants(&mk_entry("a", 1, &["*.example"])));
        let mut entry = mk_entry("a", 1, &["*.example"]);
        entry.spec.resolution = Resolution::DynamicDns;
        assert!(wants(&entry));
    }

    #[test]
    fn of_two_with_one_address_the_older_keeps_it() {
        let first = mk_entry("a", 1, &["a.example"]);
        let [allocation] = allocate([&first]).try_into().unwrap();
        let first = with(first, &allocation);
        let mut theirs = allocation.clone();
        theirs.addresses.iter_mut().for_each(|address| address.host = "b.example".into());
        let second = with(mk_entry("b", 2, &["b.example"]), &theirs);
        let [changed] = allocate([&second, &first]).try_into().unwrap();
        assert_eq!(changed.name, "b");
        assert!(changed.addresses.iter().all(|address| !allocation.addresses.iter().any(|a| a.value == address.value)));
    }

    proptest! {
        #[test]
        fn addresses_are_unique_and_the_order_does_not_matter(count in 1_usize..400, seed in any::<u64>()) {
            let mut entries: Vec<_> = (0..count).map(|n| mk_entry(&format!("e{n}"), 1, &[&format!("h{n}.example")])).collect();
            let expect = allocate(&entries);
            let values: BTreeSet<&str> = expect.iter().flat_map(|a| &a.addresses).map(|a| a.value.as_str()).collect();
            prop_assert_eq!(values.len(), count * 2);
            let turn = usize::try_from(seed % 400).unwrap_or_default() % count;
            entries.rotate_left(turn);
            prop_assert_eq!(allocate(&entries), expect);
        }
    }
}
