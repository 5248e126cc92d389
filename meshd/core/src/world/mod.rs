//! Everything the sources said, as it is now. Mutable, with one owner: the hub.
//!
//! The world keeps objects as they came and decides nothing about them; that is the snapshot's work. Its content depends only
//! on the objects that are there, never on the order in which they came.

mod change;
mod place;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::crd::core::config_map::ConfigMap;
use mesh_api::crd::core::endpoint_slice::EndpointSlice;
use mesh_api::crd::core::ingress::{Ingress, IngressClass};
use mesh_api::crd::core::namespace::Namespace;
use mesh_api::crd::core::node::Node;
use mesh_api::crd::core::pod::Pod;
use mesh_api::crd::core::secret::Secret;
use mesh_api::crd::core::service::Service;
use mesh_api::crd::networking::destination_rule::DestinationRule;
use mesh_api::crd::networking::gateway::Gateway;
use mesh_api::crd::networking::proxy_config::ProxyConfig;
use mesh_api::crd::networking::service_entry::ServiceEntry;
use mesh_api::crd::networking::sidecar::Sidecar;
use mesh_api::crd::networking::virtual_service::VirtualService;
use mesh_api::crd::networking::workload_entry::WorkloadEntry;
use mesh_api::crd::networking::workload_group::WorkloadGroup;
use mesh_api::crd::security::authorization_policy::AuthorizationPolicy;
use mesh_api::crd::security::peer_authentication::PeerAuthentication;
use mesh_api::finding::Finding;
use mesh_api::ids::{ClusterId, ObjectKey};
use mesh_api::kinds::Kind;
use mesh_api::mesh_config::MeshConfig;
use mesh_api::names::MESH_CONFIG_KEY;
use mesh_api::object::AnyObject;
use mesh_api::object::Object;
use mesh_api::text::Str;

pub use change::{Change, ChangeSet};
pub use place::MeshConfigPlace;
pub use table::{InNamespace, Table};

