//! Which settings there are. A setting that nothing reads is refused: it would be a wish that nobody hears.

use serde_json::{Map, Value, json};

use super::chart::Chart;
use super::files::Files;
use super::set::Part;
use crate::error::CliError;

/// Fields of an IstioOperator specification; all else that `--set` names is a Helm value.
const ROOTS: [&str; 9] =
    ["profile", "hub", "tag", "namespace", "revision", "meshConfig", "components", "values", "unvalidatedValues"];

/// A path of `--set` as it is in a specification: `global.hub` is `values.global.hub`.
#[must_use]
pub fn rooted(mut path: Vec<Part>) -> Vec<Part> {
    let known = matches!(path.first(), Some(Part::Key(key)) if ROOTS.contains(&key.as_str()));
    let value = matches!(path.first(), Some(Part::Key(key)) if VALUES.contains(&key.as_str()));
    if !known && value {
        path.insert(0, Part::Key("values".to_owned()));
    }
    path
}

/// Helm values that may stand without `values.` before them.
const VALUES: [&str; 8] =
    ["global", "pilot", "gateways", "sidecarInjectorWebhook", "base", "revisionTags", "defaultRevision", "cni"];

/// Refuses settings that there are not.
///
/// # Errors
/// Names the first, with the near name, and the others as hints.
pub fn check(spec: &Value, files: &Files) -> Result<(), CliError> {
    let mut unknown = unknown(spec, files)?.into_iter();
    let Some((_, message, near)) = unknown.next() else { return Ok(()) };
    let mut error = CliError::user(message);
    if let Some(near) = near {
        error = error.hint(format!("did you mean {near}?"));
    }
    Err(unknown.fold(error, |error, (_, message, _)| error.hint(format!("also: {message}"))))
}

/// Settings that there are not: their paths, what is wrong with them, and near names.
///
/// # Errors
/// When the charts cannot be read.
pub fn unknown(spec: &Value, files: &Files) -> Result<Vec<(String, String, Option<String>)>, CliError> {
    let mut unknown = Vec::new();
    visit(spec, &shape(files, spec)?, &mut Vec::new(), &mut unknown);
    Ok(unknown)
}

/// A dictionary that has all settings. An empty dictionary or null in it is open: anything may stand below.
fn shape(files: &Files, spec: &Value) -> Result<Value, CliError> {
    let values = |name: &str| Chart::read(files, name).map(|chart| chart.values);
    let (base, istiod, gateway) = (values("base")?, values("istiod")?, values("gateway")?);
    let mut root = map(istiod.clone());
    let mut pilot = map(istiod.clone());
    for own in ["global", "pilot", "revision", "revisionTags", "meshConfig", "sidecarInjectorWebhook", "gateways"] {
        pilot.remove(own);
    }
    let mut global = map(istiod["global"].clone());
    for other in [&base, &gateway] {
        global.extend(map(other["global"].clone()).into_iter().filter(|(key, _)| istiod["global"].get(key).is_none()));
    }
    let mut legacy = map(gateway);
    legacy.extend(super::fields::LEGACY.iter().map(|(name, _)| ((*name).to_owned(), Value::Null)));
    legacy.remove("global");
    // Gateways go by names that users give.
    let names = spec.pointer("/values/gateways").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let mut gateways: Map<String, Value> = names
        .filter(|name| *name != "securityContext")
        .map(|name| (name.clone(), Value::Object(legacy.clone())))
        .collect();
    gateways.insert("securityContext".to_owned(), Value::Null);
    root.insert("pilot".to_owned(), Value::Object(pilot));
    root.insert("global".to_owned(), Value::Object(global));
    root.insert("gateways".to_owned(), Value::Object(gateways));
    root.insert("base".to_owned(), base["base"].clone());
    root.insert("defaultRevision".to_owned(), "".into());
    let k8s: Map<String, Value> =
        super::fields::K8S.iter().map(|(name, _)| ((*name).to_owned(), Value::Null)).collect();
    let own_gateway = json!([{ "name": "", "namespace": "", "enabled": true, "label": {}, "k8s": k8s }]);
    Ok(json!({
        "profile": "", "hub": "", "tag": "", "namespace": "", "revision": "", "meshConfig": {}, "values": root,
        "components": {
            "base": { "enabled": true },
            "pilot": { "enabled": true, "hub": "", "tag": "", "k8s": k8s },
            "ingressGateways": own_gateway,
            "egressGateways": own_gateway,
            "cni": { "enabled": false },
            "ztunnel": { "enabled": false },
            "istiodRemote": { "enabled": false },
        },
    }))
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

type Unknown = Vec<(String, String, Option<String>)>;

fn visit(value: &Value, shape: &Value, path: &mut Vec<String>, unknown: &mut Unknown) {
    match (value, shape) {
        (Value::Null, _) | (_, Value::Null) => {}
        (_, Value::Object(known)) if known.is_empty() => {}
        (Value::Object(fields), Value::Object(known)) => {
            for (key, value) in fields {
                path.push(key.clone());
                match known.get(key) {
                    Some(shape) => visit(value, shape, path, unknown),
                    None => {
                        let near = mesh_api::near::nearest(key, known.keys().map(String::as_str));
                        let mut beside = path.clone();
                        let near = near.map(|near| {
                            beside.pop();
                            beside.push(near.to_owned());
                            beside.join(".")
                        });
                        let path = path.join(".");
                        unknown.push((path.clone(), format!("there is no setting {path}"), near));
                    }
                }
                path.pop();
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            // Lists whose items have a form say so by one item.
            let Some(shape) = known.first().filter(|item| item.is_object() && item.get("port").is_none()) else {
                return;
            };
            for (at, item) in items.iter().enumerate() {
                path.push(at.to_string());
                visit(item, shape, path, unknown);
                path.pop();
            }
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => {
            let path = path.join(".");
            unknown.push((path.clone(), format!("{path} is of a wrong type"), None));
        }
        _ => {}
    }
}
