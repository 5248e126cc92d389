//! Paths of fields, and the line at which a path stands in a text.

use std::fmt;

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A path that grows on the stack while a value is walked.
#[derive(Debug)]
pub(super) enum Path<'p> {
    Root,
    Field(&'p Self, &'p str),
    Index(&'p Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The line (from 1) of the field `path` in one YAML document, or of its nearest parent that is there. Path and text
/// are those of a finding: `spec.http[0].timeout`. `None` when the text is not YAML.
#[must_use]
pub fn line_of(document: &str, path: &str) -> Option<usize> {
    let mut found = None;
    let mut path = path;
    // A missing field has no line of its own; its parent has one.
    while found.is_none() && !path.is_empty() {
        let seek = Seek { path };
        // The seeker always fails at its goal: only errors carry a line.
        found = match seek.deserialize(serde_yaml_ng::Deserializer::from_str(document)) {
            Err(error) if error.to_string().contains(FOUND) => error.location().map(|location| location.line()),
            Ok(()) => None,
            Err(_) => return None,
        };
        path = path.get(..path.rfind(['.', '[']).unwrap_or(0)).unwrap_or_default();
    }
    found
}

const FOUND: &str = "\u{1}found\u{1}";

/// Walks to `path` and fails there.
#[derive(Clone, Copy)]
struct Seek<'a> {
    path: &'a str,
}

impl Seek<'_> {
    /// The rest of the path below the field `name`. A name may itself hold dots.
    fn below(self, name: &str) -> Option<Self> {
        let rest = self.path.strip_prefix(name)?;
        match rest.strip_prefix('.') {
            Some(path) => Some(Self { path }),
            None if rest.is_empty() || rest.starts_with('[') => Some(Self { path: rest }),
            None => None,
        }
    }

    fn index(self) -> Option<(usize, Self)> {
        let (number, rest) = self.path.strip_prefix('[')?.split_once(']')?;
        Some((number.parse().ok()?, Seek { path: rest.strip_prefix('.').unwrap_or(rest) }))
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Reached by a plain value, whatever it is.
        f.write_str(FOUND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.path.is_empty() {
            return Err(de::Error::custom(FOUND));
        }
        while let Some(key) = map.next_key::<PlainKey>()? {
            match key.0.as_deref().and_then(|name| self.below(name)) {
                Some(below) => map.next_value_seed(below)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((wanted, below)) = self.index() else {
            return Err(de::Error::custom(FOUND));
        };
        for _ in 0..wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        if seq.next_element_seed(below)?.is_some() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }
}

/// A key as text, whatever it is written as.
struct PlainKey(Option<String>);

impl<'de> Deserialize<'de> for PlainKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = PlainKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<PlainKey, E> {
                Ok(PlainKey(Some(value.to_string())))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<PlainKey, E> {
                Ok(PlainKey(Some(value.to_string())))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<PlainKey, E> {
                Ok(PlainKey(Some(value.to_string())))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<PlainKey, E> {
                Ok(PlainKey(None))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PlainKey, E> {
                Ok(PlainKey(Some(text.to_owned())))
            }
        }

        deserializer.deserialize_any(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;
    use proptest::prelude::*;

    const TEXT: &str = "---
kind: X
spec:
  hosts: [a, b]
  http:
  - name: one
  - name: two
    headers:
      x.y:
        exact: 1
      8080: z
  empty:
";

    #[test]
    fn finds_lines_of_paths() {
        #[track_caller]
        fn check(path: &str, expect: Option<usize>) {
            assert_eq!(line_of(TEXT, path), expect, "{path}");
        }
        check("kind", Some(2));
        check("spec.hosts", Some(4));
        check("spec.hosts[1]", Some(4));
        check("spec.http[0].name", Some(6));
        check("spec.http[1].name", Some(7));
        check("spec.http[1]", Some(7));
        check("spec.http[1].headers.x.y.exact", Some(10));
        check("spec.http[1].headers.8080", Some(11));
        // What is not there has the line of its parent.
        check("spec.http[1].headers.none.deep", Some(9));
        check("spec.http[7].name", Some(6));
        check("none", None);
        check("", None);
    }

    #[test]
    fn broken_text_has_no_lines() {
        assert_eq!(line_of("a: [", "b"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-{}\\[\\]&*:,a \n]{0,40}", path in "[a.\\[\\]0-9]{0,12}") {
            let _ = line_of(&text, &path);
        }
    }
}
