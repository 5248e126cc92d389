//! Clusters and endpoints.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::chain::{arb_validation, arb_versions};
use super::{arb_ip, arb_limit, arb_list, arb_maybe_word, arb_origin, arb_socket, arb_time, arb_word};
use crate::ir::cluster::{
    Balance, Cluster, Discovery, Keepalive, Limits, Outlier, RetryBudget, ServiceRef, Sni, Transport, UpstreamHttp,
    UpstreamProtocol, UpstreamTls,
};
use crate::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};

/// A cluster.
pub fn arb_cluster() -> BoxedStrategy<Cluster> {
    let shape = (
        (arb_word(), arb_discovery(), arb_time(), arb_balance(), 0u32..=100, option::of(arb_outlier())),
        (arb_limits(), arb_protocol(), arb_upstream_http(), arb_transport(), option::of(arb_keepalive())),
        (option::of(arb_ip()), arb_service(), arb_origin()),
    );
    shape
        .prop_map(
            |(
                (name, discovery, connect_timeout, balance, panic_percent, outlier),
                (limits, protocol, http, transport, keepalive),
                (source_address, service, origin),
            )| Cluster {
                name,
                discovery,
                connect_timeout,
                balance,
                panic_percent,
                outlier,
                limits,
                protocol,
                http,
                transport,
                keepalive,
                source_address,
                service,
                origin,
            },
        )
        .boxed()
}

fn arb_discovery() -> BoxedStrategy<Discovery> {
    prop_oneof![
        Just(Discovery::Eds),
        arb_endpoint_set(false).prop_map(|set| Discovery::Static(Arc::new(set))),
        (arb_endpoint_set(true), arb_time())
            .prop_map(|(set, refresh)| Discovery::Dns { endpoints: Arc::new(set), refresh }),
        Just(Discovery::OriginalDst),
    ]
    .boxed()
}

fn arb_balance() -> BoxedStrategy<Balance> {
    select(vec![Balance::LeastRequest, Balance::RoundRobin, Balance::Random]).boxed()
}

fn arb_protocol() -> BoxedStrategy<UpstreamProtocol> {
    select(vec![UpstreamProtocol::Http1, UpstreamProtocol::Http2, UpstreamProtocol::Downstream]).boxed()
}

fn arb_outlier() -> BoxedStrategy<Outlier> {
    let counts = (0u32..10, 0u32..10, 0u32..10, any::<bool>());
    (counts, arb_time(), arb_time(), arb_time(), 0u32..=100)
        .prop_map(
            |(
                (consecutive_5xx, consecutive_gateway, consecutive_local, split_local),
                interval,
                base_ejection,
                more,
                max_ejection_percent,
            )| Outlier {
                consecutive_5xx,
                consecutive_gateway,
                consecutive_local,
                split_local,
                interval,
                base_ejection,
                max_ejection: base_ejection + more,
                max_ejection_percent,
            },
        )
        .boxed()
}

fn arb_limits() -> BoxedStrategy<Limits> {
    let bound = || prop_oneof![Just(u32::MAX), 1u32..10_000];
    let budget = (0u32..=10_000, 0u32..100)
        .prop_map(|(percent_hundredths, min_concurrency)| RetryBudget { percent_hundredths, min_concurrency });
    (bound(), bound(), bound(), bound(), option::of(budget))
        .prop_map(|(connections, pending, requests, retries, retry_budget)| Limits {
            connections,
            pending,
            requests,
            retries,
            retry_budget,
        })
        .boxed()
}

fn arb_upstream_http() -> BoxedStrategy<UpstreamHttp> {
    let streams = prop_oneof![Just(u32::MAX), 1u32..1000];
    (arb_limit(), 0u32..100, streams, arb_limit())
        .prop_map(|(idle_timeout, max_requests_per_connection, max_concurrent_streams, max_connection_duration)| {
            UpstreamHttp { idle_timeout, max_requests_per_connection, max_concurrent_streams, max_connection_duration }
        })
        .boxed()
}

fn arb_transport() -> BoxedStrategy<Transport> {
    prop_oneof![
        Just(Transport::Plaintext),
        arb_upstream_tls().prop_map(|tls| Transport::Tls(Arc::new(tls))),
        arb_upstream_tls().prop_map(|tls| Transport::Auto(Arc::new(tls))),
    ]
    .boxed()
}

fn arb_upstream_tls() -> BoxedStrategy<UpstreamTls> {
    let sni = prop_oneof![Just(Sni::None), arb_word().prop_map(Sni::Name), Just(Sni::FromHost)];
    (option::of(arb_word()), option::of(arb_validation()), sni, arb_list(arb_word(), 3), any::<bool>(), arb_versions())
        .prop_map(|(certificate, validation, sni, alpn, alpn_override, versions)| UpstreamTls {
            certificate,
            validation,
            sni,
            alpn,
            alpn_override,
            versions,
        })
        .boxed()
}

fn arb_keepalive() -> BoxedStrategy<Keepalive> {
    let seconds = || option::of((1u64..1000).prop_map(Duration::from_secs));
    (option::of(1u32..10), seconds(), seconds())
        .prop_map(|(probes, time, interval)| Keepalive { probes, time, interval })
        .boxed()
}

fn arb_service() -> BoxedStrategy<ServiceRef> {
    (arb_maybe_word(), arb_maybe_word(), arb_maybe_word())
        .prop_map(|(host, name, namespace)| ServiceRef { host, name, namespace })
        .boxed()
}

/// An endpoint set; with names instead of addresses where they are resolved.
pub fn arb_endpoint_set(names: bool) -> BoxedStrategy<EndpointSet> {
    (arb_word(), arb_list(arb_locality(names), 3))
        .prop_map(|(cluster, localities)| {
            // Envoy wants priorities without gaps.
            let numbered =
                localities.iter().zip(0u32..).map(|(group, priority)| LocalityEndpoints { priority, ..group.clone() });
            EndpointSet { cluster, localities: numbered.collect() }
        })
        .boxed()
}

fn arb_locality(names: bool) -> BoxedStrategy<LocalityEndpoints> {
    let place = (arb_maybe_word(), arb_maybe_word(), arb_maybe_word()).prop_map(|(region, zone, subzone)| Locality {
        region,
        zone,
        subzone,
    });
    (place, 0u32..10, arb_list(arb_endpoint(names), 3))
        .prop_map(|(locality, weight, endpoints)| LocalityEndpoints { locality, priority: 0, weight, endpoints })
        .boxed()
}

fn arb_endpoint(names: bool) -> BoxedStrategy<Endpoint> {
    let address = if names {
        (arb_word(), 1u16..).prop_map(|(name, port)| Address::Name(format!("{name}.example").into(), port)).boxed()
    } else {
        arb_socket().prop_map(Address::Socket).boxed()
    };
    let health = select(vec![Health::Healthy, Health::Unhealthy, Health::Draining]);
    let tls = select(vec![EndpointTls::Disabled, EndpointTls::Istio]);
    let part = || arb_maybe_word().boxed();
    let workload =
        (part(), part(), part(), part(), part()).prop_map(|(name, namespace, service, revision, cluster)| {
            WorkloadRef { name, namespace, service, revision, cluster }
        });
    (address, 1u32..100, health, tls, workload)
        .prop_map(|(address, weight, health, tls, workload)| Endpoint { address, weight, health, tls, workload })
        .boxed()
}

/// A cluster name.
pub fn arb_cluster_name() -> BoxedStrategy<Str> {
    (1u16.., arb_word()).prop_map(|(port, host)| format!("outbound|{port}||{host}.ns.svc.cluster.local").into()).boxed()
}
