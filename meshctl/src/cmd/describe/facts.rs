//! The text, from objects. The order of its blocks is istioctl's (istio-surface 9.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mesh_api::host::Hostname;
use meshd_core::analyze::{Sort, Subject};
use serde_json::Value;

use crate::live::NOT_CAPTURED;

/// All that is known.
pub(super) struct Facts<'a> {
    pub(super) all: Vec<&'a Subject>,
    /// The namespace of mesh-wide policies.
    pub(super) root: &'a str,
    /// Whether traffic of the pod is led through its proxy, if that says so.
    pub(super) captured: Option<bool>,
}

const DOMAIN: &str = "cluster.local";
const PROXY: &str = "istio-proxy";
const LINE: &str = "--------------------\n";

impl Facts<'_> {
    fn of(&self, sort: Sort) -> impl Iterator<Item = &Subject> {
        self.all.iter().copied().filter(move |subject| subject.sort == Some(sort))
    }

    /// Describes a pod, or a Service whose `namespace/name` is given.
    pub(super) fn describe(&self, pod: Option<&Value>, only: Option<&str>) -> String {
        let mut text = String::new();
        let labels = pod.map(|pod| pairs(pod, "/metadata/labels")).unwrap_or_default();
        let namespace = pod.map(|pod| string(pod, "/metadata/namespace")).unwrap_or_default();
        if let (Some(pod), None) = (pod, only) {
            about_pod(pod, &mut text);
            if self.captured == Some(false) {
                let _ = writeln!(text, "WARNING: {NOT_CAPTURED}");
            }
            text.push_str(LINE);
        }
        let services: Vec<&Subject> = self
            .of(Sort::SERVICE)
            .filter(|service| match only {
                Some(only) => service.full_name() == only,
                None => service.namespace == namespace && selects(&pairs(&service.value, "/spec/selector"), &labels),
            })
            .collect();
        for service in &services {
            about_service(service, pod, &mut text);
            let host = Hostname::new(&format!("{}.{}.svc.{DOMAIN}", service.name, service.namespace));
            self.about_rules(&host, &labels, &mut text);
            self.about_routes(&host, &labels, &mut text);
        }
        if pod.is_some() {
            self.about_policies(&namespace, &labels, &mut text);
        }
        text
    }

    fn about_rules(&self, host: &Hostname, labels: &BTreeMap<String, String>, text: &mut String) {
        for rule in self.of(Sort::DESTINATION_RULE) {
            let named = string(&rule.value, "/spec/host");
            if !host.subset_of(&Hostname::expand(&named, &rule.namespace, DOMAIN)) {
                continue;
            }
            let _ = writeln!(text, "DestinationRule: {}.{} for {named:?}", rule.name, rule.namespace);
            let subsets = list(&rule.value, "/spec/subsets");
            let (matching, others): (Vec<&Value>, Vec<&Value>) =
                subsets.iter().partition(|subset| selects(&pairs(subset, "/labels"), labels));
            for (title, subsets) in [("Matching subsets", matching), ("Non-matching subsets", others)] {
                let names: Vec<String> = subsets.into_iter().map(|subset| string(subset, "/name")).collect();
                if !names.is_empty() {
                    let _ = writeln!(text, "   {title}: {}", names.join(","));
                }
            }
            match rule.value.pointer("/spec/trafficPolicy") {
                None => text.push_str("   No Traffic Policy\n"),
                Some(policy) => {
                    about_policy(policy, text);
                }
            }
        }
    }

    fn about_routes(&self, host: &Hostname, labels: &BTreeMap<String, String>, text: &mut String) {
        for service in self.of(Sort::VIRTUAL_SERVICE) {
            let routes = list(&service.value, "/spec/http");
            let leads = |route: &Value| {
                let all = list(route, "/route").iter();
                let hosts = all.map(|route| string(route, "/destination/host"));
                hosts.map(|named| Hostname::expand(&named, &service.namespace, DOMAIN)).any(|named| named == *host)
            };
            if !routes.iter().any(leads) {
                continue;
            }
            let _ = writeln!(text, "VirtualService: {}.{}", service.name, service.namespace);
            let gateways: Vec<String> = strings(&service.value, "/spec/gateways");
            if !gateways.is_empty() {
                let _ = writeln!(text, "   Gateways: {}", gateways.join(","));
            }
            let mut away = 0;
            for route in routes {
                if !leads(route) {
                    away += list(route, "/route").len();
                    continue;
                }
                about_route(route, text);
                self.warn_about_subsets(route, service, labels, text);
            }
            if away > 0 {
                let _ = writeln!(text, "   {away} additional destination(s) that will not reach this pod");
            }
        }
    }

    /// Subsets that no DestinationRule defines: requests for them have nowhere to go.
    fn warn_about_subsets(
        &self,
        route: &Value,
        service: &Subject,
        labels: &BTreeMap<String, String>,
        text: &mut String,
    ) {
        for destination in list(route, "/route") {
            let (named, subset) =
                (string(destination, "/destination/host"), string(destination, "/destination/subset"));
            if subset.is_empty() {
                continue;
            }
            let host = Hostname::expand(&named, &service.namespace, DOMAIN);
            let rules = self.of(Sort::DESTINATION_RULE).filter(|rule| {
                host.subset_of(&Hostname::expand(&string(&rule.value, "/spec/host"), &rule.namespace, DOMAIN))
            });
            let defined: Vec<&Value> = rules.flat_map(|rule| list(&rule.value, "/spec/subsets")).collect();
            match defined.iter().find(|known| string(known, "/name") == subset) {
                None => {
                    let _ = writeln!(text, "   WARNING: no DestinationRule defines subset {subset:?} of {named:?}");
                }
                Some(known) if !labels.is_empty() && !selects(&pairs(known, "/labels"), labels) => {
                    let _ = writeln!(text, "   Route to subset {subset:?} does not reach this pod");
                }
                Some(_) => {}
            }
        }
    }

    fn about_policies(&self, namespace: &str, labels: &BTreeMap<String, String>, text: &mut String) {
        let applies = |policy: &&Subject| {
            (policy.namespace == namespace || policy.namespace == self.root)
                && selects(&pairs(&policy.value, "/spec/selector/matchLabels"), labels)
        };
        let policies: Vec<String> = self
            .of(Sort::AUTHORIZATION_POLICY)
            .filter(applies)
            .flat_map(|policy| {
                let rules = list(&policy.value, "/spec/rules").len().max(1);
                (0..rules).map(|rule| format!("ns[{}]-policy[{}]-rule[{rule}]", policy.namespace, policy.name))
            })
            .collect();
        if !policies.is_empty() {
            let _ = writeln!(text, "RBAC policies: {}", policies.join(", "));
        }
        let mut applied: Vec<&Subject> = self.of(Sort::PEER_AUTHENTICATION).filter(applies).collect();
        // The narrowest first: of the workload, of the namespace, of the mesh; of one width the oldest.
        applied.sort_by_cached_key(|policy| {
            let selects_some = !pairs(&policy.value, "/spec/selector/matchLabels").is_empty();
            let width = match (selects_some, policy.namespace == namespace) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            (width, string(&policy.value, "/metadata/creationTimestamp"), policy.name.clone())
        });
        let mode = |policy: &&Subject| {
            Some(string(&policy.value, "/spec/mtls/mode")).filter(|mode| !mode.is_empty() && mode != "UNSET")
        };
        let effective = applied.iter().find_map(mode).unwrap_or_else(|| "PERMISSIVE".to_owned());
        let _ = writeln!(text, "Effective PeerAuthentication:\n   Workload mTLS mode: {effective}");
        if let Some(ports) = applied.first().and_then(|policy| policy.value.pointer("/spec/portLevelMtls")?.as_object())
        {
            text.push_str("   Port Level mTLS mode:\n");
            for (port, of_port) in ports {
                let _ = writeln!(text, "      {port}: {}", string(of_port, "/mode"));
            }
        }
        if !applied.is_empty() {
            let names: Vec<String> =
                applied.iter().map(|policy| format!("{}.{}", policy.name, policy.namespace)).collect();
            let _ = writeln!(text, "Applied PeerAuthentication:\n   {}", names.join(", "));
        }
    }
}

