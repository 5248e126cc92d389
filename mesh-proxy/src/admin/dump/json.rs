//! Messages as JSON in proto3's mapping, straight from their bytes: a dump shows what was received, not what was understood.
//!
//! Names of fields are those of the protos, as Envoy writes them. The bytes were accepted once by the strict codec; still
//! depth is bounded and nothing is assumed about them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::schema::{Bits, Field, Kind, Scalar, Schema, Shape};

/// Deepest nesting that is followed; prost's own limit is 100.
const MAX_DEPTH: usize = 100;
/// What stands for a secret, as in Envoy.
const REDACTED: &str = "[redacted]";
/// Fields whose content is never shown (Envoy marks them `sensitive`).
const SENSITIVE: [(&str, &str); 4] = [
    ("envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "private_key"),
    ("envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "password"),
    ("envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys", "keys"),
    ("envoy.extensions.transport_sockets.tls.v3.GenericSecret", "secret"),
];

/// Bytes that are no message of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of this type")]
pub(super) struct Malformed;

/// A field on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// A message of this type as an `Any`: its fields and `@type`.
pub(super) fn any(schema: &Schema, type_url: &str, bytes: &[u8]) -> Result<Value, Malformed> {
    Reader { schema, sensitive: false, gaps: Gaps::Skip }.any(type_url, bytes, 0)
}

/// What becomes of fields and types that the table does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gaps {
    /// They are left out, or shown as bytes.
    Skip,
    /// They are an error: the table should know everything that our codec writes.
    #[cfg(test)]
    Refuse,
}

#[derive(Clone, Copy)]
struct Reader<'s> {
    schema: &'s Schema,
    /// What is read now is a secret.
    sensitive: bool,
    gaps: Gaps,
}

