//! The template `sidecar`: redirection and a proxy beside the workload.

use mesh_api::{inject::values::CniProvider, mesh_config::InboundTrafficPolicyMode};
use serde_json::{Map, Value, json};

use super::{Data, as_label, environment, init, view, volumes};
use crate::inject::{PROXY_CONTAINER, Refusal};

/// Renders it.
pub(super) fn render(data: &Data<'_>) -> Result<Value, Refusal> {
    let proxy = proxy(data)?;
    let mut inits = Vec::new();
    if data.interception() != "NONE" {
        inits.push(init::container(data));
    }
    let mut spec = json!({});
    let fields = view::as_object(&mut spec);
    if data.native {
        inits.push(proxy);
    } else {
        fields.insert("containers".into(), json!([proxy]));
    }
    if !inits.is_empty() {
        fields.insert("initContainers".into(), inits.into());
    }
    let mut all = volumes::volumes(data, true);
    all.extend(volumes::of_user(data, "sidecar.istio.io/userVolume")?);
    fields.insert("volumes".into(), all.into());
    if let Some(secrets) = data.pull_secrets() {
        fields.insert("imagePullSecrets".into(), secrets);
    }
    let (labels, annotations) = metadata(data);
    Ok(json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec }))
}

fn metadata(data: &Data<'_>) -> (Map<String, Value>, Map<String, Value>) {
    let (mut labels, mut annotations) = data.metadata();
    let own = |name: &str, default: &str| view::filled_label(data.pod, name).unwrap_or(default).to_owned();
    labels.insert("security.istio.io/tlsMode".into(), own("security.istio.io/tlsMode", "istio").into());
    let metadata = &data.proxy.proxy_metadata;
    if metadata.iter().any(|(name, value)| name == "ISTIO_META_ENABLE_HBONE" && value == "true") {
        labels.insert("networking.istio.io/tunnel".into(), own("networking.istio.io/tunnel", "http").into());
    }
    if let Some(name) = labels.get_mut("service.istio.io/canonical-name") {
        *name = as_label(name.as_str().unwrap_or_default()).into();
    }
    if let Some(provider) = data.injector.values.cni {
        for_plugin(data, provider, &mut annotations);
    }
    (labels, annotations)
}

/// What a CNI plugin reads from the pod.
fn for_plugin(data: &Data<'_>, provider: CniProvider, annotations: &mut Map<String, Value>) {
    let proxy = &data.injector.values.proxy;
    let traffic = |name: &str| format!("traffic.sidecar.istio.io/{name}");
    let mut put = |name: String, value: String| drop(annotations.insert(name, value.into()));
    if provider == CniProvider::Multus {
        let networks = view::annotation(data.pod, NETWORKS).unwrap_or_default();
        put(NETWORKS.to_owned(), with_network(networks));
    }
    put("sidecar.istio.io/interceptionMode".to_owned(), data.interception());
    let ports = [
        ("includeInboundPorts", data.annotation_or(&traffic("includeInboundPorts"), &proxy.include_inbound_ports)),
        ("excludeInboundPorts", init::excluded_inbound(data)),
    ];
    for (name, value) in ports {
        put(traffic(name), value);
    }
    for (name, default) in [
        ("includeOutboundIPRanges", &proxy.include_ip_ranges),
        ("excludeOutboundIPRanges", &proxy.exclude_ip_ranges),
        ("includeOutboundPorts", &proxy.include_outbound_ports),
        ("excludeOutboundPorts", &proxy.exclude_outbound_ports),
    ] {
        let value = data.annotation_or(&traffic(name), default);
        if !value.is_empty() {
            put(traffic(name), value);
        }
    }
}

/// The annotation of Multus.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// The networks with Istio's among them: a list with commas, or a JSON list of objects.
pub(in crate::inject) fn with_network(networks: &str) -> String {
    if networks.is_empty() {
        return "default/istio-cni".to_owned();
    }
    if let Ok(Value::Array(mut list)) = serde_json::from_str(networks) {
        let ours = json!({ "name": "istio-cni", "namespace": "default" });
        let known = |item: &Value| {
            view::text(item, "/name") == Some("istio-cni") && view::text(item, "/namespace") == Some("default")
        };
        if list.iter().any(known) {
            return networks.to_owned();
        }
        list.push(ours);
        return Value::Array(list).to_string();
    }
    if networks.split(',').any(|name| name.trim() == "default/istio-cni") {
        return networks.to_owned();
    }
    format!("{networks}, default/istio-cni")
}

