//! Inbound listeners of sidecars (istio-surface section 3.6) and the ports they serve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::names::{BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, VIRTUAL_INBOUND_LISTENER};
use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve, TransportMatch};
use mesh_api_xds::ir::cluster::Cluster;
use mesh_api_xds::ir::http::RouteSource;
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::ir::route::{Action, RetryOn, RetryPolicy, RetrySafety, RouteConfig, RouteHosts, VirtualHost};

use super::cluster::{self, InboundCluster};
use super::http::{Place, connection};
use super::listener_outbound::SNIFFED_HTTP;
use super::names;
use super::tls::{self, MESH_ALPN, MESH_HTTP_ALPN, MESH_TCP_ALPN, texts};
use super::vhost::plain_route;
use super::view::View;
use crate::proxy::{Interception, ProxyType};
use crate::snapshot::destination_rules::Pool;
use crate::snapshot::mesh::{DEFAULT_BACKOFF, InboundPolicy};
use crate::snapshot::policies::{MtlsMode, MtlsModes, WorkloadAuthz};
use crate::snapshot::services::{Port, Protocol, Service, TargetPort};
use crate::snapshot::sidecars::{Ingress, IngressEndpoint};

/// A port of the workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InboundPort {
    /// Port of the workload.
    pub(crate) number: u16,
    /// Port of the service; the workload's where there is no service.
    pub(crate) service_port: u16,
    pub(crate) protocol: Protocol,
    /// The service whose telemetry and rules it is.
    pub(crate) service: Option<Arc<Service>>,
    /// Where the workload listens; `None` is the original destination.
    pub(crate) endpoint: Option<SocketAddr>,
    /// A socket of its own, at this address.
    pub(crate) bound: Option<SocketAddr>,
    pub(crate) pool: Option<Pool>,
}

/// Service ports that a proxy serves: service, its port, the workload's port; oldest service first.
pub(crate) fn served(view: &View<'_>) -> Vec<(Arc<Service>, Port, u16)> {
    let (snapshot, proxy) = (view.snapshot, view.proxy);
    let mut by_address: BTreeSet<(&str, u16, u16)> = BTreeSet::new();
    for ip in proxy.ips.iter() {
        let ports = snapshot.endpoints.served(&proxy.namespace, *ip).iter();
        // Several workloads may share an address, but then their names tell them apart.
        let ports = ports.filter(|port| port.pod.is_empty() || port.pod == proxy.name || !shares_address(view, *ip));
        by_address.extend(ports.map(|port| (port.host.as_str(), port.port, port.target)));
    }
    let mut all = Vec::new();
    for service in snapshot.services.by_age.iter().filter(|service| service.namespace == proxy.namespace) {
        let selected = service.selector.as_ref().is_some_and(|selector| selector.matches(&proxy.labels));
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let from = (service.host.as_str(), port.number, 0);
            let found = by_address
                .range(from..)
                .next()
                .filter(|(host, number, _)| *host == service.host.as_str() && *number == port.number);
            let target = match (found, &port.target) {
                (Some((_, _, target)), _) => *target,
                // Before its endpoints are known a workload is recognised by its labels.
                (None, TargetPort::Number(number)) if selected => *number,
                _ => continue,
            };
            all.push((Arc::clone(service), port.clone(), target));
        }
    }
    all
}

/// Whether workloads of different names are served at an address.
fn shares_address(view: &View<'_>, ip: IpAddr) -> bool {
    let ports = view.snapshot.endpoints.served(&view.proxy.namespace, ip);
    let names: BTreeSet<_> = ports.iter().map(|port| &port.pod).filter(|pod| !pod.is_empty()).collect();
    names.len() > 1
}

