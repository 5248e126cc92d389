//! Listening sockets opened in the user's network and handed to processes of the demo.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use mesh_api::names;

use super::plan::{Capture, INGRESS_PORT, PROXY_PORT, Plan, Role};
use crate::error::CliError;

/// Listening sockets that are handed to processes, kept so that a restarted process gets the same.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) ingress: TcpListener,
    pub(super) monitoring: TcpListener,
    /// The control plane's TLS port, where there is no network of its own.
    pub(super) secure: Option<TcpListener>,
    /// By workload and the address that its configuration calls it.
    pub(super) proxies: BTreeMap<String, Vec<(SocketAddr, TcpListener)>>,
}

impl Sockets {
    pub(super) fn open(plan: &Plan) -> Result<Self, CliError> {
        // The well-known port if it is free: it is nicer to type.
        let ingress = TcpListener::bind((Ipv4Addr::LOCALHOST, INGRESS_PORT)).or_else(|_| any_port());
        let mut proxies = BTreeMap::new();
        for workload in plan.proxied() {
            let mut named: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, names::PROXY_ADMIN_PORT).into()];
            if plan.capture == Capture::None {
                // All proxies share one loopback: each gets ports of its own under the names it knows.
                named.extend(
                    [names::STATUS_PORT, names::READINESS_PORT, names::PROXY_METRICS_PORT]
                        .map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
                );
                if workload.role != Role::Gateway {
                    named.push((Ipv4Addr::LOCALHOST, PROXY_PORT).into());
                }
            }
            let mut sockets = Vec::new();
            for name in named {
                sockets.push((name, any_port().map_err(|error| no_socket(&error))?));
            }
            proxies.insert(workload.name.clone(), sockets);
        }
        let secure = (plan.capture == Capture::None).then(any_port).transpose();
        Ok(Self {
            ingress: ingress.map_err(|error| no_socket(&error))?,
            monitoring: any_port().map_err(|error| no_socket(&error))?,
            secure: secure.map_err(|error| no_socket(&error))?,
            proxies,
        })
    }

    /// Where a socket of a workload's proxy is, by the address that its configuration calls it.
    pub(super) fn at(&self, workload: &str, port: u16) -> Option<SocketAddr> {
        let sockets = self.proxies.get(workload)?;
        sockets.iter().find(|(name, _)| name.port() == port)?.1.local_addr().ok()
    }
}

fn any_port() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

fn no_socket(error: &std::io::Error) -> CliError {
    CliError::internal("cannot open a port on 127.0.0.1").because(error)
}

pub(super) fn address_of(socket: &TcpListener) -> Result<SocketAddr, CliError> {
    socket.local_addr().map_err(|error| no_socket(&error))
}

pub(super) fn copy(socket: &TcpListener) -> Result<TcpListener, CliError> {
    socket.try_clone().map_err(|error| no_socket(&error))
}