impl Reader<'_> {
    fn any(self, type_url: &str, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let name = type_url.rsplit('/').next().unwrap_or_default();
        let mut object = Map::new();
        object.insert("@type".to_owned(), Value::from(type_url));
        if self.schema.message(name).is_some() {
            object.extend(self.message(name, bytes, depth + 1)?);
        } else if let Some(kind) = well_known(name) {
            object.insert("value".to_owned(), self.content(&kind, bytes, depth + 1)?);
        } else if self.gaps == Gaps::Skip {
            object.insert("value".to_owned(), Value::from(BASE64.encode(bytes)));
        } else {
            return Err(Malformed);
        }
        Ok(Value::Object(object))
    }

    fn message(self, name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        let fields = self.schema.message(name).ok_or(Malformed)?;
        let mut object = Map::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire, tail) = read(rest)?;
            rest = tail;
            let Some(field) = fields.iter().find(|field| field.number == number) else {
                if self.gaps == Gaps::Skip {
                    continue;
                }
                return Err(Malformed);
            };
            let sensitive = self.sensitive || SENSITIVE.contains(&(name, field.name));
            Reader { sensitive, ..self }.field(field, wire, &mut object, depth)?;
        }
        Ok(object)
    }

    fn field(
        self,
        field: &Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Malformed> {
        match field.shape {
            Shape::One => {
                let value = self.value(&field.kind, wire, depth)?;
                // A message that occurs twice is merged; here the later one wins, which differs for no encoder's output.
                object.insert(field.name.to_owned(), value);
            }
            Shape::Many => {
                let Value::Array(list) = object.entry(field.name).or_insert_with(|| json!([])) else {
                    return Err(Malformed);
                };
                match (wire, &field.kind) {
                    (Wire::Bytes(packed), Kind::Scalar(scalar)) if scalar.is_packable() => {
                        let mut rest = packed;
                        while !rest.is_empty() {
                            let (wire, tail) = scalar.read_packed(rest)?;
                            rest = tail;
                            list.push(self.scalar(*scalar, wire)?);
                        }
                    }
                    (Wire::Bytes(packed), Kind::Enum(_)) => {
                        let mut rest = packed;
                        while !rest.is_empty() {
                            let (number, tail) = varint(rest)?;
                            rest = tail;
                            list.push(self.value(&field.kind, Wire::Varint(number), depth)?);
                        }
                    }
                    _ => list.push(self.value(&field.kind, wire, depth)?),
                }
            }
            Shape::Map => {
                let Wire::Bytes(entry) = wire else { return Err(Malformed) };
                let (key, value) = map_entry(entry)?;
                let value = self.value(&field.kind, value.unwrap_or(Wire::Bytes(b"")), depth)?;
                let Value::Object(map) = object.entry(field.name).or_insert_with(|| json!({})) else {
                    return Err(Malformed);
                };
                map.insert(text(key)?.to_owned(), value);
            }
        }
        Ok(())
    }

    fn value(self, kind: &Kind, wire: Wire<'_>, depth: usize) -> Result<Value, Malformed> {
        match (kind, wire) {
            (Kind::Scalar(scalar), wire) => self.scalar(*scalar, wire),
            (Kind::Enum(name), Wire::Varint(number)) => {
                let number = number.cast_signed();
                Ok(self.schema.value(name, number).map_or_else(|| Value::from(number), Value::from))
            }
            (kind, Wire::Bytes(bytes)) => self.content(kind, bytes, depth + 1),
            _ => Err(Malformed),
        }
    }

    /// A message of any kind.
    fn content(self, kind: &Kind, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        Ok(match kind {
            Kind::Message(name) => Value::Object(self.message(name, bytes, depth)?),
            Kind::Wrapper(scalar) => match fields(bytes)?.get(&1) {
                Some(wire) => self.scalar(*scalar, *wire)?,
                None => scalar.zero(),
            },
            Kind::Any => {
                let fields = fields(bytes)?;
                let part = |number| match fields.get(&number) {
                    Some(Wire::Bytes(bytes)) => *bytes,
                    _ => &[][..],
                };
                self.any(text(part(1))?, part(2), depth)?
            }
            Kind::Struct => Value::Object(self.structure(bytes, depth)?),
            Kind::Value => self.dynamic(bytes, depth)?,
            Kind::List => {
                let mut list = Vec::new();
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (number, wire, tail) = read(rest)?;
                    rest = tail;
                    if let (1, Wire::Bytes(value)) = (number, wire) {
                        list.push(self.dynamic(value, depth + 1)?);
                    }
                }
                Value::Array(list)
            }
            Kind::Duration => Value::from(duration(bytes)?),
            Kind::Timestamp => Value::from(duration(bytes)?),
            Kind::Empty => json!({}),
            Kind::Scalar(_) | Kind::Enum(_) => return Err(Malformed),
        })
    }

    fn scalar(self, scalar: Scalar, wire: Wire<'_>) -> Result<Value, Malformed> {
        Ok(match (scalar, wire) {
            (Scalar::Bool, Wire::Varint(number)) => Value::from(number != 0),
            // The lower half of the sign-extended varint.
            #[expect(clippy::cast_possible_truncation, reason = "as the encoding of negative 32 bit numbers has it")]
            (Scalar::Signed(Bits::B32), Wire::Varint(number)) => Value::from(number as i32),
            (Scalar::Signed(Bits::B64), Wire::Varint(number)) => Value::from(number.cast_signed().to_string()),
            #[expect(clippy::cast_possible_truncation, reason = "decoders drop what does not fit")]
            (Scalar::Unsigned(Bits::B32), Wire::Varint(number)) => Value::from(number as u32),
            (Scalar::Unsigned(Bits::B64), Wire::Varint(number)) => Value::from(number.to_string()),
            (Scalar::Double, Wire::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
            (Scalar::Float, Wire::Fixed32(bits)) => Value::from(f32::from_bits(bits)),
            (Scalar::Text, Wire::Bytes(bytes)) => Value::from(if self.sensitive { REDACTED } else { text(bytes)? }),
            (Scalar::Bytes, Wire::Bytes(bytes)) => {
                Value::from(BASE64.encode(if self.sensitive { REDACTED.as_bytes() } else { bytes }))
            }
            _ => return Err(Malformed),
        })
    }

    /// `google.protobuf.Struct`.
    fn structure(self, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Malformed> {
        let mut object = Map::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire, tail) = read(rest)?;
            rest = tail;
            if let (1, Wire::Bytes(entry)) = (number, wire) {
                let (key, value) = map_entry(entry)?;
                let value = match value {
                    Some(Wire::Bytes(value)) => self.dynamic(value, depth + 1)?,
                    _ => Value::Null,
                };
                object.insert(text(key)?.to_owned(), value);
            }
        }
        Ok(object)
    }

    /// `google.protobuf.Value`.
    fn dynamic(self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        let mut value = Value::Null;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire, tail) = read(rest)?;
            rest = tail;
            value = match (number, wire) {
                (2, Wire::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
                (3, Wire::Bytes(bytes)) => Value::from(text(bytes)?),
                (4, Wire::Varint(number)) => Value::from(number != 0),
                (5, Wire::Bytes(bytes)) => Value::Object(self.structure(bytes, depth + 1)?),
                (6, Wire::Bytes(bytes)) => self.content(&Kind::List, bytes, depth + 1)?,
                _ => Value::Null,
            };
        }
        Ok(value)
    }
}

