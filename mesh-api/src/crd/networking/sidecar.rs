//! Sidecar: what a sidecar may see and which listeners it opens. istio/api: networking/v1alpha3/sidecar.proto.

use super::{
    destination_rule::ConnectionPoolSettings,
    gateway::{Port, ServerTlsSettings},
    virtual_service::Destination,
};
use crate::{
    crd::{api, api_enum, common::WorkloadLabels},
    text::Str,
};

api! {
    /// What a sidecar may see and which listeners it opens.
    pub struct Sidecar {
        /// The workloads; all of the namespace when absent.
        pub workload_selector: Option<WorkloadLabels>,
        /// Listeners for traffic to the workload; those of its services when empty.
        pub ingress: Vec<IstioIngressListener>,
        /// Listeners for traffic from the workload, and what it may reach.
        pub egress: Vec<IstioEgressListener>,
        /// Connections and requests from the sidecar to the workload.
        pub inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to traffic for unknown destinations.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }

    /// A listener for traffic to the workload.
    pub struct IstioIngressListener {
        /// The workload's port.
        pub port: Option<Port>,
        /// The address to listen at.
        pub bind: Str,
        /// Whether traffic is captured or addressed to the listener.
        pub capture_mode: CaptureMode,
        /// Where the workload listens: `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT`, `[::]:PORT` or `unix:///path`.
        pub default_endpoint: Str,
        /// TLS towards clients.
        pub tls: Option<ServerTlsSettings>,
        /// Connections and requests to this port.
        pub connection_pool: Option<ConnectionPoolSettings>,
    }

    /// A listener for traffic from the workload.
    pub struct IstioEgressListener {
        /// The port; any when absent.
        pub port: Option<Port>,
        /// The address to listen at.
        pub bind: Str,
        /// Whether traffic is captured or addressed to the listener.
        pub capture_mode: CaptureMode,
        /// What may be reached: `namespace/host`, where the namespace may be `*`, `.` or `~`.
        pub hosts: Vec<Str>,
    }

    /// What happens to traffic for unknown destinations.
    pub struct OutboundTrafficPolicy {
        /// Refused or let through.
        pub mode: OutboundTrafficPolicyMode,
        /// A service that takes it instead.
        pub egress_proxy: Option<Destination>,
    }
}

api_enum! {
    /// Whether traffic is captured or addressed to a listener.
    pub enum CaptureMode {
        /// As the workload is set up.
        Default,
        /// Captured.
        Iptables,
        /// Addressed to the listener.
        None,
    }

    /// What happens to traffic for unknown destinations.
    pub enum OutboundTrafficPolicyMode {
        /// Refused.
        RegistryOnly,
        /// Let through.
        AllowAny,
        /// Let through; HTTP is resolved by its host.
        AllowAnyDynamicDns,
    }
}
