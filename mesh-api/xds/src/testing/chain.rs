//! Listeners, filter chains, TLS, authorization.

use std::sync::Arc;

use mesh_api::text::Str;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::arb_cluster_name;
use super::http::{arb_access_logs, arb_http_connection};
use super::{
    arb_cidr, arb_header_match, arb_limit, arb_list, arb_origin, arb_socket, arb_string_match, arb_time, arb_word,
};
use crate::ir::authz::{Authz, AuthzAction, AuthzPolicy, Predicate};
use crate::ir::chain::{
    Chain, ChainMatch, ClientCertificate, DownstreamTls, Serve, TcpProxy, TlsVersion, TlsVersions, TransportMatch,
    Validation, WeightedTcp,
};
use crate::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};

/// A listener.
pub fn arb_listener() -> BoxedStrategy<Listener> {
    let modes = (
        select(vec![Binding::Socket, Binding::HandedOver]),
        select(vec![OriginalDst::Ignore, OriginalDst::Recover, OriginalDst::HandOff]),
        select(vec![Direction::Inbound, Direction::Outbound]),
    );
    let chains = vec(arb_chain(), 1..3).prop_map(|chains| {
        // Envoy wants different conditions: a destination port each, above those that the default chain may have.
        let numbered = chains.into_iter().zip(1u16..).map(|(mut chain, number)| {
            chain.name = format!("{}-{number}", chain.name).into();
            chain.matches.destination_port = Some(number);
            Arc::new(chain)
        });
        numbered.collect()
    });
    let default = option::of(arb_chain().prop_map(|chain| Arc::new(Chain { matches: ChainMatch::default(), ..chain })));
    (arb_word(), arb_socket(), arb_list(arb_socket(), 2), modes, arb_inspect(), chains, default)
        .prop_map(
            |(
                name,
                address,
                additional_addresses,
                (binding, original_dst, direction),
                inspect,
                chains,
                default_chain,
            )| {
                Listener {
                    name,
                    address,
                    additional_addresses,
                    binding,
                    original_dst,
                    direction,
                    inspect,
                    chains,
                    default_chain,
                }
            },
        )
        .boxed()
}

fn arb_inspect() -> BoxedStrategy<Inspect> {
    (any::<bool>(), any::<bool>(), btree_set(1u16.., 0..4), arb_limit())
        .prop_map(|(tls, http, ports, timeout)| Inspect {
            tls,
            http,
            except_ports: if tls || http { ports.into_iter().collect() } else { Arc::default() },
            timeout,
        })
        .boxed()
}

/// A filter chain.
pub fn arb_chain() -> BoxedStrategy<Chain> {
    let serve = prop_oneof![
        arb_http_connection().prop_map(|connection| Serve::Http(Arc::new(connection))),
        arb_tcp_proxy().prop_map(|proxy| Serve::Tcp(Arc::new(proxy))),
    ];
    let tls = option::of(arb_downstream_tls().prop_map(Arc::new));
    (arb_word(), arb_chain_match(), tls, arb_list(arb_authz(false), 2), serve)
        .prop_map(|(name, matches, tls, authz, serve)| Chain { name, matches, tls, authz, serve })
        .boxed()
}

fn arb_chain_match() -> BoxedStrategy<ChainMatch> {
    let ranges = || btree_set(arb_cidr(), 0..3).prop_map(|set| set.into_iter().collect());
    let names = || btree_set(arb_word(), 0..3).prop_map(|set| set.into_iter().collect());
    let transport = select(vec![TransportMatch::Any, TransportMatch::Raw, TransportMatch::Tls]);
    (option::of(1u16..), ranges(), names(), transport, names(), ranges())
        .prop_map(|(destination_port, destinations, server_names, transport, application_protocols, sources)| {
            ChainMatch { destination_port, destinations, server_names, transport, application_protocols, sources }
        })
        .boxed()
}

