//! YAML to an untyped value under a budget, so that aliases cannot make a small text into a large value.

use std::{cell::Cell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::MAX_DEPTH;
use crate::codes::Code;

/// Why a document is no value.
#[derive(Debug)]
pub(super) struct ValueError {
    /// The line within the document, from 1.
    pub(super) line: usize,
    pub(super) code: Code,
    pub(super) message: String,
}

/// Reads one document.
pub(super) fn read(text: &str) -> Result<Value, ValueError> {
    check_brackets(text)?;
    let state = State {
        // Without aliases a value costs at most two units for each byte of its text.
        budget: Cell::new(text.len().saturating_mul(4).saturating_add(1 << 16)),
        too_large: Cell::new(false),
    };
    let seed = Node { state: &state, depth: 0 };
    match seed.deserialize(serde_yaml_ng::Deserializer::from_str(text)) {
        Ok(value) => Ok(value),
        Err(error) => {
            let limits = ["recursion limit", "repetition limit"];
            let text = error.to_string();
            let too_large = state.too_large.get() || limits.iter().any(|limit| text.contains(limit));
            Err(ValueError {
                line: error.location().map_or(1, |l| l.line()),
                code: if too_large { Code::TooLarge } else { Code::Syntax },
                message: text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before).to_owned(),
            })
        }
    }
}

/// The YAML scanner's time is quadratic in the number of open brackets, long before the reader sees the first. Quotes
/// are not looked at, so the bound is far above what any text has by chance.
fn check_brackets(text: &str) -> Result<(), ValueError> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            let line = text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
            let message = "the document is nested too deeply".to_owned();
            return Err(ValueError { line, code: Code::TooLarge, message });
        }
    }
    Ok(())
}

/// Brackets that are not closed again, in the document as a whole.
const MAX_OPEN_BRACKETS: usize = 10_000;

struct State {
    budget: Cell<usize>,
    too_large: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Node<'a> {
    state: &'a State,
    depth: usize,
}

impl Node<'_> {
    /// Every node costs one unit and the bytes of its text.
    fn spend<E: de::Error>(&self, bytes: usize) -> Result<(), E> {
        match self.state.budget.get().checked_sub(bytes + 1) {
            Some(left) => {
                self.state.budget.set(left);
                Ok(())
            }
            None => Err(self.too_large("the document grows too much by its aliases")),
        }
    }

    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.too_large("the document is nested too deeply"));
        }
        Ok(Self { state: self.state, depth: self.depth + 1 })
    }

    fn too_large<E: de::Error>(&self, message: &str) -> E {
        self.state.too_large.set(true);
        E::custom(message)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without YAML tags")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("infinity and NaN are not values here"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.spend(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let inner = self.deeper()?;
        let mut map = Map::new();
        let mut merges = Vec::new();
        while let Some(key) = entries.next_key_seed(Key(inner))? {
            let value = entries.next_value_seed(inner)?;
            if key == "<<" {
                merges.push(value);
            } else if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} is there twice")));
            } else {
                map.insert(key, value);
            }
        }
        for merge in merges {
            apply_merge(&mut map, merge)?;
        }
        Ok(Value::Object(map))
    }
}

/// YAML's merge key: what is there stays, earlier mappings win over later ones.
fn apply_merge<E: de::Error>(map: &mut Map<String, Value>, merge: Value) -> Result<(), E> {
    match merge {
        Value::Object(from) => {
            for (key, value) in from {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.into_iter().try_for_each(|item| apply_merge(map, item))
        }
        _ => Err(E::custom("the merge key << needs a mapping or a list of mappings")),
    }
}

/// A key of a mapping: text, or a number or truth value taken as text.
struct Key<'a>(Node<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain key")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        self.0.spend(text.len())?;
        Ok(text.to_owned())
    }
}
