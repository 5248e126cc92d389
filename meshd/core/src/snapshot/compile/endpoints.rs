//! The endpoints of one namespace's services: slices, pods and workload entries joined.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::core::endpoint_slice::{Endpoint, EndpointSlice};
use mesh_api::crd::networking::workload_entry::WorkloadEntry;
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::{ClusterId, Name, Namespace, ObjectKey};
use mesh_api::labels::Labels;
use mesh_api::names::SERVICE_NAME_LABEL;
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::{Address, Locality};

use super::workload::{self, Facts};
use crate::snapshot::endpoints::{Instance, InstanceHealth, NamespaceEndpoints, ServedPort, ServiceEndpoints};
use crate::snapshot::services::{Port, Registry, Resolution, Service, TargetPort};
use crate::world::World;

/// Everything in a namespace that endpoints are made of.
struct Workloads<'a> {
    pods: BTreeMap<(&'a str, &'a ClusterId), Facts>,
    entries: Vec<Entry<'a>>,
    slices: HashMap<&'a str, Vec<(&'a ClusterId, &'a Object<EndpointSlice>)>>,
}

/// A workload entry.
struct Entry<'a> {
    spec: &'a WorkloadEntry,
    facts: Facts,
    /// The object that holds it, and where, for findings.
    key: ObjectKey,
    path: String,
}

/// Endpoints with what they say of their workload's identity.
#[derive(Default)]
struct Collected {
    ports: BTreeMap<u16, BTreeSet<Instance>>,
    accounts: BTreeSet<(Namespace, Name)>,
}

/// Joins the endpoints of all services of a namespace. What equals `prev` keeps its address.
pub(crate) fn endpoints<'a>(
    world: &World,
    namespace: &Namespace,
    services: impl Iterator<Item = &'a Arc<Service>>,
    prev: Option<&NamespaceEndpoints>,
) -> NamespaceEndpoints {
    let workloads = Workloads::of(world, namespace);
    let mut findings = Vec::new();
    let mut all = BTreeMap::new();
    let mut served: BTreeMap<IpAddr, BTreeSet<ServedPort>> = BTreeMap::new();
    for service in services {
        let mut into = Collected::default();
        match service.registry {
            Registry::Kubernetes => workloads.kube(service, &mut into, &mut findings),
            Registry::ServiceEntry => workloads.entry(world, service, &mut into, &mut findings),
        }
        for (port, instances) in &into.ports {
            for instance in instances {
                if let Address::Socket(address) = &instance.address {
                    served.entry(address.ip()).or_default().insert(ServedPort {
                        host: service.host.clone(),
                        port: *port,
                        target: address.port(),
                        pod: instance.pod.clone(),
                    });
                }
            }
        }
        let id = (service.key.clone(), service.host.clone());
        let old = prev.and_then(|prev| prev.services.get(&id));
        all.insert(id, into.into_endpoints(service, old));
    }
    let served = served.into_iter().map(|(ip, ports)| (ip, ports.into_iter().collect())).collect();
    NamespaceEndpoints { services: all, served, findings }
}

impl Collected {
    fn into_endpoints(self, service: &Service, old: Option<&Arc<ServiceEndpoints>>) -> Arc<ServiceEndpoints> {
        // Equal parts keep their addresses one by one: the endpoints of a port survive a change of another port, the
        // accounts survive a change of addresses.
        let ports = self.ports.into_iter().map(|(port, instances)| {
            // One endpoint an address: during a replacement two pods may be said to be there, of which a ready one counts.
            let mut instances: Vec<Instance> = instances.into_iter().collect();
            instances.sort_by(|a, b| (&a.address, a.health, a).cmp(&(&b.address, b.health, b)));
            instances.dedup_by(|later, first| later.address == first.address);
            once_per_pod(service, &mut instances);
            let instances: Arc<[Instance]> = instances.into();
            let same =
                old.and_then(|old| old.ports.iter().find(|(number, known)| *number == port && *known == instances));
            (port, same.map_or(instances, |(_, known)| Arc::clone(known)))
        });
        let accounts: Arc<[_]> = self.accounts.into_iter().collect();
        let same = old.filter(|old| old.accounts == accounts);
        let accounts = same.map_or(accounts, |old| Arc::clone(&old.accounts));
        let new = ServiceEndpoints { ports: ports.collect(), accounts };
        match old {
            Some(old) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        }
    }

