//! What a connection and its record mean to metrics and logs.

use std::net::SocketAddr;

use mesh_api_xds::ir::cluster::{Cluster, Transport};
use mesh_api_xds::ir::filter::Reporter;
use mesh_api_xds::ir::listener::Direction;
use mesh_api_xds::node::ProxyKind;
use mesh_proxy_core::facts::Peer;
use mesh_proxy_core::flags::Flags;
use mesh_proxy_core::head::syntax::split_port;
use mesh_proxy_core::log_format::AccessRecord;
use mesh_proxy_core::plan::listener::{FilterPlan, HttpPlan};
use mesh_proxy_core::stats::Outcome;

use super::record::TcpRecord;
use super::table::Seen;
use super::trace;
use crate::conn::Connection;
use crate::http::exchange::Scratch;

/// Texts that are the same for every line of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) hostname: &'a str,
    pub(super) principal: &'a str,
}

/// The sides on which a chain reports.
pub(super) fn reporters(http: &HttpPlan) -> impl Iterator<Item = Reporter> {
    http.filters.iter().filter_map(|filter| match filter {
        FilterPlan::Stats(stats) => Some(stats.reporter),
        FilterPlan::PeerMetadata(_)
        | FilterPlan::Authz(_)
        | FilterPlan::Alpn
        | FilterPlan::Cors
        | FilterPlan::Fault => None,
    })
}

/// What decides the labels of a request.
pub(super) fn http<'a>(
    reporter: Reporter,
    kind: ProxyKind,
    connection: &'a Connection,
    scratch: &'a Scratch,
) -> Seen<'a> {
    let record = &scratch.record;
    let upstream = record.upstream_peer.as_deref();
    let (peer_principal, own_identity) = principals(reporter, connection, upstream, record.cluster.as_deref());
    let configured = record.endpoint.as_ref().map(|endpoint| &endpoint.workload);
    // Sidecars fall back to the host of outbound requests only: elsewhere clients could make series at will.
    let falls_back = kind == ProxyKind::Sidecar && connection.direction == Direction::Outbound;
    let host = if falls_back { std::str::from_utf8(split_port(scratch.request.host_lower()).0) } else { Ok("") };
    Seen {
        reporter,
        peer: record.peer.as_ref(),
        endpoint: configured.filter(|_| reporter == Reporter::Source && record.peer.is_none()),
        own_identity,
        peer_principal,
        cluster: record.cluster.as_ref(),
        route: route_class(record.route.as_ref().map_or("", |route| &route.name)),
        host: host.unwrap_or_default(),
        outcome: Outcome::Http {
            grpc: record.grpc,
            response_code: record.status,
            grpc_status: record.grpc_status.or(scratch.progress.grpc_status).map(u32::from),
            flags: record.flags,
        },
    }
}

/// What decides the labels of a tunnel. Inbound ones report as destination, others as source.
pub(super) fn tcp<'a>(connection: &'a Connection, record: &'a TcpRecord, flags: Flags) -> Seen<'a> {
    let reporter = match connection.direction {
        Direction::Inbound => Reporter::Destination,
        Direction::Outbound => Reporter::Source,
    };
    let upstream = record.upstream_peer.as_deref();
    let (peer_principal, own_identity) = principals(reporter, connection, upstream, record.cluster.as_deref());
    let configured = record.endpoint.as_ref().map(|endpoint| &endpoint.workload);
    Seen {
        reporter,
        peer: record.peer.as_ref(),
        endpoint: configured.filter(|_| reporter == Reporter::Source),
        own_identity,
        peer_principal,
        cluster: record.cluster.as_ref(),
        route: "",
        host: "",
        outcome: Outcome::Tcp { flags },
    }
}

/// The other side's identity, and whether we have one, on the connection between the two.
fn principals<'a>(
    reporter: Reporter,
    connection: &'a Connection,
    upstream: Option<&'a Peer>,
    cluster: Option<&Cluster>,
) -> (&'a str, bool) {
    let peer = match reporter {
        Reporter::Destination => connection.facts.peer.as_deref(),
        Reporter::Source => upstream,
    };
    let own = match reporter {
        Reporter::Destination => peer.is_some() && connection.facts.local_identity.is_some(),
        Reporter::Source => peer.is_some() && cluster.is_some_and(presents_certificate),
    };
    (peer.map_or("", first_uri), own)
}

