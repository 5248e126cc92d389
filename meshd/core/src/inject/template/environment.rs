//! The proxy's environment.

use std::collections::BTreeMap;

use mesh_api::mesh_config::proxy::ProxyConfig;
use serde_json::{Map, Value, json};

use super::{Data, variable, view};

/// Default of `defaultConfig.discoveryAddress`.
pub(in crate::inject) const DISCOVERY_ADDRESS: &str = "istiod.istio-system.svc:15012";

/// Variables of a template, in the order of Istio's.
pub(super) fn variables(data: &Data<'_>) -> Vec<Value> {
    let values = &data.injector.values;
    let mut env = vec![variable("PILOT_CERT_PROVIDER", &values.cert_provider), variable("CA_ADDR", &ca_address(data))];
    for (name, path) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("INSTANCE_IP", "status.podIP"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ("HOST_IP", "status.hostIP"),
    ] {
        env.push(of_field(name, path));
    }
    env.push(of_limit("ISTIO_CPU_LIMIT", "cpu"));
    env.push(variable("PROXY_CONFIG", &format!("{}\n", proxy_config(data))));
    env.push(variable("ISTIO_META_POD_PORTS", &pod_ports(data)));
    let names: Vec<&str> = data.app_containers().map(view::name).collect();
    env.push(variable("ISTIO_META_APP_CONTAINERS", &names.join(",")));
    env.push(of_limit("GOMEMLIMIT", "memory"));
    env.push(of_limit("GOMAXPROCS", "cpu"));
    let cluster = if values.cluster_name.is_empty() { "Kubernetes" } else { &values.cluster_name };
    env.push(variable("ISTIO_META_CLUSTER_ID", cluster));
    env.push(of_field("ISTIO_META_NODE_NAME", "spec.nodeName"));
    env
}

/// Variables that say who the workload is, and those that the proxy's configuration adds.
pub(super) fn identity(data: &Data<'_>, workload: &str) -> Vec<Value> {
    let values = &data.injector.values;
    let mut env = vec![variable("ISTIO_META_INTERCEPTION_MODE", &data.interception())];
    if !values.network.is_empty() {
        env.push(variable("ISTIO_META_NETWORK", &values.network));
    }
    if !workload.is_empty() {
        env.push(variable("ISTIO_META_WORKLOAD_NAME", workload));
    }
    if let Some(owner) = data.owner.reference() {
        env.push(variable("ISTIO_META_OWNER", &owner));
    }
    let trust_domain = match (&data.injector.mesh.trust_domain, values.trust_domain.as_str()) {
        (Some(domain), _) => domain.to_string(),
        (None, "") => mesh_api::names::CLUSTER_DOMAIN.to_owned(),
        (None, domain) => domain.to_owned(),
    };
    let mesh_id = if values.mesh_id.is_empty() { &trust_domain } else { &values.mesh_id };
    env.push(variable("ISTIO_META_MESH_ID", mesh_id));
    env.push(variable("TRUST_DOMAIN", &trust_domain));
    if let Some(attributes) = resource_attributes(data) {
        env.push(variable("OTEL_RESOURCE_ATTRIBUTES", &attributes));
    }
    env.extend(metadata(data.proxy));
    env
}

/// `proxyMetadata` as variables.
pub(super) fn metadata(proxy: &ProxyConfig) -> impl Iterator<Item = Value> {
    proxy.proxy_metadata.iter().map(|(name, value)| variable(name, value))
}

fn of_field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn of_limit(name: &str, resource: &str) -> Value {
    let resource = format!("limits.{resource}");
    json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource, "divisor": "1" } } })
}

fn ca_address(data: &Data<'_>) -> String {
    let values = &data.injector.values;
    if !values.ca_address.is_empty() {
        return values.ca_address.clone();
    }
    let revision = if values.revision.is_empty() { String::new() } else { format!("-{}", values.revision) };
    format!("istiod{revision}.{}.svc:15012", values.istio_namespace)
}

