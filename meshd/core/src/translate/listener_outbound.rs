//! Outbound listeners of sidecars (istio-surface section 3.5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::names::{BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, VIRTUAL_OUTBOUND_LISTENER};
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve, TransportMatch};
use mesh_api_xds::ir::http::RouteSource;
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::ir::matcher::Cidr;

use super::http::{Place, connection};
use super::names;
use super::route::{TableKind, in_port_table};
use super::tls::texts;
use super::view::View;
use crate::proxy::Interception;
use crate::scope::Egress;
use crate::snapshot::mesh::OutboundPolicy;
use crate::snapshot::services::{Port, Protocol, Registry, Resolution, Service};
use crate::snapshot::sidecars::EgressProtocol;
use crate::snapshot::virtual_services::{Client, GatewayRef, StaticMatch, VirtualService};

/// ALPN words of sniffed plaintext HTTP.
pub(crate) const SNIFFED_HTTP: &[&str] = &["http/1.1", "h2c"];

/// Makes all outbound listeners of a sidecar.
pub(crate) fn outbound_listeners(view: &View<'_>) -> Vec<Listener> {
    let mut made = Made { view, wildcard: BTreeMap::new(), addressed: BTreeMap::new(), listeners: Vec::new() };
    let captured = view.proxy.interception != Interception::None;
    let mut locked = BTreeSet::new();
    for egress in &view.scope.egress {
        match &egress.spec.port {
            Some(port) if egress.spec.bound => made.bound(egress, port.number, port.protocol),
            Some(port) if captured => {
                locked.insert(port.number);
                made.captured(egress, Some(port.number), &BTreeSet::new());
            }
            None if captured => made.captured(egress, None, &locked),
            Some(_) | None => {}
        }
    }
    if let Some(port) = view.proxy.http_proxy_port.or(view.snapshot.mesh.http_proxy_port) {
        made.http_proxy(SocketAddr::new(view.loopback(), port));
    }
    if captured {
        made.finish_captured();
        made.listeners.push(virtual_outbound(view));
    }
    made.listeners
}

/// `virtualOutbound`: hands connections over to the listener of their destination.
fn virtual_outbound(view: &View<'_>) -> Listener {
    let mesh = &view.snapshot.mesh;
    let guard = Chain {
        name: Str::from(names::OUTBOUND_BLACKHOLE_CHAIN),
        // A connection to the port itself would go round and round.
        matches: ChainMatch { destination_port: Some(mesh.outbound_port), ..ChainMatch::default() },
        tls: None,
        authz: Arc::default(),
        serve: view.tcp(BLACK_HOLE_CLUSTER, BLACK_HOLE_CLUSTER),
    };
    Listener {
        name: Str::from(VIRTUAL_OUTBOUND_LISTENER),
        address: SocketAddr::new(view.wildcard(), mesh.outbound_port),
        additional_addresses: Arc::default(),
        binding: Binding::Socket,
        original_dst: OriginalDst::HandOff,
        direction: Direction::Outbound,
        inspect: Inspect::default(),
        chains: [Arc::new(guard)].into(),
        default_chain: Some(Arc::new(view.unknown(names::OUTBOUND_CATCHALL_CHAIN))),
    }
}

impl View<'_> {
    /// The chain of destinations that no service has.
    fn unknown(&self, name: &str) -> Chain {
        let cluster = match self.scope.outbound {
            OutboundPolicy::AllowAny => PASSTHROUGH_CLUSTER,
            OutboundPolicy::RegistryOnly => BLACK_HOLE_CLUSTER,
        };
        Chain {
            name: Str::from(name),
            matches: ChainMatch::default(),
            tls: None,
            authz: Arc::default(),
            serve: self.tcp(cluster, cluster),
        }
    }

    /// HTTP with routes of a table.
    fn http(&self, listener: &str, table: &TableKind) -> Serve {
        let routes = RouteSource::Named(table.name());
        let prefix = format!("outbound_{listener}");
        let connection = connection(Place::Outbound, &self.snapshot.mesh, self.proxy, &prefix, routes, &[]);
        Serve::Http(Arc::new(connection))
    }
}

/// A listener for a port on any address, while it is put together.
#[derive(Default)]
struct Wildcard {
    http: bool,
    /// Chains that ask for more than the port.
    specific: Vec<Chain>,
    /// The chain for everything else.
    rest: Option<Chain>,
}

