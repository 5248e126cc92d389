//! VirtualService.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::networking::virtual_service::{
    Destination, HttpMirrorPolicy, HttpRoute, L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes,
    TlsRoute, VirtualService as Spec,
};
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::{ClusterId, Namespace};
use mesh_api::labels::Selector;
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::PerMillion;
use mesh_api_xds::ir::filter::RouteFilter;
use mesh_api_xds::ir::matcher::Cidr;
use mesh_api_xds::ir::route::{HeaderEdits, PathMatch, PathRewrite};

use super::headers::{Edited, headers, joined};
use super::http_action::{cors, direct, fault, redirect, retry, rewrite, share, whole_share};
use super::http_match::{anything, http_case};
use super::{Context, gateway_refs};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::services::ExportTo;
use crate::snapshot::shard::Compiled;
use crate::snapshot::virtual_services::{
    Dest, ForwardRule, GatewayRef, HttpCase, HttpRule, MirrorRule, RuleAction, StaticMatch, Target, TcpCase, TcpRule,
    TlsCase, TlsRule, VirtualService,
};

/// Compiles a VirtualService.
pub(crate) fn virtual_service(mesh: &Mesh, object: &Object<Spec>, cluster: &ClusterId) -> Compiled<VirtualService> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let Spec { hosts, gateways, http, tls, tcp, export_to } = &object.spec;
    let refs = if gateways.is_empty() { Arc::from([GatewayRef::Mesh]) } else { gateway_refs(&cx, gateways) };
    let hosts: Arc<[Hostname]> = self::hosts(&mut cx, hosts, &refs).into();
    let http = http.iter().enumerate().filter_map(|(index, rule)| http_rule(&mut cx, index, rule)).collect();
    let tls = tls.iter().enumerate().filter_map(|(index, rule)| tls_rule(&mut cx, index, rule)).collect();
    let tcp = tcp.iter().enumerate().filter_map(|(index, rule)| tcp_rule(&mut cx, index, rule)).collect();
    let export_to =
        ExportTo::parse(export_to.iter().map(Str::as_str), cx.namespace(), &mesh.default_export.virtual_services);
    let value = VirtualService {
        key: cx.key.clone(),
        created: object.meta.creation_timestamp,
        hosts,
        gateways: refs,
        export_to,
        http,
        tls,
        tcp,
    };
    let values = if value.hosts.is_empty() { vec![] } else { vec![value] };
    Compiled { values, findings: cx.into_findings() }
}

fn hosts(cx: &mut Context<'_>, hosts: &[Str], gateways: &[GatewayRef]) -> Vec<Hostname> {
    if hosts.is_empty() {
        let message = "delegate VirtualServices (without hosts) do not act yet";
        cx.report(Finding::new(Code::NotActing, "spec.hosts", message).hint("add hosts"));
    }
    let mesh = gateways.contains(&GatewayRef::Mesh);
    let mut known = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if let Err(error) = Hostname::parse(host) {
            cx.cut::<()>(Code::InvalidHost, &path, format!("{host:?} {error}"));
            continue;
        }
        if mesh && host == "*" {
            cx.cut::<()>(Code::InvalidHost, &path, "the host * is for gateways; in the mesh it would take everything");
            continue;
        }
        if mesh && host.parse::<IpAddr>().is_ok() && gateways.len() == 1 {
            cx.cut::<()>(Code::InvalidHost, &path, "an address is a host for gateways only");
            continue;
        }
        let host = cx.mesh.expand(host, cx.namespace());
        if known.contains(&host) {
            cx.cut::<()>(Code::Duplicate, &path, format!("{host} is there already"));
        } else {
            known.push(host);
        }
    }
    known
}

