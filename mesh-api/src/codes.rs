//! The numbered list of findings. A code never changes its meaning and is never used again once retired.
//!
//! 1xxx: reading and syntax. 2xxx: rules of one object. 3xxx: objects together. 4xxx: known, but not acting yet.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::text::Str;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The object is used, but something in it does not do what its author may think.
    Warning,
    /// The object, or the part named by the path, cannot be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $number:literal, $severity:ident; )*) => {
        /// The code of a finding; written as `MESHnnnn`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code {
            $($(#[doc = $doc])+ $name = $number,)*
        }

        impl Code {
            /// Every code in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the code means, for the reference page.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc, "\n"),+).trim_ascii(),)*
                }
            }

            /// How bad it usually is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }

            /// The name of the code, e.g. `UnknownField`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

codes! {
    /// The text is not YAML or not UTF-8.
    Syntax = 1001, Error;
    /// A document is too large, nested too deeply, or grows too much by its aliases.
    TooLarge = 1002, Error;
    /// The document has no `apiVersion`, `kind` or `metadata.name`, so it is no object.
    NotAnObject = 1003, Error;
    /// A field that its kind does not have, usually a typing error.
    UnknownField = 1004, Error;
    /// A kind or version that this release does not read; the object has no effect.
    UnknownKind = 1005, Warning;
    /// A value of the wrong type, e.g. a number where text must be, or an unknown name of an enumeration.
    WrongType = 1006, Error;
    /// The same kind, namespace and name is defined twice.
    DuplicateObject = 1007, Error;
    /// A file cannot be read.
    Unreadable = 1008, Error;

    /// A field that must be there is missing or empty.
    Required = 2001, Error;
    /// A value is outside its range or not well formed.
    InvalidValue = 2002, Error;
    /// Two fields exclude each other.
    Conflict = 2003, Error;
    /// The same value appears twice where each must be unique.
    Duplicate = 2004, Error;
    /// A name, namespace or label breaks the syntax of Kubernetes.
    InvalidName = 2005, Error;
    /// A host is not a DNS name, a wildcard of one, or (where allowed) an address.
    InvalidHost = 2006, Error;
    /// A regular expression does not compile or is too long.
    InvalidRegex = 2007, Error;
    /// A field that Istio retired; the hint names its successor.
    Deprecated = 2008, Warning;
    /// A rule that can never be reached, or that has no effect as written.
    Ineffective = 2009, Warning;
    /// An annotation that only the control plane may set.
    InternalAnnotation = 2010, Error;

    /// A reference to an object, host or subset that does not exist.
    MissingReference = 3001, Warning;
    /// Two objects claim the same thing and the older one wins.
    Overlap = 3002, Warning;

    /// A field that Istio has and this release reads, but which does not act yet.
    NotActing = 4001, Warning;
    /// A kind that Istio has, but which does not act yet in this release.
    KindNotActing = 4002, Warning;
}

impl Code {
    /// The number behind `MESH`.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("MESH{:04}", self.number()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Str::deserialize(deserializer)?;
        let known = Self::ALL.iter().copied().find(|code| code.to_string() == *text);
        known.ok_or_else(|| de::Error::custom(format_args!("{text:?} is not a code of this release")))
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_documented_ordered_and_round_trip() {
        assert!(Code::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        for code in Code::ALL {
            assert!(code.doc().ends_with('.'), "{code}: {}", code.doc());
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
        }
        assert_eq!(Code::UnknownField.to_string(), "MESH1004");
        assert!(serde_json::from_str::<Code>("\"MESH9999\"").is_err());
    }
}