impl Scalar {
    const fn is_packable(self) -> bool {
        !matches!(self, Self::Text | Self::Bytes)
    }

    fn read_packed(self, bytes: &[u8]) -> Result<(Wire<'_>, &[u8]), Malformed> {
        match self {
            Self::Double => fixed(bytes).map(|(raw, rest)| (Wire::Fixed64(u64::from_le_bytes(raw)), rest)),
            Self::Float => fixed(bytes).map(|(raw, rest)| (Wire::Fixed32(u32::from_le_bytes(raw)), rest)),
            _ => varint(bytes).map(|(number, rest)| (Wire::Varint(number), rest)),
        }
    }

    /// What a wrapper without content means.
    fn zero(self) -> Value {
        match self {
            Self::Bool => Value::from(false),
            Self::Signed(Bits::B32) | Self::Unsigned(Bits::B32) => Value::from(0),
            Self::Signed(Bits::B64) | Self::Unsigned(Bits::B64) => Value::from("0"),
            Self::Double | Self::Float => Value::from(0.0),
            Self::Text | Self::Bytes => Value::from(""),
        }
    }
}

/// Well-known types that may stand in an `Any` with their value alone.
fn well_known(name: &str) -> Option<Kind> {
    Some(match name {
        "google.protobuf.Struct" => Kind::Struct,
        "google.protobuf.Value" => Kind::Value,
        "google.protobuf.Duration" => Kind::Duration,
        "google.protobuf.BoolValue" => Kind::Wrapper(Scalar::Bool),
        "google.protobuf.StringValue" => Kind::Wrapper(Scalar::Text),
        "google.protobuf.UInt32Value" => Kind::Wrapper(Scalar::Unsigned(Bits::B32)),
        "google.protobuf.Empty" => Kind::Empty,
        _ => return None,
    })
}

/// `1.500s`: seconds and as many digits of fraction as are needed, by threes.
fn duration(bytes: &[u8]) -> Result<String, Malformed> {
    let fields = fields(bytes)?;
    let number = |at| match fields.get(&at) {
        Some(Wire::Varint(number)) => number.cast_signed(),
        _ => 0,
    };
    let (seconds, nanos) = (number(1), number(2));
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    Ok(match nanos {
        0 => format!("{sign}{seconds}s"),
        nanos if nanos % 1_000_000 == 0 => format!("{sign}{seconds}.{:03}s", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{sign}{seconds}.{:06}s", nanos / 1_000),
        nanos => format!("{sign}{seconds}.{nanos:09}s"),
    })
}

/// Fields of a small message; the last of each number.
fn fields(bytes: &[u8]) -> Result<BTreeMap<u32, Wire<'_>>, Malformed> {
    let mut found = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, wire, tail) = read(rest)?;
        rest = tail;
        found.insert(number, wire);
    }
    Ok(found)
}

/// Key and value of a map's entry; maps here have texts as keys.
fn map_entry(entry: &[u8]) -> Result<(&[u8], Option<Wire<'_>>), Malformed> {
    let fields = fields(entry)?;
    let key = match fields.get(&1) {
        Some(Wire::Bytes(key)) => key,
        None => &[][..],
        Some(_) => return Err(Malformed),
    };
    Ok((key, fields.get(&2).copied()))
}

