//! Listeners and routes of gateways.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::Namespace;
use mesh_api::names::BLACK_HOLE_CLUSTER;
use mesh_api::text::Str;
use mesh_api_xds::ir::authz::Authz;
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve, TransportMatch};
use mesh_api_xds::ir::http::RouteSource;
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};

use super::gateway::{Opened, Socket};
use super::http::{Place, connection};
use super::names;
use super::route::RouteTable;
use super::vhost::{Content, HostKey, RoutePart};
use super::view::View;
use crate::snapshot::gateways::{ServerHost, Serves};
use crate::snapshot::policies::WorkloadAuthz;
use crate::snapshot::virtual_services::{Client, GatewayRef, VirtualService};

/// Makes the listeners of a gateway.
pub(crate) fn gateway_listeners(view: &View<'_>, sockets: &[Socket]) -> Vec<Listener> {
    let authz = view.snapshot.workload_authz(&view.proxy.namespace, &view.proxy.labels);
    sockets.iter().filter_map(|socket| listener(view, socket, &authz)).collect()
}

fn listener(view: &View<'_>, socket: &Socket, authz: &WorkloadAuthz) -> Option<Listener> {
    let name = names::listener(socket.address);
    let mut chains: Vec<Chain> = Vec::new();
    let mut plain_http = false;
    for opened in &socket.servers {
        match &opened.server.serves {
            // All plaintext HTTP of a socket is one chain with one route configuration.
            Serves::Http if plain_http => {}
            Serves::Http => {
                plain_http = true;
                chains.push(Chain {
                    name: name.clone(),
                    matches: ChainMatch::default(),
                    tls: None,
                    authz: Arc::default(),
                    serve: http(view, &name, opened, &authz.http),
                });
            }
            Serves::Https(tls) => chains.push(Chain {
                name: opened.route_name(),
                matches: by_name(&opened.server.hosts),
                tls: Some(Arc::clone(tls)),
                authz: Arc::default(),
                serve: http(view, &name, opened, &authz.http),
            }),
            Serves::TlsTerminated(tls) => {
                let serve =
                    tcp_routes(view, opened).unwrap_or_else(|| view.tcp(BLACK_HOLE_CLUSTER, BLACK_HOLE_CLUSTER));
                chains.push(Chain {
                    name: Str::from(format!("{name}-{}-{}", opened.gateway.key.name, opened.server.index)),
                    matches: by_name(&opened.server.hosts),
                    tls: Some(Arc::clone(tls)),
                    authz: Arc::clone(&authz.tcp),
                    serve,
                });
            }
            Serves::Tcp => {
                if let Some(serve) = tcp_routes(view, opened).filter(|_| chains.is_empty()) {
                    chains.push(Chain {
                        name: name.clone(),
                        matches: ChainMatch::default(),
                        tls: None,
                        authz: Arc::clone(&authz.tcp),
                        serve,
                    });
                }
            }
            Serves::TlsPassthrough => passthrough(view, opened, &name, &authz.tcp, &mut chains),
        }
    }
    if chains.is_empty() {
        return None;
    }
    let tls = chains.iter().any(|chain| chain.matches.transport == TransportMatch::Tls);
    Some(Listener {
        name,
        address: socket.address,
        additional_addresses: Arc::default(),
        binding: Binding::Socket,
        original_dst: OriginalDst::Ignore,
        direction: Direction::Outbound,
        inspect: Inspect { tls, ..Inspect::default() },
        chains: chains.into_iter().map(Arc::new).collect(),
        default_chain: None,
    })
}

fn http(view: &View<'_>, listener: &str, opened: &Opened, authz: &[Authz]) -> Serve {
    let prefix = format!("outbound_{listener}");
    let routes = RouteSource::Named(opened.route_name());
    Serve::Http(Arc::new(connection(Place::Gateway, &view.snapshot.mesh, view.proxy, &prefix, routes, authz)))
}

/// TLS connections for the hosts of a server; the host `*` is no condition on the name.
fn by_name(hosts: &[ServerHost]) -> ChainMatch {
    let any = hosts.iter().any(|host| host.host == "*");
    let names = hosts.iter().map(|host| host.host.text().clone());
    ChainMatch {
        server_names: if any { Arc::default() } else { names.collect() },
        transport: TransportMatch::Tls,
        ..ChainMatch::default()
    }
}

/// VirtualServices whose routes a server has, with the hosts both have, in order of precedence.
fn routes_of<'v>(view: &View<'v>, opened: &Opened) -> Vec<(&'v Arc<VirtualService>, Vec<Hostname>)> {
    let Some(egress) = view.scope.catch_all() else { return Vec::new() };
    let reference = opened.reference();
    let bound = egress.virtual_services.iter().filter(|routes| routes.applies_at(&reference));
    let mut found = Vec::new();
    for routes in bound {
        let mut hosts: Vec<Hostname> = Vec::new();
        for host in routes.hosts.iter() {
            let common = opened.server.hosts.iter().filter_map(|server| common(server, host, &routes.key.namespace));
            for host in common {
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
        }
        if !hosts.is_empty() {
            found.push((routes, hosts));
        }
    }
    found
}

/// The narrower of a server's host and a route's.
fn common(server: &ServerHost, host: &Hostname, namespace: &Namespace) -> Option<Hostname> {
    if server.namespace.as_ref().is_some_and(|allowed| allowed != namespace) {
        return None;
    }
    if host.subset_of(&server.host) {
        Some(host.clone())
    } else if server.host.subset_of(host) {
        Some(server.host.clone())
    } else {
        None
    }
}

fn client<'c>(view: &'c View<'_>, opened: &Opened, gateways: &'c [GatewayRef]) -> Client<'c> {
    Client { labels: &view.proxy.labels, namespace: &view.proxy.namespace, gateways, port: opened.server.port }
}

