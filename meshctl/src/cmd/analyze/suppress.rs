//! `--suppress CODE=RESOURCE`.

use meshd_core::analyze::{Message, Subject};

use crate::error::CliError;

/// A code of some objects that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suppression {
    code: String,
    /// `Kind name[.namespace]`, `*` standing for anything.
    resource: String,
}

impl Suppression {
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let malformed = || {
            CliError::user(format!("{text:?} suppresses nothing"))
                .hint("CODE=Kind name.namespace, as \"IST0102=Namespace test\"")
        };
        let (code, resource) = text.split_once('=').ok_or_else(malformed)?;
        if code.is_empty() || resource.is_empty() {
            return Err(malformed());
        }
        Ok(Self { code: code.to_owned(), resource: resource.to_owned() })
    }

    pub(super) fn covers(&self, message: &Message, subject: &Subject) -> bool {
        let name = match subject.namespace.as_str() {
            "" => format!("{} {}", subject.kind, subject.name),
            namespace => format!("{} {}.{namespace}", subject.kind, subject.name),
        };
        self.code == message.code.to_string() && fits(&self.resource, &name)
    }
}

/// Whether `text` fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expect) in [
            ("*", "Pod a.b", true),
            ("Pod *.b", "Pod a.b", true),
            ("Pod *.b", "Pod a.c", false),
            ("Pod a.b", "Pod a.b", true),
            ("*a*b", "Pod a.b", true),
            ("*a*a", "Pod a.b", false),
        ] {
            assert_eq!(fits(pattern, text), expect, "{pattern} {text}");
        }
        assert!(Suppression::parse("IST0102").is_err());
    }
}
