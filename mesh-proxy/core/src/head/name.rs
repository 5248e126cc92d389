//! How callers name a field: by id, by text, or by a name compiled once when configuration is read.

use super::known::KnownName;
use super::syntax;

/// A borrowed field name, classified. Made from a [`KnownName`], a text (classified at each call) or a [`FieldName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRef<'a> {
    /// A name of the table.
    Known(KnownName),
    /// Any other name, in any case.
    Other(&'a [u8]),
}

/// An owned field name from configuration, checked and in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldName {
    /// A name of the table, pseudo-header fields included.
    Known(KnownName),
    /// Any other name, in lower case.
    Other(Box<str>),
}

impl FieldName {
    /// Checks and compiles `text`; `None` when it is neither a token (RFC 9110 section 5.1) nor a known pseudo-header field.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(known) = KnownName::of(text.as_bytes()) {
            return Some(Self::Known(known));
        }
        syntax::is_token(text.as_bytes()).then(|| Self::Other(text.to_ascii_lowercase().into()))
    }

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Other(text) => text,
        }
    }
}

impl<'a> NameRef<'a> {
    /// Text of the name; lower case if it is a known one.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Known(known) => known.as_str().as_bytes(),
            Self::Other(text) => text,
        }
    }
}

impl From<KnownName> for NameRef<'_> {
    fn from(known: KnownName) -> Self {
        Self::Known(known)
    }
}

impl<'a> From<&'a [u8]> for NameRef<'a> {
    fn from(text: &'a [u8]) -> Self {
        KnownName::of(text).map_or(Self::Other(text), Self::Known)
    }
}

impl<'a> From<&'a str> for NameRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl<'a> From<&'a FieldName> for NameRef<'a> {
    fn from(name: &'a FieldName) -> Self {
        match name {
            FieldName::Known(known) => Self::Known(*known),
            FieldName::Other(text) => Self::Other(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_names_are_checked_and_lower_case() {
        assert_eq!(FieldName::parse("X-Request-ID"), Some(FieldName::Known(KnownName::XRequestId)));
        assert_eq!(FieldName::parse(":Path"), Some(FieldName::Known(KnownName::PseudoPath)));
        assert_eq!(FieldName::parse("End-User"), Some(FieldName::Other("end-user".into())));
        for bad in ["", "a b", "a:", ":foo", "é", "a\n"] {
            assert_eq!(FieldName::parse(bad), None, "{bad:?}");
        }
    }
}
