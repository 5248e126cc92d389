//! A compiled test on one string.

use mesh_api_xds::ir::matcher::{StringMatch, StringPattern};

use super::pattern::Pattern;
use crate::rejected::BadPattern;

/// A compiled [`StringMatch`].
#[derive(Clone, Debug)]
pub struct StringTest {
    kind: Kind,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(Box<Pattern>),
}

impl StringTest {
    /// Compiles a test.
    ///
    /// # Errors
    /// Only a regular expression can be wrong.
    pub fn compile(test: &StringMatch) -> Result<Self, BadPattern> {
        let kind = match &test.pattern {
            StringPattern::Exact(text) => Kind::Exact(text.as_bytes().into()),
            StringPattern::Prefix(text) => Kind::Prefix(text.as_bytes().into()),
            StringPattern::Suffix(text) => Kind::Suffix(text.as_bytes().into()),
            StringPattern::Contains(text) => Kind::Contains(text.as_bytes().into()),
            StringPattern::Regex(pattern) => Kind::Regex(Box::new(Pattern::compile(pattern)?)),
        };
        Ok(Self { kind, ignore_case: test.ignore_case })
    }

    /// Whether `text` passes.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact(expected) => self.equal(expected, text),
            Kind::Prefix(prefix) => text.get(..prefix.len()).is_some_and(|head| self.equal(prefix, head)),
            Kind::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.len());
                start.and_then(|start| text.get(start..)).is_some_and(|tail| self.equal(suffix, tail))
            }
            Kind::Contains(part) if part.is_empty() => true,
            Kind::Contains(part) if self.ignore_case => text.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part)),
            Kind::Contains(part) => memchr::memmem::find(text, part).is_some(),
            Kind::Regex(pattern) => pattern.matches(text),
        }
    }

    fn equal(&self, expected: &[u8], text: &[u8]) -> bool {
        if self.ignore_case { expected.eq_ignore_ascii_case(text) } else { expected == text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::text::Str;

    #[test]
    fn tests_compare_as_named() {
        type Make = fn(Str) -> StringPattern;
        #[track_caller]
        fn check(make: Make, pattern: &str, ignore_case: bool, text: &str, expect: bool) {
            let test = StringMatch { pattern: make(Str::from(pattern)), ignore_case };
            assert_eq!(StringTest::compile(&test).unwrap().matches(text.as_bytes()), expect, "{test:?} {text:?}");
        }
        use StringPattern::{Contains, Exact, Prefix, Regex, Suffix};
        check(Exact, "ab", false, "ab", true);
        check(Exact, "ab", false, "AB", false);
        check(Exact, "ab", true, "AB", true);
        check(Exact, "", false, "", true);
        check(Prefix, "ab", false, "abc", true);
        check(Prefix, "ab", false, "a", false);
        check(Prefix, "ab", true, "aBc", true);
        check(Suffix, "bc", false, "abc", true);
        check(Suffix, "bc", false, "c", false);
        check(Suffix, "bc", true, "aBC", true);
        check(Contains, "b", false, "abc", true);
        check(Contains, "x", false, "abc", false);
        check(Contains, "BC", true, "abcd", true);
        check(Regex, "a.c", false, "abc", true);
        check(Regex, "a.c", true, "ABC", false);
        check(Regex, "b", false, "abc", false);
    }
}
