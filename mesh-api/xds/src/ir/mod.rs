//! The internal representation (IR) of proxy configuration: what the control plane computes and what the proxy runs.
//!
//! Plain data. Every type is `Eq + Hash + Serialize`, ordered, free of floats and of process-local state, so that a
//! resource's version can be a stable hash of its IR and two equal inputs give equal resources on every replica. Modes
//! are enums; an `Option` means "may truly be absent". Shared parts are `Arc`ed so that snapshots copy pointers.
//!
//! The unit of change is small on purpose: one virtual host, one cluster, one endpoint set, one secret.
//! Field meanings follow Envoy's v3 API where it has the concept; only the `codec` module knows Envoy's messages.

pub mod authz;
pub mod chain;
pub mod cluster;
pub mod endpoint;
pub mod filter;
pub mod http;
pub mod listener;
pub mod matcher;
pub mod names;
pub mod route;
pub mod secret;
pub mod telemetry;

use mesh_api::text::Str;
use serde::Serialize;

/// One named unit of proxy configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "made one at a time and short-lived; a box for each would cost more than it saves"
)]
pub enum Resource {
    /// An upstream (`envoy.config.cluster.v3.Cluster`).
    Cluster(cluster::Cluster),
    /// The endpoints of one cluster (`ClusterLoadAssignment`).
    Endpoints(endpoint::EndpointSet),
    /// A socket address with its filter chains (`envoy.config.listener.v3.Listener`).
    Listener(listener::Listener),
    /// A route configuration (`RouteConfiguration`).
    Routes(route::RouteConfig),
    /// One virtual host, sent on its own (VHDS, `envoy.config.route.v3.VirtualHost`).
    VirtualHost(route::VirtualHost),
    /// A certificate or a set of trust anchors (`envoy.extensions.transport_sockets.tls.v3.Secret`).
    Secret(secret::Secret),
    /// The names that the proxy answers for (`istio.networking.nds.v1.NameTable`).
    Names(names::NameTable),
}

impl Resource {
    /// The resource's xDS name.
    #[must_use]
    pub fn name(&self) -> &Str {
        match self {
            Self::Cluster(cluster) => &cluster.name,
            Self::Endpoints(endpoints) => &endpoints.cluster,
            Self::Listener(listener) => &listener.name,
            Self::Routes(routes) => &routes.name,
            Self::VirtualHost(host) => &host.name,
            Self::Secret(secret) => &secret.name,
            Self::Names(names) => &names.name,
        }
    }
}

/// A share of all requests in millionths: 0 is none, 1,000,000 all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);
}

/// The object a piece of configuration was translated from, `kind/namespace/name`; empty when it comes from no object.
///
/// Carried so that dumps, access logs and `explain` can name what decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Origin(pub Str);
