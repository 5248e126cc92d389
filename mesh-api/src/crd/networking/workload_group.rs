//! WorkloadGroup: the template of workloads outside the cluster. istio/api: networking/v1alpha3/workload_group.proto.

use super::workload_entry::WorkloadEntry;
use crate::{crd::api, labels::Labels, text::Str};

api! {
    /// The template of workloads outside the cluster.
    pub struct WorkloadGroup {
        /// Metadata of the WorkloadEntries made from it.
        pub metadata: Option<GroupMetadata>,
        /// The entry, without its address.
        pub template: Option<WorkloadEntry>,
        /// How its members' health is found.
        pub probe: Option<ReadinessProbe>,
    }

    /// Metadata of the WorkloadEntries made from a group.
    pub struct GroupMetadata {
        /// Labels.
        pub labels: Labels,
        /// Annotations.
        pub annotations: Labels,
    }

    /// How health is found: one of httpGet, tcpSocket, exec and grpc.
    pub struct ReadinessProbe {
        /// Seconds until the first probe.
        pub initial_delay_seconds: i32,
        /// Seconds an answer may take; 1 when zero.
        pub timeout_seconds: i32,
        /// Seconds between probes; 10 when zero.
        pub period_seconds: i32,
        /// Successes in a row that make it healthy; 1 when zero.
        pub success_threshold: i32,
        /// Failures in a row that make it unhealthy; 3 when zero.
        pub failure_threshold: i32,
        /// Ask by HTTP.
        pub http_get: Option<HttpProbe>,
        /// Open a connection.
        pub tcp_socket: Option<TcpProbe>,
        /// Run a command.
        pub exec: Option<ExecProbe>,
        /// Ask by the gRPC health protocol.
        pub grpc: Option<GrpcProbe>,
    }

    /// Ask by HTTP.
    pub struct HttpProbe {
        /// The path; `/` when empty.
        pub path: Str,
        /// The port.
        pub port: u32,
        /// The host; the workload's own address when empty.
        pub host: Str,
        /// `HTTP` when empty, or `HTTPS`.
        pub scheme: Str,
        /// Headers to send.
        pub http_headers: Vec<ProbeHeader>,
    }

    /// A header to send.
    pub struct ProbeHeader {
        /// Its name.
        pub name: Str,
        /// Its value.
        pub value: Str,
    }

    /// Open a connection.
    pub struct TcpProbe {
        /// The host; the workload's own address when empty.
        pub host: Str,
        /// The port.
        pub port: u32,
    }

    /// Run a command.
    pub struct ExecProbe {
        /// The command and its arguments, without a shell.
        pub command: Vec<Str>,
    }

    /// Ask by the gRPC health protocol.
    pub struct GrpcProbe {
        /// The port.
        pub port: u32,
        /// The service to ask for.
        pub service: Str,
    }
}
