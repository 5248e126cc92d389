//! Listeners: addresses, how a connection is looked at, and which chain takes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde::Serialize;

use super::chain::Chain;

/// A listener (`envoy.config.listener.v3.Listener`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Listener {
    /// Resource name, for example `0.0.0.0_9080`, `virtualOutbound`.
    pub name: Str,
    /// Address that is bound, or that a captured connection's destination is compared with.
    pub address: SocketAddr,
    /// Further addresses with the same chains (dual stack).
    pub additional_addresses: Arc<[SocketAddr]>,
    /// Whether a socket is opened.
    pub binding: Binding,
    /// What is done with the connection's original destination.
    pub original_dst: OriginalDst,
    /// Which side of the workload the traffic is on.
    pub direction: Direction,
    /// What is read before a chain is chosen.
    pub inspect: Inspect,
    /// Candidates; the most specific match wins.
    pub chains: Arc<[Arc<Chain>]>,
    /// Takes what no chain matches; without it such a connection is closed.
    pub default_chain: Option<Arc<Chain>>,
}

/// Whether a listener owns a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Binding {
    /// It binds its addresses.
    Socket,
    /// It is reached only through a listener with `OriginalDst::HandOff` (`bind_to_port: false`).
    HandedOver,
}

/// Use of the destination that a captured connection had before redirection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum OriginalDst {
    /// None: the accepted address is the destination.
    Ignore,
    /// It replaces the destination for chain matching (`envoy.filters.listener.original_dst`).
    Recover,
    /// As `Recover`, and the listener of that exact address, else of that port on the wildcard address, takes the
    /// connection if there is one (`use_original_dst`).
    HandOff,
}

/// Traffic direction (`envoy.config.core.v3.TrafficDirection`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Direction {
    /// To the workload behind this proxy.
    Inbound,
    /// From the workload behind this proxy, or through a gateway.
    Outbound,
}

/// Which first bytes are looked at before the chain is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Inspect {
    /// Read a ClientHello: transport protocol, SNI, ALPN.
    pub tls: bool,
    /// Tell HTTP/1 and HTTP/2 from anything else, on plaintext connections.
    pub http: bool,
    /// Destination ports on which nothing is read because their protocols speak server first.
    pub except_ports: Arc<[u16]>,
    /// How long to wait for the first bytes; zero waits for ever. After it the connection goes on as opaque.
    pub timeout: Duration,
}
