//! What is done to heads on their way: before routing, before the upstream, before the client.

use std::net::SocketAddr;

use mesh_api_xds::ir::cluster::Transport as UpstreamTransport;
use mesh_api_xds::ir::filter::PeerMetadata;
use mesh_api_xds::ir::http::ServerHeader;
use mesh_api_xds::ir::listener::Direction;
use mesh_proxy_core::authz::predicate::Subject;
use mesh_proxy_core::authz::{Authz, Verdict};
use mesh_proxy_core::facts::RequestFacts;
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::filter::{Flow, forwarded, normalize, request_id};
use mesh_proxy_core::h1::encode::decimal;
use mesh_proxy_core::h1::head::Switch;
use mesh_proxy_core::h1::hop::{self, KeepUpgrade};
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{FieldError, Head};
use mesh_proxy_core::plan::listener::{FilterPlan, HttpPlan};
use mesh_proxy_core::plan::route::ActionPlan;
use mesh_proxy_core::retry::requested;
use mesh_proxy_core::trace::Silent;

use super::attempt::Forwarding;
use super::exchange::{Scratch, Stop};
use crate::conn::Connection;
use crate::telemetry::record::Record;
use crate::telemetry::trace;
use crate::worker::Worker;

/// Before routing: normalises the path, settles who the client is, sets identifiers. Gives the client's address.
///
/// # Errors
/// The answer to a request that is refused or redirected here.
pub fn request(
    worker: &Worker,
    connection: &Connection,
    http: &HttpPlan,
    head: &mut Head,
    record: &mut Record,
) -> Result<SocketAddr, Stop> {
    let settings = &http.settings;
    if let Flow::Reply(reply) = normalize::normalize(&settings.path, head).map_err(too_large)? {
        return Err(Stop::Reply(reply));
    }
    let client = forwarded::apply(settings.edge, &connection.facts, head).map_err(too_large)?;
    forwarded::client_cert(settings.client_cert, &connection.facts, head).map_err(too_large)?;
    record.client = Some(client);
    let tracing = settings.tracing.as_ref();
    worker
        .with_rng(|rng| request_id::apply(settings.edge, settings.request_id, tracing, head, rng))
        .map_err(too_large)?;
    if let Some(tracing) = tracing {
        worker.with_rng(|rng| trace::on_request(tracing, head, rng)).map_err(too_large)?;
    }
    Ok(client)
}

/// A head that outgrows its bound while it is edited.
fn too_large(_: FieldError) -> Stop {
    Fault::new(FaultKind::RequestHeadTooLarge).into()
}

/// The `PeerMetadata` filter on a request.
pub fn peer_metadata(worker: &Worker, side: PeerMetadata, scratch: &mut Scratch) {
    let Scratch { request: head, record, .. } = scratch;
    if side == PeerMetadata::Server {
        record.peer = head.get(KnownName::XEnvoyPeerMetadata).and_then(|value| worker.telemetry.decode_peer(value));
        record.answers_metadata = head.contains(KnownName::XEnvoyPeerMetadataId);
    }
    // Whoever sent them, they end here: what goes on is our own.
    head.remove(KnownName::XEnvoyPeerMetadata);
    head.remove(KnownName::XEnvoyPeerMetadataId);
}

/// The `Authz` filter.
///
/// # Errors
/// When the policies deny.
pub fn authorize(authz: &Authz, head: &Head, facts: &RequestFacts<'_>) -> Result<(), Stop> {
    match authz.check(&Subject::Request(*facts, head), &mut Silent) {
        Verdict::Allow => Ok(()),
        Verdict::Deny { policy } => {
            let fault = Fault::new(FaultKind::AccessDenied);
            Err(match policy {
                Some(policy) => fault.with_detail(policy),
                None => fault,
            }
            .into())
        }
    }
}

/// Before the upstream: hop-by-hop fields, the route's edits and rewrites, what peers are told.
///
/// # Errors
/// When the head outgrows its bound or an edit makes it invalid.
pub fn upstream_request(forwarding: &Forwarding<'_>, head: &mut Head) -> Result<(), Stop> {
    let upgrade = if forwarding.switch == Switch::Upgrade { KeepUpgrade::Yes } else { KeepUpgrade::No };
    hop::strip(head, upgrade).map_err(too_large)?;
    head.remove(KnownName::Expect);
    let routed = forwarding.routed;
    let ActionPlan::Forward(forward) = &routed.route.action else { return Ok(()) };
    let context = forwarding.context(None);
    if let Some(rules) = routed.choice_headers() {
        rules.request.apply_request(head, &context).map_err(too_large)?;
    }
    routed.route.headers.request.apply_request(head, &context).map_err(too_large)?;
    forward.rewrite.apply(head).map_err(too_large)?;
    if let Some(authority) = &forward.host_rewrite {
        head.set_authority(authority.as_bytes()).map_err(too_large)?;
    }
    if routed.host.attempt_count {
        head.set(KnownName::XEnvoyAttemptCount, b"1").map_err(too_large)?;
    }
    asked_of_us(forwarding, head).map_err(too_large)?;
    let own = &forwarding.worker.shared.metadata;
    for filter in &routed.http.filters {
        let FilterPlan::PeerMetadata(side) = filter else { continue };
        let tells = match side {
            PeerMetadata::Server => false,
            PeerMetadata::Client => true,
            PeerMetadata::ClientMeshOnly => forwarding.is_mesh_internal(),
        };
        if tells {
            head.set(KnownName::XEnvoyPeerMetadata, &own.encoded).map_err(too_large)?;
            head.set(KnownName::XEnvoyPeerMetadataId, &own.id).map_err(too_large)?;
        }
    }
    Ok(())
}