/// The proxy's container.
fn proxy(data: &Data<'_>) -> Result<Value, Refusal> {
    let values = &data.injector.values;
    let workload = view::filled_label(data.pod, "service.istio.io/workload-name").unwrap_or(&data.owner.name);
    let mut env = Vec::new();
    let inbound = data.injector.mesh.inbound_traffic_policy.as_ref();
    if inbound.is_some_and(|policy| policy.mode == InboundTrafficPolicyMode::Localhost) {
        env.push(super::variable("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true"));
    }
    env.extend(environment::variables(data));
    env.extend(environment::identity(data, workload));
    let mut mounts = volumes::mounts(data, true);
    mounts.extend(volumes::of_user(data, "sidecar.istio.io/userVolumeMount")?);
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": data.proxy_image,
        "ports": [{ "containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom" }],
        "args": data.proxy_args("sidecar"),
        "env": env,
        "securityContext": security(data),
        "volumeMounts": mounts,
    });
    let fields = view::as_object(&mut container);
    if data.native {
        fields.insert("restartPolicy".into(), "Always".into());
    }
    if let Some(lifecycle) = values.proxy.lifecycle.clone().or_else(|| hooks(data)) {
        fields.insert("lifecycle".into(), lifecycle);
    }
    if data.status_port() != "0" {
        fields.extend(probes(data));
    }
    if let Some(resources) = data.resources() {
        fields.insert("resources".into(), resources);
    }
    data.finish(&mut container);
    Ok(container)
}

/// A native sidecar starts to drain when the pod begins to stop, and gets its signal after the workload's containers. A
/// classic one can hold the workload back: containers are started in order, each after the hook of the one before.
fn hooks(data: &Data<'_>) -> Option<Value> {
    let run = |command: Value| json!({ "exec": { "command": command } });
    if data.native {
        let port = format!("--debug-port={}", data.status_port());
        return Some(json!({ "preStop": run(json!(["pilot-agent", "request", port, "POST", "drain"])) }));
    }
    let held =
        data.proxy.hold_application_until_proxy_starts == Some(true) || data.injector.values.proxy.hold_application;
    held.then(|| json!({ "postStart": run(json!(["pilot-agent", "wait"])) }))
}

fn probes(data: &Data<'_>) -> Map<String, Value> {
    let proxy = &data.injector.values.proxy;
    let get = json!({ "path": "/healthz/ready", "port": 15021 });
    let number = |name: &str, default: u32| {
        let annotated = view::annotation(data.pod, &format!("readiness.status.sidecar.istio.io/{name}"));
        annotated.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let mut probes = Map::new();
    if let Some(threshold) = proxy.startup_failure_threshold {
        let probe = json!({
            "httpGet": get, "initialDelaySeconds": 0, "periodSeconds": 1, "timeoutSeconds": 3,
            "failureThreshold": threshold,
        });
        probes.insert("startupProbe".into(), probe);
    }
    let probe = json!({
        "httpGet": get,
        "initialDelaySeconds": number("initialDelaySeconds", proxy.readiness_initial_delay_seconds),
        "periodSeconds": number("periodSeconds", proxy.readiness_period_seconds),
        "timeoutSeconds": 3,
        "failureThreshold": number("failureThreshold", proxy.readiness_failure_threshold),
    });
    probes.insert("readinessProbe".into(), probe);
    probes
}

fn security(data: &Data<'_>) -> Value {
    let values = &data.injector.values.proxy;
    let tproxy = data.interception() == "TPROXY";
    let bind = match view::annotation(data.pod, "sidecar.istio.io/capNetBindService") {
        Some(text) => text == "true",
        None => values.cap_net_bind_service,
    };
    let added: Vec<&str> = [(tproxy, "NET_ADMIN"), (bind, "NET_BIND_SERVICE")]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, cap)| cap)
        .collect();
    let (uid, gid) = if added.is_empty() { data.ids } else { (0, 1337) };
    let mut capabilities = json!({ "drop": ["ALL"] });
    if !added.is_empty() {
        view::as_object(&mut capabilities).insert("add".into(), json!(added));
    }
    let mut context = json!({
        "allowPrivilegeEscalation": values.privileged,
        "capabilities": capabilities,
        "privileged": values.privileged,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": uid != 0,
        "runAsUser": uid,
        "runAsGroup": gid,
    });
    if let Some(profile) = &values.seccomp_profile {
        view::as_object(&mut context).insert("seccompProfile".into(), profile.clone());
    }
    context
}

#[cfg(test)]
mod tests {
    use super::with_network;

    #[test]
    fn networks_of_multus_are_added_to() {
        assert_eq!(with_network(""), "default/istio-cni");
        assert_eq!(with_network("a, default/istio-cni"), "a, default/istio-cni");
        assert_eq!(with_network("a"), "a, default/istio-cni");
        assert_eq!(with_network(r#"[{"name":"a"}]"#), r#"[{"name":"a"},{"name":"istio-cni","namespace":"default"}]"#);
    }
}