struct Made<'a> {
    view: &'a View<'a>,
    wildcard: BTreeMap<u16, Wildcard>,
    addressed: BTreeMap<SocketAddr, Listener>,
    listeners: Vec<Listener>,
}

impl Made<'_> {
    /// Services reached by captured connections: on one port, or on all but those that are locked.
    fn captured(&mut self, egress: &Egress, only: Option<u16>, locked: &BTreeSet<u16>) {
        for service in &egress.services {
            for port in service.ports.iter() {
                if only.is_some_and(|only| only != port.number) || locked.contains(&port.number) {
                    continue;
                }
                self.port(egress, service, port);
            }
        }
    }

    fn port(&mut self, egress: &Egress, service: &Arc<Service>, port: &Port) {
        if port.protocol == Protocol::Udp {
            return;
        }
        if in_port_table(service, port.number) {
            self.wildcard.entry(port.number).or_default().http = true;
            if port.protocol.is_http() {
                return;
            }
        }
        if matches!(service.resolution, Resolution::Alias(_)) {
            return;
        }
        if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
            self.headless(egress, service, port);
            return;
        }
        let host_bits = |cidr: &Cidr| cidr.bits == if cidr.address.is_ipv4() { 32 } else { 128 };
        let (hosts, ranges): (Vec<&Cidr>, Vec<&Cidr>) = service.addresses.iter().partition(|cidr| host_bits(cidr));
        for cidr in &hosts {
            self.addressed(egress, service, port, SocketAddr::new(cidr.address, port.number));
        }
        if hosts.is_empty() || !ranges.is_empty() {
            let ranges: Vec<Cidr> = ranges.into_iter().copied().collect();
            self.anywhere(egress, service, port, &ranges);
        }
    }

    /// One listener for each endpoint: clients address endpoints of a headless service themselves.
    fn headless(&mut self, egress: &Egress, service: &Arc<Service>, port: &Port) {
        let Some(endpoints) = self.view.snapshot.endpoints.of(service) else { return };
        for instance in endpoints.of(port.number) {
            let mesh_api_xds::ir::endpoint::Address::Socket(address) = &instance.address else { continue };
            if !self.view.proxy.has_ip(address.ip()) {
                self.addressed(egress, service, port, *address);
            }
        }
    }

    /// A listener for one address and port. The oldest service has it.
    fn addressed(&mut self, egress: &Egress, service: &Arc<Service>, port: &Port, address: SocketAddr) {
        if self.addressed.contains_key(&address) {
            self.view.report(overlap(service, &format!("{address} is taken by an older service")));
            return;
        }
        let name = names::listener(address);
        let mut listener = handed_over(&name, address);
        let chains = self.tcp_chains(egress, service, port, &[]);
        let mut inspect = Inspect { timeout: self.view.snapshot.mesh.detection_timeout, ..Inspect::default() };
        let mut all = chains.specific;
        inspect.tls = !all.is_empty();
        if port.protocol == Protocol::Auto {
            let table = TableKind::Service(Arc::clone(service), port.number);
            all.push(sniffed_http(&name, self.view.http(&name, &table)));
            (inspect.tls, inspect.http) = (true, true);
        }
        listener.inspect = if all.is_empty() { Inspect::default() } else { inspect };
        if all.is_empty() {
            listener.chains = [Arc::new(chains.rest)].into();
        } else {
            listener.chains = all.into_iter().map(Arc::new).collect();
            listener.default_chain = Some(Arc::new(chains.rest));
        }
        self.addressed.insert(address, listener);
    }

    /// A share of the listener for a port on any address.
    fn anywhere(&mut self, egress: &Egress, service: &Arc<Service>, port: &Port, ranges: &[Cidr]) {
        let chains = self.tcp_chains(egress, service, port, ranges);
        let by_name = port.protocol == Protocol::Tls && ranges.is_empty();
        let wildcard = self.wildcard.entry(port.number).or_default();
        let mut specific = chains.specific;
        if by_name || !ranges.is_empty() {
            specific.push(chains.rest);
        } else if wildcard.rest.is_some() {
            self.view
                .report(overlap(service, &format!("port {} on any address is taken by an older service", port.number)));
        } else {
            wildcard.rest = Some(chains.rest);
        }
        for chain in specific {
            if wildcard.specific.iter().any(|known| known.matches == chain.matches) {
                self.view.report(overlap(service, "the same connections are taken by an older service"));
            } else {
                wildcard.specific.push(chain);
            }
        }
    }

    fn finish_captured(&mut self) {
        let view = self.view;
        for (port, wildcard) in std::mem::take(&mut self.wildcard) {
            let address = SocketAddr::new(view.wildcard(), port);
            let name = names::listener(address);
            let mut listener = handed_over(&name, address);
            let mut chains = wildcard.specific;
            let by_name = chains.iter().any(|chain| chain.matches.transport == TransportMatch::Tls);
            if wildcard.http {
                chains.push(sniffed_http(&name, view.http(&name, &TableKind::Port(port))));
            }
            if !chains.is_empty() {
                listener.inspect = Inspect {
                    tls: wildcard.http || by_name,
                    http: wildcard.http,
                    except_ports: Arc::default(),
                    timeout: view.snapshot.mesh.detection_timeout,
                };
            }
            listener.default_chain =
                Some(Arc::new(wildcard.rest.unwrap_or_else(|| view.unknown(names::PASSTHROUGH_CHAIN))));
            // Destination addresses alone need nothing to be read.
            if !listener.inspect.tls && !listener.inspect.http {
                listener.inspect = Inspect::default();
            }
            listener.chains = chains.into_iter().map(Arc::new).collect();
            self.listeners.push(listener);
        }
        self.listeners.extend(std::mem::take(&mut self.addressed).into_values());
    }

    /// A listener with a socket of its own, from a Sidecar resource.
    fn bound(&mut self, egress: &Egress, number: u16, protocol: EgressProtocol) {
        let address = SocketAddr::new(egress.spec.bind.unwrap_or_else(|| self.view.loopback()), number);
        if protocol == EgressProtocol::HttpProxy {
            self.http_proxy(address);
            return;
        }
        let name = names::listener(address);
        if self.listeners.iter().any(|listener| listener.name == name) {
            return;
        }
        let declared = match protocol {
            EgressProtocol::Of(Protocol::Auto) | EgressProtocol::HttpProxy => None,
            EgressProtocol::Of(protocol) => Some(protocol),
        };
        let is_http = |service: &Arc<Service>| {
            service.port(number).is_some_and(|port| declared.unwrap_or(port.protocol).may_be_http())
        };
        let mut listener = Listener { binding: Binding::Socket, ..handed_over(&name, address) };
        let serve = if egress.services.iter().any(is_http) {
            self.view.http(&name, &TableKind::Bound(address))
        } else {
            let first = egress.services.iter().find_map(|service| Some((service, service.port(number)?)));
            let Some((service, port)) = first else {
                if let Some(sidecar) = &self.view.scope.sidecar {
                    let message = format!("no service has port {number}, so that nothing listens at {address}");
                    self.view
                        .report(Finding::new(Code::MissingReference, "spec.egress", message).on(sidecar.key.clone()));
                }
                return;
            };
            let chains = self.tcp_chains(egress, service, port, &[]);
            if !chains.specific.is_empty() {
                listener.inspect =
                    Inspect { tls: true, timeout: self.view.snapshot.mesh.detection_timeout, ..Inspect::default() };
            }
            listener.chains = chains.specific.into_iter().map(Arc::new).collect();
            listener.default_chain = Some(Arc::new(chains.rest));
            self.listeners.push(listener);
            return;
        };
        let chain =
            Chain { name: name.clone(), matches: ChainMatch::default(), tls: None, authz: Arc::default(), serve };
        listener.chains = [Arc::new(chain)].into();
        self.listeners.push(listener);
    }

    /// An HTTP proxy: any service by the authority of the request.
    fn http_proxy(&mut self, address: SocketAddr) {
        let name = names::listener(address);
        if self.listeners.iter().any(|listener| listener.name == name) {
            return;
        }
        let chain = Chain {
            name: name.clone(),
            matches: ChainMatch::default(),
            tls: None,
            authz: Arc::default(),
            serve: self.view.http(&name, &TableKind::Proxy),
        };
        let listener =
            Listener { binding: Binding::Socket, chains: [Arc::new(chain)].into(), ..handed_over(&name, address) };
        self.listeners.push(listener);
    }

    /// Chains of a service port for connections that are not routed as HTTP.
    fn tcp_chains(&self, egress: &Egress, service: &Arc<Service>, port: &Port, ranges: &[Cidr]) -> TcpChains {
        let routes = egress.route_of(&service.host);
        let client = Client {
            labels: &self.view.proxy.labels,
            namespace: &self.view.proxy.namespace,
            gateways: &[GatewayRef::Mesh],
            port: port.number,
        };
        let mut chains = match (routes, port.protocol) {
            (Some(routes), Protocol::Tls) => self.tls_routes(routes, &client, service),
            (Some(routes), _) => self.tcp_routes(routes, &client, service),
            (None, _) => TcpChains::new(self.view, service, port.number),
        };
        if port.protocol == Protocol::Tls && ranges.is_empty() && service.addresses.is_empty() {
            chains.rest.matches.server_names = [service.host.text().clone()].into();
            chains.rest.matches.transport = TransportMatch::Tls;
        }
        for chain in chains.specific.iter_mut().chain([&mut chains.rest]) {
            if chain.matches.destinations.is_empty() {
                chain.matches.destinations = ranges.iter().copied().collect();
            }
        }
        chains
    }

    fn tcp_routes(&self, routes: &VirtualService, client: &Client<'_>, service: &Service) -> TcpChains {
        let mut chains = TcpChains::new(self.view, service, client.port);
        for (number, rule) in routes.tcp.iter().enumerate() {
            for case in rule.cases.iter().filter(|case| case.on.holds(client)) {
                let Some(serve) = self.view.tcp_to(&rule.to, client.port, &rule.origin) else { break };
                if case.destinations.is_empty() {
                    chains.rest.serve = serve;
                    return chains;
                }
                let name = format!("{}-tcp-{number}", names::outbound(client.port, "", &service.host));
                let matches = ChainMatch { destinations: Arc::clone(&case.destinations), ..ChainMatch::default() };
                chains.add(name, matches, serve);
            }
        }
        chains
    }

    fn tls_routes(&self, routes: &VirtualService, client: &Client<'_>, service: &Service) -> TcpChains {
        let mut chains = TcpChains::new(self.view, service, client.port);
        for (number, rule) in routes.tls.iter().enumerate() {
            let holds = |on: &StaticMatch| on.holds(client);
            for (position, case) in rule.cases.iter().enumerate().filter(|(_, case)| holds(&case.on)) {
                let name = format!("{}-tls-{number}-{position}", names::outbound(client.port, "", &service.host));
                let matches = ChainMatch {
                    server_names: case.sni.iter().map(|host| host.text().clone()).collect(),
                    destinations: Arc::clone(&case.destinations),
                    transport: TransportMatch::Tls,
                    ..ChainMatch::default()
                };
                let Some(serve) = self.view.tcp_to(&rule.to, client.port, &rule.origin) else { break };
                chains.add(name, matches, serve);
            }
        }
        chains
    }
}

