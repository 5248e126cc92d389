//! The parts of an installation: a chart each, with the values that a specification gives it.

use serde_json::{Map, Value, json};

use super::chart::Chart;
use super::fields::{K8S, LEGACY};
use super::object::Object;
use super::patch;
use super::set::{overlay, put};
use super::settings::Settings;
use crate::error::CliError;

/// A part that is installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// Its chart.
    pub chart: &'static str,
    /// Name of the Helm release that it would be.
    pub release: String,
    /// Its namespace.
    pub namespace: String,
    /// Values on top of the chart's own.
    pub values: Value,
    /// Patches of single objects.
    pub patches: Vec<patch::Patch>,
}

/// The names of [`K8S`] for the control plane; what is empty cannot be set there.
const PILOT: &[(&str, &str)] = &[
    ("podDisruptionBudget", ""),
    ("priorityClassName", "global.priorityClassName"),
    ("securityContext", ""),
    ("service", ""),
    ("serviceAnnotations", "serviceAnnotations"),
    ("strategy", ""),
];

/// Components of Istio that this release has not.
const ABSENT: [(&str, &str); 3] = [
    ("cni", "the proxy's init container sets up the redirection"),
    ("ztunnel", "there is no ambient mode yet"),
    ("istiodRemote", "every cluster has a control plane of its own"),
];

/// The components of a specification, in the order of installation.
///
/// # Errors
/// When a component is asked for that there is not, or a field that cannot act.
pub fn components(settings: &Settings) -> Result<Vec<Component>, CliError> {
    let spec = settings.spec.get("components").cloned().unwrap_or_default();
    for (name, why) in ABSENT {
        if is_enabled(spec.get(name), false) {
            return Err(CliError::user(format!("there is no component {name}")).hint(why));
        }
    }
    let values = settings.values();
    let mut found = Vec::new();
    if is_enabled(spec.get("base"), true) {
        let picked = ["global", "base", "defaultRevision"].into_iter();
        let picked: Map<String, Value> =
            picked.filter_map(|name| Some((name.to_owned(), values.get(name)?.clone()))).collect();
        found.push(Component {
            chart: "base",
            release: "istio-base".to_owned(),
            namespace: settings.namespace.clone(),
            values: Value::Object(picked),
            patches: Vec::new(),
        });
    }
    if is_enabled(spec.get("pilot"), true) {
        found.push(pilot(settings, &values, spec.get("pilot"))?);
    }
    for (list, component) in [("ingressGateways", "ingress-gateway"), ("egressGateways", "egress-gateway")] {
        for gateway in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            if is_enabled(Some(gateway), false) {
                found.push(self::gateway(settings, &values, gateway, component)?);
            }
        }
    }
    Ok(found)
}

/// `enabled` may be written as a text, too.
fn is_enabled(component: Option<&Value>, default: bool) -> bool {
    match component.and_then(|component| component.get("enabled")) {
        Some(Value::Bool(enabled)) => *enabled,
        Some(Value::String(enabled)) => enabled == "true",
        _ => default,
    }
}

fn pilot(settings: &Settings, values: &Value, spec: Option<&Value>) -> Result<Component, CliError> {
    let mut values = values.clone();
    if let Some(root) = values.as_object_mut() {
        root.remove("base");
        root.remove("defaultRevision");
        let own = root.get("gateways").and_then(|gateways| gateways.get("securityContext")).cloned();
        root.insert("gateways".to_owned(), json!({ "securityContext": own }));
    }
    let k8s = spec.and_then(|spec| spec.get("k8s")).cloned().unwrap_or_default();
    let path = "components.pilot.k8s";
    let mut layer = json!({});
    for (field, value) in k8s.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let name = PILOT.iter().chain(K8S).find(|(name, _)| name == field).map_or("", |(_, name)| name);
        match field.as_str() {
            "overlays" => {}
            "env" => environment(&mut layer, value, path)?,
            "hpaSpec" => {
                replicas(&mut layer, value, ["autoscaleMin", "autoscaleMax"]);
            }
            "strategy" => {
                for (from, to) in [("maxSurge", "rollingMaxSurge"), ("maxUnavailable", "rollingMaxUnavailable")] {
                    if let Some(value) = value.pointer(&format!("/rollingUpdate/{from}")) {
                        put_at(&mut layer, to, value.clone());
                    }
                }
            }
            _ if name.is_empty() => return Err(cannot(path, field)),
            _ if name.starts_with("global.") => put_at(&mut values, name, value.clone()),
            _ => put_at(&mut layer, name, value.clone()),
        }
    }
    for name in ["hub", "tag"] {
        if let Some(value) = spec.and_then(|spec| spec.get(name)).filter(|value| !value.is_null()) {
            put_at(&mut layer, name, value.clone());
        }
    }
    // What is under `pilot` in the values counts more than `k8s`, as values count most.
    overlay(&mut layer, values.get("pilot").cloned().filter(Value::is_object).unwrap_or_else(|| json!({})));
    put_at(&mut values, "pilot", layer);
    Ok(Component {
        chart: "istiod",
        release: format!("istiod{}", super::object::suffix(&settings.revision)),
        namespace: settings.namespace.clone(),
        values,
        patches: patch::read(&k8s, path)?,
    })
}

