//! WorkloadEntry: a workload outside the cluster. istio/api: networking/v1alpha3/workload_entry.proto.

use std::collections::BTreeMap;

use crate::{crd::api, labels::Labels, text::Str};

api! {
    /// A workload outside the cluster, or an endpoint of a ServiceEntry.
    pub struct WorkloadEntry {
        /// An address, a DNS name (only with resolution DNS) or `unix:///path`.
        pub address: Str,
        /// Ports by the name of the service's port.
        pub ports: BTreeMap<Str, u32>,
        /// Labels, beside those in the metadata, which win.
        pub labels: Labels,
        /// The network it is in.
        pub network: Str,
        /// `region/zone/subzone`.
        pub locality: Str,
        /// The share relative to the other endpoints; zero counts as one.
        pub weight: u32,
        /// The identity it runs as.
        pub service_account: Str,
    }
}