/// Inbound ports of a sidecar: those its Sidecar resource lists, else those of its services.
pub(crate) fn inbound_ports(view: &View<'_>) -> Vec<InboundPort> {
    if view.proxy.kind == ProxyType::Router {
        return Vec::new();
    }
    let served = served(view);
    let sidecar = view.scope.sidecar.as_deref();
    let general_pool = sidecar.and_then(|sidecar| sidecar.inbound_pool.clone());
    if let Some(sidecar) = sidecar.filter(|sidecar| !sidecar.ingress.is_empty()) {
        let ports = sidecar.ingress.iter().map(|ingress| from_ingress(view, ingress, &served, general_pool.as_ref()));
        return ports.collect();
    }
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for (service, port, target) in served {
        let rule_pool = || {
            let rule = view.server_rule(&service)?;
            rule.blocks(None, port.number).pool
        };
        let localhost = view.snapshot.mesh.inbound == InboundPolicy::Localhost;
        // Several services on one port: the oldest says what is spoken and whose telemetry it is.
        ports.entry(target).or_insert_with(|| InboundPort {
            number: target,
            service_port: port.number,
            protocol: port.protocol,
            pool: general_pool.clone().or_else(rule_pool),
            service: Some(Arc::clone(&service)),
            endpoint: localhost.then(|| SocketAddr::new(view.loopback(), target)),
            bound: None,
        });
    }
    ports.into_values().collect()
}

fn from_ingress(
    view: &View<'_>,
    ingress: &Ingress,
    served: &[(Arc<Service>, Port, u16)],
    general_pool: Option<&Pool>,
) -> InboundPort {
    let own = view.proxy.ips.first().copied().unwrap_or_else(|| view.loopback());
    let found = served.iter().find(|(_, _, target)| *target == ingress.port);
    let protocol = match (ingress.protocol, found) {
        (Protocol::Auto, Some((_, port, _))) => port.protocol,
        (protocol, _) => protocol,
    };
    let bound = ingress.bound || view.proxy.interception == Interception::None;
    let endpoint = match ingress.endpoint {
        IngressEndpoint::Address(address) => Some(address),
        IngressEndpoint::InstanceIp(port) => Some(SocketAddr::new(own, port)),
        // A connection that was not redirected has no other destination than the listener itself.
        IngressEndpoint::OriginalDst if bound => Some(SocketAddr::new(view.loopback(), ingress.port)),
        IngressEndpoint::OriginalDst => None,
    };
    InboundPort {
        number: ingress.port,
        service_port: found.map_or(ingress.port, |(_, port, _)| port.number),
        protocol,
        service: found.map(|(service, _, _)| Arc::clone(service)),
        endpoint,
        bound: bound.then(|| SocketAddr::new(ingress.bind.unwrap_or(own), ingress.port)),
        pool: ingress.pool.clone().or_else(|| general_pool.cloned()),
    }
}

/// Clusters of inbound ports.
pub(crate) fn inbound_clusters(view: &View<'_>, ports: &[InboundPort]) -> Vec<Cluster> {
    let of = |port: &InboundPort| {
        cluster::inbound(&InboundCluster {
            mesh: &view.snapshot.mesh,
            port: port.number,
            protocol: port.protocol,
            endpoint: port.endpoint,
            service: port.service.as_deref(),
            pool: port.pool.as_ref(),
            ipv6: view.proxy.ipv6_only(),
        })
    };
    ports.iter().map(of).collect()
}

/// Makes all inbound listeners of a sidecar.
pub(crate) fn inbound_listeners(view: &View<'_>, ports: &[InboundPort]) -> Vec<Listener> {
    let (namespace, labels) = (&view.proxy.namespace, &view.proxy.labels);
    let chains = Chains {
        view,
        modes: view.snapshot.workload_modes(namespace, labels),
        authz: view.snapshot.workload_authz(namespace, labels),
    };
    let mut listeners = Vec::new();
    for port in ports {
        if let Some(address) = port.bound {
            listeners.push(chains.bound(port, address));
        }
    }
    if view.proxy.interception != Interception::None {
        listeners.push(chains.virtual_inbound(ports));
    }
    listeners
}

struct Chains<'a> {
    view: &'a View<'a>,
    modes: MtlsModes,
    authz: WorkloadAuthz,
}

/// What chains are made for.
struct Subject<'a> {
    /// Beginning of chain names.
    name: &'a str,
    /// Name of the HTTP chain when plaintext.
    http_name: &'a str,
    port: Option<u16>,
    service_port: u16,
    protocol: Protocol,
    cluster: Str,
    retry: bool,
}

