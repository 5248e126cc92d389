//! HTTP connection managers, filters, access logs.

use std::sync::Arc;

use mesh_api::text::Str;
use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::chain::arb_authz;
use super::route::arb_route_config;
use super::{arb_limit, arb_list, arb_share, arb_word};
use crate::ir::filter::{HttpFilter, PeerMetadata, Reporter, Stats};
use crate::ir::http::{
    CertDetails, Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource,
    ServerHeader, Tracing,
};
use crate::ir::telemetry::{AccessLog, LogFormat};

/// An HTTP connection manager.
pub fn arb_http_connection() -> BoxedStrategy<HttpConnection> {
    let routes = prop_oneof![
        arb_route_config().prop_map(|config| RouteSource::Inline(Arc::new(config))),
        arb_word().prop_map(RouteSource::Named),
    ];
    let upgrades = prop_oneof![Just(Arc::default()), Just(Arc::from([Str::from("websocket")]))];
    let server = prop_oneof![
        arb_word().prop_map(ServerHeader::Overwrite),
        arb_word().prop_map(ServerHeader::AppendIfAbsent),
        Just(ServerHeader::PassThrough),
    ];
    let edge = prop_oneof![Just(Edge::Internal), (0u32..3).prop_map(|trusted_hops| Edge::Public { trusted_hops })];
    let tracing = option::of(arb_share().prop_map(|sampling| Tracing { sampling }));
    let codec = select(vec![Codec::Auto, Codec::Http1, Codec::Http2]);
    let flags = (any::<bool>(), any::<bool>());
    (
        (arb_word(), codec, routes, arb_list(arb_http_filter(), 4), upgrades, server),
        (edge, arb_client_cert(), arb_path_policy(), arb_http_limits(), flags, tracing, arb_access_logs()),
    )
        .prop_map(
            |(
                (stat_prefix, codec, routes, filters, upgrades, server_header),
                (edge, client_cert, path, limits, (request_id, http10), tracing, access_logs),
            )| HttpConnection {
                stat_prefix,
                codec,
                routes,
                filters,
                upgrades,
                server_header,
                edge,
                client_cert,
                path,
                limits,
                request_id,
                http10,
                tracing,
                access_logs,
            },
        )
        .boxed()
}

/// A filter.
pub fn arb_http_filter() -> BoxedStrategy<HttpFilter> {
    let sides = vec![PeerMetadata::Server, PeerMetadata::Client, PeerMetadata::ClientMeshOnly];
    prop_oneof![
        select(sides).prop_map(HttpFilter::PeerMetadata),
        arb_authz(true).prop_map(HttpFilter::Authz),
        Just(HttpFilter::Alpn),
        Just(HttpFilter::Cors),
        Just(HttpFilter::Fault),
        select(vec![Reporter::Source, Reporter::Destination])
            .prop_map(|reporter| HttpFilter::Stats(Stats { reporter })),
    ]
    .boxed()
}

fn arb_client_cert() -> BoxedStrategy<ForwardClientCert> {
    let details =
        || {
            (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>())
                .prop_map(|(subject, uri, dns, cert)| CertDetails { subject, uri, dns, cert })
        };
    prop_oneof![
        Just(ForwardClientCert::Sanitize),
        Just(ForwardClientCert::ForwardOnly),
        Just(ForwardClientCert::AlwaysForwardOnly),
        details().prop_map(ForwardClientCert::AppendForward),
        details().prop_map(ForwardClientCert::SanitizeSet),
    ]
    .boxed()
}

fn arb_path_policy() -> BoxedStrategy<PathPolicy> {
    let slashes = select(vec![
        EscapedSlashes::Keep,
        EscapedSlashes::Reject,
        EscapedSlashes::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward,
    ]);
    (any::<bool>(), any::<bool>(), slashes)
        .prop_map(|(normalize, merge_slashes, escaped_slashes)| PathPolicy {
            normalize,
            merge_slashes,
            escaped_slashes,
        })
        .boxed()
}

fn arb_http_limits() -> BoxedStrategy<HttpLimits> {
    (1u32..8000, 1u32..1000, arb_limit(), arb_limit(), arb_limit(), arb_limit())
        .prop_map(
            |(
                max_headers_kib,
                max_headers_count,
                idle_timeout,
                stream_idle_timeout,
                request_timeout,
                max_connection_duration,
            )| {
                HttpLimits {
                    max_headers_kib,
                    max_headers_count,
                    idle_timeout,
                    stream_idle_timeout,
                    request_timeout,
                    max_connection_duration,
                }
            },
        )
        .boxed()
}

/// Access logs.
pub fn arb_access_logs() -> BoxedStrategy<Arc<[AccessLog]>> {
    let fields = btree_set(arb_word(), 1..4).prop_map(|names| {
        let fields: Vec<_> = names.into_iter().map(|name| (name, Str::from("%PROTOCOL%"))).collect();
        // Backwards, so that the order is not that of the names.
        LogFormat::Json(fields.into_iter().rev().collect())
    });
    let format = prop_oneof![Just(LogFormat::Text(Str::from("[%START_TIME%] %RESPONSE_CODE%\n"))), fields];
    arb_list(format.prop_map(|format| AccessLog { path: Str::from("/dev/stdout"), format }), 2).boxed()
}