fn http_rule(cx: &mut Context<'_>, index: usize, route: &HttpRoute) -> Option<HttpRule> {
    let path = format!("spec.http[{index}]");
    let mut cases = Vec::new();
    for (number, request) in route.matches.iter().enumerate() {
        cases.push(http_case(cx, &format!("{path}.match[{number}]"), request)?);
    }
    if cases.is_empty() {
        cases.push(anything());
    }
    let edited = headers(cx, &format!("{path}.headers"), route.headers.as_ref());
    let (action, headers) = http_action(cx, &path, route, &cases, edited)?;
    let mut filters = Vec::new();
    if let Some(injection) = &route.fault {
        let injected = fault(cx, &format!("{path}.fault"), injection)?;
        filters.extend(injected.map(RouteFilter::Fault));
    }
    if let Some(policy) = &route.cors_policy {
        filters.push(RouteFilter::Cors(cors(cx, &format!("{path}.corsPolicy"), policy)?));
    }
    Some(HttpRule {
        name: route.name.clone(),
        cases: cases.into(),
        action,
        headers,
        filters: filters.into(),
        origin: cx.origin(),
    })
}

fn http_action(
    cx: &mut Context<'_>,
    path: &str,
    route: &HttpRoute,
    cases: &[HttpCase],
    edited: Edited,
) -> Option<(RuleAction, HeaderEdits)> {
    // Every field of the route is either used here, used by the caller, or named as not acting.
    let HttpRoute {
        name: _,
        matches: _,
        route: destinations,
        redirect: redirection,
        direct_response,
        delegate,
        rewrite: rewriting,
        timeout,
        retries,
        fault: _,
        mirror,
        mirrors,
        mirror_percent,
        mirror_percentage,
        cors_policy: _,
        headers: _,
    } = route;
    if delegate.is_some() {
        return cx.cut(Code::NotActing, &format!("{path}.delegate"), "delegation does not act yet");
    }
    match (destinations.is_empty(), redirection, direct_response) {
        (true, Some(redirection), None) => {
            let rule = redirect(cx, &format!("{path}.redirect"), redirection)?;
            Some((RuleAction::Redirect(rule), edited.headers))
        }
        (true, None, Some(response)) => {
            let answer = direct(cx, &format!("{path}.directResponse"), response)?;
            Some((RuleAction::Direct(answer), edited.headers))
        }
        (false, None, None) => {
            let mut to = Vec::new();
            let mut host = edited.host;
            let mut outer = edited.headers;
            let single = destinations.len() == 1;
            for (number, destination) in destinations.iter().enumerate() {
                let path = format!("{path}.route[{number}]");
                let inner = headers(cx, &format!("{path}.headers"), destination.headers.as_ref());
                let target = target(cx, &format!("{path}.destination"), &destination.destination)?;
                // On a single destination its edits are the route's; the route's authority wins over it.
                let headers = if single {
                    outer = joined(&outer, &inner.headers);
                    host = host.or(inner.host);
                    HeaderEdits::default()
                } else {
                    if inner.host.is_some() {
                        let message = "the authority is rewritten per route, not per destination";
                        cx.report(Finding::new(Code::NotActing, format!("{path}.headers.request"), message));
                    }
                    inner.headers
                };
                let weight = weight(cx, &path, destination.weight, single)?;
                to.push(Dest { to: target, weight, headers });
            }
            let to = positive(cx, path, to)?;
            let (edit, authority) = rewrite(cx, &format!("{path}.rewrite"), rewriting.as_ref())?;
            warn_rewrite(cx, path, &edit, cases);
            let mirrors =
                self::mirrors(cx, path, mirror.as_ref(), mirrors, *mirror_percent, mirror_percentage.as_ref())?;
            let forward = ForwardRule {
                to,
                timeout: timeout.map(|text| text.0).filter(|time| !time.is_zero()),
                retry: retry(cx, &format!("{path}.retries"), retries.as_ref())?,
                rewrite: edit,
                host_rewrite: authority.or(host),
                mirrors,
            };
            Some((RuleAction::Forward(forward), outer))
        }
        _ => cx.cut(Code::Conflict, path, "needs exactly one of route, redirect and directResponse"),
    }
}