/// Chains of one service port.
struct TcpChains {
    specific: Vec<Chain>,
    rest: Chain,
}

impl TcpChains {
    /// All connections to the service's cluster.
    fn new(view: &View<'_>, service: &Service, port: u16) -> Self {
        let rest = Chain {
            name: names::outbound(port, "", &service.host),
            matches: ChainMatch::default(),
            tls: None,
            authz: Arc::default(),
            serve: view.tcp_service(service, port),
        };
        Self { specific: Vec::new(), rest }
    }

    /// Adds a chain unless an earlier one takes the same connections.
    fn add(&mut self, name: String, matches: ChainMatch, serve: Serve) {
        if self.specific.iter().all(|known| known.matches != matches) {
            let chain = Chain { name: Str::from(name), matches, tls: None, authz: Arc::default(), serve };
            self.specific.push(chain);
        }
    }
}

fn sniffed_http(listener: &str, serve: Serve) -> Chain {
    Chain {
        name: Str::from(format!("{listener}-http")),
        matches: ChainMatch {
            transport: TransportMatch::Raw,
            application_protocols: texts(SNIFFED_HTTP),
            ..ChainMatch::default()
        },
        tls: None,
        authz: Arc::default(),
        serve,
    }
}

/// A listener that is reached through `virtualOutbound`.
fn handed_over(name: &str, address: SocketAddr) -> Listener {
    Listener {
        name: Str::from(name),
        address,
        additional_addresses: Arc::default(),
        binding: Binding::HandedOver,
        original_dst: OriginalDst::Ignore,
        direction: Direction::Outbound,
        inspect: Inspect::default(),
        chains: Arc::default(),
        default_chain: None,
    }
}

fn overlap(service: &Service, message: &str) -> Finding {
    let host: &Hostname = &service.host;
    Finding::new(Code::Overlap, "", format!("{host}: {message}")).on(service.key.clone())
}