/// A range of TLS versions.
pub fn arb_versions() -> BoxedStrategy<TlsVersions> {
    use TlsVersion::{V1_2, V1_3};
    select(vec![
        TlsVersions { min: V1_2, max: V1_2 },
        TlsVersions { min: V1_2, max: V1_3 },
        TlsVersions { min: V1_3, max: V1_3 },
    ])
    .boxed()
}

/// A check of the peer.
pub fn arb_validation() -> BoxedStrategy<Validation> {
    (arb_word(), arb_list(arb_string_match(), 3)).prop_map(|(trust, sans)| Validation { trust, sans }).boxed()
}

fn arb_downstream_tls() -> BoxedStrategy<DownstreamTls> {
    let client = prop_oneof![
        Just(ClientCertificate::None),
        arb_validation().prop_map(ClientCertificate::Optional),
        arb_validation().prop_map(ClientCertificate::Required),
    ];
    let certificates = vec(arb_word(), 1..3).prop_map(Arc::from);
    (certificates, client, arb_list(arb_word(), 3), arb_versions(), arb_limit())
        .prop_map(|(certificates, client, alpn, versions, handshake_timeout)| DownstreamTls {
            certificates,
            client,
            alpn,
            versions,
            handshake_timeout,
        })
        .boxed()
}

fn arb_tcp_proxy() -> BoxedStrategy<TcpProxy> {
    let choice = (arb_cluster_name(), 1u32..100).prop_map(|(cluster, weight)| WeightedTcp { cluster, weight });
    let clusters = vec(choice, 1..4).prop_map(Arc::from);
    (arb_word(), clusters, option::of(arb_time()), arb_access_logs(), arb_origin())
        .prop_map(|(stat_prefix, clusters, idle_timeout, access_logs, origin)| TcpProxy {
            stat_prefix,
            clusters,
            idle_timeout,
            access_logs,
            origin,
        })
        .boxed()
}

/// Policies; with tests on requests where there are requests.
pub fn arb_authz(http: bool) -> BoxedStrategy<Authz> {
    let policies = vec((arb_permission(http), arb_principal(http)), 0..3).prop_map(|pairs| {
        let policy = |(number, (permission, principal))| AuthzPolicy {
            name: Str::from(format!("ns[default]-policy[p]-rule[{number}]")),
            permission,
            principal,
        };
        pairs.into_iter().enumerate().map(policy).collect()
    });
    (select(vec![AuthzAction::Allow, AuthzAction::Deny]), policies)
        .prop_map(|(action, policies)| Authz { action, policies })
        .boxed()
}

/// What is asked for.
fn arb_permission(http: bool) -> BoxedStrategy<Predicate> {
    let leaf = prop_oneof![
        Just(Predicate::Any),
        arb_cidr().prop_map(Predicate::DestinationAddress),
        (1u16..).prop_map(Predicate::DestinationPort),
        arb_string_match().prop_map(Predicate::ServerName),
    ];
    grow(leaf.boxed(), http)
}

/// Who asks.
fn arb_principal(http: bool) -> BoxedStrategy<Predicate> {
    let leaf = prop_oneof![
        Just(Predicate::Any),
        Just(Predicate::Authenticated),
        arb_string_match().prop_map(Predicate::PeerIdentity),
        arb_cidr().prop_map(Predicate::PeerAddress),
        arb_cidr().prop_map(Predicate::RemoteAddress),
    ];
    grow(leaf.boxed(), http)
}

fn grow(leaf: BoxedStrategy<Predicate>, http: bool) -> BoxedStrategy<Predicate> {
    let leaf = if http {
        let request =
            prop_oneof![arb_header_match().prop_map(Predicate::Header), arb_string_match().prop_map(Predicate::Path),];
        prop_oneof![leaf, request].boxed()
    } else {
        leaf
    };
    leaf.prop_recursive(2, 8, 3, |inner| {
        let some = vec(inner.clone(), 1..3).prop_map(Arc::<[Predicate]>::from);
        prop_oneof![
            some.clone().prop_map(Predicate::All),
            some.prop_map(Predicate::OneOf),
            inner.prop_map(|predicate| Predicate::Not(Arc::new(predicate))),
        ]
    })
    .boxed()
}
