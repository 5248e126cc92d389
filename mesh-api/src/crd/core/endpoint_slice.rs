//! EndpointSlice: the addresses behind a Service.

use crate::{crd::api, text::Str};

api! {
    /// A part of a Service's endpoints; the label `kubernetes.io/service-name` says which Service.
    pub struct EndpointSlice {
        /// `IPv4`, `IPv6` or `FQDN`.
        pub address_type: Str,
        /// The endpoints.
        pub endpoints: Vec<Endpoint>,
        /// The ports that each of them serves.
        pub ports: Vec<EndpointPort>,
    }

    /// One endpoint.
    pub struct Endpoint {
        /// Its addresses; the first counts.
        pub addresses: Vec<Str>,
        /// Whether it may be used.
        pub conditions: EndpointConditions,
        /// The name that it has below that of the Service, such as `web-0` of a StatefulSet.
        pub hostname: Str,
        /// The pod behind it.
        pub target_ref: Option<ObjectRef>,
        /// The node it is on.
        pub node_name: Str,
        /// The zone it is in.
        pub zone: Str,
    }

    /// Readiness; absent means unknown and counts as ready, by Kubernetes' definition.
    pub struct EndpointConditions {
        /// Takes new connections.
        pub ready: Option<bool>,
        /// Takes connections, even while terminating.
        pub serving: Option<bool>,
        /// Is going away.
        pub terminating: Option<bool>,
    }

    /// A port of every endpoint in the slice.
    pub struct EndpointPort {
        /// The name of the Service's port.
        pub name: Str,
        /// `TCP` when empty.
        pub protocol: Str,
        /// The number.
        pub port: Option<u32>,
        /// The application protocol.
        pub app_protocol: Str,
    }

    /// A reference to an object.
    pub struct ObjectRef {
        /// Its kind.
        pub kind: Str,
        /// Its namespace.
        pub namespace: Str,
        /// Its name.
        pub name: Str,
    }
}

impl Endpoint {
    /// Whether it takes new connections.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }
}
