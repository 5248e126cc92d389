//! Sidecar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_api::codes::Code;
use mesh_api::crd::networking::gateway::Port as ApiPort;
use mesh_api::crd::networking::sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicyMode, Sidecar as Spec,
};
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::{ClusterId, Namespace};
use mesh_api::object::Object;

use super::Context;
use super::destination_rule::pool;
use crate::snapshot::mesh::{Mesh, OutboundPolicy};
use crate::snapshot::services::Protocol;
use crate::snapshot::shard::Compiled;
use crate::snapshot::sidecars::{
    EgressHost, EgressNamespace, EgressPort, EgressProtocol, EgressSpec, Ingress, IngressEndpoint, Sidecar,
};

/// Compiles a Sidecar.
pub(crate) fn sidecar(mesh: &Mesh, object: &Object<Spec>, cluster: &ClusterId) -> Compiled<Sidecar> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let Spec { workload_selector, ingress, egress, inbound_connection_pool, outbound_traffic_policy } = &object.spec;
    let ingress = ingress.iter().enumerate().filter_map(|(index, listener)| self::ingress(&mut cx, index, listener));
    let ingress = ingress.collect::<Vec<_>>().into();
    let mut listeners: Vec<EgressSpec> = Vec::new();
    for (index, listener) in egress.iter().enumerate() {
        listeners.extend(self::egress(&mut cx, index, listener));
    }
    if egress.is_empty() {
        listeners.push(EgressSpec {
            port: None,
            bind: None,
            bound: false,
            hosts: [everything()].into(),
            excluded: [].into(),
        });
    }
    let outbound = outbound_traffic_policy.as_ref().map(|policy| {
        if policy.egress_proxy.is_some() {
            let path = "spec.outboundTrafficPolicy.egressProxy";
            cx.report(Finding::new(Code::NotActing, path, "unknown destinations are not sent to a proxy yet"));
        }
        outbound_policy(&mut cx, "spec.outboundTrafficPolicy.mode", policy.mode)
    });
    let inbound_pool =
        inbound_connection_pool.as_ref().map(|settings| pool(&mut cx, "spec.inboundConnectionPool", settings));
    let value = Sidecar {
        key: cx.key.clone(),
        created: object.meta.creation_timestamp,
        selector: workload_selector.as_ref().map(|selector| selector.labels.clone()),
        ingress,
        egress: listeners.into(),
        outbound,
        inbound_pool,
    };
    Compiled { values: vec![value], findings: cx.into_findings() }
}

pub(super) fn outbound_policy(cx: &mut Context<'_>, path: &str, mode: OutboundTrafficPolicyMode) -> OutboundPolicy {
    match mode {
        OutboundTrafficPolicyMode::RegistryOnly => OutboundPolicy::RegistryOnly,
        OutboundTrafficPolicyMode::AllowAny => OutboundPolicy::AllowAny,
        OutboundTrafficPolicyMode::AllowAnyDynamicDns => {
            cx.report(Finding::new(Code::NotActing, path, "ALLOW_ANY_DYNAMIC_DNS acts as ALLOW_ANY"));
            OutboundPolicy::AllowAny
        }
    }
}

fn everything() -> EgressHost {
    EgressHost { namespace: EgressNamespace::Any, host: Hostname::new("*") }
}

fn protocol(cx: &mut Context<'_>, path: &str, text: &str) -> Option<Protocol> {
    if text.is_empty() {
        return Some(Protocol::Auto);
    }
    match Protocol::of_name(text) {
        Some(protocol) => Some(protocol),
        None => cx.cut(Code::InvalidValue, path, format!("{text:?} is not a protocol such as HTTP, GRPC, TLS or TCP")),
    }
}

fn bind(cx: &mut Context<'_>, path: &str, text: &str) -> Option<Option<IpAddr>> {
    if text.is_empty() {
        return Some(None);
    }
    match text.parse() {
        Ok(ip) => Some(Some(ip)),
        Err(_) => cx.cut(Code::NotActing, path, "only addresses can be bound yet"),
    }
}