macro_rules! world {
    ($( $(#[$doc:meta])* $field:ident: $kind:ident, )*) => {
        /// All objects.
        #[derive(Clone, Debug, Default)]
        pub struct World {
            $( $(#[$doc])* pub $field: Table<$kind>, )*
            /// Where the mesh configuration is.
            pub mesh_config: MeshConfigPlace,
            findings: BTreeMap<Str, Vec<Finding>>,
        }

        impl World {
            fn upsert(&mut self, cluster: &ClusterId, object: AnyObject) -> bool {
                match object {
                    $( AnyObject::$kind(object) => self.$field.upsert(cluster, object), )*
                }
            }

            fn delete(&mut self, key: &ObjectKey) -> bool {
                match key.kind {
                    $( Kind::$kind => self.$field.delete(key), )*
                }
            }

            fn keys_of(&self, cluster: &ClusterId, kind: Kind) -> Vec<ObjectKey> {
                match kind {
                    $( Kind::$kind => self.$field.keys_of(cluster), )*
                }
            }
        }
    };
}

world! {
    /// Kubernetes Services.
    services: Service,
    /// Their endpoints.
    endpoint_slices: EndpointSlice,
    /// Workloads.
    pods: Pod,
    /// Namespaces.
    namespaces: Namespace,
    /// Machines.
    nodes: Node,
    /// Ways into the cluster.
    ingresses: Ingress,
    /// Who serves them.
    ingress_classes: IngressClass,
    /// Keys and certificates.
    secrets: Secret,
    /// Mesh configuration.
    config_maps: ConfigMap,
    /// Routes.
    virtual_services: VirtualService,
    /// Traffic policies.
    destination_rules: DestinationRule,
    /// Gateway ports and hosts.
    gateways: Gateway,
    /// Further services.
    service_entries: ServiceEntry,
    /// Workloads outside the cluster.
    workload_entries: WorkloadEntry,
    /// Templates of workloads outside the cluster.
    workload_groups: WorkloadGroup,
    /// Scopes of sidecars.
    sidecars: Sidecar,
    /// What proxies are started with.
    proxy_configs: ProxyConfig,
    /// Modes of mutual TLS.
    peer_authentications: PeerAuthentication,
    /// Access rules.
    authorization_policies: AuthorizationPolicy,
}

impl World {
    /// Takes in one event and says which objects are different now.
    pub fn apply(&mut self, change: Change) -> ChangeSet {
        let mut changes = ChangeSet::default();
        match change {
            Change::Upsert { cluster, object } => {
                let key = object.key().in_cluster(cluster.clone());
                if self.admit(&key, &object) && self.upsert(&cluster, object) {
                    changes.keys.insert(key);
                }
            }
            Change::Delete(key) => {
                if self.delete(&key) {
                    changes.keys.insert(key);
                }
            }
            Change::Resync { cluster, kind, objects } => {
                let mut gone: std::collections::BTreeSet<_> = self.keys_of(&cluster, kind).into_iter().collect();
                for object in objects {
                    let key = object.key().in_cluster(cluster.clone());
                    if key.kind != kind {
                        continue;
                    }
                    gone.remove(&key);
                    if self.admit(&key, &object) && self.upsert(&cluster, object) {
                        changes.keys.insert(key);
                    }
                }
                for key in gone {
                    if self.delete(&key) {
                        changes.keys.insert(key);
                    }
                }
            }
            Change::Findings { origin, findings } => {
                if findings.is_empty() {
                    self.findings.remove(&origin);
                } else {
                    self.findings.insert(origin, findings);
                }
            }
        }
        changes
    }

    /// The ConfigMap with the mesh configuration, if it is there.
    #[must_use]
    pub fn mesh_config_map(&self) -> Option<&Arc<Object<ConfigMap>>> {
        self.config_maps.get(&self.mesh_config.namespace, &self.mesh_config.name)
    }

    /// Whether an object may take the place of the one before. A mesh configuration that does not parse may not: with the
    /// defaults in its stead, destinations that it refused would be open. It is reported instead, and the old one holds.
    fn admit(&mut self, key: &ObjectKey, object: &AnyObject) -> bool {
        let AnyObject::ConfigMap(map) = object else { return true };
        let MeshConfigPlace { namespace, name } = &self.mesh_config;
        if (&map.meta.namespace, &map.meta.name) != (namespace, name) {
            return true;
        }
        let origin = Str::from(key.to_string());
        let parses = |map: &ConfigMap| map.data.get(MESH_CONFIG_KEY).map(|text| MeshConfig::parse(text).map(|_| ()));
        match parses(&map.spec) {
            Some(Err(error)) if self.mesh_config_map().is_some() => {
                let finding = error.to_finding().on(key.clone()).hint("the configuration before it holds");
                self.findings.insert(origin, vec![finding]);
                false
            }
            _ => {
                self.findings.remove(&origin);
                true
            }
        }
    }

    /// What sources found wrong before there was an object, ordered by place.
    pub fn source_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::meta::Meta;

    use super::*;

    fn mk_pod(name: &str, account: &str) -> AnyObject {
        let spec = Pod { service_account_name: account.into(), ..Pod::default() };
        Object::new(Meta::new("shop", name), spec).into()
    }

    fn upsert(object: AnyObject) -> Change {
        Change::Upsert { cluster: ClusterId::from("c"), object }
    }

    fn names(changes: &ChangeSet) -> Vec<&str> {
        changes.keys.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn only_what_differs_is_dirty() {
        let mut world = World::default();
        assert_eq!(names(&world.apply(upsert(mk_pod("a", "x")))), ["a"]);
        let first = world.pods.get("shop", "a").unwrap().clone();
        assert!(world.apply(upsert(mk_pod("a", "x"))).is_empty());
        assert!(Arc::ptr_eq(&first, world.pods.get("shop", "a").unwrap()), "an equal object keeps its address");
        assert_eq!(names(&world.apply(upsert(mk_pod("a", "y")))), ["a"]);
        let key = ObjectKey::new(Kind::Pod, "shop", "a").in_cluster("c");
        assert!(world.apply(Change::Delete(ObjectKey::new(Kind::Pod, "shop", "a"))).is_empty(), "of another cluster");
        assert_eq!(names(&world.apply(Change::Delete(key.clone()))), ["a"]);
        assert!(world.apply(Change::Delete(key)).is_empty());
        assert_eq!(world.pods.namespaces().count(), 0);
    }

    #[test]
    fn a_resync_deletes_what_is_no_longer_there() {
        let mut world = World::default();
        for name in ["a", "b", "c"] {
            world.apply(upsert(mk_pod(name, "x")));
        }
        let cluster = ClusterId::from("c");
        let objects = vec![mk_pod("b", "x"), mk_pod("c", "y"), mk_pod("d", "x")];
        let changes = world.apply(Change::Resync { cluster, kind: Kind::Pod, objects });
        assert_eq!(names(&changes), ["a", "c", "d"]);
        let left: Vec<_> = world.pods.iter().map(|pod| pod.meta.name.as_str()).collect();
        assert_eq!(left, ["b", "c", "d"]);
    }

    #[test]
    fn a_broken_mesh_configuration_does_not_take_the_place_of_a_good_one() {
        let mk_mesh = |text: &str| {
            let data = [("mesh".into(), text.into())].into();
            AnyObject::from(Object::new(Meta::new("istio-system", "istio"), ConfigMap { data }))
        };
        let mut world = World::default();
        assert!(!world.apply(upsert(mk_mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))).is_empty());
        assert!(world.apply(upsert(mk_mesh("outboundTrafficPolicy: nonsense"))).is_empty());
        let held = world.config_maps.get("istio-system", "istio").unwrap();
        assert!(held.spec.data.values().any(|text| text.contains("REGISTRY_ONLY")));
        assert_eq!(world.source_findings().count(), 1);
        assert!(!world.apply(upsert(mk_mesh("trustDomain: td"))).is_empty());
        assert_eq!(world.source_findings().count(), 0);
    }

    #[test]
    fn findings_of_a_place_are_replaced() {
        let mut world = World::default();
        let finding = Finding::new(mesh_api::codes::Code::Syntax, "", "is not YAML");
        let origin = Str::from("a.yaml");
        world.apply(Change::Findings { origin: origin.clone(), findings: vec![finding.clone(), finding] });
        assert_eq!(world.source_findings().count(), 2);
        world.apply(Change::Findings { origin, findings: vec![] });
        assert_eq!(world.source_findings().count(), 0);
    }
}
