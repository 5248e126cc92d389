//! Values of annotations, checked before anything is rendered. istio/istio: pkg/kube/inject/validate.go.
//!
//! A wrong value refuses the pod and names the annotation: a pod whose traffic goes elsewhere than its author thinks is
//! worse than one that does not start.

use std::net::IpAddr;

use mesh_api::{
    inject::surface::{self, Effect},
    mesh_config::proxy::ProxyConfig,
};
use serde_json::Value;

use super::{Refusal, view};

/// Longest name of a network interface on Linux (IFNAMSIZ without the final zero).
const MAX_INTERFACE_NAME: usize = 15;

type Check = fn(&str) -> Result<(), String>;
/// An object and its name.
type Named = (String, serde_json::Map<String, Value>);

/// Annotations whose values have a form.
const CHECKS: &[(&str, Check)] = &[
    ("sidecar.istio.io/interceptionMode", interception_mode),
    ("status.sidecar.istio.io/port", |value| port(value).map(drop)),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", seconds),
    ("readiness.status.sidecar.istio.io/periodSeconds", seconds),
    ("readiness.status.sidecar.istio.io/failureThreshold", seconds),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", |value| all_or(value, ranges)),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ranges),
    ("traffic.sidecar.istio.io/includeInboundPorts", |value| all_or(value, ports)),
    ("traffic.sidecar.istio.io/excludeInboundPorts", ports),
    ("traffic.sidecar.istio.io/includeOutboundPorts", |value| all_or(value, ports)),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeInterfaces", interfaces),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", interfaces),
    ("istio.io/reroute-virtual-interfaces", interfaces),
    ("prometheus.istio.io/merge-metrics", boolean),
    ("sidecar.istio.io/rewriteAppHTTPProbers", boolean),
    ("sidecar.istio.io/nativeSidecar", strict_boolean),
    ("sidecar.istio.io/capNetBindService", strict_boolean),
    ("sidecar.istio.io/proxyCPU", quantity),
    ("sidecar.istio.io/proxyMemory", quantity),
    ("sidecar.istio.io/proxyCPULimit", quantity),
    ("sidecar.istio.io/proxyMemoryLimit", quantity),
    ("sidecar.istio.io/userVolume", |value| objects(value).map(drop)),
    ("sidecar.istio.io/userVolumeMount", |value| objects(value).map(drop)),
    ("sidecar.istio.io/logLevel", word),
    ("sidecar.istio.io/componentLogLevel", word),
    ("sidecar.istio.io/agentLogLevel", word),
    ("proxy.istio.io/config", |value| proxy_config(value).map(drop)),
];

/// Why a pod with this annotation would be refused, if its value has a form and not that one.
pub(super) fn problem(name: &str, value: &str) -> Option<String> {
    let (_, check) = CHECKS.iter().find(|(checked, _)| *checked == name)?;
    check(value).err()
}

/// Checks all annotations of a pod: what has no effect comes back as warnings.
pub(super) fn check(pod: &Value) -> Result<Vec<String>, Refusal> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for (name, value) in view::annotations(pod) {
        if let Some(why) = problem(name, value) {
            problems.push(format!("invalid value '{value}' for annotation '{name}': {why}"));
        }
        match surface::pod_annotation(name).map(|row| row.effect) {
            Some(Effect::Refused(why)) => problems.push(format!("annotation '{name}' cannot be honoured: {why}")),
            Some(Effect::Named(why)) => warnings.push(format!("annotation '{name}' has no effect: {why}")),
            _ => {}
        }
    }
    if problems.is_empty() { Ok(warnings) } else { Err(Refusal::new(problems.join("; "))) }
}

/// The value of `proxy.istio.io/config`, with what in it does not act. Unknown fields are named and let through, as a pod
/// that says more than this release knows must still start.
pub(super) fn proxy_config(text: &str) -> Result<(ProxyConfig, Vec<String>), String> {
    let (config, findings) = ProxyConfig::parse(text).map_err(|error| error.to_string())?;
    if let Some(bad) = [("statusPort", config.status_port), ("proxyAdminPort", config.proxy_admin_port)]
        .into_iter()
        .find(|(_, port)| port.is_some_and(|port| u16::try_from(port).is_err()))
    {
        return Err(format!("{} is not a port", bad.0));
    }
    let warnings = findings.iter().map(|finding| {
        let hint = if finding.hint.is_empty() { String::new() } else { format!(" ({})", finding.hint) };
        format!("annotation 'proxy.istio.io/config', {}: {}{hint}", finding.path, finding.message)
    });
    Ok((config, warnings.collect()))
}

