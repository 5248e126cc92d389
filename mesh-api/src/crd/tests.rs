//! Every field of every kind is read and written again under its own name.

use serde_json::{Map, Value, json};

use crate::{
    kinds::Kind,
    mesh_config::{MeshConfig, proxy::ProxyConfig},
    object::AnyObject,
    typed::{from_value, schema_of},
};

/// A value of this schema with all fields set to something else than their default.
fn full(schema: &Value) -> Value {
    if let Some(Value::Object(fields)) = schema.get("properties") {
        let is_match = fields.keys().eq(["exact", "prefix", "regex"]);
        let all = fields.iter().map(|(name, inner)| (name.clone(), full(inner)));
        return Value::Object(if is_match { all.take(1).collect() } else { all.collect() });
    }
    if let Some(variants) = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(key)?.as_array()) {
        // "The type or null", or names of which the first is the default.
        let wanted: Vec<&Value> = variants.iter().filter(|v| v["enum"] != json!([null])).collect();
        return full(wanted.last().unwrap());
    }
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return names.last().unwrap().clone();
    }
    let of = |inner: &Value| Value::Object(Map::from_iter([("1".to_owned(), full(inner))]));
    if let Some(inner) = schema.get("patternProperties").and_then(Value::as_object) {
        return of(inner.values().next().unwrap());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => json!([full(&schema["items"])]),
        Some("object") => schema.get("additionalProperties").map_or_else(|| json!({}), of),
        Some("integer") => json!(1),
        Some("number") => json!(1.5),
        Some("boolean") => json!(true),
        // A text that is a duration, a name and a trust domain; also where anything may stand.
        _ => json!("1s"),
    }
}

#[test]
fn every_field_of_every_mesh_kind_survives() {
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_mesh()) {
        let spec = full(&kind.spec_schema());
        let value = json!({ "metadata": { "name": "x" }, "spec": spec });
        let object = AnyObject::from_value(kind, &value).unwrap_or_else(|error| panic!("{kind} {error}"));
        let written = serde_json::to_value(&object).unwrap();
        assert_eq!(written["spec"], spec, "{kind}");
        assert_eq!(AnyObject::from_value(kind, &written).unwrap(), object);
        let mut unknown = Vec::new();
        kind.shape().unknown_fields(&written, &mut |path, _| unknown.push(path));
        assert!(unknown.is_empty(), "{kind} {unknown:?}");
    }
}

#[test]
fn every_field_of_the_mesh_configuration_survives() {
    let value = full(&schema_of::<MeshConfig>());
    let config: MeshConfig = from_value(&value).unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap(), value);

    let value = full(&schema_of::<ProxyConfig>());
    let config: ProxyConfig = from_value(&value).unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap(), value);
    // What is set wins over nothing, and nothing does not win over what is set.
    assert_eq!(ProxyConfig::default().overlaid(&config), config);
    assert_eq!(config.overlaid(&ProxyConfig::default()), config);
}