fn about_pod(pod: &Value, text: &mut String) {
    let (name, namespace) = (string(pod, "/metadata/name"), string(pod, "/metadata/namespace"));
    let _ = writeln!(text, "Pod: {name}.{namespace}");
    let revision = string(pod, "/metadata/annotations/istio.io~1rev");
    if !revision.is_empty() {
        let _ = writeln!(text, "   Pod Revision: {revision}");
    }
    let containers = list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers")).collect::<Vec<_>>();
    let ports: Vec<String> = containers
        .iter()
        .flat_map(|container| {
            let name = string(container, "/name");
            list(container, "/ports").iter().map(move |port| {
                format!("{} ({name})", port.get("containerPort").and_then(Value::as_u64).unwrap_or_default())
            })
        })
        .collect();
    let _ = writeln!(text, "   Pod Ports: {}", if ports.is_empty() { "none".to_owned() } else { ports.join(", ") });
    for container in &containers {
        let user = container.pointer("/securityContext/runAsUser").and_then(Value::as_u64);
        if user == Some(1337) && string(container, "/name") != PROXY {
            text.push_str("WARNING: User ID (UID) 1337 is reserved for the sidecar proxy.\n");
        }
    }
    for status in list(pod, "/status/containerStatuses") {
        if status.get("ready").and_then(Value::as_bool) == Some(false) {
            let _ = writeln!(text, "WARNING: Pod {name} Container {} NOT READY", string(status, "/name"));
        }
    }
    if !containers.iter().any(|container| string(container, "/name") == PROXY) {
        let _ = writeln!(text, "WARNING: {name}.{namespace} is not part of mesh; no Istio sidecar");
    }
    let has = |keys: [&str; 2]| {
        keys.iter().any(|key| !string(pod, &format!("/metadata/labels/{}", key.replace('/', "~1"))).is_empty())
    };
    if !has(["app", "service.istio.io/canonical-name"]) || !has(["version", "service.istio.io/canonical-revision"]) {
        text.push_str("Suggestion: add the labels app and version to the pod, so that telemetry names it\n");
    }
}

