//! Which servers a gateway proxy opens: the Gateways that select it, merged (istio-surface section 1.5).

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::text::Str;

use super::listener_inbound::served;
use super::view::View;
use crate::proxy::ProxyType;
use crate::snapshot::gateways::{Gateway, Server, Serves};
use crate::snapshot::virtual_services::GatewayRef;

/// One server of one Gateway.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) server: Server,
    /// Port that is bound.
    pub(crate) port: u16,
}

/// Servers that share a socket, the oldest first; all of one class.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) address: SocketAddr,
    pub(crate) servers: Vec<Opened>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Http,
    Tls,
    Tcp,
}

impl Opened {
    fn class(&self) -> Class {
        match self.server.serves {
            Serves::Http => Class::Http,
            Serves::Tcp => Class::Tcp,
            Serves::Https(_) | Serves::TlsTerminated(_) | Serves::TlsPassthrough => Class::Tls,
        }
    }

    pub(crate) fn reference(&self) -> GatewayRef {
        self.gateway.reference()
    }

    /// Route configuration of the server.
    pub(crate) fn route_name(&self) -> Str {
        let key = &self.gateway.key;
        match self.server.serves {
            Serves::Https(_) => {
                Str::from(format!("https.{}.{}.{}.{}", self.port, self.server.port_name, key.name, key.namespace))
            }
            Serves::Http | Serves::Tcp | Serves::TlsTerminated(_) | Serves::TlsPassthrough => {
                Str::from(format!("http.{}", self.port))
            }
        }
    }
}

/// The sockets of a gateway proxy.
pub(crate) fn sockets(view: &View<'_>) -> Vec<Socket> {
    if view.proxy.kind != ProxyType::Router {
        return Vec::new();
    }
    let ports = served(view);
    let mut sockets: BTreeMap<SocketAddr, Vec<Opened>> = BTreeMap::new();
    let selecting = view.snapshot.gateways.iter().filter(|gateway| gateway.selector.matches(&view.proxy.labels));
    for gateway in selecting {
        for server in gateway.servers.iter() {
            // The port of a server is that of the gateway's Service; its pods listen at the target port.
            let port = ports.iter().find(|(_, port, _)| port.number == server.port).map_or(server.port, |(.., t)| *t);
            let opened = Opened { gateway: Arc::clone(gateway), server: server.clone(), port };
            if view.proxy.unprivileged && port < 1024 {
                report(view, &opened, Code::Ineffective, format!("the gateway may not bind port {port}"));
                continue;
            }
            let address = SocketAddr::new(server.bind.unwrap_or_else(|| view.wildcard()), port);
            let there = sockets.entry(address).or_default();
            if let Some(opened) = fits(view, there, opened) {
                there.push(opened);
            }
        }
    }
    sockets
        .into_iter()
        .filter(|(_, servers)| !servers.is_empty())
        .map(|(address, servers)| Socket { address, servers })
        .collect()
}

/// Whether a server can share a socket with older ones; what of it can.
fn fits(view: &View<'_>, there: &[Opened], opened: Opened) -> Option<Opened> {
    let Some(first) = there.first() else { return Some(opened) };
    if first.class() != opened.class() {
        let message = format!("port {} is used for another protocol by an older server", opened.port);
        report(view, &opened, Code::Overlap, message);
        return None;
    }
    if opened.class() == Class::Tls {
        let taken: HashSet<&Hostname> =
            there.iter().flat_map(|known| known.server.hosts.iter().map(|host| &host.host)).collect();
        if let Some(host) = opened.server.hosts.iter().find(|host| taken.contains(&host.host)) {
            let message = format!("the host {} on port {} is served by an older server", host.host, opened.port);
            report(view, &opened, Code::Overlap, message);
            return None;
        }
    }
    Some(opened)
}

fn report(view: &View<'_>, opened: &Opened, code: Code, message: String) {
    let path = format!("spec.servers[{}]", opened.server.index);
    let finding = Finding::new(code, path, message).on(opened.gateway.key.clone());
    view.report(finding.hint("this server is left out"));
}
