//! Service: a name, virtual addresses and ports for a set of pods.

use crate::{
    crd::{api, common::IntOrText},
    labels::Selector,
    text::Str,
};

api! {
    /// What is read of a Service.
    pub struct Service {
        /// The virtual address; `None` for a headless service.
        #[serde(rename = "clusterIP")]
        pub cluster_ip: Str,
        /// All virtual addresses.
        #[serde(rename = "clusterIPs")]
        pub cluster_ips: Vec<Str>,
        /// Its ports.
        pub ports: Vec<ServicePort>,
        /// The pods behind it. Absent: somebody else provides the endpoints.
        pub selector: Option<Selector>,
        /// `ClusterIP` when empty, `NodePort`, `LoadBalancer` or `ExternalName`.
        #[serde(rename = "type")]
        pub kind: Str,
        /// The name an `ExternalName` service stands for.
        pub external_name: Str,
        /// Whether endpoints count before they are ready.
        pub publish_not_ready_addresses: bool,
        /// Which endpoints are preferred: `PreferClose`, `PreferSameZone`, `PreferSameNode`; none when empty.
        pub traffic_distribution: Str,
    }

    /// A port of a Service.
    pub struct ServicePort {
        /// The name; its prefix tells the protocol, e.g. `http-web`.
        pub name: Str,
        /// `TCP` when empty, `UDP` or `SCTP`.
        pub protocol: Str,
        /// The number clients use.
        pub port: u32,
        /// The number or name at the pod; absent means the same number.
        pub target_port: Option<IntOrText>,
        /// The application protocol; wins over the name.
        pub app_protocol: Str,
    }
}

impl Service {
    /// Whether it has no virtual address, so that clients use the endpoints' own.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}
