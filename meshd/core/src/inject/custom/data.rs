//! What a template of one's own sees. istio/istio: pkg/kube/inject/inject.go SidecarTemplateData.

use mesh_api::mesh_config::InboundTrafficPolicyMode;
use serde_json::{Map, Value, json};

use crate::inject::template::{self, environment};

/// Member of the proxy's configuration that holds it as JSON text, for `protoToJSON`.
pub(super) const AS_JSON: &str = "_json";
/// Member of the mesh's configuration that holds attributes for OpenTelemetry, for `otelResourceAttributes`.
pub(super) const ATTRIBUTES: &str = "_attributes";

/// Members whose own members are names of users, not fields.
const FREE: &[&str] =
    &["labels", "annotations", "matchLabels", "nodeSelector", "limits", "requests", "proxyMetadata", "runtimeValues"];

/// Fields whose name in Go is not that of JSON with a capital letter.
const GO_NAMES: &[(&str, &str)] = &[
    ("apiVersion", "APIVersion"),
    ("csi", "CSI"),
    ("dnsConfig", "DNSConfig"),
    ("dnsPolicy", "DNSPolicy"),
    ("fsGroup", "FSGroup"),
    ("fsGroupChangePolicy", "FSGroupChangePolicy"),
    ("grpc", "GRPC"),
    ("httpGet", "HTTPGet"),
    ("httpHeaders", "HTTPHeaders"),
    ("ip", "IP"),
    ("nfs", "NFS"),
    ("tcpSocket", "TCPSocket"),
    ("seLinuxOptions", "SELinuxOptions"),
    ("tty", "TTY"),
    ("uid", "UID"),
];

/// The data of a pod.
pub(super) fn of(data: &template::Data<'_>) -> Value {
    let part = |field: &str, always: Value| {
        let mut part = always;
        let own = data.pod.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(part) = part.as_object_mut() {
            part.extend(own.into_iter().filter(|(_, value)| !value.is_null()));
        }
        with_go_names(&part)
    };
    let mesh = &data.injector.mesh;
    let localhost =
        mesh.inbound_traffic_policy.as_ref().is_some_and(|policy| policy.mode == InboundTrafficPolicyMode::Localhost);
    json!({
        "TypeMeta": { "Kind": data.owner.kind, "APIVersion": data.owner.api_version },
        "DeploymentMeta": { "Name": data.owner.name, "Namespace": data.owner.namespace },
        "ObjectMeta": part("metadata", json!({ "name": "", "namespace": "", "labels": {}, "annotations": {} })),
        "Spec": part("spec", json!({ "containers": [], "initContainers": [], "volumes": [], "serviceAccountName": "" })),
        "ProxyConfig": proxy_config(data),
        "MeshConfig": mesh_config(data),
        "Values": data.injector.values.raw,
        "Revision": data.injector.revision.as_str(),
        "ProxyImage": data.proxy_image,
        "ProxyInitImage": data.init_image,
        "ProxyUID": data.ids.0,
        "ProxyGID": data.ids.1,
        "NativeSidecars": data.native,
        "InboundTrafficPolicyMode": if localhost { "localhost" } else { "passthrough" },
        "CompliancePolicy": "",
    })
}

fn proxy_config(data: &template::Data<'_>) -> Value {
    let mut config = json!({
        "configPath": "./etc/istio/proxy",
        "binaryPath": "/usr/local/bin/envoy",
        "serviceCluster": "istio-proxy",
        "drainDuration": "45s",
        "terminationDrainDuration": "5s",
        "discoveryAddress": environment::DISCOVERY_ADDRESS,
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "proxyAdminPort": 15000,
        "statusPort": 15020,
        "statNameLength": 189,
        "interceptionMode": "REDIRECT",
        "proxyMetadata": {},
    });
    over(&mut config, serde_json::to_value(data.proxy).unwrap_or_default());
    let mut config = with_go_names(&config);
    over(&mut config, json!({ AS_JSON: environment::proxy_config(data) }));
    config
}

fn mesh_config(data: &template::Data<'_>) -> Value {
    let mesh = &data.injector.mesh;
    let mut config = json!({ "trustDomain": "cluster.local", "rootNamespace": "istio-system" });
    over(&mut config, serde_json::to_value(mesh).unwrap_or_default());
    let ports = json!({ "proxyListenPort": mesh.outbound_port(), "proxyInboundListenPort": mesh.inbound_port() });
    over(&mut config, ports);
    let mut config = with_go_names(&config);
    over(&mut config, json!({ ATTRIBUTES: environment::resource_attributes(data).unwrap_or_default() }));
    config
}

/// Sets the members of `more`.
fn over(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

/// Every member by both its names.
fn with_go_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut both = Map::new();
            for (name, value) in map {
                let value = if FREE.contains(&name.as_str()) { value.clone() } else { with_go_names(value) };
                both.insert(go_name(name), value.clone());
                both.insert(name.clone(), value);
            }
            Value::Object(both)
        }
        Value::Array(items) => items.iter().map(with_go_names).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Every member by its name in JSON only.
pub(super) fn without_go_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let second: Vec<String> = map.keys().map(|name| go_name(name)).filter(|go| map.contains_key(go)).collect();
            let first = |name: &str| !name.starts_with(char::is_uppercase) || !second.iter().any(|go| go == name);
            let kept = map.iter().filter(|(name, _)| first(name) && ![AS_JSON, ATTRIBUTES].contains(&name.as_str()));
            kept.map(|(name, value)| {
                let value = if FREE.contains(&name.as_str()) { value.clone() } else { without_go_names(value) };
                (name.clone(), value)
            })
            .collect()
        }
        Value::Array(items) => items.iter().map(without_go_names).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn go_name(name: &str) -> String {
    if let Some((_, go)) = GO_NAMES.iter().find(|(json, _)| *json == name) {
        return (*go).to_owned();
    }
    let mut chars = name.chars();
    // `hostIP`, `podCIDR` are in capitals already.
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_both_names_and_users_names_one() {
        let pod = json!({"containers": [{"name": "a", "httpGet": {"hostIP": 1}}], "labels": {"app": "x", "App": "y"}});
        let both = with_go_names(&pod);
        assert_eq!(both.pointer("/Containers/0/HTTPGet/HostIP"), Some(&json!(1)));
        assert_eq!(both.pointer("/Labels"), Some(&json!({"app": "x", "App": "y"})));
        assert_eq!(without_go_names(&both), pod);
    }
}
