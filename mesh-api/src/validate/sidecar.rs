//! Rules of Sidecar. istio/istio: pkg/config/validation/validation.go ValidateSidecar.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{check::Check, destination_rule, gateway, route_parts};
use crate::{
    codes::Code,
    crd::networking::{
        gateway::Port,
        sidecar::{
            CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode,
            Sidecar,
        },
    },
    host::is_dns_label,
};

pub(super) fn check(spec: &Sidecar, check: &mut Check) {
    if *spec == Sidecar::default() {
        check.here(Code::Ineffective, "is empty, so everything can be reached");
    }
    check.some("workloadSelector", spec.workload_selector.as_ref(), |check, selector| {
        check.selector("labels", &selector.labels);
    });
    if spec.workload_selector.is_none() && !spec.ingress.is_empty() {
        let message = "holds for all workloads of the namespace, because there is no workloadSelector";
        check.at("ingress", Code::Ineffective, message);
    }
    check.each("ingress", &spec.ingress, ingress);
    let numbers: Vec<String> =
        spec.ingress.iter().map(|i| i.port.as_ref().map_or_else(String::new, |p| p.number.to_string())).collect();
    check.unique("ingress", "port.number", numbers.iter().map(String::as_str));
    egress_listeners(spec, check);
    check.some("inboundConnectionPool", spec.inbound_connection_pool.as_ref(), destination_rule::connection_pool);
    check.some("outboundTrafficPolicy", spec.outbound_traffic_policy.as_ref(), outbound_policy);
}

fn outbound_policy(check: &mut Check, policy: &OutboundTrafficPolicy) {
    check.some("egressProxy", policy.egress_proxy.as_ref(), |check, proxy| {
        route_parts::destination(check, proxy);
        check.required("port", proxy.port.is_some());
    });
    if policy.egress_proxy.is_some() && policy.mode != OutboundTrafficPolicyMode::AllowAny {
        check.at("egressProxy", Code::Conflict, "needs mode ALLOW_ANY");
    }
}

fn ingress(check: &mut Check, listener: &IstioIngressListener) {
    check.required("port", listener.port.is_some());
    check.some("port", listener.port.as_ref(), |check, p| port(check, p, false));
    address(check, &listener.bind);
    if listener.bind.starts_with("unix://") {
        check.at("bind", Code::InvalidValue, "a listener for inbound traffic cannot be a UNIX socket");
    }
    endpoint(check, &listener.default_endpoint);
    check.some("tls", listener.tls.as_ref(), |check, tls| gateway::server_tls(check, tls, false));
    check.some("connectionPool", listener.connection_pool.as_ref(), destination_rule::connection_pool);
}

fn port(check: &mut Check, port: &Port, is_unix: bool) {
    if is_unix {
        if port.number != 0 {
            check.at("number", Code::Conflict, "must be 0 for a UNIX socket");
        }
    } else {
        check.port("number", port.number);
    }
    if !port.name.is_empty() {
        check.dns_label("name", &port.name);
    }
    gateway::protocol(check, &port.protocol, false);
    gateway::retired_target_port(check, port);
}

fn address(check: &mut Check, bind: &str) {
    if !bind.is_empty() && !bind.starts_with("unix://") && bind.parse::<IpAddr>().is_err() {
        check.at("bind", Code::InvalidValue, format!("{bind:?} is neither an address nor unix:///path"));
    }
}

/// Where the workload listens: localhost, or its own address written as the unspecified one.
fn endpoint(check: &mut Check, text: &str) {
    if text.is_empty() {
        return;
    }
    let is_legal = match text.strip_prefix("unix://") {
        Some(path) => path.starts_with('/') || path.starts_with('@'),
        // Without an address it is the workload's own.
        None => format!("{}{text}", if text.starts_with(':') { "0.0.0.0" } else { "" })
            .parse::<SocketAddr>()
            .is_ok_and(|a| {
                let is_known = matches!(a.ip().to_string().as_str(), "127.0.0.1" | "::1" | "0.0.0.0" | "::");
                is_known && a.port() != 0
            }),
    };
    if text.starts_with("unix://") {
        let message = "UNIX sockets do not act yet in this release: the listener is left out";
        check.at("defaultEndpoint", Code::NotActing, message);
    }
    if !is_legal {
        let message =
            format!("{text:?} is not one of 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT, unix:///path");
        check.at("defaultEndpoint", Code::InvalidValue, message);
    }
}

fn egress_listeners(spec: &Sidecar, check: &mut Check) {
    let last = spec.egress.len().saturating_sub(1);
    let mut binds = BTreeSet::new();
    for (index, listener) in spec.egress.iter().enumerate() {
        check.field(&format!("egress[{index}]"), |check| {
            egress(check, listener);
            let Some(port) = &listener.port else {
                if index != last {
                    let message =
                        "a listener without a port takes all others' traffic: it must be the only one and last";
                    check.at("port", Code::Conflict, message);
                }
                return;
            };
            if !binds.insert((&*listener.bind, port.number)) && port.number != 0 {
                check.at("port.number", Code::Duplicate, "another listener has the same address and port");
            }
        });
    }
}

fn egress(check: &mut Check, listener: &IstioEgressListener) {
    let is_unix = listener.bind.starts_with("unix://");
    if is_unix {
        check.at("bind", Code::NotActing, "UNIX sockets do not act yet in this release: the listener is left out");
    }
    check.some("port", listener.port.as_ref(), |check, p| port(check, p, is_unix));
    address(check, &listener.bind);
    if listener.port.is_none() && !listener.bind.is_empty() {
        check.at("bind", Code::Ineffective, "has no effect without a port");
    }
    if listener.port.is_none() && listener.capture_mode == CaptureMode::None {
        check.at("captureMode", Code::Ineffective, "NONE has no effect without a port to listen at");
    }
    if is_unix && listener.capture_mode == CaptureMode::Iptables {
        check.at("captureMode", Code::Conflict, "traffic to a UNIX socket cannot be captured");
    }
    check.required("hosts", !listener.hosts.is_empty());
    check.once("hosts", "", listener.hosts.iter().map(|h| &**h));
    if listener.hosts.len() > 1 && listener.hosts.iter().any(|h| *h == "*/*") {
        check.at("hosts", Code::Ineffective, "'*/*' stands for everything; nothing can stand beside it");
    }
    check.each("hosts", &listener.hosts, |check, text| host(check, text));
}

/// `namespace/host`, where the namespace may be `*`, `.` or `~`.
fn host(check: &mut Check, text: &str) {
    let Some((namespace, host)) = text.split_once('/') else {
        let hint = format!("write */{text} or ./{text}");
        check.here(Code::InvalidHost, format!("{text:?} is not namespace/host")).hint = hint.into();
        return;
    };
    match namespace {
        "~" if host == "*" => return,
        "~" => {
            let message = "'~' stands for no namespace, so nothing is reached by this; nothing at all is '~/*'";
            check.here(Code::Ineffective, message);
        }
        "*" | "." => {}
        name => match name.strip_prefix('~') {
            Some(excluded) if excluded == "*" || excluded == "." || is_dns_label(excluded) => {
                let message =
                    "excluding hosts does not act yet in this release: what other entries allow can be reached";
                check.here(Code::NotActing, message);
            }
            Some(_) | None if !is_dns_label(name) => {
                check.here(Code::InvalidName, format!("{name:?} is not a namespace, '*', '.' or '~'"));
            }
            Some(_) | None => {}
        },
    }
    check.host("", host);
}
