//! What a request or connection leaves for metrics and logs, collected on its way.
//!
//! A record is owned by the request (or connection) and read once, at its end. Nothing is formatted here.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::text::Str;
use mesh_api_xds::ir::chain::TcpProxy;
use mesh_api_xds::ir::cluster::Cluster;
use mesh_proxy_core::endpoint::Endpoint;
use mesh_proxy_core::facts::Peer;
use mesh_proxy_core::fault::{Body, Code, Fault};
use mesh_proxy_core::flags::Flags;
use mesh_proxy_core::head::Head;
use mesh_proxy_core::plan::route::RoutePlan;
use mesh_proxy_core::reply::reply_for;
use mesh_proxy_core::stats::Workload;
use tokio::time::Instant;

use crate::conn::Connection;
use crate::http::exchange::is_grpc;

/// Facts of one HTTP request.
#[derive(Debug)]
pub struct Record {
    /// When its head arrived, for the log.
    pub start_time: SystemTime,
    /// The same, for durations.
    pub started: Instant,
    /// From the start until the whole request was received.
    pub request_done: Option<Duration>,
    /// From the start until the response's head was received.
    pub response_began: Option<Duration>,
    /// From the start until the end.
    pub duration: Duration,
    /// Route that was selected.
    pub route: Option<Arc<RoutePlan>>,
    /// Cluster that was chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// Endpoint of the last attempt.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Our address of the connection to the endpoint.
    pub upstream_local: Option<SocketAddr>,
    /// The endpoint's certificate.
    pub upstream_peer: Option<Arc<Peer>>,
    /// The other proxy's workload, as it introduced itself.
    pub peer: Option<Arc<Workload>>,
    /// The client's address after trusted proxies.
    pub client: Option<SocketAddr>,
    /// Response flags so far.
    pub flags: Flags,
    /// Who made the response and why.
    pub details: Cow<'static, str>,
    /// Code of a local reply or of the failure that cut the response.
    pub code: Option<Code>,
    /// Why connecting or TLS to the destination failed.
    pub transport_failure: Option<Str>,
    /// Attempts made.
    pub attempts: u32,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// The request is a gRPC call.
    pub grpc: bool,
    /// gRPC status of the response.
    pub grpc_status: Option<u8>,
    /// The client is a proxy that wants our metadata with the response.
    pub answers_metadata: bool,
}

impl Default for Record {
    fn default() -> Self {
        Self::empty(Instant::now())
    }
}

impl Record {
    /// Starts a request whose head has just arrived.
    pub fn begin(&mut self, start_time: SystemTime, started: Instant, head: &Head) {
        *self = Self { start_time, started, grpc: is_grpc(head), ..Self::empty(started) };
    }

    /// Ends it: fixes the duration.
    pub fn end(&mut self, now: Instant) {
        self.duration = now.saturating_duration_since(self.started);
    }

    /// Notes that the whole request has been received; the first call counts.
    pub fn request_complete(&mut self, now: Instant) {
        self.request_done.get_or_insert_with(|| now.saturating_duration_since(self.started));
    }

    /// Notes that a response's head has been received. The last attempt's counts.
    pub fn response_began(&mut self, now: Instant) {
        self.response_began = Some(now.saturating_duration_since(self.started));
    }

    /// Time that the upstream took: from the whole request to the response's head (`x-envoy-upstream-service-time`).
    #[must_use]
    pub fn upstream_time(&self) -> Option<Duration> {
        let began = self.response_began?;
        Some(began.saturating_sub(self.request_done.unwrap_or_default()))
    }

    /// Another attempt follows: what the failed one left is forgotten.
    pub fn retried(&mut self) {
        self.upstream_local = None;
        self.upstream_peer = None;
        self.response_began = None;
    }

    /// Notes a failure: flags, code, details and, of an upstream connection, the transport's reason.
    pub fn fail(&mut self, fault: &Fault) {
        self.flags = self.flags | fault.flags();
        self.code = Some(fault.code());
        self.details = reply_for(fault, false).details;
        if matches!(fault.meaning().body, Body::Reset(_)) {
            self.transport_failure.clone_from(&fault.detail);
        }
    }