fn about_service(service: &Subject, pod: Option<&Value>, text: &mut String) {
    let _ = writeln!(text, "Service: {}.{}", service.name, service.namespace);
    for port in list(&service.value, "/spec/ports") {
        let (name, number) = (string(port, "/name"), port.get("port").and_then(Value::as_u64).unwrap_or_default());
        let application = string(port, "/appProtocol");
        let protocol = match (application.as_str(), name.split('-').next().unwrap_or_default()) {
            ("", "") => "auto-detect".to_owned(),
            ("", named) => named.to_ascii_uppercase(),
            (application, _) => application.to_ascii_uppercase(),
        };
        let name = if name.is_empty() { String::new() } else { format!("{name} ") };
        let target = match port.get("targetPort") {
            Some(Value::Number(target)) => target.to_string(),
            Some(Value::String(named)) => pod.and_then(|pod| named_port(pod, named)).unwrap_or_else(|| named.clone()),
            _ => number.to_string(),
        };
        let _ = writeln!(text, "   Port: {name}{number}/{protocol} targets pod port {target}");
    }
}

/// The number of a port that a container names.
fn named_port(pod: &Value, name: &str) -> Option<String> {
    let ports = list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports"));
    let port = ports.into_iter().find(|port| string(port, "/name") == name)?;
    port.get("containerPort").map(ToString::to_string)
}

fn about_policy(policy: &Value, text: &mut String) {
    let mode = string(policy, "/tls/mode");
    if !mode.is_empty() {
        let _ = writeln!(text, "   Traffic Policy TLS Mode: {mode}");
    }
    let parts = [
        ("loadBalancer", "load balancer"),
        ("connectionPool", "connection pool"),
        ("outlierDetection", "outlier detection"),
    ];
    let set: Vec<&str> =
        parts.into_iter().filter(|(field, _)| policy.get(field).is_some()).map(|(_, name)| name).collect();
    if !set.is_empty() {
        let _ = writeln!(text, "   Policies: {}", set.join("/"));
    }
    for port in list(policy, "/portLevelSettings") {
        let number = port.pointer("/port/number").and_then(Value::as_u64).unwrap_or_default();
        let _ = writeln!(
            text,
            "   {number} TLS Mode: {}",
            match string(port, "/tls/mode").as_str() {
                "" => "not set",
                mode => mode,
            }
        );
    }
}

fn about_route(route: &Value, text: &mut String) {
    for destination in list(route, "/route") {
        let (host, subset) = (string(destination, "/destination/host"), string(destination, "/destination/subset"));
        let subset = if subset.is_empty() { String::new() } else { format!(" subset {subset:?}") };
        let weight = destination.get("weight").and_then(Value::as_u64);
        let weight = weight.map(|weight| format!(" with weight {weight}%")).unwrap_or_default();
        let _ = writeln!(text, "   Route to host {host:?}{subset}{weight}");
    }
    let matches: Vec<String> = list(route, "/match").iter().map(one_match).collect();
    if !matches.is_empty() {
        let _ = writeln!(text, "   Match: {}", matches.join(", "));
    }
    if route.pointer("/fault").is_some() {
        text.push_str("   Fault injection\n");
    }
}

/// `/path* uncased when headers are k=v`.
fn one_match(one: &Value) -> String {
    let uri = match (string(one, "/uri/exact"), string(one, "/uri/prefix"), string(one, "/uri/regex")) {
        (exact, _, _) if !exact.is_empty() => exact,
        (_, prefix, _) if !prefix.is_empty() => format!("{prefix}*"),
        (_, _, regex) if !regex.is_empty() => format!("regex {regex}"),
        _ => "/*".to_owned(),
    };
    let uncased = if one.get("ignoreUriCase").and_then(Value::as_bool) == Some(true) { " uncased" } else { "" };
    let headers: Vec<String> = one
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let value = value.as_object().and_then(|value| value.values().next()?.as_str().map(str::to_owned));
            format!("{name}={}", value.unwrap_or_default())
        })
        .collect();
    let headers = if headers.is_empty() { String::new() } else { format!(" when headers are {}", headers.join(" ")) };
    format!("{uri}{uncased}{headers}")
}

fn string(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn pairs(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let fields = value.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    fields.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Whether a selector takes these labels; one without a term takes everything.
fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
