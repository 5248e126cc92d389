//! Pod: the address, identity and labels of a workload.

use crate::{crd::api, text::Str};

api! {
    /// What is read of a pod's spec.
    pub struct Pod {
        /// The identity it runs as; empty means `default`.
        pub service_account_name: Str,
        /// The node it runs on.
        pub node_name: Str,
        /// Whether it shares the node's network, in which case nothing is captured.
        pub host_network: bool,
        /// Its containers.
        pub containers: Vec<Container>,
    }

    /// What is read of a container.
    pub struct Container {
        /// Ports by name, to which a Service may refer.
        pub ports: Vec<ContainerPort>,
    }

    /// A port of a container.
    pub struct ContainerPort {
        /// The name.
        pub name: Str,
        /// The number.
        pub container_port: u32,
        /// `TCP` when empty.
        pub protocol: Str,
    }

    /// What is read of a pod's status.
    pub struct PodStatus {
        /// The first address.
        #[serde(rename = "podIP")]
        pub pod_ip: Str,
        /// All addresses.
        #[serde(rename = "podIPs")]
        pub pod_ips: Vec<PodIp>,
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        pub phase: Str,
        /// Readiness among others.
        pub conditions: Vec<PodCondition>,
    }

    /// One address of a pod.
    pub struct PodIp {
        /// The address.
        pub ip: Str,
    }

    /// One condition of a pod.
    pub struct PodCondition {
        /// E.g. `Ready`.
        #[serde(rename = "type")]
        pub kind: Str,
        /// `True`, `False` or `Unknown`.
        pub status: Str,
    }
}

impl Pod {
    /// The service account, with Kubernetes' default.
    #[must_use]
    pub fn service_account(&self) -> &str {
        if self.service_account_name.is_empty() { "default" } else { &self.service_account_name }
    }
}
