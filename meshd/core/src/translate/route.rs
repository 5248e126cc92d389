//! Route configurations of sidecars: which virtual hosts are in them, under which domains.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_api::host::Hostname;
use mesh_api::ids::Namespace;
use mesh_api::text::Str;

use super::names;
use super::vhost::{Content, HostKey, RoutePart, cluster_of, port_of};
use super::view::View;
use crate::proxy::ProxyType;
use crate::scope::Egress;
use crate::snapshot::mesh::OutboundPolicy;
use crate::snapshot::services::{Protocol, Registry, Resolution, Service};
use crate::snapshot::virtual_services::{Client, GatewayRef, Target, VirtualService};

/// A route configuration before its virtual hosts are made.
#[derive(Clone, Debug)]
pub(crate) struct RouteTable {
    /// Resource name.
    pub(crate) name: Str,
    /// A port in the authority is ignored.
    pub(crate) ignore_port: bool,
    /// Virtual hosts; names without the table's name in front.
    pub(crate) hosts: Vec<HostKey>,
}

/// What a table is for.
#[derive(Clone, Debug)]
pub(crate) enum TableKind {
    /// HTTP on a port, whatever the address.
    Port(u16),
    /// One service port that may be HTTP.
    Service(Arc<Service>, u16),
    /// A listener with a socket of its own.
    Bound(SocketAddr),
    /// The HTTP proxy listener.
    Proxy,
}

impl TableKind {
    pub(crate) fn name(&self) -> Str {
        match self {
            Self::Port(port) => Str::from(port.to_string()),
            Self::Service(service, port) => Str::from(format!("{}:{port}", service.host)),
            Self::Bound(address) => names::listener(*address),
            Self::Proxy => Str::from(names::HTTP_PROXY_ROUTES),
        }
    }
}

/// Makes a table of a sidecar's outbound listener.
pub(crate) fn sidecar_table(view: &View<'_>, egress: &Egress, kind: &TableKind) -> RouteTable {
    let mut builder = Builder { view, egress, hosts: Vec::new(), taken: HashSet::new() };
    match kind {
        TableKind::Service(service, port) => {
            let content = builder.content(service, *port);
            builder.hosts.extend(content.map(|content| HostKey {
                name: Str::from(format!("{}:{port}", service.host)),
                domains: vec![Str::from("*")],
                mesh: view.mesh_ptr(),
                port: *port,
                content,
                require_tls: false,
            }));
        }
        TableKind::Port(port) => {
            builder.port(*port);
            builder.catch_all(*port, view.scope.outbound);
        }
        TableKind::Bound(address) => {
            builder.port(address.port());
            // Its connections have no other destination than itself, so that there is nowhere to let strangers go.
            builder.catch_all(address.port(), OutboundPolicy::RegistryOnly);
        }
        TableKind::Proxy => {
            builder.reserve(egress.services.iter().map(|service| &service.host));
            for service in &egress.services {
                for port in service.ports.iter().filter(|port| port.protocol.may_be_http()) {
                    builder.service(service, port.number, Ports::Listed);
                }
            }
            builder.strangers(80, Ports::Listed);
            builder.catch_all(0, OutboundPolicy::RegistryOnly);
        }
    }
    let ignore_port = !matches!(kind, TableKind::Proxy);
    RouteTable { name: kind.name(), ignore_port, hosts: builder.hosts }
}

/// Whether a service's port is served by the table of that port: HTTP always, unknown protocols when there is no address that
/// would tell services apart.
pub(crate) fn in_port_table(service: &Service, number: u16) -> bool {
    service.port(number).is_some_and(|port| match port.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Auto => service.addresses.is_empty() && service.resolution != Resolution::Passthrough,
        Protocol::Tls | Protocol::Tcp | Protocol::Udp => false,
    })
}

/// Treatment of ports in domains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// The table ignores them.
    Ignored,
    /// They tell services apart; port 80 may be left out.
    Listed,
}