fn ingress(cx: &mut Context<'_>, index: usize, listener: &IstioIngressListener) -> Option<Ingress> {
    let path = format!("spec.ingress[{index}]");
    let IstioIngressListener { port, bind: address, capture_mode, default_endpoint, tls, connection_pool } = listener;
    let Some(ApiPort { number, protocol: word, name, target_port: _ }) = port else {
        return cx.cut(Code::Required, &format!("{path}.port"), "an inbound listener needs a port");
    };
    if tls.is_some() {
        return cx.cut(Code::NotActing, &format!("{path}.tls"), "TLS of inbound listeners does not act yet");
    }
    let number = cx.port(&format!("{path}.port.number"), *number)?;
    let protocol = protocol(cx, &format!("{path}.port.protocol"), word)?;
    let bind = bind(cx, &format!("{path}.bind"), address)?;
    let endpoint = endpoint(cx, &format!("{path}.defaultEndpoint"), default_endpoint)?;
    Some(Ingress {
        port: number,
        port_name: name.clone(),
        protocol,
        bind,
        bound: *capture_mode == CaptureMode::None,
        endpoint,
        pool: connection_pool.as_ref().map(|settings| pool(cx, &format!("{path}.connectionPool"), settings)),
    })
}

fn endpoint(cx: &mut Context<'_>, path: &str, text: &str) -> Option<IngressEndpoint> {
    if text.is_empty() {
        return Some(IngressEndpoint::OriginalDst);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => cx.cut(Code::InvalidValue, path, "needs a port"),
        Ok(address) => match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                Some(IngressEndpoint::InstanceIp(address.port()))
            }
            ip if ip.is_loopback() => Some(IngressEndpoint::Address(address)),
            _ => cx.cut(Code::InvalidValue, path, "must be at 127.0.0.1, [::1], 0.0.0.0 or [::]"),
        },
        Err(_) if text.starts_with("unix://") => cx.cut(Code::NotActing, path, "unix sockets do not act yet"),
        Err(_) => cx.cut(Code::InvalidValue, path, format!("{text:?} is not an address with a port")),
    }
}

fn egress(cx: &mut Context<'_>, index: usize, listener: &IstioEgressListener) -> Option<EgressSpec> {
    let path = format!("spec.egress[{index}]");
    let IstioEgressListener { port, bind: address, capture_mode, hosts } = listener;
    let bind = bind(cx, &format!("{path}.bind"), address)?;
    let port = match port {
        None if bind.is_some() => {
            return cx.cut(Code::Required, &format!("{path}.port"), "a listener with an address needs a port");
        }
        None => None,
        Some(ApiPort { number, protocol: word, name: _, target_port: _ }) => {
            let number = cx.port(&format!("{path}.port.number"), *number)?;
            let protocol = if word.eq_ignore_ascii_case("HTTP_PROXY") {
                EgressProtocol::HttpProxy
            } else {
                EgressProtocol::Of(protocol(cx, &format!("{path}.port.protocol"), word)?)
            };
            Some(EgressPort { number, protocol })
        }
    };
    let (mut known, mut excluded) = (Vec::new(), Vec::new());
    for (number, text) in hosts.iter().enumerate() {
        let path = format!("{path}.hosts[{number}]");
        match text.strip_prefix('~').filter(|rest| !rest.starts_with('/')) {
            Some(rest) => excluded.extend(egress_host(cx, &path, rest)),
            None => known.extend(egress_host(cx, &path, text)),
        }
    }
    // A listener for a port with an address of its own is bound, unless it is said to be captured.
    let bound = match capture_mode {
        CaptureMode::None => true,
        CaptureMode::Iptables => false,
        CaptureMode::Default => bind.is_some() || matches!(&port, Some(p) if p.protocol == EgressProtocol::HttpProxy),
    };
    Some(EgressSpec { bound: bound && port.is_some(), port, bind, hosts: known.into(), excluded: excluded.into() })
}

fn egress_host(cx: &mut Context<'_>, path: &str, text: &str) -> Option<EgressHost> {
    let Some((namespace, host)) = text.split_once('/') else {
        return cx.cut(Code::InvalidValue, path, format!("{text:?} is not namespace/host"));
    };
    let namespace = match namespace {
        "*" => EgressNamespace::Any,
        "." => EgressNamespace::Own,
        // `~/*` reaches nothing, so that it adds nothing.
        "~" => return None,
        other => EgressNamespace::Named(Namespace::from(other)),
    };
    match Hostname::parse(host) {
        Ok(host) => Some(EgressHost { namespace, host }),
        Err(error) => cx.cut(Code::InvalidHost, path, format!("{text:?} {error}")),
    }
}