/// What the request asked of this proxy ends here; the upstream is told how long its answer is waited for.
fn asked_of_us(forwarding: &Forwarding<'_>, head: &mut Head) -> Result<(), FieldError> {
    for name in requested::CONSUMED {
        head.remove(*name);
    }
    if forwarding.connection.direction == Direction::Inbound {
        // A description of the operation for this proxy's span, not for the application.
        head.remove(KnownName::XEnvoyDecoratorOperation);
    }
    let timeouts = forwarding.routed.timeouts;
    let Some(limit) = timeouts.per_try.or(timeouts.whole) else { return Ok(()) };
    let mut text = Vec::with_capacity(8);
    decimal(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), &mut text);
    head.set(KnownName::XEnvoyExpectedRqTimeoutMs, &text)
}

/// Before the client: hop-by-hop fields, edits, what peers are told, our name.
///
/// # Errors
/// When the head outgrows its bound.
pub fn client_response(
    forwarding: &Forwarding<'_>,
    scratch: &mut Scratch,
    upstream: SocketAddr,
    switched: bool,
) -> Result<(), Stop> {
    let routed = forwarding.routed;
    let Scratch { request, response, record, .. } = scratch;
    let upgrade = if switched { KeepUpgrade::Yes } else { KeepUpgrade::No };
    let failed = |_| Stop::from(Fault::new(FaultKind::ResponseTooLarge));
    hop::strip(response, upgrade).map_err(failed)?;
    // From a peer it was said to this proxy; from an application it is a lie.
    response.remove(KnownName::XMeshResend);
    for filter in routed.http.filters.iter().rev() {
        match filter {
            FilterPlan::PeerMetadata(PeerMetadata::Server) => {
                response.remove(KnownName::XEnvoyPeerMetadata);
                response.remove(KnownName::XEnvoyPeerMetadataId);
                if record.answers_metadata {
                    let own = &forwarding.worker.shared.metadata;
                    response.set(KnownName::XEnvoyPeerMetadata, &own.encoded).map_err(failed)?;
                    response.set(KnownName::XEnvoyPeerMetadataId, &own.id).map_err(failed)?;
                }
            }
            FilterPlan::PeerMetadata(PeerMetadata::Client | PeerMetadata::ClientMeshOnly) => {
                let value = response.get(KnownName::XEnvoyPeerMetadata);
                record.peer = value.and_then(|value| forwarding.worker.telemetry.decode_peer(value));
                response.remove(KnownName::XEnvoyPeerMetadata);
                response.remove(KnownName::XEnvoyPeerMetadataId);
            }
            FilterPlan::Cors => {
                if let Some(cors) = &routed.route.cors {
                    cors.on_response(request, response).map_err(failed)?;
                }
            }
            FilterPlan::Authz(_) | FilterPlan::Alpn | FilterPlan::Fault | FilterPlan::Stats(_) => {}
        }
    }
    let context = forwarding.context(Some(upstream));
    if let Some(rules) = routed.choice_headers() {
        rules.response.apply_response(response, request, &context).map_err(failed)?;
    }
    routed.route.headers.response.apply_response(response, request, &context).map_err(failed)?;
    service_time(record, response).map_err(failed)?;
    server_header(&routed.http.settings.server_header, response).map_err(failed)
}

/// `x-envoy-upstream-service-time`: milliseconds from the request's end to the response's head.
fn service_time(record: &Record, response: &mut Head) -> Result<(), FieldError> {
    let Some(time) = record.upstream_time() else { return Ok(()) };
    let mut text = Vec::with_capacity(8);
    decimal(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &mut text);
    response.set(KnownName::XEnvoyUpstreamServiceTime, &text)
}

/// Before the client: an answer of our own.
pub fn own_response(http: &HttpPlan, response: &mut Head) {
    // An answer of ours is small; a name that does not fit would be a bug that costs only the name.
    let _ = server_header(&http.settings.server_header, response);
}

fn server_header(setting: &ServerHeader, response: &mut Head) -> Result<(), FieldError> {
    match setting {
        ServerHeader::Overwrite(name) => response.set(KnownName::Server, name.as_bytes()),
        ServerHeader::AppendIfAbsent(name) if !response.contains(KnownName::Server) => {
            response.set(KnownName::Server, name.as_bytes())
        }
        ServerHeader::AppendIfAbsent(_) | ServerHeader::PassThrough => Ok(()),
    }
}

impl Forwarding<'_> {
    /// Whether the destination may be told about this workload: what is outside of the mesh may not.
    fn is_mesh_internal(&self) -> bool {
        let settings = &self.cluster.settings;
        matches!(settings.transport, UpstreamTransport::Auto(_)) || !settings.service.namespace.is_empty()
    }
}
