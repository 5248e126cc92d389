//! Port names from which no protocol can be read.

use serde_json::Value;

use super::Check;
use crate::analyze::message::{EXTERNAL_NAME_PORT, Messages, PORT_NAME};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;
use crate::inject::IGNORED_NAMESPACES;

pub(super) const CHECK: Check =
    Check { name: "service.ports", doc: "Names of ports begin with a protocol", needs: &[], run };

/// Protocols that a name can begin with (istio-surface 3.4). `grpc-web` is one of them with a hyphen.
const PROTOCOLS: [&str; 12] =
    ["http", "http2", "https", "grpc", "grpc-web", "tcp", "tls", "udp", "mongo", "redis", "mysql", "hbone"];
/// Protocols that Kubernetes names in `appProtocol`.
const KUBERNETES: [&str; 3] = ["kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"];
/// Ports that are TCP whatever they are called: 25 SMTP, 53 DNS, 853 DNS over TLS, 3306 MySQL, 27017 MongoDB.
const WELL_KNOWN: [u64; 5] = [25, 53, 853, 3306, 27017];
/// The label of Services that a gateway controller made.
const MANAGED: &str = "gateway.istio.io/managed";

fn run(objects: &Objects, messages: &mut Messages) {
    for service in objects.of(Sort::SERVICE) {
        let of_control_plane = service.label("istio").is_some_and(|value| value == "pilot" || value == "istiod")
            || service.label("app") == Some("istiod");
        let of_kubernetes = IGNORED_NAMESPACES.contains(&service.namespace.as_str());
        if of_kubernetes || of_control_plane || service.label(MANAGED).is_some() {
            continue;
        }
        let external = service.text("spec.type") == "ExternalName";
        for (index, port) in service.list("spec.ports").iter().enumerate() {
            let path = format!("spec.ports[{index}].port");
            let name = view::text(port, "name");
            match (is_known(port), external) {
                (true, true) if name == "tcp" => external_name(service, path, messages),
                (true, _) => {}
                (false, true) => external_name(service, path, messages),
                (false, false) => {
                    let number = view::number(port, "port").unwrap_or_default();
                    let target = view::at(port, "targetPort");
                    let target = target.map_or_else(
                        || "0".to_owned(),
                        |target| match target {
                            Value::String(name) => name.clone(),
                            other => other.to_string(),
                        },
                    );
                    let text = format!(
                        "Port name {name} (port: {number}, targetPort: {target}) doesn't follow the naming convention of \
                         Istio port."
                    );
                    messages.tell(&PORT_NAME, service, path, text);
                }
            }
        }
    }
}

fn external_name(service: &crate::analyze::objects::Subject, path: String, messages: &mut Messages) {
    let text = "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for \
        ports serving TCP protocol from being forwarded correctly";
    messages.tell(&EXTERNAL_NAME_PORT, service, path, text);
}

fn is_known(port: &Value) -> bool {
    if view::text(port, "protocol") == "UDP" {
        return true;
    }
    let application = view::at(port, "appProtocol").and_then(Value::as_str);
    if application.is_some_and(|protocol| KUBERNETES.contains(&protocol)) {
        return true;
    }
    let name = application.unwrap_or_else(|| view::text(port, "name")).to_ascii_lowercase();
    let first = name.split('-').next().unwrap_or_default();
    let named = name.starts_with("grpc-web") || PROTOCOLS.contains(&first);
    named || view::number(port, "port").is_some_and(|number| WELL_KNOWN.contains(&number))
}
