//! PeerAuthentication: whether workloads demand mutual TLS. istio/api: security/v1beta1/peer_authentication.proto.

use std::collections::BTreeMap;

use crate::crd::{api, api_enum, common::WorkloadSelector};

api! {
    /// Whether workloads demand mutual TLS.
    pub struct PeerAuthentication {
        /// The workloads; all of the namespace (or mesh, in the root namespace) when absent.
        pub selector: Option<WorkloadSelector>,
        /// The mode of all ports.
        pub mtls: Option<MutualTls>,
        /// The mode of single ports, by the workload's port number.
        pub port_level_mtls: BTreeMap<u32, MutualTls>,
    }

    /// A mode of mutual TLS.
    pub struct MutualTls {
        /// The mode.
        pub mode: MtlsMode,
    }
}

api_enum! {
    /// Whether mutual TLS is demanded.
    pub enum MtlsMode {
        /// As the next wider policy says; PERMISSIVE when none does.
        Unset,
        /// Plaintext only.
        Disable,
        /// Both.
        Permissive,
        /// Mutual TLS only.
        Strict,
    }
}
