//! Metadata: our own namespace for what Envoy has no field for, and the namespaces that Istio defines.

use std::collections::HashMap;

use mesh_api::text::Str;
use serde_json::{Map, Value};

use super::value::{struct_from_json, struct_to_json};
use crate::ir::Origin;
use crate::pb;

/// Our namespace. Envoy ignores it.
const OURS: &str = "lateen";

/// Metadata under construction, or taken apart. Values of other namespaces are dropped: they tell consumers that we do not
/// have, and change no behaviour of the message itself.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    namespaces: Map<String, Value>,
}

impl Metadata {
    pub(super) fn read(message: Option<pb::core::Metadata>) -> Self {
        let fields = message.map(|message| message.filter_metadata).unwrap_or_default();
        Self { namespaces: fields.into_iter().map(|(key, content)| (key, struct_to_json(content))).collect() }
    }

    /// The message; none when there is nothing to say.
    pub(super) fn write(self) -> Option<pb::core::Metadata> {
        if self.namespaces.is_empty() {
            return None;
        }
        let fields = self.namespaces.into_iter().map(|(key, content)| (key, struct_from_json(content)));
        Some(pb::core::Metadata { filter_metadata: fields.collect(), typed_filter_metadata: HashMap::new() })
    }

    pub(super) fn set_in(&mut self, namespace: &str, key: &str, value: Value) {
        let fields = self.namespaces.entry(namespace).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(fields) = fields {
            fields.insert(key.to_owned(), value);
        }
    }

    pub(super) fn get_in(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.namespaces.get(namespace)?.get(key)
    }

    /// Sets one of our keys.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.set_in(OURS, key, value.into());
    }

    /// One of our keys.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.get_in(OURS, key)
    }

    /// One of our keys as text; empty when there is none.
    pub(super) fn text(&self, key: &str) -> Str {
        self.get(key).and_then(Value::as_str).map_or_else(Str::empty, Str::from)
    }

    /// Sets one of our keys to a text, unless that is empty.
    pub(super) fn set_text(&mut self, key: &str, text: &Str) {
        if !text.is_empty() {
            self.set(key, text.as_str());
        }
    }

    pub(super) fn set_origin(&mut self, key: &str, origin: &Origin) {
        self.set_text(key, &origin.0);
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        Origin(self.text(key))
    }
}