fn warn_rewrite(cx: &mut Context<'_>, path: &str, edit: &PathRewrite, cases: &[HttpCase]) {
    let regex = |case: &HttpCase| matches!(case.matches.path, PathMatch::Regex(_));
    if matches!(edit, PathRewrite::Prefix(_)) && cases.iter().any(regex) {
        let message = "has no effect where the path is matched by a regular expression";
        let finding = Finding::new(Code::Ineffective, format!("{path}.rewrite.uri"), message);
        cx.report(finding.hint("use rewrite.uriRegexRewrite"));
    }
}

/// Drops destinations without a share; one destination has all of it.
fn positive(cx: &mut Context<'_>, path: &str, mut to: Vec<Dest>) -> Option<Arc<[Dest]>> {
    to.retain(|dest| dest.weight > 0);
    if to.is_empty() {
        return cx.cut(Code::InvalidValue, &format!("{path}.route"), "all weights are zero");
    }
    Some(to.into())
}

fn weight(cx: &mut Context<'_>, path: &str, weight: i32, single: bool) -> Option<u32> {
    match u32::try_from(weight) {
        Ok(_) if single => Some(1),
        Ok(weight) => Some(weight),
        Err(_) => cx.cut(Code::InvalidValue, &format!("{path}.weight"), "is negative"),
    }
}

fn target(cx: &mut Context<'_>, path: &str, destination: &Destination) -> Option<Target> {
    let Destination { host, subset, port } = destination;
    if let Err(error) = Hostname::parse(host) {
        return cx.cut(Code::InvalidHost, &format!("{path}.host"), format!("{host:?} {error}"));
    }
    let port = match port {
        Some(port) => Some(cx.port(&format!("{path}.port.number"), port.number)?),
        None => None,
    };
    Some(Target { host: cx.mesh.expand(host, cx.namespace()), subset: subset.clone(), port })
}

fn mirrors(
    cx: &mut Context<'_>,
    path: &str,
    mirror: Option<&Destination>,
    mirrors: &[HttpMirrorPolicy],
    percent: Option<u32>,
    percentage: Option<&mesh_api::crd::common::Percent>,
) -> Option<Arc<[MirrorRule]>> {
    if mirror.is_some() && !mirrors.is_empty() {
        return cx.cut(Code::Conflict, path, "mirror and mirrors exclude each other");
    }
    let mut rules = Vec::new();
    if let Some(mirror) = mirror {
        let share = match (percentage, percent) {
            (Some(percentage), _) => share(cx, &format!("{path}.mirrorPercentage"), percentage)?,
            (None, Some(percent)) => whole_share(cx, &format!("{path}.mirrorPercent"), i64::from(percent))?,
            (None, None) => PerMillion::ALL,
        };
        rules.push(MirrorRule { to: target(cx, &format!("{path}.mirror"), mirror)?, share });
    }
    for (number, policy) in mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{number}]");
        let Some(destination) = &policy.destination else {
            return cx.cut(Code::Required, &format!("{path}.destination"), "a mirror needs a destination");
        };
        let share = match &policy.percentage {
            Some(percentage) => share(cx, &format!("{path}.percentage"), percentage)?,
            None => PerMillion::ALL,
        };
        rules.push(MirrorRule { to: target(cx, &format!("{path}.destination"), destination)?, share });
    }
    rules.retain(|rule| rule.share > PerMillion(0));
    Some(rules.into())
}

fn destinations(cx: &mut Context<'_>, path: &str, route: &[RouteDestination]) -> Option<Arc<[Dest]>> {
    if route.is_empty() {
        return cx.cut(Code::Required, &format!("{path}.route"), "needs a destination");
    }
    let mut to = Vec::new();
    for (number, destination) in route.iter().enumerate() {
        let path = format!("{path}.route[{number}]");
        let target = target(cx, &format!("{path}.destination"), &destination.destination)?;
        let weight = weight(cx, &path, destination.weight, route.len() == 1)?;
        to.push(Dest { to: target, weight, headers: HeaderEdits::default() });
    }
    positive(cx, path, to)
}

