//! For whom a list of resources is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mesh_api::ids::{ClusterId, Name};
use mesh_api::labels::Labels;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::type_url::TypeUrl;

use super::name_table;
use crate::proxy::ProxyView;
use crate::scope::ProxyScope;
use crate::snapshot::Snapshot;
use crate::snapshot::services::{Registry, Resolution, Service};

/// A snapshot without what a list must not depend on.
pub(crate) struct Facet {
    pub(crate) snapshot: Snapshot,
    pub(crate) uses: Uses,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Uses {
    pub(crate) endpoints: bool,
    pub(crate) rules: bool,
    pub(crate) peers: bool,
}

impl std::ops::Deref for Facet {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// The proxy and the snapshot with everything blanked out that must not matter to the shared part of a type.
pub(crate) fn audience(
    snapshot: &Snapshot,
    proxy: &ProxyView,
    scope: &ProxyScope,
    type_url: TypeUrl,
) -> (ProxyView, Facet) {
    let selects = snapshot.destination_rules.selects_by_labels(&proxy.namespace);
    let headless = type_url == TypeUrl::Listener && has_headless_listeners(scope);
    let (uses, labels) = match type_url {
        TypeUrl::Cluster => (Uses { endpoints: true, rules: true, peers: true }, selects),
        TypeUrl::Endpoint => (Uses { endpoints: true, rules: true, peers: false }, selects),
        TypeUrl::Listener => {
            (Uses { endpoints: headless, rules: true, peers: false }, selects || scope.routes_by_labels)
        }
        // Whether a subset exists is the rules' word.
        TypeUrl::RouteConfiguration | TypeUrl::VirtualHost => {
            (Uses { rules: true, ..Uses::default() }, selects || scope.routes_by_labels)
        }
        // Where clients choose endpoints, names lead to them.
        TypeUrl::NameTable => (Uses { endpoints: name_table::has_headless(scope), ..Uses::default() }, false),
        TypeUrl::Secret | TypeUrl::Generation => (Uses::default(), false),
    };
    let listener = type_url == TypeUrl::Listener;
    let routes = matches!(type_url, TypeUrl::RouteConfiguration | TypeUrl::VirtualHost);
    // Only the families of its addresses matter, unless its own endpoints are left out.
    let family = || proxy.ips.first().map(|ip| if ip.is_ipv4() { V4 } else { V6 });
    let ips = match (listener || routes, headless) {
        (true, true) => Arc::clone(&proxy.ips),
        (true, false) if proxy.ipv6_only() => [V6].into(),
        (true, false) if proxy.dual_stack() => [V4, V6].into(),
        (true, false) => family().map(|_| V4).into_iter().collect(),
        (false, _) => Arc::default(),
    };
    let audience = ProxyView {
        id: Str::empty(),
        kind: proxy.kind,
        flavor: proxy.flavor,
        ips,
        name: Name::default(),
        namespace: proxy.namespace.clone(),
        service_account: Name::default(),
        labels: if labels { proxy.labels.clone() } else { Labels::default() },
        workload: Str::empty(),
        cluster: ClusterId::default(),
        domain: proxy.domain.clone(),
        locality: if type_url == TypeUrl::Endpoint { proxy.locality.clone() } else { Locality::default() },
        interception: proxy.interception,
        http_proxy_port: proxy.http_proxy_port,
        idle_timeout: if listener { proxy.idle_timeout } else { None },
        http10: listener && proxy.http10,
        unprivileged: false,
        dns_capture: type_url == TypeUrl::NameTable && proxy.dns_capture,
    };
    let mut facet = snapshot.clone();
    facet.blank(uses.endpoints, uses.rules, uses.peers);
    (audience, Facet { snapshot: facet, uses })
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Whether an outbound listener is made for each endpoint of some service.
fn has_headless_listeners(scope: &ProxyScope) -> bool {
    let headless = |service: &Arc<Service>| {
        service.resolution == Resolution::Passthrough
            && service.registry == Registry::Kubernetes
            && service.ports.iter().any(|port| !port.protocol.is_http())
    };
    scope.services.iter().any(headless)
}
