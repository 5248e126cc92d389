//! Functions of injection templates, besides those of Go, Sprig and Helm. istio/istio: pkg/kube/inject/template.go.

use mesh_api_gotmpl::{Templates, yaml};
use serde_json::{Map, Value, json};

use super::data::{AS_JSON, ATTRIBUTES, without_go_names};
use crate::inject::{PROXY_CONTAINER, template};

type Outcome = Result<Value, String>;
type Plain = fn(&[Value]) -> Outcome;

/// The engine with all of them.
pub(super) fn all(engine: Templates) -> Templates {
    let plain: &[(&str, Plain)] = &[
        ("annotation", annotation),
        ("isset", |args| Ok(map(args, 0)?.contains_key(&text(args, 1)).into())),
        ("valueOrDefault", |args| Ok(if is_unset(args.first()) { arg(args, 1) } else { arg(args, 0) })),
        ("excludeInboundPort", exclude_inbound_port),
        ("includeInboundPorts", |args| Ok(ports(args, |_| true))),
        ("applicationPorts", |args| Ok(ports(args, |name| name != PROXY_CONTAINER))),
        ("kubevirtInterfaces", |args| Ok(arg(args, 0))),
        ("excludeInterfaces", |args| Ok(arg(args, 0))),
        ("toJSON", |args| Ok(json_text(args))),
        ("structToJSON", |args| Ok(json_text(args))),
        ("protoToJSON", |args| {
            Ok(args.first().and_then(|value| value.get(AS_JSON)).cloned().unwrap_or_else(|| "{}".into()))
        }),
        ("fromJSON", |args| serde_json::from_str(&text(args, 0)).map_err(|error| error.to_string())),
        ("toYaml", |args| Ok(yaml::to_string(&without_go_names(&arg(args, 0))).into())),
        ("indent", indent),
        ("directory", |args| {
            Ok(text(args, 0).rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/")).into())
        }),
        ("toLower", |args| Ok(text(args, 0).to_lowercase().into())),
        ("appendMultusNetwork", |args| Ok(template::with_network(&text(args, 0)).into())),
        ("omit", omit),
        ("strdict", strdict),
        ("mergeMaps", |args| Ok(Value::Object(merged(args)))),
        ("toJsonMap", |args| Ok(Value::Object(merged(args)).to_string().into())),
        ("omitNil", |args| Ok(without_nulls(&arg(args, 0)))),
        ("formatDuration", |args| Ok(arg(args, 0))),
        ("otelResourceAttributes", |args| {
            Ok(args.first().and_then(|mesh| mesh.get(ATTRIBUTES)).cloned().unwrap_or_default())
        }),
        ("env", |_| Err("templates do not see the control plane's environment; use .Values".to_owned())),
    ];
    let engine = plain.iter().fold(engine, |engine, (name, function)| engine.function(name, *function));
    // Getters of generated Go code, and the text of an enumeration.
    let getters = ["GetValue", "String"];
    getters.into_iter().fold(engine, |engine, name| engine.method(name, |args| Ok(arg(args, 0))))
}

fn arg(args: &[Value], at: usize) -> Value {
    args.get(at).cloned().unwrap_or_default()
}

/// An argument as it is printed.
fn text(args: &[Value], at: usize) -> String {
    match args.get(at) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn map(args: &[Value], at: usize) -> Result<Map<String, Value>, String> {
    match args.get(at) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(other) => Err(format!("{other} is no map")),
    }
}

fn is_unset(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value == "")
}

/// `annotation .ObjectMeta NAME DEFAULT`.
fn annotation(args: &[Value]) -> Outcome {
    let own = args.first().and_then(|meta| meta.get("annotations")?.get(text(args, 1)));
    Ok(own.cloned().unwrap_or_else(|| text(args, 2).into()))
}

/// A list of ports with one more.
fn exclude_inbound_port(args: &[Value]) -> Outcome {
    let (port, listed) = (text(args, 0).trim().to_owned(), text(args, 1));
    let mut ports: Vec<&str> = listed.split(',').map(str::trim).filter(|port| !port.is_empty()).collect();
    if port.is_empty() || port == "0" || ports.contains(&port.as_str()) {
        return Ok(listed.into());
    }
    ports.push(&port);
    Ok(ports.join(",").into())
}

/// TCP ports of containers.
fn ports(args: &[Value], wanted: fn(&str) -> bool) -> Value {
    let containers = args.first().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let wanted = containers.iter().filter(|one| wanted(one.get("name").and_then(Value::as_str).unwrap_or_default()));
    let ports = wanted.flat_map(|one| one.get("ports").and_then(Value::as_array).into_iter().flatten());
    let tcp = ports.filter(|port| port.get("protocol").is_none_or(|protocol| protocol == "TCP"));
    let numbers: Vec<String> = tcp.filter_map(|port| Some(port.get("containerPort")?.to_string())).collect();
    numbers.join(",").into()
}

fn json_text(args: &[Value]) -> Value {
    match args.first() {
        None | Some(Value::Null) => "{}".into(),
        Some(value) => without_go_names(value).to_string().into(),
    }
}

/// Every line but the first with blanks before it; Sprig's own indents the first, too.
fn indent(args: &[Value]) -> Outcome {
    let width = args.first().and_then(Value::as_u64).and_then(|width| usize::try_from(width).ok()).unwrap_or_default();
    if width > MAX_INDENT {
        return Err(format!("indents by {MAX_INDENT} at most"));
    }
    Ok(text(args, 1).replace('\n', &format!("\n{}", " ".repeat(width))).into())
}

/// Greatest indentation.
const MAX_INDENT: usize = 200;

fn omit(args: &[Value]) -> Outcome {
    let names: Vec<String> = (1..args.len()).map(|at| text(args, at)).collect();
    Ok(Value::Object(map(args, 0)?.into_iter().filter(|(name, _)| !names.contains(name)).collect()))
}

fn strdict(args: &[Value]) -> Outcome {
    let pairs = (0..args.len()).step_by(2).map(|at| (text(args, at), json!(text(args, at + 1))));
    Ok(Value::Object(pairs.collect()))
}

fn merged(args: &[Value]) -> Map<String, Value> {
    let maps = args.iter().filter_map(Value::as_object);
    maps.flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().filter(|item| !item.is_null()).map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
