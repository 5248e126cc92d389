//! Looking into the JSON of a pod. What is absent or of another shape is empty: the API server checks shapes.

use mesh_api::labels::Labels;
use serde_json::{Map, Value};

/// The text at a JSON pointer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// An annotation of a pod.
pub(super) fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// All annotations of a pod whose values are texts.
pub(super) fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
}

/// A label of a pod.
pub(super) fn label<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod.pointer("/metadata/labels")?.get(name)?.as_str()
}

/// All labels of a pod whose values are texts.
pub(super) fn labels(pod: &Value) -> Labels {
    let map = pod.pointer("/metadata/labels").and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

/// The label, unless it is empty: as a template's `default` sees it.
pub(super) fn filled_label<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    label(pod, name).filter(|value| !value.is_empty())
}

/// A list of the pod's specification.
pub(super) fn list<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    pod.pointer("/spec").and_then(|spec| spec.get(field)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The containers of both kinds, init containers first.
pub(super) fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "initContainers").iter().chain(list(pod, "containers"))
}

/// The name of an item of a list.
pub(super) fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The item of that name.
pub(super) fn find<'a>(list: &'a [Value], wanted: &str) -> Option<&'a Value> {
    list.iter().find(|item| name(item) == wanted)
}

/// The object in `field`, made where there is none.
pub(super) fn object_mut<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    as_object(as_object(value).entry(field).or_insert_with(|| Value::Object(Map::new())))
}

/// The annotations of a pod, made where there are none.
pub(super) fn annotations_mut(pod: &mut Value) -> &mut Map<String, Value> {
    as_object(object_mut(pod, "metadata").entry("annotations").or_insert_with(|| Value::Object(Map::new())))
}

/// The labels of a pod, made where there are none.
pub(super) fn labels_mut(pod: &mut Value) -> &mut Map<String, Value> {
    as_object(object_mut(pod, "metadata").entry("labels").or_insert_with(|| Value::Object(Map::new())))
}

/// A list of the pod's specification, where there is one.
pub(super) fn list_mut<'a>(pod: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    pod.get_mut("spec")?.get_mut(field)?.as_array_mut()
}

/// A list of the pod's specification, made where there is none.
pub(super) fn list_made<'a>(pod: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let list = object_mut(pod, "spec").entry(field).or_insert_with(|| Value::Array(Vec::new()));
    as_array(list)
}

/// The proxy's container, of either kind.
pub(super) fn proxy_mut(pod: &mut Value) -> Option<&mut Value> {
    let spec = pod.get_mut("spec")?.as_object_mut()?;
    let field = ["containers", "initContainers"].into_iter().find(|field| {
        let list = spec.get(*field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        find(list, super::PROXY_CONTAINER).is_some()
    })?;
    spec.get_mut(field)?.as_array_mut()?.iter_mut().find(|item| name(item) == super::PROXY_CONTAINER)
}

/// The list in `field` of an object, made where there is none.
pub(super) fn inner_list<'a>(value: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    as_array(as_object(value).entry(field).or_insert_with(|| Value::Array(Vec::new())))
}

/// The value as an object; anything else is replaced by an empty one.
pub(super) fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("an object was put there just now"),
    }
}

fn as_array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("an array was put there just now"),
    }
}

/// `true` and `false` as Go's `strconv.ParseBool` reads them.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