struct Builder<'a> {
    view: &'a View<'a>,
    egress: &'a Egress,
    hosts: Vec<HostKey>,
    /// Domains that are spoken for.
    taken: HashSet<Str>,
}

impl Builder<'_> {
    /// Full names of services, which no short name of another may take.
    fn reserve<'h>(&mut self, hosts: impl Iterator<Item = &'h Hostname>) {
        self.taken.extend(hosts.map(|host| host.text().clone()));
    }

    /// What is done for a service port; `None` for another name of a service that does not have the port.
    fn content(&self, service: &Service, port: u16) -> Option<Content> {
        let routed =
            self.egress.route_of(&service.host).and_then(|routes| self.view.part(routes, port, &[GatewayRef::Mesh]));
        if let Some(part) = routed {
            return Some(Content::Routes { parts: vec![part], catch_alls_last: false });
        }
        let host = match &service.resolution {
            Resolution::Alias(target) => {
                let known = self.view.service(target)?;
                known.port(port)?;
                target.clone()
            }
            Resolution::Registry | Resolution::Passthrough | Resolution::Dns => service.host.clone(),
        };
        Some(Content::Cluster(names::outbound(port, "", &host)))
    }

    /// All services of the listener that are told apart by their hosts on a port.
    fn port(&mut self, port: u16) {
        let here: Vec<_> = self.egress.services.iter().filter(|service| in_port_table(service, port)).collect();
        self.reserve(here.iter().map(|service| &service.host));
        for service in &here {
            self.service(service, port, Ports::Ignored);
        }
        if port == 80 {
            self.strangers(80, Ports::Ignored);
        }
    }

    fn service(&mut self, service: &Service, port: u16, ports: Ports) {
        let Some(content) = self.content(service, port) else { return };
        let full = service.host.text().clone();
        let mut domains = vec![full.clone()];
        // The full name was reserved for exactly this.
        for alias in aliases(service, &self.view.proxy.namespace, &self.view.snapshot.mesh.domain) {
            if self.taken.insert(alias.clone()) {
                domains.push(alias);
            }
        }
        self.push(&service.host, port, ports, domains, content);
    }

    fn push(&mut self, host: &Hostname, port: u16, ports: Ports, domains: Vec<Str>, content: Content) {
        let domains = match ports {
            Ports::Ignored => domains,
            Ports::Listed => {
                let with_port = domains.iter().map(|domain| Str::from(format!("{domain}:{port}")));
                let bare = if port == 80 { domains.clone() } else { vec![] };
                with_port.chain(bare).collect()
            }
        };
        self.hosts.push(HostKey {
            name: Str::from(format!("{host}:{port}")),
            domains,
            mesh: self.view.mesh_ptr(),
            port,
            content,
            require_tls: false,
        });
    }

    /// Hosts of VirtualServices that no service has.
    fn strangers(&mut self, port: u16, ports: Ports) {
        for routes in &self.egress.virtual_services {
            for host in routes.hosts.iter() {
                let known = self.egress.has_service(host);
                let ip = host.as_str().parse::<IpAddr>().is_ok();
                if known || ip || !self.taken.insert(host.text().clone()) {
                    continue;
                }
                let Some(part) = self.view.part(routes, port, &[GatewayRef::Mesh]) else { continue };
                let content = Content::Routes { parts: vec![part], catch_alls_last: false };
                self.push(host, port, ports, vec![host.text().clone()], content);
            }
        }
    }

    /// The virtual host of everything else, and the order of the table.
    fn catch_all(&mut self, port: u16, strangers: OutboundPolicy) {
        self.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let (name, content) = match strangers {
            OutboundPolicy::AllowAny => (names::ALLOW_ANY, Content::AllowAny),
            OutboundPolicy::RegistryOnly => (names::BLOCK_ALL, Content::BlockAll),
        };
        self.hosts.push(HostKey {
            name: Str::from(name),
            domains: vec![Str::from("*")],
            mesh: self.view.mesh_ptr(),
            port,
            content,
            require_tls: false,
        });
    }
}