/// Destinations of a server for bytes: of the first route of the first VirtualService that has one.
fn tcp_routes(view: &View<'_>, opened: &Opened) -> Option<Serve> {
    let gateways = [opened.reference()];
    let client = client(view, opened, &gateways);
    for (routes, _) in routes_of(view, opened) {
        for rule in routes.tcp.iter() {
            let holds = rule.cases.iter().any(|case| case.on.holds(&client));
            if let Some(serve) = view.tcp_to(&rule.to, opened.server.port, &rule.origin).filter(|_| holds) {
                return Some(serve);
            }
        }
    }
    None
}

/// Chains of a server that passes TLS through: one for each server name of its routes.
fn passthrough(view: &View<'_>, opened: &Opened, name: &str, authz: &Arc<[Authz]>, chains: &mut Vec<Chain>) {
    let gateways = [opened.reference()];
    let client = client(view, opened, &gateways);
    for (routes, hosts) in routes_of(view, opened) {
        for (number, rule) in routes.tls.iter().enumerate() {
            for (position, case) in rule.cases.iter().enumerate().filter(|(_, case)| case.on.holds(&client)) {
                let free = |sni: &&Hostname| {
                    let taken = chains.iter().any(|chain| chain.matches.server_names.contains(sni.text()));
                    if taken {
                        let message = format!("the server name {sni} on this port is taken by an older route");
                        let path = format!("spec.tls[{number}].match[{position}].sniHosts");
                        view.report(Finding::new(Code::Overlap, path, message).on(routes.key.clone()));
                    }
                    !taken && hosts.iter().any(|host| sni.subset_of(host) || host.subset_of(sni))
                };
                let names: Arc<[Str]> = case.sni.iter().filter(free).map(|sni| sni.text().clone()).collect();
                let serve = view.tcp_to(&rule.to, opened.server.port, &rule.origin);
                let Some(serve) = serve.filter(|_| !names.is_empty()) else { continue };
                let matches = ChainMatch {
                    server_names: names,
                    destinations: Arc::clone(&case.destinations),
                    transport: TransportMatch::Tls,
                    ..ChainMatch::default()
                };
                chains.push(Chain {
                    name: Str::from(format!("{name}-{}-{number}-{position}", routes.key.name)),
                    matches,
                    tls: None,
                    authz: Arc::clone(authz),
                    serve,
                });
            }
        }
    }
}

/// Route configurations of a gateway: one for all plaintext servers of a port, one for each HTTPS server.
pub(crate) fn gateway_tables(view: &View<'_>, sockets: &[Socket]) -> Vec<RouteTable> {
    let mut tables: BTreeMap<Str, Vec<&Opened>> = BTreeMap::new();
    for opened in sockets.iter().flat_map(|socket| &socket.servers) {
        if matches!(opened.server.serves, Serves::Http | Serves::Https(_)) {
            tables.entry(opened.route_name()).or_default().push(opened);
        }
    }
    tables.into_iter().map(|(name, servers)| table(view, name, &servers)).collect()
}

/// What a gateway does for one host.
#[derive(Default)]
struct HostPlan {
    parts: Vec<RoutePart>,
    require_tls: bool,
}

fn table(view: &View<'_>, name: Str, servers: &[&Opened]) -> RouteTable {
    let mut plans: BTreeMap<Hostname, HostPlan> = BTreeMap::new();
    let port = servers.first().map_or(0, |opened| opened.server.port);
    for opened in servers {
        if opened.server.https_redirect {
            for host in opened.server.hosts.iter() {
                plans.entry(host.host.clone()).or_default().require_tls = true;
            }
        }
        let gateways = [opened.reference()];
        for (routes, hosts) in routes_of(view, opened) {
            let Some(part) = view.part(routes, opened.server.port, &gateways) else { continue };
            for host in hosts {
                let plan = plans.entry(host).or_default();
                plan.require_tls |= opened.server.https_redirect;
                // Two servers may lead the same VirtualService to the same host.
                if !plan.parts.contains(&part) {
                    plan.parts.push(part.clone());
                }
            }
        }
    }
    let mut hosts: Vec<HostKey> = plans
        .into_iter()
        .map(|(host, plan)| HostKey {
            name: Str::from(format!("{host}:{port}")),
            domains: vec![host.text().clone()],
            mesh: view.mesh_ptr(),
            port,
            content: if plan.parts.is_empty() {
                Content::NotFound
            } else {
                Content::Routes { parts: plan.parts, catch_alls_last: true }
            },
            require_tls: plan.require_tls,
        })
        .collect();
    if hosts.is_empty() {
        hosts.push(HostKey {
            name: Str::from(format!("blackhole:{port}")),
            domains: vec![Str::from("*")],
            mesh: view.mesh_ptr(),
            port,
            content: Content::NotFound,
            require_tls: false,
        });
    }
    RouteTable { name, ignore_port: true, hosts }
}
