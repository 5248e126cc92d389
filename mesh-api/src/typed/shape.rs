//! The shape of a kind: which fields exist where. Made from the same schema as the CRD, so it cannot drift from the
//! types that read the object.

use std::{collections::BTreeMap, sync::OnceLock};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use crate::{near::nearest, text::Str};

/// A tree of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A plain value, or one that is not looked into.
    Leaf,
    /// A struct with these fields.
    Fields(BTreeMap<String, Self>),
    /// A map from any key.
    Map(Box<Self>),
    /// A list.
    List(Box<Self>),
}

/// The shape of a whole object whose spec is `S`, made once into `cell`.
pub(crate) fn object_shape<S: JsonSchema>(cell: &'static OnceLock<Shape>) -> &'static Shape {
    cell.get_or_init(|| {
        let metadata = METADATA.iter().map(|field| ((*field).to_owned(), Shape::Leaf)).collect();
        Shape::Fields(BTreeMap::from([
            ("apiVersion".to_owned(), Shape::Leaf),
            ("kind".to_owned(), Shape::Leaf),
            ("metadata".to_owned(), Shape::Fields(metadata)),
            ("spec".to_owned(), Shape::of::<S>()),
            ("status".to_owned(), Shape::Leaf),
        ]))
    })
}

/// Kubernetes' ObjectMeta.
const METADATA: &[&str] = &[
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

impl Shape {
    /// The shape of a type.
    #[must_use]
    pub fn of<T: JsonSchema>() -> Self {
        Self::from_schema(&schema_of::<T>())
    }

    fn from_schema(schema: &Value) -> Self {
        if let Some(Value::Object(fields)) = schema.get("properties") {
            return Self::Fields(fields.iter().map(|(name, s)| (name.clone(), Self::from_schema(s))).collect());
        }
        if let Some(items) = schema.get("items") {
            return Self::List(Box::new(Self::from_schema(items)));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|s| s.is_object()) {
            return Self::Map(Box::new(Self::from_schema(values)));
        }
        // Numbers as keys.
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        if let Some(values) = patterns.and_then(|p| p.values().next()) {
            return Self::Map(Box::new(Self::from_schema(values)));
        }
        // An optional struct is "the struct or null".
        let variants = schema.get("anyOf").and_then(Value::as_array);
        let first = variants.into_iter().flatten().map(Self::from_schema).find(|shape| *shape != Self::Leaf);
        first.unwrap_or(Self::Leaf)
    }

    /// Calls `report` with the path and a hint for each field of `value` that the shape does not have.
    pub fn unknown_fields(&self, value: &Value, report: &mut dyn FnMut(Str, Str)) {
        self.walk(self, value, &mut String::new(), report);
    }

    fn walk(&self, root: &Self, value: &Value, path: &mut String, report: &mut dyn FnMut(Str, Str)) {
        let length = path.len();
        match (self, value) {
            (Self::Fields(fields), Value::Object(map)) => {
                for (name, value) in map {
                    push_field(path, name);
                    match fields.get(name) {
                        Some(shape) => shape.walk(root, value, path, report),
                        None => report(path.as_str().into(), hint(root, fields, name)),
                    }
                    path.truncate(length);
                }
            }
            (Self::Map(shape), Value::Object(map)) => {
                for (name, value) in map {
                    push_field(path, name);
                    shape.walk(root, value, path, report);
                    path.truncate(length);
                }
            }
            (Self::List(shape), Value::Array(items)) => {
                for (index, value) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    shape.walk(root, value, path, report);
                    path.truncate(length);
                }
            }
            // A value of the wrong type is for the typed reader to report.
            _ => {}
        }
    }

    /// Drops fields that are null, which Kubernetes takes for absent. Entries of maps and items of lists stay: there a
    /// null is a mistake, and dropping it would widen what the object matches.
    pub(crate) fn prune_nulls(&self, value: &mut Value) {
        match (self, value) {
            (Self::Fields(fields), Value::Object(map)) => {
                map.retain(|_, v| !v.is_null());
                for (name, value) in map {
                    if let Some(shape) = fields.get(name) {
                        shape.prune_nulls(value);
                    }
                }
            }
            (Self::Map(shape), Value::Object(map)) => map.values_mut().for_each(|value| shape.prune_nulls(value)),
            (Self::List(shape), Value::Array(items)) => items.iter_mut().for_each(|value| shape.prune_nulls(value)),
            _ => {}
        }
    }

    /// Where a field of this name is, for hints.
    fn find(&self, name: &str, path: &str) -> Option<String> {
        match self {
            Self::Leaf => None,
            Self::Map(shape) => shape.find(name, &format!("{path}.*")),
            Self::List(shape) => shape.find(name, &format!("{path}[]")),
            Self::Fields(fields) => {
                let join = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
                if fields.contains_key(name) {
                    return Some(join(name));
                }
                fields.iter().find_map(|(field, shape)| shape.find(name, &join(field)))
            }
        }
    }
}

fn push_field(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn hint(root: &Shape, fields: &BTreeMap<String, Shape>, name: &str) -> Str {
    if let Some(near) = nearest(name, fields.keys().map(String::as_str)) {
        return format!("did you mean {near}?").into();
    }
    root.find(name, "").map(|path| Str::from(format!("the field {name} is at {path}"))).unwrap_or_default()
}

/// The JSON schema of a type, without references.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