    fn add(&mut self, port: u16, instance: Instance, facts: &Facts, namespace: &Namespace) {
        if !facts.account.is_empty() {
            self.accounts.insert((namespace.clone(), facts.account.clone()));
        }
        self.ports.entry(port).or_default().insert(instance);
    }
}

impl<'a> Workloads<'a> {
    fn of(world: &'a World, namespace: &Namespace) -> Self {
        let pods = world.pods.in_namespace(namespace).into_iter().flatten();
        let pods = pods.map(|((name, cluster), object)| {
            let node = object.spec.node_name.as_str();
            let node = world.nodes.of(cluster, "", node).map(|node| &node.meta.labels);
            ((name.as_str(), cluster), workload::pod(object, cluster, node))
        });
        let pods = pods.collect();
        let entries = world.workload_entries.in_namespace(namespace).into_iter().flatten();
        let entries = entries
            .map(|((name, cluster), object)| Entry {
                spec: &object.spec,
                facts: workload::entry(&object.spec, name, namespace, &object.meta.labels, cluster),
                key: object.key().in_cluster(cluster.clone()),
                path: "spec.address".to_owned(),
            })
            .collect();
        let mut slices: HashMap<&str, Vec<_>> = HashMap::new();
        for ((_, cluster), slice) in world.endpoint_slices.in_namespace(namespace).into_iter().flatten() {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME_LABEL) {
                slices.entry(service.as_str()).or_default().push((cluster, &**slice));
            }
        }
        Self { pods, entries, slices }
    }

    /// Endpoints of a Kubernetes Service: its slices, and the workload entries it selects.
    fn kube(&self, service: &Service, into: &mut Collected, findings: &mut Vec<Finding>) {
        for (cluster, slice) in self.slices.get(service.name.as_str()).into_iter().flatten() {
            if slice.spec.address_type == "FQDN" {
                let finding = Finding::new(Code::NotActing, "addressType", "FQDN endpoints are not used, as in Istio");
                findings.push(finding.on(slice.key().in_cluster((*cluster).clone())));
                continue;
            }
            for (index, endpoint) in slice.spec.endpoints.iter().enumerate() {
                self.slice_endpoint(service, (cluster, slice), (index, endpoint), into, findings);
            }
        }
        if let Some(selector) = &service.selector {
            for entry in self.entries.iter().filter(|entry| selector.matches(&entry.facts.labels)) {
                entry_endpoints(service, entry, into, findings);
            }
        }
    }

    fn slice_endpoint(
        &self,
        service: &Service,
        (cluster, slice): (&ClusterId, &Object<EndpointSlice>),
        (index, endpoint): (usize, &Endpoint),
        into: &mut Collected,
        findings: &mut Vec<Finding>,
    ) {
        let key = || slice.key().in_cluster(cluster.clone());
        if endpoint.conditions.terminating == Some(true) && !service.publish_not_ready {
            return;
        }
        let Some(address) = endpoint.addresses.first() else { return };
        let Ok(ip) = address.parse::<IpAddr>() else {
            let message = format!("{address:?} is not an address; the endpoint is left out");
            findings.push(Finding::new(Code::InvalidValue, format!("endpoints[{index}].addresses"), message).on(key()));
            return;
        };
        let facts = match endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod") {
            Some(target) => {
                let Some(facts) = self.pods.get(&(target.name.as_str(), cluster)) else {
                    // Without the pod nobody knows whether it takes mutual TLS; sending plaintext until then would fail
                    // at a server that demands it, so that the endpoint is held back until the pod is known.
                    let message = format!("the pod {} is not known; the endpoint waits for it", target.name);
                    let path = format!("endpoints[{index}].targetRef");
                    findings.push(Finding::new(Code::MissingReference, path, message).on(key()));
                    return;
                };
                facts.clone()
            }
            None => self.pods.values().find(|facts| facts.ips.contains(&ip)).cloned().unwrap_or_default(),
        };
        let ready = endpoint.is_ready() || service.publish_not_ready;
        for port in service.ports.iter() {
            let named = |p: &&mesh_api::crd::core::endpoint_slice::EndpointPort| p.name == port.name;
            let Some(target) = slice.spec.ports.iter().find(named).and_then(|p| p.port) else { continue };
            let Ok(target) = u16::try_from(target) else { continue };
            let mut locality = facts.locality.clone();
            if locality == Locality::default() {
                locality.zone = endpoint.zone.clone();
            }
            let mut instance = instance(Address::Socket(SocketAddr::new(ip, target)), &facts, 1, locality);
            instance.hostname = endpoint.hostname.clone();
            instance.health = if ready { InstanceHealth::Ready } else { InstanceHealth::NotReady };
            into.add(port.number, instance, &facts, &service.namespace);
        }
    }

    /// Endpoints of a ServiceEntry: those it selects, those it lists, or its own name.
    fn entry(&self, world: &World, service: &Service, into: &mut Collected, findings: &mut Vec<Finding>) {
        if let Some(selector) = &service.selector {
            for entry in self.entries.iter().filter(|entry| selector.matches(&entry.facts.labels)) {
                entry_endpoints(service, entry, into, findings);
            }
            let pods = self.pods.values().filter(|facts| facts.running && selector.matches(&facts.labels));
            for facts in pods {
                for (ip, port) in
                    facts.ips.iter().take(1).flat_map(|ip| service.ports.iter().map(move |port| (ip, port)))
                {
                    let Some(target) = target_port(port, &facts.ports) else { continue };
                    let address = Address::Socket(SocketAddr::new(*ip, target));
                    let instance = instance(address, facts, 1, facts.locality.clone());
                    into.add(port.number, instance, facts, &service.namespace);
                }
            }
            return;
        }
        let Some(object) = world.service_entries.in_namespace(&service.namespace) else { return };
        let Some(object) = object.get(&(service.key.name.clone(), service.key.cluster.clone())) else { return };
        for (index, spec) in object.spec.endpoints.iter().enumerate() {
            let (name, cluster) = (&service.key.name, &service.key.cluster);
            let facts = workload::entry(spec, name, &service.namespace, &Labels::default(), cluster);
            let path = format!("spec.endpoints[{index}].address");
            entry_endpoints(service, &Entry { spec, facts, key: service.key.clone(), path }, into, findings);
        }
        if object.spec.endpoints.is_empty() && service.resolution == Resolution::Dns {
            let spec = &WorkloadEntry { address: service.host.text().clone(), ..WorkloadEntry::default() };
            let (facts, path) = (Facts::default(), "spec.hosts".to_owned());
            entry_endpoints(service, &Entry { spec, facts, key: service.key.clone(), path }, into, findings);
        }
    }
}

