//! Who the peer is, in the words that Istio's proxies exchange: the `x-envoy-peer-metadata` header, and baggage.
//!
//! The header is base64 of a `google.protobuf.Struct` under Istio's keys (istio/proxy: `extensions/common/metadata_object.cc`).
//! The struct is read here by hand, because it comes from a peer: sizes and depth are bounded, and only the few texts that
//! are used are looked at. Reading is rare: the shell remembers a workload by the peer's id.

use mesh_api::text::Str;

use super::{Workload, WorkloadKind, base64};

/// Label of the canonical service.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Label of the canonical revision.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Label of the application.
pub const APP: &str = "app";
/// Label of its version.
pub const VERSION: &str = "version";

/// Largest header value that is read. Istio's is about 500 bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Longest text that is taken from a peer; Kubernetes names have at most 253 bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Most fields of one struct that are read.
const MAX_FIELDS: usize = 256;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Workload {
    /// The value of `x-envoy-peer-metadata` for this workload. Equal workloads give equal bytes.
    #[must_use]
    pub fn to_header(&self) -> String {
        base64::encode(&self.to_struct())
    }

    /// The serialized `google.protobuf.Struct`, keys in order; also what TCP metadata exchange sends.
    #[must_use]
    pub fn to_struct(&self) -> Vec<u8> {
        let mut labels = Vec::new();
        for (key, value) in [
            (APP, &self.app),
            (CANONICAL_NAME, &self.service),
            (CANONICAL_REVISION, &self.revision),
            (VERSION, &self.version),
        ] {
            put_text(&mut labels, key, value);
        }
        let owner = self.kind.as_str().map(|kind| {
            Str::from(format!("kubernetes://apis/apps/v1/namespaces/{}/{kind}s/{}", self.namespace, self.name))
        });
        let mut out = Vec::with_capacity(labels.len() + 256);
        put_text(&mut out, "CLUSTER_ID", &self.cluster);
        // `Value.struct_value` is field 5. Istio writes it even when it is empty.
        put_entry(&mut out, "LABELS", 5, &labels);
        put_text(&mut out, "NAME", &self.instance);
        put_text(&mut out, "NAMESPACE", &self.namespace);
        put_text(&mut out, "OWNER", &owner.unwrap_or_default());
        put_text(&mut out, "WORKLOAD_NAME", &self.name);
        out
    }

    /// Reads the value of `x-envoy-peer-metadata`; `None` when it is not one. Keys that metrics do not need are skipped.
    #[must_use]
    pub fn from_header(value: &[u8]) -> Option<Self> {
        if value.is_empty() || value.len() > MAX_HEADER_BYTES {
            return None;
        }
        Self::from_struct(&base64::decode(value)?)
    }

    /// Reads the serialized struct.
    #[must_use]
    pub fn from_struct(bytes: &[u8]) -> Option<Self> {
        let mut workload = Self::default();
        let mut owner = Str::empty();
        read_struct(bytes, |key, value| {
            match (key, value) {
                ("NAME", Value::Text(text)) => workload.instance = text.into(),
                ("NAMESPACE", Value::Text(text)) => workload.namespace = text.into(),
                ("CLUSTER_ID", Value::Text(text)) => workload.cluster = text.into(),
                ("WORKLOAD_NAME", Value::Text(text)) => workload.name = text.into(),
                ("OWNER", Value::Text(text)) => owner = text.into(),
                ("LABELS", Value::Struct(labels)) => read_struct(labels, |key, value| {
                    match (key, value) {
                        (CANONICAL_NAME, Value::Text(text)) => workload.service = text.into(),
                        (CANONICAL_REVISION, Value::Text(text)) => workload.revision = text.into(),
                        (APP, Value::Text(text)) => workload.app = text.into(),
                        (VERSION, Value::Text(text)) => workload.version = text.into(),
                        _ => {}
                    }
                    Some(())
                })?,
                _ => {}
            }
            Some(())
        })?;
        workload.kind = WorkloadKind::of_owner(&owner, &workload.name);
        Some(workload)
    }

    /// Reads a `baggage` value (W3C Baggage) as Istio's waypoints and ztunnels write it; members that are not known, and
    /// properties, are skipped. `None` when it says nothing about a workload.
    #[must_use]
    pub fn from_baggage(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_HEADER_BYTES)?;
        let mut workload = Self::default();
        let mut found = false;
        for member in text.split(',').take(MAX_FIELDS) {
            let Some((key, value)) = member.split_once('=') else { continue };
            let value = value.split(';').next().unwrap_or_default().trim();
            if value.len() > MAX_TEXT_BYTES {
                continue;
            }
            let slot = match key.trim() {
                "k8s.namespace.name" => &mut workload.namespace,
                "k8s.cluster.name" => &mut workload.cluster,
                "service.name" => &mut workload.service,
                "service.version" => &mut workload.revision,
                "app.name" => &mut workload.app,
                "app.version" => &mut workload.version,
                "k8s.instance.name" => &mut workload.instance,
                owner => {
                    let Some(kind) = WorkloadKind::of_baggage(owner) else { continue };
                    workload.kind = kind;
                    &mut workload.name
                }
            };
            *slot = value.into();
            found = true;
        }
        found.then_some(workload)
    }
}