/// A JSON object of objects, as `userVolume` is.
pub(super) fn objects(text: &str) -> Result<Vec<Named>, String> {
    let expected = || "must be a JSON object with an object for each volume".to_owned();
    let Ok(Value::Object(map)) = serde_json::from_str(text) else { return Err(expected()) };
    let pairs = map.into_iter().map(|(name, value)| match value {
        Value::Object(inner) => Ok((name, inner)),
        _ => Err(expected()),
    });
    pairs.collect()
}

fn interception_mode(value: &str) -> Result<(), String> {
    match value {
        "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
        _ => Err("must be REDIRECT, TPROXY or NONE".to_owned()),
    }
}

/// Everything by `*`, or a list.
fn all_or(value: &str, list: Check) -> Result<(), String> {
    if value == "*" { Ok(()) } else { list(value) }
}

fn ranges(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    value.split(',').try_for_each(|range| {
        let bad = || format!("failed parsing cidr '{range}'");
        let (address, length) = range.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let length = digits(length).ok_or_else(bad)?;
        if length > if address.is_ipv4() { 32 } else { 128 } { Err(bad()) } else { Ok(()) }
    })
}

/// A number without sign or leading zero.
fn digits(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn ports(value: &str) -> Result<(), String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(());
    }
    value.split(',').try_for_each(|text| port(text).map(drop))
}

/// A port, with blanks around it.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let trimmed = text.trim();
    let digits = !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit());
    trimmed.parse().ok().filter(|_| digits).ok_or_else(|| format!("failed parsing port '{text}'"))
}

fn seconds(value: &str) -> Result<(), String> {
    value.parse::<u32>().map(drop).map_err(|_| "must be a number, 0 or more".to_owned())
}

fn boolean(value: &str) -> Result<(), String> {
    view::go_bool(value).map(drop).ok_or_else(|| "must be true or false".to_owned())
}

/// For annotations whose other spellings of true would be read as false.
fn strict_boolean(value: &str) -> Result<(), String> {
    if matches!(value, "true" | "false") { Ok(()) } else { Err("must be true or false".to_owned()) }
}

/// A value that becomes part of one argument of the proxy.
fn word(value: &str) -> Result<(), String> {
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not hold blanks or control characters".to_owned());
    }
    Ok(())
}

fn interfaces(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    value.split(',').map(str::trim).try_for_each(|name| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | ':' | '@');
        if name.is_empty() {
            Err("empty interface name".to_owned())
        } else if name.len() > MAX_INTERFACE_NAME {
            Err(format!("interface name {name:?} too long (max {MAX_INTERFACE_NAME} chars)"))
        } else if !name.chars().all(known) {
            Err(format!("interface name {name:?} contains invalid characters"))
        } else {
            Ok(())
        }
    })
}

/// A quantity of Kubernetes: a decimal number with an optional suffix or exponent.
fn quantity(value: &str) -> Result<(), String> {
    let bad = || "must be a quantity such as 100m, 2, 128Mi or 1Gi".to_owned();
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || number.bytes().filter(|byte| *byte == b'.').count() > 1 {
        return Err(bad());
    }
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty());
    if suffixes.contains(&suffix) || exponent.is_some_and(|text| text.parse::<i32>().is_ok()) {
        Ok(())
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn all(check: Check, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(check(value), Ok(()), "{value:?}");
        }
        for value in bad {
            assert!(check(value).is_err(), "{value:?} passed");
        }
    }

    #[test]
    fn lists_and_quantities_have_the_form_of_istio() {
        all(
            ranges,
            &["", "10.0.0.0/8,fd00::/8", "1.2.3.4/32"],
            &["*", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/8, ::/0", "bad"],
        );
        all(ports, &["", "80", "80, 443", " 0 "], &["*", "80,", "65536", "-1", "+80", "http"]);
        all(interfaces, &["", "eth0, net1", "veth+"], &["eth0,", "much-too-long-name", "eth 0", "a/b"]);
        all(
            quantity,
            &["100m", "2", "128Mi", "1.5Gi", "1e3", "12E6", "1E"],
            &["", "ten", "100 m", "1Kb", "1.2.3", "1e", "."],
        );
        all(word, &["debug", "misc:error,http:debug", ""], &["a b", "a\nb"]);
    }
}
