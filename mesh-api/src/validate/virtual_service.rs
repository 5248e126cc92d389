//! Rules of VirtualService. istio/istio: pkg/config/validation/virtualservice.go and validation.go.

use super::{
    check::Check,
    http_route,
    route_parts::{destination, gateways, source, weights},
};
use crate::{
    codes::Code,
    crd::{
        common::StringMatch,
        networking::virtual_service::{
            HttpMatchRequest, HttpRoute, L4MatchAttributes, RouteDestination, TlsMatchAttributes, VirtualService,
        },
    },
    host::Hostname,
    names::MESH_GATEWAY,
    text::Str,
};

pub(super) fn check(namespace: &str, spec: &VirtualService, check: &mut Check) {
    let only_mesh = spec.gateways.iter().all(|g| *g == MESH_GATEWAY);
    let hosts = hosts(spec, only_mesh, check);
    gateways(check, &spec.gateways);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        check.here(Code::Required, "has no routes: needs one of http, tls and tcp");
    }
    let catch_all = spec.http.iter().position(matches_everything).unwrap_or(spec.http.len());
    for (index, route) in spec.http.iter().enumerate() {
        check.field(&format!("http[{index}]"), |check| {
            if index > catch_all {
                let message = format!("is never reached: spec.http[{catch_all}] matches everything");
                check.here(Code::Ineffective, message);
            }
            http_route::check(check, route, only_mesh);
        });
    }
    check.each("tls", &spec.tls, |check, route| {
        check.required("match", !route.matches.is_empty());
        check.each("match", &route.matches, |check, m| tls_match(check, m, &hosts));
        check.required("route", !route.route.is_empty());
        destinations(check, &route.route);
    });
    check.each("tcp", &spec.tcp, |check, route| {
        check.each("match", &route.matches, l4_match);
        check.required("route", !route.route.is_empty());
        destinations(check, &route.route);
    });
    check.export_to(namespace, &spec.export_to, false);
}

/// Checks the hosts and returns those that are well formed.
fn hosts(spec: &VirtualService, only_mesh: bool, check: &mut Check) -> Vec<Hostname> {
    if spec.hosts.is_empty() {
        let is_delegate = spec.gateways.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty();
        if is_delegate && !spec.http.is_empty() {
            let message = "is empty, which makes a delegate; delegates do not act yet in this release";
            check.at("hosts", Code::NotActing, message);
        } else {
            check.required("hosts", false);
        }
    }
    let mut hosts: Vec<Hostname> = Vec::new();
    for (index, text) in spec.hosts.iter().enumerate() {
        let path = format!("hosts[{index}]");
        let Some(host) = check.host(&path, text) else { continue };
        if host == "*" && only_mesh {
            let hint = "bind it to a gateway, or name the hosts";
            check.hinted(&path, Code::InvalidHost, "'*' cannot be used for the gateway mesh", hint);
        } else if host == "*" && spec.gateways.iter().any(|g| *g == MESH_GATEWAY) {
            check.at(&path, Code::Ineffective, "'*' has no effect for the gateway mesh");
        }
        if let Some(other) = hosts.iter().find(|other| other.matches(&host)) {
            check.at(&path, Code::Duplicate, format!("{host} and {other} overlap"));
        }
        hosts.push(host);
    }
    hosts
}

/// Istio's definition: no condition but a prefix `/` or a regex `.*`, for all clients.
fn matches_everything(route: &HttpRoute) -> bool {
    route.matches.is_empty()
        || route.matches.iter().any(|m| {
            let any_path = match &m.uri {
                Some(StringMatch::Prefix(text)) => *text == "/" || text.is_empty(),
                Some(StringMatch::Regex(text)) => *text == ".*" || *text == "*",
                Some(StringMatch::Exact(_)) => false,
                Some(StringMatch::Present) | None => true,
            };
            let only_path = HttpMatchRequest {
                name: m.name.clone(),
                uri: m.uri.clone(),
                ignore_uri_case: m.ignore_uri_case,
                stat_prefix: m.stat_prefix.clone(),
                ..HttpMatchRequest::default()
            };
            any_path && only_path == *m
        })
}

fn tls_match(check: &mut Check, tls: &TlsMatchAttributes, hosts: &[Hostname]) {
    check.required("sniHosts", !tls.sni_hosts.is_empty());
    for (index, text) in tls.sni_hosts.iter().enumerate() {
        let path = format!("sniHosts[{index}]");
        let Some(sni) = check.host(&path, text) else { continue };
        if text.parse::<std::net::IpAddr>().is_ok() {
            check.at(&path, Code::Ineffective, "clients do not send addresses as server names");
        } else if !hosts.iter().any(|host| sni.subset_of(host)) {
            check.at(&path, Code::InvalidValue, format!("{sni} is not covered by the hosts of the object"));
        }
    }
    subnets(check, &tls.destination_subnets);
    source(check, tls.port, &tls.source_labels, &tls.gateways, &tls.source_namespace);
}

fn l4_match(check: &mut Check, l4: &L4MatchAttributes) {
    subnets(check, &l4.destination_subnets);
    if !l4.source_subnet.is_empty() {
        check.at("sourceSubnet", Code::Ineffective, "has no effect, in Istio neither");
    }
    source(check, l4.port, &l4.source_labels, &l4.gateways, &l4.source_namespace);
}

fn subnets(check: &mut Check, subnets: &[Str]) {
    check.each("destinationSubnets", subnets, |check, subnet| check.cidr("", subnet));
}

fn destinations(check: &mut Check, routes: &[RouteDestination]) {
    check.each("route", routes, |check, route| {
        check.field("destination", |check| destination(check, &route.destination));
    });
    weights(check, routes.iter().map(|r| r.weight).collect());
}