    /// Forgets everything; no configuration is kept alive.
    pub fn reset(&mut self) {
        *self = Self::empty(self.started);
    }

    /// Nothing but a start; does not ask the clock.
    const fn empty(started: Instant) -> Self {
        Self {
            start_time: SystemTime::UNIX_EPOCH,
            started,
            request_done: None,
            response_began: None,
            duration: Duration::ZERO,
            route: None,
            cluster: None,
            endpoint: None,
            upstream_local: None,
            upstream_peer: None,
            peer: None,
            client: None,
            flags: Flags::EMPTY,
            details: Cow::Borrowed(""),
            code: None,
            transport_failure: None,
            attempts: 0,
            status: 0,
            grpc: false,
            grpc_status: None,
            answers_metadata: false,
        }
    }
}

/// Facts of one opaque connection.
#[derive(Debug)]
pub struct TcpRecord {
    /// When a chain took it.
    pub start_time: SystemTime,
    /// How long it lasted.
    pub duration: Duration,
    /// Why it failed, if it did.
    pub fault: Option<Fault>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Settings of its chain.
    pub settings: Option<Arc<TcpProxy>>,
    /// Cluster that was chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// Endpoint that was connected to.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Our address of the connection to the endpoint.
    pub upstream_local: Option<SocketAddr>,
    /// The endpoint's certificate.
    pub upstream_peer: Option<Arc<Peer>>,
    /// The client's workload, as it told.
    pub peer: Option<Arc<Workload>>,
    /// Attempts to connect.
    pub attempts: u32,
    /// Its place among the open tunnels, once it was counted as opened.
    pub(super) place: Cell<Option<usize>>,
}

impl TcpRecord {
    /// A connection that a chain has just taken.
    #[must_use]
    pub fn new(_: &Connection, start_time: SystemTime) -> Self {
        Self::at(start_time)
    }

    /// A connection without its facts, which are in the connection itself.
    pub(super) const fn at(start_time: SystemTime) -> Self {
        Self {
            start_time,
            duration: Duration::ZERO,
            fault: None,
            received: 0,
            sent: 0,
            settings: None,
            cluster: None,
            endpoint: None,
            upstream_local: None,
            upstream_peer: None,
            peer: None,
            attempts: 0,
            place: Cell::new(None),
        }
    }

    /// Response flags.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.fault.as_ref().map_or(Flags::EMPTY, Fault::flags)
    }
}

#[cfg(test)]
mod tests {
    use mesh_proxy_core::fault::FaultKind;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_leaves_its_flags_code_and_reason() {
        let mut record = Record::default();
        record.begin(SystemTime::UNIX_EPOCH, Instant::now(), &Head::request());
        tokio::time::advance(Duration::from_millis(7)).await;
        record.fail(&Fault::new(FaultKind::ConnectFailed).with_detail("Connection refused"));
        record.end(Instant::now());
        assert_eq!((record.flags.to_string().as_str(), record.duration), ("UF", Duration::from_millis(7)));
        assert_eq!(record.code, Some(FaultKind::ConnectFailed.code()));
        assert_eq!(record.transport_failure.as_deref(), Some("Connection refused"));
        assert!(record.details.contains("remote_connection_failure"), "{}", record.details);
        record.fail(&Fault::new(FaultKind::NoRoute));
        assert_eq!(record.flags.to_string(), "UF,NR");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_end_of_the_request_counts_and_a_retry_forgets_the_response() {
        let mut record = Record::default();
        record.begin(SystemTime::UNIX_EPOCH, Instant::now(), &Head::request());
        tokio::time::advance(Duration::from_millis(2)).await;
        record.request_complete(Instant::now());
        record.response_began(Instant::now());
        record.retried();
        tokio::time::advance(Duration::from_millis(3)).await;
        record.request_complete(Instant::now());
        assert_eq!((record.request_done, record.response_began), (Some(Duration::from_millis(2)), None));
        record.cluster = None;
        record.reset();
        assert_eq!((record.request_done, record.status), (None, 0));
    }
}
