//! Route configurations.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::arb_cluster_name;
use super::{
    arb_header_match, arb_limit, arb_list, arb_maybe_word, arb_origin, arb_query_match, arb_regex, arb_share,
    arb_string_match, arb_time, arb_word,
};
use crate::ir::filter::{AbortStatus, Cors, Fault, FaultAbort, FaultDelay, RouteFilter};
use crate::ir::route::{
    Action, Destination, Direct, Edits, Forward, HeaderEdits, Mirror, PathMatch, PathRewrite, Redirect, RedirectPath,
    RedirectPort, RetryOn, RetryPolicy, RetrySafety, Route, RouteConfig, RouteHosts, RouteMatch, VirtualHost,
    WeightedCluster,
};

/// A route configuration.
pub fn arb_route_config() -> BoxedStrategy<RouteConfig> {
    let inline = vec(arb_virtual_host(""), 0..3).prop_map(|hosts| {
        // Names and domains are unique in a route configuration.
        let numbered = hosts.into_iter().enumerate().map(|(number, mut host)| {
            host.name = format!("{}-{number}", host.name).into();
            host.domains = host.domains.iter().map(|domain| Str::from(format!("{domain}{number}"))).collect();
            Arc::new(host)
        });
        RouteHosts::Inline(numbered.collect())
    });
    let hosts = prop_oneof![4 => inline, 1 => Just(RouteHosts::Apart)];
    (arb_word(), hosts, any::<bool>())
        .prop_map(|(name, hosts, ignore_port)| RouteConfig { name, hosts, ignore_port })
        .boxed()
}

/// A virtual host with a name that starts with `prefix`.
pub fn arb_virtual_host(prefix: &'static str) -> BoxedStrategy<VirtualHost> {
    let domains = vec(arb_word(), 1..3).prop_map(|words| {
        words.iter().enumerate().map(|(number, word)| Str::from(format!("{word}.{number}"))).collect()
    });
    (arb_word(), domains, arb_list(arb_route(), 3), any::<bool>(), any::<bool>())
        .prop_map(move |(name, domains, routes, require_tls, attempt_count)| VirtualHost {
            name: format!("{prefix}{name}").into(),
            domains,
            routes,
            require_tls,
            attempt_count,
        })
        .boxed()
}

/// A route.
pub fn arb_route() -> BoxedStrategy<Route> {
    let action = prop_oneof![
        4 => arb_forward().prop_map(Action::Forward),
        1 => arb_redirect().prop_map(Action::Redirect),
        1 => (200u16..600, vec(any::<u8>(), 0..20))
            .prop_map(|(status, body)| Action::Direct(Direct { status, body: body.into() })),
    ];
    let filters = (option::of(arb_fault()), option::of(arb_cors())).prop_map(|(fault, cors)| {
        fault.map(RouteFilter::Fault).into_iter().chain(cors.map(RouteFilter::Cors)).collect()
    });
    (arb_maybe_word(), arb_route_match(), action, arb_header_edits(), filters, arb_origin())
        .prop_map(|(name, matches, action, headers, filters, origin)| {
            // Envoy rewrites prefixes only, unless the path was matched by a pattern.
            let (matches, action) = fit(matches, action);
            Route { name, matches, action, headers, filters, origin }
        })
        .boxed()
}

/// Makes match and rewrite fit each other, as Envoy demands.
fn fit(mut matches: RouteMatch, action: Action) -> (RouteMatch, Action) {
    let prefix_edit = match &action {
        Action::Forward(forward) => matches!(forward.rewrite, PathRewrite::Prefix(_)),
        Action::Redirect(redirect) => matches!(redirect.path, RedirectPath::Prefix(_)),
        Action::Direct(_) => false,
    };
    if prefix_edit && matches!(matches.path, PathMatch::Regex(_)) {
        matches.path = PathMatch::Prefix(Str::from("/"));
    }
    (matches, action)
}

fn arb_route_match() -> BoxedStrategy<RouteMatch> {
    let path = || arb_word().prop_map(|word| Str::from(format!("/{word}")));
    let path = prop_oneof![
        path().prop_map(PathMatch::Prefix),
        path().prop_map(PathMatch::SeparatedPrefix),
        path().prop_map(PathMatch::Exact),
        arb_regex().prop_map(PathMatch::Regex),
    ];
    (path, any::<bool>(), arb_list(arb_header_match(), 2), arb_list(arb_query_match(), 2))
        .prop_map(|(path, case_sensitive, headers, query)| RouteMatch { path, case_sensitive, headers, query })
        .boxed()
}