/// A value of a struct; what is not text or struct is of no use here.
pub(super) enum Value<'a> {
    Text(&'a str),
    Struct(&'a [u8]),
    Other,
}

/// Calls `visit` for each field of a serialized `google.protobuf.Struct`; later duplicates win, as in every map of protobuf.
pub(super) fn read_struct<'a>(bytes: &'a [u8], mut visit: impl FnMut(&'a str, Value<'a>) -> Option<()>) -> Option<()> {
    let mut rest = bytes;
    for _ in 0..MAX_FIELDS {
        if rest.is_empty() {
            return Some(());
        }
        let Field { number, content, tail } = read_field(rest)?;
        rest = tail;
        if let (1, Some(entry)) = (number, content) {
            let (mut key, mut value) = ("", Value::Other);
            let mut entry = entry;
            while !entry.is_empty() {
                let Field { number, content, tail } = read_field(entry)?;
                entry = tail;
                match (number, content) {
                    (1, Some(text)) => key = std::str::from_utf8(text).ok()?,
                    (2, Some(message)) => value = read_value(message)?,
                    _ => {}
                }
            }
            visit(key, value)?;
        }
    }
    rest.is_empty().then_some(())
}

/// A serialized `google.protobuf.Value`.
fn read_value(message: &[u8]) -> Option<Value<'_>> {
    let (mut value, mut rest) = (Value::Other, message);
    while !rest.is_empty() {
        let Field { number, content, tail } = read_field(rest)?;
        rest = tail;
        value = match (number, content) {
            (3, Some(text)) => {
                let text = std::str::from_utf8(text).ok()?;
                // A name this long is nonsense, and label values cost memory for as long as the process lives.
                if text.len() <= MAX_TEXT_BYTES { Value::Text(text) } else { Value::Other }
            }
            (5, Some(fields)) => Value::Struct(fields),
            _ => Value::Other,
        };
    }
    Some(value)
}

/// One field on the wire; `content` is there for length-delimited ones.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) content: Option<&'a [u8]>,
    pub(super) tail: &'a [u8],
}

pub(super) fn read_field(bytes: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = read_varint(bytes)?;
    let number = tag >> 3;
    let (content, tail) = match tag & 7 {
        VARINT => (None, read_varint(rest)?.1),
        FIXED64 => (None, rest.get(8..)?),
        FIXED32 => (None, rest.get(4..)?),
        BYTES => {
            let (len, rest) = read_varint(rest)?;
            let (content, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Some(content), tail)
        }
        // Groups are not used by any message that is read here.
        _ => return None,
    };
    (number > 0).then_some(Field { number, content, tail })
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(place * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

/// Appends an entry with a text, unless it is empty.
fn put_text(out: &mut Vec<u8>, key: &str, value: &Str) {
    if !value.is_empty() {
        put_entry(out, key, 3, value.as_bytes());
    }
}

/// Appends `fields { key, value { <number>: content } }`.
pub(super) fn put_entry(out: &mut Vec<u8>, key: &str, number: u8, content: &[u8]) {
    let (mut value, mut entry) = (Vec::new(), Vec::new());
    put_bytes(&mut value, number, content);
    put_bytes(&mut entry, 1, key.as_bytes());
    put_bytes(&mut entry, 2, &value);
    put_bytes(out, 1, &entry);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    let mut len = content.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).unwrap_or_default() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap_or_default());
    out.extend_from_slice(content);
}