fn presents_certificate(cluster: &Cluster) -> bool {
    match &cluster.transport {
        Transport::Plaintext => false,
        Transport::Tls(tls) | Transport::Auto(tls) => tls.certificate.is_some(),
    }
}

/// Names of routes that labels depend on; others are all the same to them.
fn route_class(name: &str) -> &'static str {
    match name {
        "block_all" => "block_all",
        "allow_any" => "allow_any",
        _ => "",
    }
}

fn first_uri(peer: &Peer) -> &str {
    peer.uris.first().map_or("", |uri| uri)
}

/// The log line of a request.
pub(super) fn http_line<'a>(connection: &'a Connection, scratch: &'a Scratch, names: Names<'a>) -> AccessRecord<'a> {
    let record = &scratch.record;
    let status = record.status;
    let own_identity =
        principals(Reporter::Source, connection, record.upstream_peer.as_deref(), record.cluster.as_deref()).1;
    let cluster = record.cluster.as_ref().map_or("", |cluster| &cluster.name);
    AccessRecord {
        request: Some(&scratch.request),
        response: (status != 0).then_some(&scratch.response),
        protocol: Some(scratch.request.version()),
        response_code: status,
        flags: record.flags,
        response_code_details: &record.details,
        upstream_transport_failure_reason: record.transport_failure.as_deref().unwrap_or_default(),
        code: record.code,
        bytes_received: scratch.progress.received,
        bytes_sent: scratch.progress.sent,
        duration: record.duration,
        request_duration: record.request_done,
        response_duration: record.response_began,
        upstream_host: record.endpoint.as_ref().map(|endpoint| endpoint.address),
        upstream_local_address: record.upstream_local,
        upstream_cluster: cluster,
        upstream_cluster_raw: cluster,
        attempts: record.attempts,
        downstream_remote_address: record.client.or(Some(connection.facts.source)),
        route_name: record.route.as_ref().map_or("", |route| &route.name),
        upstream_peer_uri_san: record.upstream_peer.as_deref().map_or("", first_uri),
        upstream_local_uri_san: if own_identity { names.principal } else { "" },
        trace_id: trace::id_of(&scratch.request),
        ..downstream(connection, AccessRecord::new(record.start_time), names)
    }
}

/// The log line of a tunnel.
pub(super) fn tcp_line<'a>(connection: &'a Connection, record: &'a TcpRecord, names: Names<'a>) -> AccessRecord<'a> {
    let cluster = record.cluster.as_ref().map_or("", |cluster| &cluster.name);
    let fault = record.fault.as_ref();
    let upstream = record.upstream_peer.as_deref();
    let own_identity = principals(Reporter::Source, connection, upstream, record.cluster.as_deref()).1;
    AccessRecord {
        flags: record.flags(),
        connection_termination_details: fault.map_or("", |fault| fault.meaning().details),
        upstream_transport_failure_reason: fault.and_then(|fault| fault.detail.as_deref()).unwrap_or_default(),
        code: fault.map(mesh_proxy_core::fault::Fault::code),
        bytes_received: record.received,
        bytes_sent: record.sent,
        duration: record.duration,
        upstream_host: record.endpoint.as_ref().map(|endpoint| endpoint.address),
        upstream_local_address: record.upstream_local,
        upstream_cluster: cluster,
        upstream_cluster_raw: cluster,
        attempts: record.attempts,
        downstream_remote_address: Some(connection.facts.source),
        upstream_peer_uri_san: upstream.map_or("", first_uri),
        upstream_local_uri_san: if own_identity { names.principal } else { "" },
        ..downstream(connection, AccessRecord::new(record.start_time), names)
    }
}

/// What the client's connection adds to a line.
fn downstream<'a>(connection: &'a Connection, line: AccessRecord<'a>, names: Names<'a>) -> AccessRecord<'a> {
    let facts = &connection.facts;
    let destination: SocketAddr = facts.destination;
    AccessRecord {
        connection_id: connection.id,
        downstream_tls_version: connection.secured.version,
        downstream_tls_cipher: connection.secured.cipher,
        downstream_local_address: Some(destination),
        downstream_direct_remote_address: Some(facts.source),
        requested_server_name: facts.server_name.as_deref().unwrap_or_default(),
        downstream_peer_uri_san: facts.peer.as_deref().map_or("", first_uri),
        downstream_local_uri_san: match facts.peer {
            Some(_) => facts.local_identity.as_deref().unwrap_or_default(),
            None => "",
        },
        hostname: names.hostname,
        ..line
    }
}
