//! JSON values as `google.protobuf.Struct`, and back.

use serde_json::{Map, Number, Value};

use crate::pb::protobuf::{self, ListValue, Struct, value::Kind};

/// A JSON object as a struct; anything else becomes an empty one. Numbers become doubles, as the message has no others.
pub(super) fn struct_from_json(value: Value) -> Struct {
    match value {
        Value::Object(fields) => {
            Struct { fields: fields.into_iter().map(|(key, value)| (key, from_json(value))).collect() }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Struct::default(),
    }
}

/// A struct as a JSON object.
pub(super) fn struct_to_json(content: Struct) -> Value {
    Value::Object(content.fields.into_iter().map(|(key, value)| (key, to_json(value))).collect::<Map<_, _>>())
}

fn from_json(value: Value) -> protobuf::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(from_json).collect() }),
        Value::Object(_) => Kind::StructValue(struct_from_json(value)),
    };
    protobuf::Value { kind: Some(kind) }
}

fn to_json(value: protobuf::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        // JSON has neither infinities nor NaN.
        Some(Kind::NumberValue(number)) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(to_json).collect()),
        Some(Kind::StructValue(content)) => struct_to_json(content),
    }
}
