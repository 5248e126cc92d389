//! What the fields of messages are called: the table in `messages.txt`, read anew for each dump so that nothing of it is
//! kept in memory.
//!
//! Notation of a field's type: `*` repeated, `%` a map from texts, `?` a wrapper message around a scalar, `#` an
//! enumeration, a leading `/` for `envoy.`, a leading `.` for the package of the message itself; else a scalar, a
//! well-known type or the full name of a message.

use std::collections::HashMap;

const TABLE: &str = include_str!("messages.txt");

/// All messages and enumerations, by full name.
#[derive(Debug)]
pub(super) struct Schema {
    messages: HashMap<&'static str, Vec<Field>>,
    enums: HashMap<&'static str, Vec<(i64, &'static str)>>,
}

/// A field of a message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
}

/// How often a field occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Many,
    Map,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar(Scalar),
    /// A message whose field 1 is a scalar, written like the scalar.
    Wrapper(Scalar),
    Enum(String),
    Message(String),
    Any,
    Struct,
    Value,
    List,
    Duration,
    Timestamp,
    Empty,
}

/// Scalars by the way they are written on the wire and in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    /// Signed, as a plain varint; 64 bits are text in JSON.
    Signed(Bits),
    Unsigned(Bits),
    Double,
    Float,
    Text,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    B32,
    B64,
}

impl Schema {
    /// Reads the table.
    pub(super) fn read() -> Self {
        let mut schema = Self { messages: HashMap::new(), enums: HashMap::new() };
        let mut message: Option<(&'static str, Vec<Field>)> = None;
        let mut values: Option<(&'static str, Vec<(i64, &'static str)>)> = None;
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            if let Some(inside) = line.strip_prefix("  ") {
                if let Some((name, fields)) = &mut message {
                    fields.extend(Field::parse(inside, name));
                } else if let Some((_, values)) = &mut values {
                    values.extend(inside.split_once(' ').and_then(|(number, name)| Some((number.parse().ok()?, name))));
                }
                continue;
            }
            schema.finish(message.take(), values.take());
            match line.strip_prefix("enum ") {
                Some(name) => values = Some((name, Vec::new())),
                None => message = Some((line, Vec::new())),
            }
        }
        schema.finish(message, values);
        schema
    }

    fn finish(
        &mut self,
        message: Option<(&'static str, Vec<Field>)>,
        values: Option<(&'static str, Vec<(i64, &'static str)>)>,
    ) {
        self.messages.extend(message);
        self.enums.extend(values);
    }

    /// Fields of a message; `None` when the table does not know it.
    pub(super) fn message(&self, name: &str) -> Option<&[Field]> {
        self.messages.get(name).map(Vec::as_slice)
    }

    /// Name of an enumeration's value.
    pub(super) fn value(&self, name: &str, number: i64) -> Option<&'static str> {
        self.enums.get(name)?.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
    }

    /// Names of all messages and what their fields refer to, for the test of the table.
    #[cfg(test)]
    fn references(&self) -> Vec<String> {
        let kinds = self.messages.values().flatten().map(|field| &field.kind);
        kinds
            .filter_map(|kind| match kind {
                Kind::Message(name) if !self.messages.contains_key(name.as_str()) => Some(name.clone()),
                Kind::Enum(name) if !self.enums.contains_key(name.as_str()) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }
}

impl Field {
    fn parse(line: &'static str, message: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (number, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let (shape, kind) = match kind.as_bytes().first()? {
            b'*' => (Shape::Many, kind.get(1..)?),
            b'%' => (Shape::Map, kind.get(1..)?),
            _ => (Shape::One, kind),
        };
        Some(Self { number, name, shape, kind: Kind::parse(kind, message)? })
    }
}

impl Kind {
    fn parse(text: &str, message: &str) -> Option<Self> {
        // Messages live in packages that end in their version; what follows are nested names.
        let package = message.split_inclusive(".v3.").next().unwrap_or_default();
        let full = |name: &str| match name.as_bytes().first() {
            Some(b'.') => format!("{package}{}", name.trim_start_matches('.')),
            Some(b'/') => format!("envoy.{}", name.trim_start_matches('/')),
            _ => name.to_owned(),
        };
        if let Some(name) = text.strip_prefix('#') {
            return Some(Self::Enum(full(name)));
        }
        if let Some(name) = text.strip_prefix('?') {
            return Scalar::parse(name).map(Self::Wrapper);
        }
        Some(match text {
            "any" => Self::Any,
            "struct" => Self::Struct,
            "value" => Self::Value,
            "list" => Self::List,
            "duration" => Self::Duration,
            "timestamp" => Self::Timestamp,
            "empty" => Self::Empty,
            text => Scalar::parse(text).map_or_else(|| Self::Message(full(text)), Self::Scalar),
        })
    }
}

impl Scalar {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "bool" => Self::Bool,
            "i32" => Self::Signed(Bits::B32),
            "i64" => Self::Signed(Bits::B64),
            "u32" => Self::Unsigned(Bits::B32),
            "u64" => Self::Unsigned(Bits::B64),
            "f64" => Self::Double,
            "f32" => Self::Float,
            "text" => Self::Text,
            "bytes" => Self::Bytes,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let schema = Schema::read();
        assert_eq!(schema.references(), Vec::<String>::new());
        let lines = TABLE.lines().filter(|line| line.starts_with("  ")).count();
        let read =
            schema.messages.values().map(Vec::len).sum::<usize>() + schema.enums.values().map(Vec::len).sum::<usize>();
        assert_eq!(read, lines);
        let cluster = schema.message("envoy.config.cluster.v3.Cluster").unwrap();
        let kind = cluster.iter().find(|field| field.name == "type").unwrap();
        assert_eq!(
            (kind.number, &kind.kind),
            (2, &Kind::Enum("envoy.config.cluster.v3.Cluster.DiscoveryType".to_owned()))
        );
        assert_eq!(schema.value("envoy.config.cluster.v3.Cluster.DiscoveryType", 3), Some("EDS"));
    }
}