fn gateway(settings: &Settings, values: &Value, spec: &Value, component: &str) -> Result<Component, CliError> {
    let text = |name: &str| spec.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name").ok_or_else(|| CliError::user(format!("a component {component} has no name")))?.to_owned();
    let namespace = text("namespace").unwrap_or(&settings.namespace).to_owned();
    let mut own = json!({
        "name": name, "namespace": namespace, "component": component, "revision": values.get("revision"),
        "global": values.get("global"),
    });
    if let Some(mesh) = values.get("meshConfig") {
        put_at(&mut own, "meshConfig", mesh.clone());
    }
    if component == "egress-gateway" {
        let port = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": port });
        put_at(&mut own, "service", json!({ "type": "ClusterIP", "ports": [port("http2", 80), port("https", 443)] }));
    }
    if let Some(labels) = spec.get("label").filter(|labels| labels.is_object()) {
        put_at(&mut own, "labels", labels.clone());
    }
    let path = format!("components.{name}.k8s");
    let k8s = spec.get("k8s").cloned().unwrap_or_default();
    for (field, value) in k8s.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let to = K8S.iter().find(|(name, _)| name == field).map_or("", |(_, to)| to);
        match field.as_str() {
            "overlays" => {}
            "env" => environment(&mut own, value, &path)?,
            "hpaSpec" => replicas(&mut own, value, ["autoscaling.minReplicas", "autoscaling.maxReplicas"]),
            "service" => overlay_at(&mut own, "service", value.clone()),
            _ if to.is_empty() => return Err(cannot(&path, field)),
            _ => put_at(&mut own, to, value.clone()),
        }
    }
    let legacy = values.get("gateways").and_then(|gateways| gateways.get(&name)).and_then(Value::as_object);
    for (field, value) in legacy.into_iter().flatten() {
        let to = LEGACY.iter().find(|(name, _)| name == field).map_or(field.as_str(), |(_, to)| to);
        overlay_at(&mut own, to, value.clone());
    }
    Ok(Component { chart: "gateway", release: name, namespace, values: own, patches: patch::read(&k8s, &path)? })
}

fn cannot(path: &str, field: &str) -> CliError {
    CliError::user(format!("{path}.{field} cannot be set"))
        .hint(format!("{path}.overlays patches any field of any object"))
}

/// `env` is a list in a specification; charts have names and values.
fn environment(values: &mut Value, env: &Value, path: &str) -> Result<(), CliError> {
    for variable in env.as_array().into_iter().flatten() {
        let name = variable.get("name").and_then(Value::as_str);
        let value = match variable.get("value") {
            Some(Value::String(text)) => Some(text.clone()),
            // `--set` makes numbers and truths of what looks like some.
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Some(value.to_string()),
            _ => None,
        };
        let (Some(name), Some(value)) = (name, value) else {
            return Err(CliError::user(format!("{path}.env: a variable has no name or no value"))
                .hint("values.pilot.envVarFrom takes variables from elsewhere"));
        };
        overlay(values, json!({ "env": { name: value } }));
    }
    Ok(())
}

fn replicas(values: &mut Value, spec: &Value, [min, max]: [&str; 2]) {
    for (from, to) in [("minReplicas", min), ("maxReplicas", max)] {
        if let Some(value) = spec.get(from) {
            put_at(values, to, value.clone());
        }
    }
}

fn parts(path: &str) -> Vec<super::set::Part> {
    path.split('.').map(|part| super::set::Part::Key(part.to_owned())).collect()
}

fn put_at(values: &mut Value, path: &str, value: Value) {
    put(values, &parts(path), value);
}

fn overlay_at(values: &mut Value, path: &str, value: Value) {
    let mut layer = json!({});
    put(&mut layer, &parts(path), value);
    overlay(values, layer);
}

impl Component {
    /// The objects of the component.
    ///
    /// # Errors
    /// When the chart cannot be rendered, or a patch finds no place.
    pub fn render(&self, settings: &Settings) -> Result<Vec<Object>, CliError> {
        let chart = Chart::read(&settings.files, self.chart)?;
        let mut objects = chart.render(&self.release, &self.namespace, &self.values)?;
        for patch in &self.patches {
            patch.apply(&mut objects)?;
        }
        Ok(objects)
    }
}