fn arb_forward() -> BoxedStrategy<Forward> {
    let choice = (arb_cluster_name(), 1u32..100, arb_header_edits())
        .prop_map(|(cluster, weight, headers)| WeightedCluster { cluster, weight, headers });
    let to = prop_oneof![
        arb_cluster_name().prop_map(Destination::Cluster),
        vec(choice, 1..4).prop_map(|choices| Destination::Weighted(choices.into())),
    ];
    let rewrite = prop_oneof![
        Just(PathRewrite::Keep),
        arb_word().prop_map(|word| PathRewrite::Prefix(format!("/{word}").into())),
        (arb_regex(), arb_word()).prop_map(|(pattern, substitution)| PathRewrite::Regex { pattern, substitution }),
    ];
    let mirror = (arb_cluster_name(), arb_share()).prop_map(|(cluster, share)| Mirror { cluster, share });
    (
        to,
        option::of(arb_time()),
        option::of(arb_limit()),
        option::of(arb_retry().prop_map(Arc::new)),
        rewrite,
        option::of(arb_word()),
        arb_list(mirror, 2),
    )
        .prop_map(|(to, timeout, max_grpc_timeout, retry, rewrite, host_rewrite, mirrors)| Forward {
            to,
            timeout,
            max_grpc_timeout,
            retry,
            rewrite,
            host_rewrite,
            mirrors,
        })
        .boxed()
}

/// A retry policy.
pub fn arb_retry() -> BoxedStrategy<RetryPolicy> {
    let on = (0u32..1 << RetryOn::WORDS.len()).prop_map(RetryOn);
    let safety = select(vec![RetrySafety::Safe, RetrySafety::AsConfigured]);
    (on, 0u32..5, option::of(arb_time()), arb_list(400u16..600, 3), any::<bool>(), arb_time(), safety, arb_origin())
        .prop_map(|(on, attempts, per_try_timeout, statuses, avoid_previous, backoff, safety, origin)| RetryPolicy {
            on,
            attempts,
            per_try_timeout,
            statuses,
            avoid_previous,
            backoff,
            safety,
            origin,
        })
        .boxed()
}

fn arb_redirect() -> BoxedStrategy<Redirect> {
    let port = prop_oneof![Just(RedirectPort::Keep), Just(RedirectPort::Strip), (1u16..).prop_map(RedirectPort::Port)];
    let text = || arb_word().prop_map(|word| Str::from(format!("/{word}")));
    let path = prop_oneof![
        Just(RedirectPath::Keep),
        text().prop_map(RedirectPath::Full),
        text().prop_map(RedirectPath::Prefix)
    ];
    let scheme = option::of(select(vec![Str::from("http"), Str::from("https")]));
    (select(vec![301u16, 302, 303, 307, 308]), scheme, option::of(arb_word()), port, path)
        .prop_map(|(status, scheme, authority, port, path)| Redirect { status, scheme, authority, port, path })
        .boxed()
}

fn arb_header_edits() -> BoxedStrategy<HeaderEdits> {
    (arb_edits(), arb_edits()).prop_map(|(request, response)| HeaderEdits { request, response }).boxed()
}

fn arb_edits() -> BoxedStrategy<Edits> {
    let pairs = || arb_list((arb_word(), arb_maybe_word()), 2);
    (pairs(), pairs(), arb_list(arb_word(), 2)).prop_map(|(set, add, remove)| Edits { set, add, remove }).boxed()
}

fn arb_fault() -> BoxedStrategy<Fault> {
    let status = prop_oneof![(200u16..600).prop_map(AbortStatus::Http), (0u16..=16).prop_map(AbortStatus::Grpc)];
    let delay = (arb_share(), arb_time()).prop_map(|(share, duration)| FaultDelay { share, duration });
    let abort = (arb_share(), status).prop_map(|(share, status)| FaultAbort { share, status });
    (option::of(delay), option::of(abort)).prop_map(|(delay, abort)| Fault { delay, abort }).boxed()
}

fn arb_cors() -> BoxedStrategy<Cors> {
    let max_age = option::of((0u64..10_000).prop_map(Duration::from_secs));
    (
        arb_list(arb_string_match(), 3),
        arb_maybe_word(),
        arb_maybe_word(),
        arb_maybe_word(),
        max_age,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(origins, methods, headers, expose, max_age, credentials, forward_unmatched)| Cors {
            origins,
            methods,
            headers,
            expose,
            max_age,
            credentials,
            forward_unmatched,
        })
        .boxed()
}
