//! The labels of Istio's standard metrics, computed from what is known of a request or connection.
//!
//! Follows Istio's stats filter (istio/proxy: `source/extensions/filters/http/istio_stats/istio_stats.cc`), so that
//! dashboards and queries go on working. Labels that stay the same between requests of a route and peer are computed once
//! ([`FixedLabels`]) and kept by the shell with the handles of their series; [`Outcome`] is the small rest.

pub mod base64;
pub mod exchange;
pub mod peer;

use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::ServiceRef;
use mesh_api_xds::ir::endpoint::WorkloadRef;
use mesh_api_xds::ir::filter::Reporter;
use mesh_api_xds::node::NodeMetadata;

use crate::flags::Flags;
use crate::h1::encode::decimal;

/// Upper bounds of Istio's histograms, in milliseconds or bytes (istio-surface section 8.1).
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Cluster names that stand for a whole class of destinations.
const CLASS_CLUSTERS: [&str; 5] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

/// A workload as metrics name it. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Pod or instance name.
    pub instance: Str,
    /// Workload name: the Deployment's, usually.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
    /// Cluster.
    pub cluster: Str,
    /// Canonical service (`service.istio.io/canonical-name`).
    pub service: Str,
    /// Canonical revision (`service.istio.io/canonical-revision`).
    pub revision: Str,
    /// Label `app`.
    pub app: Str,
    /// Label `version`.
    pub version: Str,
    /// Kind of its owner.
    pub kind: WorkloadKind,
}

/// Kind of the object that owns a workload's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// Not known.
    #[default]
    Unknown,
    /// A pod without owner.
    Pod,
    /// A Deployment.
    Deployment,
    /// A Job.
    Job,
    /// A CronJob.
    CronJob,
}

/// What decides the labels that stay the same between requests.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Which side reports.
    pub reporter: Reporter,
    /// This proxy's workload.
    pub own: &'a Workload,
    /// The other side's workload, if known: from its headers, else (as source) from the endpoint's metadata.
    pub peer: Option<&'a Workload>,
    /// This proxy's identity in mutual TLS; empty without.
    pub own_principal: &'a str,
    /// The other side's identity in mutual TLS; empty without.
    pub peer_principal: &'a str,
    /// Service that the upstream cluster leads to, if its metadata names one.
    pub service: Option<&'a ServiceRef>,
    /// Name of the upstream cluster; empty when none was chosen.
    pub cluster: &'a str,
    /// Name of the route; empty when none matched.
    pub route: &'a str,
    /// The request's host, where Istio falls back to it: on a sidecar's outbound listeners only. Empty elsewhere, because
    /// clients could make series at will.
    pub host: &'a str,
}

/// Declares the labels in the order of Istio's filter.
macro_rules! fixed_labels {
    ($($variant:ident = $name:literal,)+) => {
        /// A label that stays the same between requests of a route and peer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Label {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant,
            )+
        }

        impl Label {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in the exposition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

fixed_labels! {
    Reporter = "reporter",
    SourceWorkload = "source_workload",
    SourceCanonicalService = "source_canonical_service",
    SourceCanonicalRevision = "source_canonical_revision",
    SourceWorkloadNamespace = "source_workload_namespace",
    SourcePrincipal = "source_principal",
    SourceApp = "source_app",
    SourceVersion = "source_version",
    SourceCluster = "source_cluster",
    DestinationWorkload = "destination_workload",
    DestinationWorkloadNamespace = "destination_workload_namespace",
    DestinationPrincipal = "destination_principal",
    DestinationApp = "destination_app",
    DestinationVersion = "destination_version",
    DestinationService = "destination_service",
    DestinationCanonicalService = "destination_canonical_service",
    DestinationCanonicalRevision = "destination_canonical_revision",
    DestinationServiceName = "destination_service_name",
    DestinationServiceNamespace = "destination_service_namespace",
    DestinationCluster = "destination_cluster",
    ConnectionSecurityPolicy = "connection_security_policy",
}

/// Values of all [`Label`]s.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FixedLabels(Box<[Str; Label::COUNT]>);

/// The labels that differ between requests of one route and peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An HTTP or gRPC request.
    Http {
        /// Whether it is gRPC, by its content type.
        grpc: bool,
        /// Status code; 0 if none was sent.
        response_code: u16,
        /// gRPC status, if there was one.
        grpc_status: Option<u32>,
        /// Response flags.
        flags: Flags,
    },
    /// A TCP connection.
    Tcp {
        /// Response flags.
        flags: Flags,
    },
}

