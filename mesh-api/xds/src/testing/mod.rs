//! Random configuration for property tests (feature `testing`).
//!
//! The strategies make values in canonical form (see [`crate::codec`]) that Envoy accepts one by one: patterns compile,
//! names are unique, durations are within its bounds.

pub mod chain;
pub mod cluster;
pub mod http;
pub mod route;
pub mod samples;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::ir::matcher::{Cidr, HeaderMatch, QueryMatch, StringMatch, StringPattern, ValueTest};
use crate::ir::names::{NameEntry, NameKind, NameTable};
use crate::ir::secret::{PrivateKey, Secret, SecretContent};
use crate::ir::{Origin, PerMillion, Resource};

/// A lower-case word.
pub fn arb_word() -> BoxedStrategy<Str> {
    "[a-z][a-z0-9-]{0,8}".prop_map(Str::from).boxed()
}

/// A word or nothing.
pub fn arb_maybe_word() -> BoxedStrategy<Str> {
    prop_oneof![Just(Str::empty()), arb_word()].boxed()
}

/// The object behind something, or none.
pub fn arb_origin() -> BoxedStrategy<Origin> {
    prop_oneof![Just(Origin::default()), arb_word().prop_map(|name| Origin(format!("VirtualService/ns/{name}").into()))]
        .boxed()
}

/// A duration from 1 ms to 100 s.
pub fn arb_time() -> BoxedStrategy<Duration> {
    (1u64..100_000).prop_map(Duration::from_millis).boxed()
}

/// A duration, or zero where that means "no limit".
pub fn arb_limit() -> BoxedStrategy<Duration> {
    prop_oneof![Just(Duration::ZERO), arb_time()].boxed()
}

/// A share of requests.
pub fn arb_share() -> BoxedStrategy<PerMillion> {
    (0u32..=1_000_000).prop_map(PerMillion).boxed()
}

/// An address of either family.
pub fn arb_ip() -> BoxedStrategy<IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
    .boxed()
}

/// An address with a port, not 0.
pub fn arb_socket() -> BoxedStrategy<SocketAddr> {
    (arb_ip(), 1u16..).prop_map(|(ip, port)| SocketAddr::new(ip, port)).boxed()
}

/// A prefix.
pub fn arb_cidr() -> BoxedStrategy<Cidr> {
    (arb_ip(), 0u8..=32).prop_map(|(ip, bits)| Cidr::new(ip, bits).unwrap_or_else(|| Cidr::host(ip))).boxed()
}

/// A shared list.
pub fn arb_list<T: std::fmt::Debug + Clone + 'static>(
    item: impl Strategy<Value = T> + 'static,
    max: usize,
) -> BoxedStrategy<Arc<[T]>> {
    vec(item, 0..=max).prop_map(Arc::from).boxed()
}

/// A regular expression.
pub fn arb_regex() -> BoxedStrategy<Str> {
    (arb_word(), select(vec!["", ".*", "[0-9]+", "(a|b)?"]))
        .prop_map(|(word, tail)| format!("/{word}{tail}").into())
        .boxed()
}

/// A test on a text.
pub fn arb_string_match() -> BoxedStrategy<StringMatch> {
    let pattern = prop_oneof![
        arb_maybe_word().prop_map(StringPattern::Exact),
        arb_word().prop_map(StringPattern::Prefix),
        arb_word().prop_map(StringPattern::Suffix),
        arb_word().prop_map(StringPattern::Contains),
        arb_regex().prop_map(StringPattern::Regex),
    ];
    (pattern, any::<bool>())
        .prop_map(|(pattern, flag)| {
            let ignore_case = flag && !matches!(pattern, StringPattern::Regex(_));
            StringMatch { pattern, ignore_case }
        })
        .boxed()
}

fn arb_value_test() -> BoxedStrategy<ValueTest> {
    prop_oneof![Just(ValueTest::Present), arb_string_match().prop_map(ValueTest::Matches)].boxed()
}

/// A test on a header.
pub fn arb_header_match() -> BoxedStrategy<HeaderMatch> {
    let name = prop_oneof![arb_word(), select(vec![":method", ":authority"]).prop_map(Str::from)];
    (name, arb_value_test(), any::<bool>(), any::<bool>())
        .prop_map(|(name, test, invert, missing_is_empty)| HeaderMatch { name, test, invert, missing_is_empty })
        .boxed()
}

/// A test on a query parameter.
pub fn arb_query_match() -> BoxedStrategy<QueryMatch> {
    (arb_word(), arb_value_test()).prop_map(|(name, test)| QueryMatch { name, test }).boxed()
}

/// A secret; its content is no real key.
pub fn arb_secret() -> BoxedStrategy<Secret> {
    let bytes = || vec(any::<u8>(), 0..20).prop_map(Arc::<[u8]>::from);
    let content = prop_oneof![
        (bytes(), bytes()).prop_map(|(chain, key)| SecretContent::Certificate { chain, key: PrivateKey(key) }),
        bytes().prop_map(SecretContent::Trust),
    ];
    (arb_word(), content).prop_map(|(name, content)| Secret { name, content }).boxed()
}

/// A table of names.
pub fn arb_names() -> BoxedStrategy<NameTable> {
    let addresses = || vec(any::<IpAddr>(), 0..3).prop_map(Arc::<[IpAddr]>::from);
    let kubernetes = (arb_word(), arb_word(), vec(arb_word(), 0..2)).prop_map(|(short_name, namespace, aliases)| {
        NameKind::Kubernetes { short_name, namespace, aliases: aliases.into() }
    });
    let kind = prop_oneof![Just(NameKind::Other), kubernetes];
    btree_map(arb_word(), (addresses(), kind), 0..4)
        .prop_map(|entries| {
            let entry = |(host, (addresses, kind))| NameEntry { host, addresses, kind };
            NameTable::new(entries.into_iter().map(entry).collect())
        })
        .boxed()
}

/// Any resource.
pub fn arb_resource() -> BoxedStrategy<Resource> {
    prop_oneof![
        cluster::arb_cluster().prop_map(Resource::Cluster),
        cluster::arb_endpoint_set(false).prop_map(Resource::Endpoints),
        chain::arb_listener().prop_map(Resource::Listener),
        route::arb_route_config().prop_map(Resource::Routes),
        route::arb_virtual_host("80/").prop_map(Resource::VirtualHost),
        arb_secret().prop_map(Resource::Secret),
        arb_names().prop_map(Resource::Names),
    ]
    .boxed()
}