fn read(bytes: &[u8]) -> Result<(u32, Wire<'_>, &[u8]), Malformed> {
    let (tag, rest) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
    let (wire, rest) = match tag & 7 {
        0 => varint(rest).map(|(number, rest)| (Wire::Varint(number), rest))?,
        1 => fixed(rest).map(|(raw, rest)| (Wire::Fixed64(u64::from_le_bytes(raw)), rest))?,
        2 => {
            let (len, rest) = varint(rest)?;
            let len = usize::try_from(len).map_err(|_| Malformed)?;
            let (content, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
            (Wire::Bytes(content), rest)
        }
        5 => fixed(rest).map(|(raw, rest)| (Wire::Fixed32(u32::from_le_bytes(raw)), rest))?,
        _ => return Err(Malformed),
    };
    Ok((number, wire, rest))
}

fn fixed<const LEN: usize>(bytes: &[u8]) -> Result<([u8; LEN], &[u8]), Malformed> {
    bytes.split_first_chunk().map(|(raw, rest)| (*raw, rest)).ok_or(Malformed)
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return bytes.get(place + 1..).map(|rest| (value, rest)).ok_or(Malformed);
        }
    }
    Err(Malformed)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use mesh_api_xds::codec;
    use mesh_api_xds::ir::Resource;
    use mesh_api_xds::testing::arb_resource;
    use proptest::prelude::{any as arbitrary, proptest};

    use super::*;

    /// `field number, length-delimited`.
    fn put(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    #[test]
    fn durations_have_the_digits_they_need() {
        let check = |bytes: &[u8], expect: &str| assert_eq!(duration(bytes).unwrap(), expect);
        check(&[], "0s");
        check(&[8, 10], "10s");
        check(&[8, 1, 16, 0x80, 0xca, 0xb5, 0xee, 0x01], "1.500s");
        check(&[16, 1], "0.000000001s");
        check(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "-1s");
    }

    #[test]
    fn keys_are_never_shown() {
        let key = put(2, &put(2, b"-----BEGIN PRIVATE KEY-----"));
        let chain = put(1, &put(2, b"PUBLIC"));
        let secret = [put(1, b"default"), put(2, &[chain, key].concat())].concat();
        let url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        let value = any(&Schema::read(), url, &secret).unwrap();
        let certificate = &value["tls_certificate"];
        assert_eq!(value["name"], "default");
        assert_eq!(certificate["certificate_chain"]["inline_bytes"], BASE64.encode("PUBLIC"));
        assert_eq!(certificate["private_key"]["inline_bytes"], BASE64.encode(REDACTED));
        assert!(!value.to_string().contains(&BASE64.encode("-----BEGIN")));
    }

    #[test]
    fn unknown_types_are_shown_as_bytes() {
        let value = any(&Schema::read(), "type.googleapis.com/foreign.Type", b"\x08\x01").unwrap();
        assert_eq!(value, json!({ "@type": "type.googleapis.com/foreign.Type", "value": "CAE=" }));
    }

    proptest! {
        #[test]
        fn everything_that_the_codec_writes_is_in_the_table(resource in arb_resource()) {
            // Names are no message of Envoy's; they have a page of their own.
            if matches!(resource, Resource::Names(_)) {
                return Ok(());
            }
            let schema = Schema::read();
            // What cannot be said in Envoy's messages is refused by the codec, and not its matter here.
            let Ok(encoded) = codec::encode(&resource) else { return Ok(()) };
            let reader = Reader { schema: &schema, sensitive: false, gaps: Gaps::Refuse };
            let url = codec::type_of(&resource).as_str();
            assert!(reader.any(url, &encoded.bytes, 0).is_ok(), "{resource:?}");
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(arbitrary::<u8>(), 0..200)) {
            let schema = Schema::read();
            for name in ["envoy.config.listener.v3.Listener", "envoy.config.route.v3.RouteConfiguration"] {
                let _ = any(&schema, name, &bytes);
            }
        }
    }
}