impl Workload {
    /// The workload that this proxy's node metadata describes.
    #[must_use]
    pub fn of_node(metadata: &NodeMetadata) -> Self {
        let label = |key: &str| metadata.labels.get(key).cloned().unwrap_or_default();
        Self {
            instance: metadata.name.clone(),
            name: metadata.workload_name.clone(),
            namespace: metadata.namespace.clone(),
            cluster: metadata.cluster_id.clone(),
            service: label(peer::CANONICAL_NAME),
            revision: label(peer::CANONICAL_REVISION),
            app: label(peer::APP),
            version: label(peer::VERSION),
            kind: WorkloadKind::of_owner(&metadata.owner, &metadata.workload_name),
        }
    }
}

impl From<&WorkloadRef> for Workload {
    /// The workload that an endpoint's metadata describes; used where the endpoint itself says nothing.
    fn from(workload: &WorkloadRef) -> Self {
        Self {
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            cluster: workload.cluster.clone(),
            service: workload.service.clone(),
            revision: workload.revision.clone(),
            ..Self::default()
        }
    }
}

impl WorkloadKind {
    /// The known ones.
    const ALL: [Self; 4] = [Self::Pod, Self::Deployment, Self::Job, Self::CronJob];

    /// The word for it, in owners and baggage.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Pod => Some("pod"),
            Self::Deployment => Some("deployment"),
            Self::Job => Some("job"),
            Self::CronJob => Some("cronjob"),
        }
    }

    /// The kind whose name a baggage key such as `k8s.deployment.name` gives.
    fn of_baggage(key: &str) -> Option<Self> {
        let kind = key.strip_prefix("k8s.")?.strip_suffix(".name")?;
        Self::ALL.into_iter().find(|found| found.as_str() == Some(kind))
    }

    /// The kind in an owner such as `kubernetes://apis/apps/v1/namespaces/shop/deployments/web`.
    #[must_use]
    pub fn of_owner(owner: &str, workload: &str) -> Self {
        let kind = owner
            .strip_suffix(workload)
            .and_then(|rest| rest.strip_suffix("s/"))
            .and_then(|rest| rest.rsplit('/').next());
        Self::ALL.into_iter().find(|found| found.as_str() == kind && kind.is_some()).unwrap_or_default()
    }
}

impl FixedLabels {
    /// Computes the values.
    #[must_use]
    pub fn new(context: &Context<'_>) -> Self {
        let mut labels = Self(Box::new([const { None }; Label::COUNT].map(|_: Option<Str>| Str::empty())));
        let none = Workload::default();
        let peer = context.peer.unwrap_or(&none);
        // The namespace that the certificate proves goes before the one that the peer claims.
        let proven = namespace_of(context.peer_principal).map(Str::from);
        let peer_namespace = proven.unwrap_or_else(|| peer.namespace.clone());
        let (service_host, service_name) = service_of(context);
        match context.reporter {
            Reporter::Destination => {
                labels.set(Label::Reporter, "destination".into());
                labels.side(Side::Source, peer, peer_namespace, context.peer_principal, Blank::Unknown);
                let own = context.own;
                labels.side(Side::Destination, own, own.namespace.clone(), context.own_principal, Blank::Empty);
                labels.set(Label::DestinationService, or(service_host, || own.service.clone()));
                labels.set(Label::DestinationServiceName, or(service_name, || own.service.clone()));
                labels.set(Label::DestinationServiceNamespace, own.namespace.clone());
                let mutual = !context.own_principal.is_empty() && !context.peer_principal.is_empty();
                labels.set(Label::ConnectionSecurityPolicy, if mutual { "mutual_tls" } else { "none" }.into());
            }
            Reporter::Source => {
                labels.set(Label::Reporter, "source".into());
                let own = context.own;
                labels.side(Side::Source, own, own.namespace.clone(), context.own_principal, Blank::Empty);
                labels.side(Side::Destination, peer, peer_namespace.clone(), context.peer_principal, Blank::Unknown);
                labels.set(Label::DestinationService, or(service_host, unknown));
                labels.set(Label::DestinationServiceName, or(service_name, unknown));
                labels.set(Label::DestinationServiceNamespace, or(peer_namespace, unknown));
                labels.set(Label::ConnectionSecurityPolicy, unknown());
            }
        }
        labels
    }

    /// Value of a label.
    #[must_use]
    pub fn get(&self, label: Label) -> &str {
        self.0.get(label as usize).map_or("", |value| value)
    }