/// The proxy's configuration as JSON, without fields that say what holds anyway: a pod's specification stays small.
pub(in crate::inject) fn proxy_config(data: &Data<'_>) -> String {
    let value = serde_json::to_value(data.proxy).unwrap_or_default();
    let defaults = [
        ("configPath", json!("./etc/istio/proxy")),
        ("binaryPath", json!("/usr/local/bin/envoy")),
        ("controlPlaneAuthPolicy", json!("MUTUAL_TLS")),
        ("serviceCluster", json!("istio-proxy")),
        ("drainDuration", json!("45s")),
        ("terminationDrainDuration", json!("5s")),
        ("discoveryAddress", json!(DISCOVERY_ADDRESS)),
        ("proxyAdminPort", json!(15000)),
        ("statNameLength", json!(189)),
        ("statusPort", json!(15020)),
        ("interceptionMode", json!("REDIRECT")),
    ];
    let fields: Map<String, Value> = match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(name, value)| !defaults.iter().any(|(n, v)| n == name && v == value)).collect()
        }
        _ => Map::new(),
    };
    Value::Object(fields).to_string()
}

/// The ports of all containers, as JSON in the shape that Istio writes.
fn pod_ports(data: &Data<'_>) -> String {
    let ports = view::list(data.pod, "containers").iter().filter_map(|container| container.get("ports")?.as_array());
    let mut text = "[".to_owned();
    for (index, port) in ports.flatten().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text += &format!("\n    {comma}{port}");
    }
    text + "\n]"
}

/// The service's attributes for OpenTelemetry, when a provider asks for them by `serviceAttributeEnrichment`.
/// istio/istio: pkg/kube/inject/template.go otelResourceAttributes.
pub(in crate::inject) fn resource_attributes(data: &Data<'_>) -> Option<String> {
    let wanted = data.injector.mesh.extension_providers.iter().any(|provider| {
        let enrichment = provider.opentelemetry.as_ref().and_then(|otel| otel.get("serviceAttributeEnrichment"));
        enrichment.and_then(Value::as_str) == Some("OTEL_SEMANTIC_CONVENTIONS")
    });
    if !wanted {
        return None;
    }
    let containers = view::list(data.pod, "containers");
    let own = |name: &str| {
        let name = format!("resource.opentelemetry.io/{name}");
        view::annotation(data.pod, &name).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let namespace = &data.owner.namespace;
    let version = own("service.version")
        .or_else(|| view::filled_label(data.pod, "app.kubernetes.io/version").map(str::to_owned))
        .or_else(|| match containers {
            [only] => version_of_image(view::text(only, "/image")?),
            _ => None,
        });
    let instance = own("service.instance.id")
        .or_else(|| Some(format!("{namespace}.$(POD_NAME).{}", view::name(containers.first()?))));
    let attributes: BTreeMap<u8, String> = [
        (0, own("service.namespace").or_else(|| Some(namespace.clone()).filter(|name| !name.is_empty())), "namespace"),
        (1, version, "version"),
        (2, instance, "instance.id"),
    ]
    .into_iter()
    .filter_map(|(order, value, name)| Some((order, format!("service.{name}={}", value?))))
    .collect();
    Some(attributes.into_values().collect::<Vec<_>>().join(","))
}

/// Tag and digest of an image.
fn version_of_image(image: &str) -> Option<String> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    match (last.split_once(':').map(|(_, tag)| tag), digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (tag, digest) => tag.or(digest).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::version_of_image;

    #[test]
    fn the_version_of_an_image_is_tag_and_digest() {
        let check =
            |image: &str, version: Option<&str>| assert_eq!(version_of_image(image).as_deref(), version, "{image}");
        check("nginx:1.21", Some("1.21"));
        check("registry:5000/nginx", None);
        check("registry:5000/nginx:1@sha256:ab", Some("1@sha256:ab"));
        check("nginx@sha256:ab", Some("sha256:ab"));
    }
}
