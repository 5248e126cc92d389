//! The init container that redirects traffic, or checks that a CNI plugin did.

use serde_json::{Value, json};

use super::{Data, environment, view};
use crate::inject::{INIT_CONTAINER, VALIDATION_CONTAINER};

/// Ports of the proxy that are never redirected: its own metrics and readiness.
const PROXY_PORTS: &str = "15090,15021";

/// The container.
pub(super) fn container(data: &Data<'_>) -> Value {
    let values = &data.injector.values;
    let cni = values.cni.is_some();
    let mut container = json!({
        "name": if cni { VALIDATION_CONTAINER } else { INIT_CONTAINER },
        "image": data.init_image,
        "args": args(data),
        "securityContext": security(data, cni),
    });
    let env: Vec<Value> = environment::metadata(data.proxy).collect();
    let fields = view::as_object(&mut container);
    if !env.is_empty() {
        fields.insert("env".into(), env.into());
    }
    if let Some(resources) = data.resources() {
        fields.insert("resources".into(), resources);
    }
    data.finish(&mut container);
    container
}

fn args(data: &Data<'_>) -> Vec<String> {
    let values = &data.injector.values;
    let proxy = &values.proxy;
    // Blanks in lists are allowed, and no part of them.
    let traffic = |name: &str, default: &str| {
        data.annotation_or(&format!("traffic.sidecar.istio.io/{name}"), default).replace(char::is_whitespace, "")
    };
    let has = |name: &str| view::annotation(data.pod, &format!("traffic.sidecar.istio.io/{name}")).is_some();
    let uid = if data.interception() == "TPROXY" { 1337 } else { data.ids.0 };
    let excluded = match excluded_inbound(data).as_str() {
        "" => PROXY_PORTS.to_owned(),
        more => format!("{PROXY_PORTS},{more}"),
    };
    let mut args = vec!["istio-iptables".to_owned()];
    let mut flag = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    flag("-p", data.injector.mesh.outbound_port().to_string());
    flag("-z", data.injector.mesh.inbound_port().to_string());
    flag("-u", uid.to_string());
    flag("-m", data.interception());
    flag("-i", traffic("includeOutboundIPRanges", &proxy.include_ip_ranges));
    flag("-x", traffic("excludeOutboundIPRanges", &proxy.exclude_ip_ranges));
    flag("-b", traffic("includeInboundPorts", &proxy.include_inbound_ports));
    flag("-d", excluded);
    if has("includeOutboundPorts") || !proxy.include_outbound_ports.is_empty() {
        flag("-q", traffic("includeOutboundPorts", &proxy.include_outbound_ports));
    }
    if has("excludeOutboundPorts") || !proxy.exclude_outbound_ports.is_empty() {
        flag("-o", traffic("excludeOutboundPorts", &proxy.exclude_outbound_ports));
    }
    let rerouted = view::annotation(data.pod, "istio.io/reroute-virtual-interfaces")
        .or_else(|| view::annotation(data.pod, "traffic.sidecar.istio.io/kubevirtInterfaces"));
    if let Some(interfaces) = rerouted {
        flag("-k", interfaces.to_owned());
    }
    if has("excludeInterfaces") {
        flag("-c", traffic("excludeInterfaces", ""));
    }
    args.push(format!(
        "--log_output_level={}",
        data.annotation_or("sidecar.istio.io/agentLogLevel", &values.log_level)
    ));
    for (wanted, arg) in [
        (values.log_as_json, "--log_as_json"),
        (values.cni.is_some(), "--run-validation"),
        (values.cni.is_some(), "--skip-rule-apply"),
        (values.cni.is_none() && values.force_apply_iptables, "--force-apply"),
        (values.native_nftables, "--native-nftables"),
    ] {
        if wanted {
            args.push(arg.to_owned());
        }
    }
    args
}

/// The ports that are not redirected: those of annotation or values, and the agent's.
pub(super) fn excluded_inbound(data: &Data<'_>) -> String {
    let listed = data.annotation_or(
        "traffic.sidecar.istio.io/excludeInboundPorts",
        &data.injector.values.proxy.exclude_inbound_ports,
    );
    let status = data.status_port();
    let mut ports: Vec<&str> = listed.split(',').map(str::trim).filter(|port| !port.is_empty()).collect();
    if status != "0" && !ports.contains(&status.as_str()) {
        ports.push(&status);
    }
    ports.join(",")
}

/// Rules need capabilities, and capabilities need root; checking them needs neither.
fn security(data: &Data<'_>, cni: bool) -> Value {
    let values = &data.injector.values.proxy;
    let mut context = if cni {
        let (uid, gid) = if data.interception() == "TPROXY" { (1337, 1337) } else { data.ids };
        json!({
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true, "runAsGroup": gid, "runAsUser": uid, "runAsNonRoot": true,
        })
    } else {
        json!({
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": false, "runAsGroup": 0, "runAsUser": 0, "runAsNonRoot": false,
        })
    };
    let fields = view::as_object(&mut context);
    fields.insert("allowPrivilegeEscalation".into(), values.privileged.into());
    fields.insert("privileged".into(), values.privileged.into());
    if let Some(profile) = &values.seccomp_profile {
        fields.insert("seccompProfile".into(), profile.clone());
    }
    context
}