impl Chains<'_> {
    /// `virtualInbound`: all captured connections.
    fn virtual_inbound(&self, ports: &[InboundPort]) -> Listener {
        let mesh = &self.view.snapshot.mesh;
        let mut chains = vec![Chain {
            name: Str::from(names::INBOUND_BLACKHOLE_CHAIN),
            matches: ChainMatch { destination_port: Some(mesh.inbound_port), ..ChainMatch::default() },
            tls: None,
            authz: Arc::default(),
            serve: self.view.tcp(BLACK_HOLE_CLUSTER, BLACK_HOLE_CLUSTER),
        }];
        let mut except = Vec::new();
        let captured = ports.iter().filter(|port| port.bound.is_none());
        let known: BTreeSet<u16> = captured.clone().map(|port| port.number).collect();
        for port in captured {
            let mode = self.modes.of(port.number);
            if mode == MtlsMode::Disable && matches!(port.protocol, Protocol::Tcp | Protocol::Tls) {
                // The server may speak first, and nothing that the client says decides anything.
                except.push(port.number);
            }
            chains.extend(self.of_port(port, mode));
        }
        // Modes of single ports hold for ports without a service, too.
        for (number, mode) in self.modes.ports.iter().filter(|(number, _)| !known.contains(number)) {
            let name = format!("{VIRTUAL_INBOUND_LISTENER}-{number}");
            let http_name = format!("{}-{number}", names::INBOUND_CATCHALL_HTTP_CHAIN);
            chains.extend(self.passthrough(Some(*number), *mode, &name, &http_name));
        }
        let (all, http) = (VIRTUAL_INBOUND_LISTENER, names::INBOUND_CATCHALL_HTTP_CHAIN);
        chains.extend(self.passthrough(None, self.modes.workload, all, http));
        Listener {
            name: Str::from(VIRTUAL_INBOUND_LISTENER),
            address: SocketAddr::new(self.view.wildcard(), mesh.inbound_port),
            additional_addresses: Arc::default(),
            binding: Binding::Socket,
            original_dst: OriginalDst::Recover,
            direction: Direction::Inbound,
            inspect: Inspect { tls: true, http: true, except_ports: except.into(), timeout: mesh.detection_timeout },
            chains: chains.into_iter().map(Arc::new).collect(),
            default_chain: None,
        }
    }

    /// A listener with a socket of its own.
    fn bound(&self, port: &InboundPort, address: SocketAddr) -> Listener {
        let mode = self.modes.of(port.number);
        let mut chains = self.of_port(port, mode);
        for chain in &mut chains {
            chain.matches.destination_port = None;
        }
        let reads = chains.iter().any(|chain| chain.matches != ChainMatch::default());
        let timeout = self.view.snapshot.mesh.detection_timeout;
        let sniffs = chains
            .iter()
            .any(|c| c.matches.transport == TransportMatch::Raw && !c.matches.application_protocols.is_empty());
        Listener {
            name: names::listener(address),
            address,
            additional_addresses: Arc::default(),
            binding: Binding::Socket,
            original_dst: OriginalDst::Ignore,
            direction: Direction::Inbound,
            inspect: Inspect {
                tls: reads,
                http: sniffs,
                except_ports: Arc::default(),
                timeout: if reads { timeout } else { Duration::ZERO },
            },
            chains: chains.into_iter().map(Arc::new).collect(),
            default_chain: None,
        }
    }

    fn of_port(&self, port: &InboundPort, mode: MtlsMode) -> Vec<Chain> {
        let address = self.view.wildcard();
        let name = format!("{address}_{}", port.number);
        let subject = Subject {
            name: &name,
            http_name: &format!("{name}-http"),
            port: Some(port.number),
            service_port: port.service_port,
            protocol: port.protocol,
            cluster: names::inbound(port.number),
            retry: port.protocol != Protocol::Grpc,
        };
        self.chains(&subject, mode)
    }

    /// Chains of ports without a service.
    fn passthrough(&self, port: Option<u16>, mode: MtlsMode, name: &str, http_name: &str) -> Vec<Chain> {
        let subject = Subject {
            name,
            http_name,
            port,
            service_port: port.unwrap_or_default(),
            protocol: Protocol::Auto,
            cluster: Str::from(INBOUND_PASSTHROUGH_CLUSTER),
            retry: false,
        };
        self.chains(&subject, mode)
    }

    /// Chains by mode and protocol: what is mutual TLS, what is the application's own TLS, what is plaintext.
    fn chains(&self, subject: &Subject<'_>, mode: MtlsMode) -> Vec<Chain> {
        let (raw, secure, any) = (TransportMatch::Raw, TransportMatch::Tls, TransportMatch::Any);
        let http = subject.protocol.is_http();
        let auto = subject.protocol == Protocol::Auto;
        let mtls = |suffix: &str, alpn: &[&str], http: bool| self.chain(subject, suffix, (secure, alpn), true, http);
        let plain = |suffix: &str, transport, alpn: &[&str], http: bool| {
            self.chain(subject, suffix, (transport, alpn), false, http)
        };
        match mode {
            MtlsMode::Permissive if http => vec![mtls("mtls", MESH_ALPN, true), plain("", raw, &[], true)],
            MtlsMode::Permissive if auto => vec![
                mtls("http-mtls", MESH_HTTP_ALPN, true),
                mtls("mtls", MESH_TCP_ALPN, false),
                plain("", raw, SNIFFED_HTTP, true),
                plain("tls", secure, &[], false),
                plain("", raw, &[], false),
            ],
            MtlsMode::Permissive => {
                vec![mtls("mtls", MESH_ALPN, false), plain("tls", secure, &[], false), plain("", raw, &[], false)]
            }
            MtlsMode::Strict if auto => {
                vec![mtls("http-mtls", MESH_HTTP_ALPN, true), mtls("mtls", &[], false)]
            }
            MtlsMode::Strict => vec![mtls("mtls", &[], http)],
            // A chain for any transport would not take what is plaintext and not HTTP: matching never goes back from the
            // more specific transport.
            MtlsMode::Disable if auto => {
                vec![plain("", raw, SNIFFED_HTTP, true), plain("tls", secure, &[], false), plain("", raw, &[], false)]
            }
            MtlsMode::Disable => vec![plain("", any, &[], http)],
        }
    }

    fn chain(
        &self,
        subject: &Subject<'_>,
        suffix: &str,
        (transport, alpn): (TransportMatch, &[&str]),
        mtls: bool,
        http: bool,
    ) -> Chain {
        let base = if http && !mtls { subject.http_name } else { subject.name };
        let name = if suffix.is_empty() { base.to_owned() } else { format!("{base}-{suffix}") };
        let mesh = &self.view.snapshot.mesh;
        Chain {
            name: Str::from(name),
            matches: ChainMatch {
                destination_port: subject.port,
                transport,
                application_protocols: texts(alpn),
                ..ChainMatch::default()
            },
            tls: mtls.then(|| tls::inbound(mesh, self.view.proxy.flavor, http)),
            // Requests are judged one by one; what is no request is judged by its connection.
            authz: if http { Arc::default() } else { Arc::clone(&self.authz.tcp) },
            serve: if http { self.http(subject) } else { self.view.tcp(&subject.cluster, &subject.cluster) },
        }
    }

    fn http(&self, subject: &Subject<'_>) -> Serve {
        let retry = subject.retry.then(|| Arc::new(inbound_retry()));
        let mut route = plain_route(names::DEFAULT_ROUTE, &subject.cluster, retry);
        if let Action::Forward(forward) = &mut route.action {
            forward.timeout = None;
        }
        let host = VirtualHost {
            name: Str::from(format!("inbound|http|{}", subject.service_port)),
            domains: [Str::from("*")].into(),
            routes: [route].into(),
            require_tls: false,
            attempt_count: false,
        };
        let routes = RouteConfig {
            name: subject.cluster.clone(),
            hosts: RouteHosts::Inline([Arc::new(host)].into()),
            ignore_port: true,
        };
        let mesh = &self.view.snapshot.mesh;
        let prefix = match subject.port {
            Some(port) => format!("inbound_{}_{port}", self.view.wildcard()),
            None => format!("inbound_{}", self.view.wildcard()),
        };
        let routes = RouteSource::Inline(Arc::new(routes));
        let connection = connection(Place::Inbound, mesh, self.view.proxy, &prefix, routes, &self.authz.http);
        Serve::Http(Arc::new(connection))
    }
}

/// The server's own proxy tries again what its workload has not read (istio-surface section 14, row 8).
fn inbound_retry() -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::RESET_BEFORE_REQUEST,
        attempts: 2,
        per_try_timeout: None,
        statuses: Arc::default(),
        avoid_previous: false,
        backoff: DEFAULT_BACKOFF,
        safety: RetrySafety::Safe,
        origin: Origin::default(),
    }
}
