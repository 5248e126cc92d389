//! ServiceEntry: a service the cluster's registry does not know. istio/api: networking/v1alpha3/service_entry.proto.

use super::workload_entry::WorkloadEntry;
use crate::{
    crd::{
        api, api_enum,
        common::{Condition, WorkloadLabels},
    },
    text::Str,
};

api! {
    /// A service the cluster's registry does not know.
    pub struct ServiceEntry {
        /// Its names; a leading wildcard is allowed.
        pub hosts: Vec<Str>,
        /// Its virtual addresses or, without name resolution, address ranges.
        pub addresses: Vec<Str>,
        /// Its ports.
        pub ports: Vec<ServicePort>,
        /// Whether it is part of the mesh.
        pub location: Location,
        /// How its endpoints are found.
        pub resolution: Resolution,
        /// Its endpoints.
        pub endpoints: Vec<WorkloadEntry>,
        /// Its endpoints by labels of WorkloadEntries and pods of the same namespace.
        pub workload_selector: Option<WorkloadLabels>,
        /// Namespaces that see the object: `.` its own, `*` all, or names.
        pub export_to: Vec<Str>,
        /// Names of which a server's certificate must hold one.
        pub subject_alt_names: Vec<Str>,
    }

    /// A port of the service.
    pub struct ServicePort {
        /// 1 to 65535.
        pub number: u32,
        /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP or TLS; detected when empty.
        pub protocol: Str,
        /// A name, unique in the object.
        pub name: Str,
        /// The port of the endpoints; the same number when zero.
        pub target_port: u32,
    }

    /// What was observed.
    pub struct ServiceEntryStatus {
        /// Conditions.
        pub conditions: Vec<Condition>,
        /// Addresses that were allocated.
        pub addresses: Vec<AllocatedAddress>,
    }

    /// An address that was allocated for a host.
    pub struct AllocatedAddress {
        /// The address.
        pub value: Str,
        /// The host.
        pub host: Str,
    }
}

api_enum! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        /// No: never the mesh's mutual TLS.
        MeshExternal,
        /// Yes.
        MeshInternal,
    }

    /// How endpoints are found.
    pub enum Resolution {
        /// The address that the client connected to.
        None,
        /// The addresses in the object.
        Static,
        /// All addresses that DNS gives.
        Dns,
        /// The first address that DNS gives at the moment of connecting.
        DnsRoundRobin,
        /// DNS for the name in the request.
        DynamicDns,
    }
}