/// Conditions on the client, which TLS and TCP routes share.
fn static_match(
    cx: &mut Context<'_>,
    path: &str,
    port: u32,
    source_labels: &Selector,
    gateways: &[Str],
    source_namespace: &Str,
) -> Option<StaticMatch> {
    Some(StaticMatch {
        port: if port == 0 { None } else { Some(cx.port(&format!("{path}.port"), port)?) },
        source_labels: source_labels.clone(),
        source_namespace: (!source_namespace.is_empty()).then(|| Namespace::from(source_namespace)),
        gateways: if gateways.is_empty() { None } else { Some(gateway_refs(cx, gateways)) },
    })
}

fn subnets(cx: &mut Context<'_>, path: &str, subnets: &[Str]) -> Option<Arc<[Cidr]>> {
    let mut known = Vec::new();
    for (number, text) in subnets.iter().enumerate() {
        let Some(cidr) = Cidr::parse(text) else {
            let path = format!("{path}.destinationSubnets[{number}]");
            return cx.cut(Code::InvalidValue, &path, format!("{text:?} is neither an address nor a range"));
        };
        known.push(cidr);
    }
    Some(known.into())
}

fn tls_rule(cx: &mut Context<'_>, index: usize, route: &TlsRoute) -> Option<TlsRule> {
    let path = format!("spec.tls[{index}]");
    let mut cases = Vec::new();
    for (number, attributes) in route.matches.iter().enumerate() {
        let path = format!("{path}.match[{number}]");
        let TlsMatchAttributes { sni_hosts, destination_subnets, port, source_labels, gateways, source_namespace } =
            attributes;
        let mut sni = Vec::new();
        for host in sni_hosts {
            match Hostname::parse(host) {
                Ok(host) => sni.push(host),
                Err(error) => {
                    return cx.cut(Code::InvalidHost, &format!("{path}.sniHosts"), format!("{host:?} {error}"));
                }
            }
        }
        if sni.is_empty() {
            return cx.cut(Code::Required, &format!("{path}.sniHosts"), "a TLS match needs a server name");
        }
        let on = static_match(cx, &path, *port, source_labels, gateways, source_namespace)?;
        cases.push(TlsCase { on, sni: sni.into(), destinations: subnets(cx, &path, destination_subnets)? });
    }
    if cases.is_empty() {
        return cx.cut(Code::Required, &format!("{path}.match"), "a TLS route needs a match with a server name");
    }
    let to = destinations(cx, &path, &route.route)?;
    Some(TlsRule { cases: cases.into(), to, origin: cx.origin() })
}

fn tcp_rule(cx: &mut Context<'_>, index: usize, route: &TcpRoute) -> Option<TcpRule> {
    let path = format!("spec.tcp[{index}]");
    let mut cases = Vec::new();
    for (number, attributes) in route.matches.iter().enumerate() {
        let path = format!("{path}.match[{number}]");
        let L4MatchAttributes { destination_subnets, port, source_subnet, source_labels, gateways, source_namespace } =
            attributes;
        if !source_subnet.is_empty() {
            let message = "is not implemented, in Istio neither";
            cx.report(Finding::new(Code::Ineffective, format!("{path}.sourceSubnet"), message));
        }
        let on = static_match(cx, &path, *port, source_labels, gateways, source_namespace)?;
        cases.push(TcpCase { on, destinations: subnets(cx, &path, destination_subnets)? });
    }
    if cases.is_empty() {
        cases.push(TcpCase::default());
    }
    let to = destinations(cx, &path, &route.route)?;
    Some(TcpRule { cases: cases.into(), to, origin: cx.origin() })
}