    /// All labels of a series, in order: these, then those of `outcome`. Values of numbers are lent from a buffer.
    pub fn visit(&self, outcome: &Outcome, mut visit: impl FnMut(&'static str, &str)) {
        for label in Label::ALL {
            visit(label.as_str(), self.get(*label));
        }
        outcome.visit(&mut visit);
    }

    fn set(&mut self, label: Label, value: Str) {
        if let Some(slot) = self.0.get_mut(label as usize) {
            *slot = value;
        }
    }

    /// The labels that source and destination both have.
    fn side(&mut self, side: Side, workload: &Workload, namespace: Str, principal: &str, blank: Blank) {
        let (unknown, latest) = match blank {
            Blank::Unknown => (unknown(), "latest".into()),
            Blank::Empty => (Str::empty(), Str::empty()),
        };
        let pick = |value: &Str, default: &Str| if value.is_empty() { default.clone() } else { value.clone() };
        let principal = if principal.is_empty() { self::unknown() } else { principal.into() };
        let values = [
            (Label::SourceWorkload, Label::DestinationWorkload, pick(&workload.name, &unknown)),
            (Label::SourceWorkloadNamespace, Label::DestinationWorkloadNamespace, pick(&namespace, &unknown)),
            (Label::SourcePrincipal, Label::DestinationPrincipal, principal),
            (Label::SourceApp, Label::DestinationApp, pick(&workload.app, &unknown)),
            (Label::SourceVersion, Label::DestinationVersion, pick(&workload.version, &unknown)),
            (Label::SourceCluster, Label::DestinationCluster, pick(&workload.cluster, &unknown)),
            (Label::SourceCanonicalService, Label::DestinationCanonicalService, pick(&workload.service, &unknown)),
            (Label::SourceCanonicalRevision, Label::DestinationCanonicalRevision, pick(&workload.revision, &latest)),
        ];
        for (source, destination, value) in values {
            self.set(if side == Side::Source { source } else { destination }, value);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// What stands for a value that is not known.
#[derive(Clone, Copy)]
enum Blank {
    /// `unknown`: for the other side.
    Unknown,
    /// Nothing: what our own node does not say is left empty, as in Istio.
    Empty,
}

impl Outcome {
    /// Value of `request_protocol`.
    #[must_use]
    pub const fn request_protocol(&self) -> &'static str {
        match self {
            Self::Http { grpc: true, .. } => "grpc",
            Self::Http { grpc: false, .. } => "http",
            Self::Tcp { .. } => "tcp",
        }
    }

    /// Labels of the outcome, in order. TCP has no codes.
    pub fn visit(&self, visit: &mut impl FnMut(&'static str, &str)) {
        visit("request_protocol", self.request_protocol());
        let mut buffer = Vec::with_capacity(16);
        let flags = match self {
            Self::Http { grpc, response_code, grpc_status, flags } => {
                decimal(u64::from(*response_code), &mut buffer);
                visit("response_code", std::str::from_utf8(&buffer).unwrap_or_default());
                buffer.clear();
                if let (true, Some(status)) = (*grpc, grpc_status) {
                    decimal(u64::from(*status), &mut buffer);
                }
                visit("grpc_response_status", std::str::from_utf8(&buffer).unwrap_or_default());
                flags
            }
            Self::Tcp { flags } => flags,
        };
        buffer.clear();
        flags.write(crate::flags::ResponseFlag::text, &mut buffer);
        visit("response_flags", std::str::from_utf8(&buffer).unwrap_or_default());
    }
}

/// Host and name of the destination service; empty when not known.
fn service_of(context: &Context<'_>) -> (Str, Str) {
    let host = Str::from(context.host);
    match context.route {
        // Names that pilot gives to the virtual hosts of both outbound traffic policies.
        "block_all" => return (host, "BlackHoleCluster".into()),
        "allow_any" => return (host, "PassthroughCluster".into()),
        _ => {}
    }
    if CLASS_CLUSTERS.contains(&context.cluster) {
        return (host, context.cluster.into());
    }
    match context.service {
        Some(service) if !service.host.is_empty() => {
            let short = || service.host.split('.').next().map(Str::from).unwrap_or_default();
            (service.host.clone(), or(service.name.clone(), short))
        }
        _ => (host.clone(), host),
    }
}

/// Namespace in a principal `<domain>/ns/<namespace>/sa/<account>`.
fn namespace_of(principal: &str) -> Option<&str> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split('/').next().filter(|namespace| !namespace.is_empty())
}

fn or(value: Str, default: impl FnOnce() -> Str) -> Str {
    if value.is_empty() { default() } else { value }
}

fn unknown() -> Str {
    "unknown".into()
}

#[cfg(test)]
mod tests;
