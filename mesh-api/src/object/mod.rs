//! `Object<S>`: metadata and a spec, read straight from YAML or JSON without an untyped value in between.

mod any;

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor, value::StrDeserializer},
};

pub use self::any::AnyObject;
use crate::{ids::ObjectKey, kinds::Kind, meta::Meta, text::Str};

/// Where a kind keeps its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In `spec`, with an optional `status` beside it.
    Spec,
    /// Beside `metadata` at the top, as Secrets and EndpointSlices do.
    Flat,
}

/// The content of a kind. Implemented by the table of kinds and by nobody else.
pub trait Spec: Clone + fmt::Debug + Default + PartialEq + Serialize + for<'de> Deserialize<'de> + Send + Sync {
    /// The kind.
    const KIND: Kind;
    /// Where the content is.
    const LAYOUT: Layout;
    /// What the kind's `status` holds.
    type Status: Clone + fmt::Debug + Default + PartialEq + Serialize + for<'de> Deserialize<'de> + Send + Sync;
}

/// An object of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<S: Spec> {
    /// Name, namespace, labels and so on.
    pub meta: Meta,
    /// What its author wants.
    pub spec: S,
    /// What was observed, if anything.
    pub status: Option<S::Status>,
}

impl<S: Spec> Object<S> {
    /// An object without a status.
    pub fn new(meta: Meta, spec: S) -> Self {
        Self { meta, spec, status: None }
    }

    /// What identifies it, without its cluster.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        self.meta.key(S::KIND)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NestedOut<'a, S: Spec> {
    api_version: String,
    kind: Kind,
    metadata: &'a Meta,
    spec: &'a S,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: &'a Option<S::Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FlatOut<'a, S> {
    api_version: String,
    kind: Kind,
    metadata: &'a Meta,
    #[serde(flatten)]
    content: &'a S,
}

impl<S: Spec> Serialize for Object<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let (kind, metadata) = (S::KIND, &self.meta);
        let api_version = kind.info().api_version();
        match S::LAYOUT {
            Layout::Spec => {
                NestedOut { api_version, kind, metadata, spec: &self.spec, status: &self.status }.serialize(serializer)
            }
            Layout::Flat => FlatOut { api_version, kind, metadata, content: &self.spec }.serialize(serializer),
        }
    }
}

impl<'de, S: Spec> Deserialize<'de> for Object<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<S>(PhantomData<S>);

impl<'de, S: Spec> Visitor<'de> for ObjectVisitor<S> {
    type Value = Object<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", S::KIND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<S>, A::Error> {
        let mut object = Object::<S>::default();
        match S::LAYOUT {
            Layout::Flat => {
                object.spec =
                    S::deserialize(de::value::MapAccessDeserializer::new(WithoutMeta { map, meta: &mut object.meta }))?;
            }
            Layout::Spec => {
                while let Some(key) = map.next_key::<Str>()? {
                    match key.as_str() {
                        "metadata" => object.meta = map.next_value()?,
                        "spec" => object.spec = map.next_value::<Option<S>>()?.unwrap_or_default(),
                        "status" => object.status = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
            }
        }
        Ok(object)
    }
}

/// Hands on every key but those that all objects have, so that a flat kind is an ordinary struct.
struct WithoutMeta<'a, A> {
    map: A,
    meta: &'a mut Meta,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutMeta<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<Str>()? {
            match key.as_str() {
                "metadata" => *self.meta = self.map.next_value()?,
                "apiVersion" | "kind" => {
                    self.map.next_value::<IgnoredAny>()?;
                }
                other => return seed.deserialize(StrDeserializer::new(other)).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::Object;
    use crate::crd::{
        core::{endpoint_slice::EndpointSlice, pod::Pod},
        networking::virtual_service::VirtualService,
    };

    #[test]
    fn a_nested_kind_round_trips() {
        let text = r#"{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"web","namespace":"shop"},"spec":{"hosts":["web"]}}"#;
        let object: Object<VirtualService> = serde_json::from_str(text).unwrap();
        assert_eq!(object.key().to_string(), "VirtualService/shop/web");
        assert_eq!(object.spec.hosts, ["web"]);
        assert_eq!(serde_json::to_string(&object).unwrap(), text);
    }

    #[test]
    fn a_flat_kind_round_trips_whatever_the_order_of_keys() {
        let text = r#"{"addressType":"IPv4","metadata":{"name":"web-1"},"kind":"EndpointSlice","endpoints":[{"addresses":["10.0.0.1"]}],"apiVersion":"discovery.k8s.io/v1"}"#;
        let object: Object<EndpointSlice> = serde_json::from_str(text).unwrap();
        assert_eq!(object.meta.name, "web-1");
        assert_eq!(object.spec.endpoints[0].addresses, ["10.0.0.1"]);
        let again = serde_json::to_string(&object).unwrap();
        assert_eq!(serde_json::from_str::<Object<EndpointSlice>>(&again).unwrap(), object);
        assert!(
            again.starts_with(r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata""#),
            "{again}"
        );
    }

    #[test]
    fn status_is_read_and_unread_fields_are_skipped() {
        let text = r#"{"metadata":{"name":"p"},"spec":{"serviceAccountName":"web","volumes":[{"deep":[[[]]]}]},"status":{"podIP":"10.0.0.1","qosClass":"x"},"extra":1}"#;
        let pod: Object<Pod> = serde_json::from_str(text).unwrap();
        assert_eq!(pod.spec.service_account_name, "web");
        assert_eq!(pod.status.unwrap().pod_ip, "10.0.0.1");
    }
}
