//! Writes `manifests/crds` from the table of kinds and keeps it from going stale:
//! `cargo xtask manifests` writes, `cargo test -p mesh-api` compares.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Scope};

/// What `kubectl get` shows besides name and age: kind, title, path.
const COLUMNS: &[(Kind, &str, &str)] = &[
    (Kind::VirtualService, "Gateways", ".spec.gateways"),
    (Kind::VirtualService, "Hosts", ".spec.hosts"),
    (Kind::DestinationRule, "Host", ".spec.host"),
    (Kind::ServiceEntry, "Hosts", ".spec.hosts"),
    (Kind::ServiceEntry, "Location", ".spec.location"),
    (Kind::ServiceEntry, "Resolution", ".spec.resolution"),
    (Kind::WorkloadEntry, "Address", ".spec.address"),
    (Kind::PeerAuthentication, "Mode", ".spec.mtls.mode"),
    (Kind::AuthorizationPolicy, "Action", ".spec.action"),
];

fn definition(kind: Kind) -> Value {
    let info = kind.info();
    let singular = info.name.to_lowercase();
    let mut spec = kind.spec_schema();
    make_structural(&mut spec);
    let schema = json!({ "openAPIV3Schema": {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        },
    }});
    let mut columns: Vec<Value> = Vec::new();
    for (_, title, path) in COLUMNS.iter().filter(|column| column.0 == kind) {
        columns.push(json!({ "name": title, "type": "string", "jsonPath": path }));
    }
    columns.push(json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }));
    let versions: Vec<Value> = info
        .versions
        .iter()
        .enumerate()
        .map(|(index, version)| {
            json!({
                "name": version,
                "served": true,
                "storage": index == 0,
                "schema": schema,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns,
            })
        })
        .collect();
    let mut names = json!({
        "kind": info.name,
        "listKind": format!("{}List", info.name),
        "plural": info.plural,
        "singular": singular,
        "categories": ["istio-io", info.group.replace('.', "-")],
    });
    if !info.short_names.is_empty() {
        names["shortNames"] = json!(info.short_names);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{}", info.plural, info.group) },
        "spec": {
            "group": info.group,
            "names": names,
            "scope": if info.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
            "versions": versions,
        },
    })
}

/// Kubernetes takes structural schemas only: one type at each place, no alternatives that change it.
fn make_structural(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("nullable");
    map.remove("title");
    // "The type or null": Kubernetes drops nulls by itself.
    if let Some(Value::Array(variants)) = map.remove("anyOf") {
        let [Value::Object(wanted), _] = variants.as_slice() else { panic!("alternatives: {variants:?}") };
        for (key, value) in wanted {
            map.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    // An enumeration comes as one alternative for each documented name.
    if let Some(Value::Array(variants)) = map.remove("oneOf") {
        let names: Vec<Value> = variants
            .iter()
            .flat_map(|v| v["enum"].as_array().unwrap_or_else(|| panic!("not a name: {v}")).clone())
            .collect();
        map.insert("type".to_owned(), json!("string"));
        map.insert("enum".to_owned(), Value::Array(names));
    }
    if let Some(Value::Object(patterns)) = map.remove("patternProperties") {
        let values: Vec<&Value> = patterns.values().collect();
        let [values] = values.as_slice() else { panic!("several patterns: {patterns:?}") };
        map.insert("additionalProperties".to_owned(), (*values).clone());
    }
    // Formats that Kubernetes does not know.
    if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
        map.remove("format");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            make_structural(inner);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(make_structural);
    }
}

/// The same whatever order the map type keeps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(sorted.into_iter().collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn files() -> BTreeMap<String, String> {
    let kinds = Kind::ALL.iter().copied().filter(|kind| kind.is_mesh());
    kinds
        .map(|kind| {
            let info = kind.info();
            let body = serde_yaml_ng::to_string(&sorted(definition(kind))).unwrap();
            let head = "# Generated from mesh-api; do not edit: `cargo xtask manifests` writes it anew.\n";
            (format!("{}_{}.yaml", info.group, info.plural), format!("{head}{body}"))
        })
        .collect()
}

#[test]
fn golden_manifests() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    let files = files();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &files {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let mut there = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        there.insert(entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
    }
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&there), names(&files), "cargo xtask manifests writes what is missing; remove what is left over");
    for (name, text) in &files {
        assert!(there[name] == *text, "{name} is not up to date; run `cargo xtask manifests`");
    }
}

/// What Kubernetes demands of a structural schema, at every node.
#[test]
fn schemas_are_structural() {
    fn visit(path: &str, schema: &Value) {
        let map = schema.as_object().unwrap_or_else(|| panic!("{path} is no schema"));
        let known = [
            "additionalProperties",
            "description",
            "enum",
            "format",
            "items",
            "maximum",
            "minimum",
            "properties",
            "type",
            "x-kubernetes-preserve-unknown-fields",
        ];
        for key in map.keys() {
            assert!(known.contains(&key.as_str()), "{path} has {key}");
        }
        let kind = map.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{path} has no type"));
        assert!(["object", "array", "string", "integer", "number", "boolean"].contains(&kind), "{path}: {kind}");
        assert!(!(map.contains_key("properties") && map.contains_key("additionalProperties")), "{path}");
        assert_eq!(kind == "array", map.contains_key("items"), "{path}");
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = map.get(key) {
                visit(&format!("{path}.{key}"), inner);
            }
        }
        for (name, inner) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            visit(&format!("{path}.{name}"), inner);
        }
    }
    for kind in Kind::ALL.iter().filter(|kind| kind.is_mesh()) {
        let definition = definition(*kind);
        let versions = definition["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), kind.info().versions.len());
        for version in versions {
            assert_eq!(version["storage"] == true, version["name"] == kind.info().versions[0]);
            visit(kind.as_str(), &version["schema"]["openAPIV3Schema"]);
        }
    }
}
