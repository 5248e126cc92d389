//! The table of kinds: every object this release reads, declared once.
//!
//! From a row come the [`Kind`] variant with its names here, and the [`AnyObject`](crate::object::AnyObject) variant and the
//! fields that exist in [`crate::object`]. Whoever adds a kind adds a row here and follows the compiler.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::text::Str;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster as a whole.
    Cluster,
}

/// A row of the table.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind's name, e.g. `VirtualService`.
    pub name: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Served versions, the stored one first.
    pub versions: &'static [&'static str],
    /// Plural in lower case, as in URLs.
    pub plural: &'static str,
    /// Short names for command lines.
    pub short_names: &'static [&'static str],
    /// Where objects live.
    pub scope: Scope,
    /// What the kind is for, in a sentence.
    pub doc: &'static str,
}

impl KindInfo {
    /// `group/version` of the stored version, or the bare version in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        let version = self.versions.first().copied().unwrap_or_default();
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

/// Hands the rows of the table to the macro that `$then` names.
macro_rules! table {
    ($then:ident) => {
        $then! {
                /// A set of pods under one name and address.
                Service {
                    group: "", versions: ["v1"], plural: "services", short: ["svc"],
                    scope: Namespaced, spec: $crate::crd::core::service::Service, status: $crate::crd::core::namespace::NoStatus, layout: Spec,
                }
                /// The addresses behind a Service.
                EndpointSlice {
                    group: "discovery.k8s.io", versions: ["v1"], plural: "endpointslices", short: [],
                    scope: Namespaced, spec: $crate::crd::core::endpoint_slice::EndpointSlice, status: $crate::crd::core::namespace::NoStatus, layout: Flat,
                }
                /// A workload: its address, labels and identity.
                Pod {
                    group: "", versions: ["v1"], plural: "pods", short: ["po"],
                    scope: Namespaced, spec: $crate::crd::core::pod::Pod, status: $crate::crd::core::pod::PodStatus, layout: Spec,
                }
                /// A namespace and its labels.
                Namespace {
                    group: "", versions: ["v1"], plural: "namespaces", short: ["ns"],
                    scope: Cluster, spec: $crate::crd::core::namespace::Namespace, status: $crate::crd::core::namespace::NoStatus, layout: Spec,
                }
                /// A machine of the cluster: its labels say the region and the zone.
                Node {
                    group: "", versions: ["v1"], plural: "nodes", short: ["no"],
                    scope: Cluster, spec: $crate::crd::core::node::Node, status: $crate::crd::core::namespace::NoStatus, layout: Spec,
                }
                /// Routes of requests that enter the cluster, in Kubernetes' own words.
                Ingress {
                    group: "networking.k8s.io", versions: ["v1"], plural: "ingresses", short: ["ing"],
                    scope: Namespaced, spec: $crate::crd::core::ingress::Ingress, status: $crate::crd::core::ingress::IngressStatus, layout: Spec,
                }
                /// Who serves the Ingresses of a class.
                IngressClass {
                    group: "networking.k8s.io", versions: ["v1"], plural: "ingressclasses", short: [],
                    scope: Cluster, spec: $crate::crd::core::ingress::IngressClass, status: $crate::crd::core::namespace::NoStatus, layout: Spec,
                }
                /// Keys and certificates of gateways and destinations.
                Secret {
                    group: "", versions: ["v1"], plural: "secrets", short: [],
                    scope: Namespaced, spec: $crate::crd::core::secret::Secret, status: $crate::crd::core::namespace::NoStatus, layout: Flat,
                }
                /// Mesh configuration and certificate bundles.
                ConfigMap {
                    group: "", versions: ["v1"], plural: "configmaps", short: ["cm"],
                    scope: Namespaced, spec: $crate::crd::core::config_map::ConfigMap, status: $crate::crd::core::namespace::NoStatus, layout: Flat,
                }
                /// How requests to a host are routed.
                VirtualService {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "virtualservices", short: ["vs"],
                    scope: Namespaced, spec: $crate::crd::networking::virtual_service::VirtualService, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// What happens to traffic for a host after routing: balancing, pools, TLS, subsets.
                DestinationRule {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "destinationrules", short: ["dr"],
                    scope: Namespaced, spec: $crate::crd::networking::destination_rule::DestinationRule, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// Ports and hosts a gateway proxy opens.
                Gateway {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "gateways", short: ["gw"],
                    scope: Namespaced, spec: $crate::crd::networking::gateway::Gateway, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// A service the cluster's registry does not know.
                ServiceEntry {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "serviceentries", short: ["se"],
                    scope: Namespaced, spec: $crate::crd::networking::service_entry::ServiceEntry, status: $crate::crd::networking::service_entry::ServiceEntryStatus, layout: Spec,
                }
                /// A workload outside the cluster.
                WorkloadEntry {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "workloadentries", short: ["we"],
                    scope: Namespaced, spec: $crate::crd::networking::workload_entry::WorkloadEntry, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// The template of workloads outside the cluster.
                WorkloadGroup {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "workloadgroups", short: ["wg"],
                    scope: Namespaced, spec: $crate::crd::networking::workload_group::WorkloadGroup, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// What a sidecar may see and which listeners it opens.
                Sidecar {
                    group: "networking.istio.io", versions: ["v1", "v1beta1", "v1alpha3"], plural: "sidecars", short: [],
                    scope: Namespaced, spec: $crate::crd::networking::sidecar::Sidecar, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// What the proxies of some workloads are started with.
                ProxyConfig {
                    group: "networking.istio.io", versions: ["v1beta1"], plural: "proxyconfigs", short: [],
                    scope: Namespaced, spec: $crate::crd::networking::proxy_config::ProxyConfig, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// Whether workloads demand mutual TLS.
                PeerAuthentication {
                    group: "security.istio.io", versions: ["v1", "v1beta1"], plural: "peerauthentications", short: ["pa"],
                    scope: Namespaced, spec: $crate::crd::security::peer_authentication::PeerAuthentication, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
                /// Who may call what.
                AuthorizationPolicy {
                    group: "security.istio.io", versions: ["v1", "v1beta1"], plural: "authorizationpolicies", short: ["ap"],
                    scope: Namespaced, spec: $crate::crd::security::authorization_policy::AuthorizationPolicy, status: $crate::crd::common::IstioStatus, layout: Spec,
                }
        }
    };
}
pub(crate) use table;

macro_rules! kinds {
    ($(
        #[doc = $doc:literal]
        $kind:ident {
            group: $group:literal, versions: [$($version:literal),+], plural: $plural:literal, short: [$($short:literal),*],
            scope: $scope:ident, spec: $spec:ty, status: $status:ty, layout: $layout:ident,
        }
    )*) => {
        /// What an object is. One variant per row of the table.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $doc] $kind,)*
        }

        impl Kind {
            /// Every kind in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The kind's row.
            #[must_use]
            pub const fn info(self) -> &'static KindInfo {
                match self {
                    $(Self::$kind => const { &KindInfo {
                        name: stringify!($kind),
                        group: $group,
                        versions: &[$($version),+],
                        plural: $plural,
                        short_names: &[$($short),*],
                        scope: Scope::$scope,
                        doc: $doc.trim_ascii(),
                    } },)*
                }
            }
        }
    };
}

table!(kinds);

impl Kind {
    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.info().name
    }

    /// Whether the kind is one of the mesh's own, as against Kubernetes' core kinds.
    #[must_use]
    pub fn is_mesh(self) -> bool {
        self.info().group.ends_with(".istio.io")
    }

    /// The kind of an object's `apiVersion` and `kind`, if this release reads that group, version and kind.
    #[must_use]
    pub fn from_api(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self::ALL.iter().copied().find(|k| {
            let info = k.info();
            info.name == kind && info.group == group && info.versions.contains(&version)
        })
    }

    /// The kind a user means by its name, plural or a short name, in any case.
    #[must_use]
    pub fn from_user(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| {
            let info = k.info();
            let is = |name: &&str| name.eq_ignore_ascii_case(text);
            is(&info.name) || is(&info.plural) || info.short_names.iter().any(is)
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No kind has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind this release reads")]
pub struct UnknownKind(pub Str);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|k| k.as_str() == text).ok_or_else(|| UnknownKind(text.into()))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Str::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;
    use std::collections::BTreeSet;

    #[test]
    fn kinds_are_found_by_group_and_version() {
        #[track_caller]
        fn check(api: &str, kind: &str, expect: Option<Kind>) {
            assert_eq!(Kind::from_api(api, kind), expect, "{api} {kind}");
        }
        check("v1", "Service", Some(Kind::Service));
        check("networking.istio.io/v1", "VirtualService", Some(Kind::VirtualService));
        check("networking.istio.io/v1alpha3", "VirtualService", Some(Kind::VirtualService));
        check("networking.istio.io/v2", "VirtualService", None);
        check("gateway.networking.k8s.io/v1", "Gateway", None);
        check("serving.knative.dev/v1", "Service", None);
        check("", "Service", None);
    }

    #[test]
    fn users_may_abbreviate() {
        for (text, kind) in
            [("vs", Kind::VirtualService), ("Pods", Kind::Pod), ("destinationrule", Kind::DestinationRule)]
        {
            assert_eq!(Kind::from_user(text), Some(kind));
        }
        assert_eq!(Kind::from_user("x"), None);
    }

    #[test]
    fn names_in_the_table_are_unique() {
        let mut seen = BTreeSet::new();
        for kind in Kind::ALL {
            let info = kind.info();
            assert!(!info.doc.is_empty() && !info.versions.is_empty());
            for name in [info.plural].iter().chain(info.short_names) {
                assert!(seen.insert(*name), "{name} twice");
            }
            assert_eq!(info.name.parse(), Ok(*kind));
            assert_eq!(Kind::from_api(&info.api_version(), info.name), Some(*kind));
        }
    }
}
