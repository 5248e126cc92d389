//! Settings of the HTTP connection manager (istio-surface section 3.11).

use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ir::authz::Authz;
use mesh_api_xds::ir::filter::{HttpFilter, PeerMetadata, Reporter, Stats};
use mesh_api_xds::ir::http::{Codec, Edge, ForwardClientCert, HttpConnection, HttpLimits, RouteSource, ServerHeader};

use crate::proxy::{Flavor, ProxyView};
use crate::snapshot::mesh::Mesh;

/// Where an HTTP chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// From the workload.
    Outbound,
    /// To the workload.
    Inbound,
    /// At a gateway.
    Gateway,
}

/// Makes the settings of an HTTP chain.
pub(crate) fn connection(
    place: Place,
    mesh: &Mesh,
    proxy: &ProxyView,
    stat_prefix: &str,
    routes: RouteSource,
    authz: &[Authz],
) -> HttpConnection {
    let defaults = HttpLimits::default();
    let own_name = || Str::from("istio-envoy");
    HttpConnection {
        stat_prefix: Str::from(stat_prefix),
        codec: Codec::Auto,
        routes,
        filters: filters(place, proxy.flavor, authz),
        upgrades: [Str::from("websocket")].into(),
        server_header: match place {
            // Historic, and kept: a client behind a sidecar sees Envoy's own name.
            Place::Outbound => ServerHeader::Overwrite(Str::from("envoy")),
            Place::Inbound | Place::Gateway => ServerHeader::Overwrite(own_name()),
        },
        edge: match place {
            Place::Outbound | Place::Inbound => Edge::Internal,
            Place::Gateway => Edge::Public { trusted_hops: mesh.trusted_proxies },
        },
        client_cert: match place {
            Place::Outbound => ForwardClientCert::Sanitize,
            Place::Inbound => mesh.sidecar_client_cert,
            Place::Gateway => mesh.gateway_client_cert,
        },
        path: mesh.path,
        limits: HttpLimits { idle_timeout: proxy.idle_timeout.unwrap_or(defaults.idle_timeout), ..defaults },
        request_id: true,
        http10: proxy.http10,
        tracing: mesh.tracing.clone(),
        access_logs: Arc::clone(&mesh.access_logs),
    }
}

/// Filters in order: metadata, authorization, ALPN, fault, CORS, statistics (istio-surface section 14, row 12).
fn filters(place: Place, flavor: Flavor, authz: &[Authz]) -> Arc<[HttpFilter]> {
    let mut filters = Vec::new();
    // A stock Envoy knows none of Istio's filters and would refuse the whole listener.
    let own = flavor == Flavor::Lateen;
    if own {
        filters.push(HttpFilter::PeerMetadata(match place {
            Place::Inbound => PeerMetadata::Server,
            Place::Outbound | Place::Gateway => PeerMetadata::ClientMeshOnly,
        }));
    }
    filters.extend(authz.iter().cloned().map(HttpFilter::Authz));
    if own && place != Place::Inbound {
        filters.push(HttpFilter::Alpn);
    }
    filters.push(HttpFilter::Fault);
    filters.push(HttpFilter::Cors);
    if own {
        let reporter = if place == Place::Inbound { Reporter::Destination } else { Reporter::Source };
        filters.push(HttpFilter::Stats(Stats { reporter }));
    }
    filters.into()
}
