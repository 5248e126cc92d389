//! What is not understood is refused, with its place.

use super::*;
use crate::codec::common::{any, duration};
use crate::pb;

#[track_caller]
fn check<M: Message>(type_url: TypeUrl, message: &M, path: &str, reason: &str) {
    let error = decode(type_url, &message.encode_to_vec().into()).unwrap_err();
    assert_eq!(error.path, path, "{error}");
    assert!(error.reason.contains(reason), "{error}");
}

fn mk_cluster() -> pb::cluster::Cluster {
    pb::cluster::Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(pb::cluster::cluster::ClusterDiscoveryType::Type(4)),
        lb_policy: pb::cluster::cluster::LbPolicy::ClusterProvided.into(),
        ..Default::default()
    }
}

#[test]
fn a_plain_cluster_is_understood_with_envoys_defaults() {
    let Resource::Cluster(cluster) = decode(TypeUrl::Cluster, &mk_cluster().encode_to_vec().into()).unwrap() else {
        panic!("not a cluster")
    };
    assert_eq!(cluster.connect_timeout, std::time::Duration::from_secs(5));
    assert_eq!((cluster.limits.connections, cluster.limits.retries), (1024, 3));
    assert_eq!(cluster.panic_percent, 50);
}

#[test]
fn cluster_fields_that_change_behaviour_are_refused() {
    let cluster = TypeUrl::Cluster;
    let message = pb::cluster::Cluster { health_checks: vec![Default::default()], ..mk_cluster() };
    check(cluster, &message, "health_checks", "is not supported");
    let message = pb::cluster::Cluster { lb_policy: pb::cluster::cluster::LbPolicy::Maglev.into(), ..mk_cluster() };
    check(cluster, &message, "lb_policy", "is not a supported policy");
    let message = pb::cluster::Cluster {
        cluster_discovery_type: Some(pb::cluster::cluster::ClusterDiscoveryType::Type(2)),
        ..mk_cluster()
    };
    check(cluster, &message, "type", "LOGICAL_DNS");
    let message = pb::cluster::Cluster {
        connect_timeout: Some(pb::protobuf::Duration { seconds: -1, nanos: 0 }),
        ..mk_cluster()
    };
    check(cluster, &message, "connect_timeout", "is not a duration");
    let tls = pb::tls::UpstreamTlsContext {
        common_tls_context: Some(pb::tls::CommonTlsContext {
            tls_params: Some(pb::tls::TlsParameters { cipher_suites: vec!["RC4".into()], ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let message = pb::cluster::Cluster { transport_socket: Some(super::tls::socket(any(&tls))), ..mk_cluster() };
    check(cluster, &message, "transport_socket.common_tls_context.tls_params.cipher_suites", "is not supported");
}

fn mk_listener(filters: Vec<pb::listener::Filter>) -> pb::listener::Listener {
    pb::listener::Listener {
        name: "l".into(),
        address: Some(crate::codec::common::address("127.0.0.1:80".parse().unwrap())),
        filter_chains: vec![pb::listener::FilterChain { filters, ..Default::default() }],
        ..Default::default()
    }
}

fn mk_http(message: &pb::hcm::HttpConnectionManager) -> pb::listener::Listener {
    mk_listener(vec![pb::listener::Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(pb::listener::filter::ConfigType::TypedConfig(any(message))),
    }])
}

fn mk_filter(name: &str, is_optional: bool) -> pb::hcm::HttpFilter {
    let config = pb::protobuf::Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
    pb::hcm::HttpFilter {
        name: name.into(),
        is_optional,
        config_type: Some(pb::hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn mk_routes(route: pb::route::Route) -> pb::hcm::http_connection_manager::RouteSpecifier {
    let host = pb::route::VirtualHost { name: "v".into(), routes: vec![route], ..Default::default() };
    pb::hcm::http_connection_manager::RouteSpecifier::RouteConfig(pb::route::RouteConfiguration {
        virtual_hosts: vec![host],
        ..Default::default()
    })
}

#[test]
fn unknown_filters_are_refused_unless_they_may_be_left_out() {
    let routes = || Some(mk_routes(mk_route()));
    let mut message = pb::hcm::HttpConnectionManager {
        http_filters: vec![mk_filter("envoy.filters.http.lua", false), mk_filter("envoy.filters.http.router", false)],
        route_specifier: routes(),
        ..Default::default()
    };
    let place = "filter_chains[0].filters[0].http_connection_manager";
    check(TypeUrl::Listener, &mk_http(&message), &format!("{place}.http_filters[0]"), "envoy.filters.http.lua");
    message.http_filters =
        vec![mk_filter("envoy.filters.http.lua", true), mk_filter("envoy.filters.http.router", false)];
    let bytes = mk_http(&message).encode_to_vec().into();
    assert!(decode(TypeUrl::Listener, &bytes).is_ok());
    message.http_filters.pop();
    check(TypeUrl::Listener, &mk_http(&message), &format!("{place}.http_filters"), "not the router");
    check(TypeUrl::Listener, &mk_listener(vec![]), "filter_chains[0].filters", "is empty");
    let mongo = pb::listener::Filter { name: "envoy.filters.network.mongo_proxy".into(), config_type: None };
    check(TypeUrl::Listener, &mk_listener(vec![mongo]), "filter_chains[0].filters[0].typed_config", "is missing");
}

fn mk_route() -> pb::route::Route {
    pb::route::Route {
        r#match: Some(pb::route::RouteMatch {
            path_specifier: Some(pb::route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(pb::route::route::Action::Route(mk_action())),
        ..Default::default()
    }
}

fn mk_action() -> pb::route::RouteAction {
    pb::route::RouteAction {
        cluster_specifier: Some(pb::route::route_action::ClusterSpecifier::Cluster("c".into())),
        ..Default::default()
    }
}

#[test]
fn route_fields_that_change_behaviour_are_refused() {
    let host =
        |route| pb::route::VirtualHost { name: "v".into(), routes: vec![mk_route(), route], ..Default::default() };
    let with = |action| pb::route::Route { action: Some(pb::route::route::Action::Route(action)), ..mk_route() };
    let hashed = pb::route::RouteAction { hash_policy: vec![Default::default()], ..mk_action() };
    check(TypeUrl::VirtualHost, &host(with(hashed)), "routes[1].route.hash_policy", "is not supported");
    let idle = pb::route::RouteAction { idle_timeout: Some(duration(std::time::Duration::ZERO)), ..mk_action() };
    check(TypeUrl::VirtualHost, &host(with(idle)), "routes[1].route.idle_timeout", "is not supported");
    let retry = pb::route::RetryPolicy { retry_on: "5xx,phase-of-the-moon".into(), ..Default::default() };
    let retried = pb::route::RouteAction { retry_policy: Some(retry), ..mk_action() };
    check(TypeUrl::VirtualHost, &host(with(retried)), "routes[1].route.retry_policy.retry_on", "phase-of-the-moon");
    let cookies = pb::route::RouteMatch { cookies: vec![Default::default()], ..mk_route().r#match.unwrap() };
    let route = pb::route::Route { r#match: Some(cookies), ..mk_route() };
    check(TypeUrl::VirtualHost, &host(route), "routes[1].match.cookies", "is not supported");
    let per_filter = [("envoy.filters.http.lua".to_owned(), Default::default())];
    let route = pb::route::Route { typed_per_filter_config: per_filter.into(), ..mk_route() };
    check(
        TypeUrl::VirtualHost,
        &host(route),
        "routes[1].typed_per_filter_config.envoy.filters.http.lua",
        "is not supported",
    );
}

#[test]
fn what_envoy_cannot_say_is_refused() {
    use crate::ir::authz::{Authz, AuthzAction, AuthzPolicy, Predicate};
    use crate::ir::filter::HttpFilter;
    let policy = |permission, principal| AuthzPolicy { name: "p".into(), permission, principal };
    let check = |policies: Vec<AuthzPolicy>, path: &str| {
        let authz = Authz { action: AuthzAction::Allow, policies: policies.into() };
        assert_eq!(filter::encode(&[HttpFilter::Authz(authz)]).unwrap_err().path, path);
    };
    let nested = Predicate::All([Predicate::Not(Arc::new(Predicate::Authenticated))].into());
    check(vec![policy(nested, Predicate::Any)], "filters[0].p.permission.rules[0]");
    check(vec![policy(Predicate::Any, Predicate::DestinationPort(80))], "filters[0].p.principal");
    check(vec![policy(Predicate::Any, Predicate::Any); 2], "filters[0].p");
}

#[test]
fn garbage_is_no_resource() {
    for type_url in TypeUrl::ALL {
        assert!(decode(type_url, &Bytes::from_static(&[0xff, 0xff])).is_err());
    }
}