/// Other names under which a client of a namespace may call a service (istio-surface section 3.5).
fn aliases(service: &Service, client: &Namespace, domain: &str) -> Vec<Str> {
    let host = service.host.as_str();
    let mut all: Vec<String> = Vec::new();
    if !service.host.is_wildcard() && host.parse::<IpAddr>().is_err() {
        all.push(format!("{host}."));
    }
    if service.registry == Registry::Kubernetes {
        let (name, namespace) = (&service.name, &service.namespace);
        if host == format!("{name}.{namespace}.svc.{domain}") {
            all.push(format!("{name}.{namespace}"));
            all.push(format!("{name}.{namespace}.svc"));
            if service.namespace == *client {
                all.push(name.to_string());
            }
        }
        if service.resolution == Resolution::Passthrough {
            // Pods of a headless service have names of their own below it.
            let below: Vec<String> = std::iter::once(host).chain(all.iter().map(String::as_str)).map(below).collect();
            all.extend(below);
        }
    }
    for address in service.addresses.iter().filter(|cidr| cidr.bits == if cidr.address.is_ipv4() { 32 } else { 128 }) {
        all.push(match address.address {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
    }
    all.into_iter().map(Str::from).collect()
}

fn below(host: &str) -> String {
    format!("*.{host}")
}

/// The tables that a sidecar's listener for captured traffic needs: one for each port that HTTP services share, one for each
/// service port that may be HTTP and has an address of its own.
pub(crate) fn captured_tables(egress: &Egress) -> Vec<TableKind> {
    let mut ports = BTreeSet::new();
    let mut own = Vec::new();
    for service in &egress.services {
        for port in service.ports.iter().filter(|port| port.protocol.may_be_http()) {
            if in_port_table(service, port.number) {
                ports.insert(port.number);
            } else if !service.addresses.is_empty() || service.resolution == Resolution::Passthrough {
                own.push(TableKind::Service(Arc::clone(service), port.number));
            }
        }
    }
    ports.into_iter().map(TableKind::Port).chain(own).collect()
}

impl View<'_> {
    /// What of a VirtualService applies to this proxy on a port.
    pub(crate) fn part(&self, routes: &Arc<VirtualService>, port: u16, gateways: &[GatewayRef]) -> Option<RoutePart> {
        let client = Client { labels: &self.proxy.labels, namespace: &self.proxy.namespace, gateways, port };
        let cluster = |target: &Target| {
            self.exists(target, port).then(|| cluster_of(target, port, self.scope, &|host| self.service(host)))
        };
        RoutePart::new(routes, &client, &cluster)
    }

    /// Whether there are the service, the port and the subset to which requests on `port` are led.
    pub(crate) fn exists(&self, target: &Target, port: u16) -> bool {
        let named = self.service(&target.host);
        let service = named.and_then(|service| match &service.resolution {
            Resolution::Alias(real) => self.service(real),
            Resolution::Registry | Resolution::Passthrough | Resolution::Dns => Some(service),
        });
        let Some(service) = service else { return false };
        let has_subset = || self.rule(&service).is_some_and(|rule| rule.subset(&target.subset).is_some());
        service.port(port_of(target, Some(&service), port)).is_some() && (target.subset.is_empty() || has_subset())
    }

    /// A service by host: of the scope, else any that the namespace sees (destinations may lie outside of a scope).
    pub(crate) fn service(&self, host: &Hostname) -> Option<Arc<Service>> {
        let outside = || self.snapshot.services.visible(host, &self.proxy.namespace).cloned();
        self.scope.service(host).cloned().or_else(outside)
    }

    /// Whether this is a gateway's view.
    pub(crate) const fn is_router(&self) -> bool {
        matches!(self.proxy.kind, ProxyType::Router)
    }
}
