//! What we tell a user about an object: always which object, which field, what is wrong, and what to do.

use std::fmt;

use serde::Serialize;

pub use crate::codes::Severity;
use crate::{codes::Code, ids::ObjectKey, text::Str};

/// The most findings that are told about one object: nobody reads more, and a broken file must not fill the memory.
pub const MAX_PER_OBJECT: usize = 100;

/// One thing found in a user's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The stable code, explained in the reference.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The object, when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<ObjectKey>,
    /// Where the text came from, `file:line`, when it came from a file.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub origin: Str,
    /// The field, e.g. `spec.http[0].route[1].weight`; empty when the object as a whole is meant.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub path: Str,
    /// What is wrong, in a sentence without a period.
    pub message: Str,
    /// What to do about it; empty when the message says it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: Str,
}

impl Finding {
    /// A finding with the usual severity of its code.
    pub fn new(code: Code, path: impl Into<Str>, message: impl Into<Str>) -> Self {
        Self {
            code,
            severity: code.severity(),
            key: None,
            origin: Str::default(),
            path: path.into(),
            message: message.into(),
            hint: Str::default(),
        }
    }

    /// The same about an object.
    #[must_use]
    pub fn on(mut self, key: ObjectKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The same with an origin, `file:line`.
    #[must_use]
    pub fn at(mut self, origin: impl Into<Str>) -> Self {
        self.origin = origin.into();
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Str>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Whether the object or a part of it cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    /// One line: `error MESH1001 VirtualService/shop/web spec.http[0]: message (hint)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.severity, self.code)?;
        if !self.origin.is_empty() {
            write!(f, " {}", self.origin)?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Finding;
    use crate::{codes::Code, ids::ObjectKey, kinds::Kind};

    #[test]
    fn a_finding_reads_as_one_line() {
        let finding = Finding::new(Code::UnknownField, "spec.htp", "is not a field of VirtualService")
            .on(ObjectKey::new(Kind::VirtualService, "shop", "web"))
            .at("web.yaml:3")
            .hint("did you mean http?");
        assert_eq!(
            finding.to_string(),
            "error MESH1004 web.yaml:3 VirtualService/shop/web spec.htp: is not a field of VirtualService (did you mean http?)"
        );
    }
}
