//! Probes and hooks of the workload go through the proxy's agent: the kubelet has no certificate, and a captured TCP
//! connection opens whether the workload listens or not. istio/istio: pkg/kube/inject/app_probe.go.

use serde_json::{Map, Value, json};

use super::{PROXY_CONTAINER, view};

/// The variable that tells the agent what to ask for: a JSON object by the path that the kubelet asks for.
const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

/// Rewrites every probe and hook of the workload that speaks HTTP, TCP or gRPC. `port` is the agent's.
pub(super) fn rewrite(pod: &mut Value, port: u16) {
    let mut probers = Map::new();
    for kind in ["initContainers", "containers"] {
        for container in view::list_mut(pod, kind).into_iter().flatten() {
            if view::name(container) != PROXY_CONTAINER {
                rewrite_container(container, port, &mut probers);
            }
        }
    }
    let Some(proxy) = view::proxy_mut(pod) else { return };
    if probers.is_empty() {
        return;
    }
    let env = view::inner_list(proxy, "env");
    if let Some(known) = env.iter_mut().find(|variable| view::name(variable) == PROBERS) {
        // An earlier injection knows the true targets of what it rewrote.
        let earlier = view::text(known, "/value").and_then(|text| serde_json::from_str(text).ok());
        if let Some(Value::Object(earlier)) = earlier {
            probers.extend(earlier);
        }
        *known = json!({ "name": PROBERS, "value": Value::Object(probers).to_string() });
    } else {
        env.push(json!({ "name": PROBERS, "value": Value::Object(probers).to_string() }));
    }
}

fn rewrite_container(container: &mut Value, port: u16, probers: &mut Map<String, Value>) {
    let name = view::name(container).to_owned();
    let ports = container.get("ports").cloned().unwrap_or_default();
    let places = [
        ("/readinessProbe", "app-health", "readyz"),
        ("/livenessProbe", "app-health", "livez"),
        ("/startupProbe", "app-health", "startupz"),
        ("/lifecycle/preStop", "app-lifecycle", "prestopz"),
        ("/lifecycle/postStart", "app-lifecycle", "poststartz"),
    ];
    for (pointer, group, what) in places {
        let path = format!("/{group}/{name}/{what}");
        let Some(handler) = container.pointer_mut(pointer) else { continue };
        if let Some(prober) = prober(handler, &ports, port, group == "app-health") {
            lead_to_agent(handler, &path, port);
            probers.insert(path, prober);
        }
    }
}

/// What the agent does in the kubelet's place; `None` when it cannot, or does already.
fn prober(handler: &Value, ports: &Value, agent: u16, probe: bool) -> Option<Value> {
    let kinds: &[&str] = if probe { &["httpGet", "tcpSocket", "grpc"] } else { &["httpGet", "tcpSocket"] };
    let (kind, action) = kinds.iter().find_map(|kind| Some((*kind, handler.get(kind).filter(|v| v.is_object())?)))?;
    let mut action = action.clone();
    let port = match action.get("port")? {
        Value::String(name) => named_port(ports, name).or_else(|| name.parse().ok())?,
        number => number.as_u64()?,
    };
    if kind != "grpc" && port == u64::from(agent) {
        return None;
    }
    view::as_object(&mut action).insert("port".to_owned(), port.into());
    let mut prober = json!({ kind: action });
    if let Some(timeout) = handler.get("timeoutSeconds").filter(|timeout| timeout.as_u64() != Some(0)) {
        view::as_object(&mut prober).insert("timeoutSeconds".to_owned(), timeout.clone());
    }
    Some(prober)
}

fn named_port(ports: &Value, name: &str) -> Option<u64> {
    view::find(ports.as_array()?, name)?.get("containerPort")?.as_u64()
}

/// The kubelet asks the agent by plain HTTP; how often and how long stays.
fn lead_to_agent(handler: &mut Value, path: &str, port: u16) {
    let handler = view::as_object(handler);
    handler.remove("tcpSocket");
    handler.remove("grpc");
    let get = view::as_object(handler.entry("httpGet").or_insert_with(|| json!({})));
    get.insert("path".to_owned(), path.into());
    get.insert("port".to_owned(), port.into());
    if get.get("scheme").is_some_and(|scheme| scheme == "HTTPS") {
        get.insert("scheme".to_owned(), "HTTP".into());
    }
}