/// Of a pod that a dual-stack service has twice, keeps the address of the service's first family: it is one endpoint, and
/// would get twice its share. Clients of a headless service choose the address themselves.
fn once_per_pod(service: &Service, instances: &mut Vec<Instance>) {
    let Some(first) = service.addresses.first() else { return };
    let is_first = |instance: &Instance| instance.ip().is_some_and(|ip| ip.is_ipv4() == first.address.is_ipv4());
    if instances.iter().all(is_first) {
        return;
    }
    let there: BTreeSet<Name> = instances.iter().filter(|i| is_first(i)).map(|i| i.pod.clone()).collect();
    instances.retain(|instance| instance.pod.is_empty() || is_first(instance) || !there.contains(&instance.pod));
}

fn entry_endpoints(service: &Service, entry: &Entry<'_>, into: &mut Collected, findings: &mut Vec<Finding>) {
    let Entry { spec, facts, key, path } = entry;
    for port in service.ports.iter() {
        let Some(target) = facts.ports.get(&port.name).copied().or_else(|| target_port(port, &facts.ports)) else {
            continue;
        };
        let address = match spec.address.parse::<IpAddr>() {
            Ok(ip) => Address::Socket(SocketAddr::new(ip, target)),
            Err(_) => match Hostname::parse(&spec.address) {
                Ok(host) if service.resolution == Resolution::Dns && !host.is_wildcard() => {
                    Address::Name(host.text().clone(), target)
                }
                _ => {
                    let message = format!("{:?} is not an address; {} does without it", spec.address, service.host);
                    let finding = Finding::new(Code::InvalidValue, path.as_str(), message).on(key.clone());
                    findings.push(finding.hint("names need resolution DNS; unix sockets do not act yet"));
                    return;
                }
            },
        };
        let instance = instance(address, facts, spec.weight.max(1), facts.locality.clone());
        into.add(port.number, instance, facts, &service.namespace);
    }
}

fn target_port(port: &Port, named: &HashMap<Str, u16>) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Named(name) => named.get(name).copied(),
    }
}

fn instance(address: Address, facts: &Facts, weight: u32, locality: Locality) -> Instance {
    Instance {
        address,
        pod: facts.name.clone(),
        hostname: Str::empty(),
        labels: facts.labels.clone(),
        health: InstanceHealth::Ready,
        mesh_tls: facts.mesh_tls,
        locality,
        weight,
        workload: facts.workload.clone(),
    }
}
