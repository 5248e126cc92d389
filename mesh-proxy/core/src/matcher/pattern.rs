//! Regular expressions from configuration, bounded in size.
//!
//! RE2 and the `regex` crate share syntax and the guarantee of linear time. Patterns match the whole text; rewriting
//! searches.

use std::borrow::Cow;
use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::rejected::BadPattern;

/// Longest pattern in characters: Istio's validation bound for regular expressions.
pub const MAX_PATTERN_CHARS: usize = 1024;

/// Largest compiled program in bytes. Istio sets RE2's error level to 32,768 instructions; this is about as much.
const MAX_PROGRAM_BYTES: usize = 1 << 20;

/// Largest transition cache of a pattern and thread in bytes; the crate's default of 2 MiB is too much for thousands of
/// routes. A full cache is emptied, results stay the same.
const MAX_CACHE_BYTES: usize = 128 << 10;

/// A pattern that is matched against a whole text.
#[derive(Clone)]
pub struct Pattern(Regex);

/// A pattern whose every match is replaced.
#[derive(Clone)]
pub struct Substitution {
    pattern: Regex,
    /// In the crate's syntax: `${1}` instead of `\1`.
    replacement: Box<[u8]>,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Says why it is not used.
    pub fn compile(pattern: &str) -> Result<Self, BadPattern> {
        // A pattern like `a)(b` would become legal inside the group, so it is checked alone. That is the dear half of the
        // work, and few patterns need it.
        if may_leave_group(pattern) {
            build(pattern)?;
        }
        // An error is told about what the user wrote.
        build(&format!("^(?:{pattern})$")).map(Self).map_err(|error| build(pattern).err().unwrap_or(error))
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl Substitution {
    /// Compiles a pattern and its substitution, in which `\0` to `\9` are groups and `\\` is a backslash (RE2).
    ///
    /// # Errors
    /// Says why it is not used.
    pub fn compile(pattern: &str, substitution: &str) -> Result<Self, BadPattern> {
        let pattern = build(pattern)?;
        let mut replacement = Vec::with_capacity(substitution.len());
        let mut bytes = substitution.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => match bytes.next() {
                    Some(b'\\') => replacement.push(b'\\'),
                    Some(digit) if digit.is_ascii_digit() => {
                        if usize::from(digit - b'0') >= pattern.captures_len() {
                            return Err(BadPattern::Syntax(format!("substitution names group {}", char::from(digit))));
                        }
                        replacement.extend_from_slice(&[b'$', b'{', digit, b'}']);
                    }
                    _ => return Err(BadPattern::Syntax("substitution has a lone backslash".to_owned())),
                },
                b'$' => replacement.extend_from_slice(b"$$"),
                other => replacement.push(other),
            }
        }
        Ok(Self { pattern, replacement: replacement.into() })
    }

    /// `text` with every match replaced.
    #[must_use]
    pub fn apply<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.pattern.replace_all(text, &*self.replacement)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.as_str()).finish()
    }
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replacement = self.replacement.escape_ascii().to_string();
        f.debug_tuple("Substitution").field(&self.pattern.as_str()).field(&replacement).finish()
    }
}

/// Whether a `)` may close a group that the pattern did not open. True when in doubt: with flags, `#` may begin a comment.
fn may_leave_group(pattern: &str) -> bool {
    let (mut depth, mut class) = (0_u32, 0_u32);
    let mut bytes = pattern.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'[' => {
                class += 1;
                bytes.next_if_eq(&b'^');
                bytes.next_if_eq(&b']');
            }
            b']' => class = class.saturating_sub(1),
            _ if class > 0 => {}
            b'(' if bytes.peek() == Some(&b'?') => return true,
            b'(' => depth += 1,
            b')' if depth == 0 => return true,
            b')' => depth -= 1,
            _ => {}
        }
    }
    false
}

fn build(pattern: &str) -> Result<Regex, BadPattern> {
    // The group around it is not the user's.
    if pattern.chars().count() > MAX_PATTERN_CHARS + "^(?:)$".len() {
        return Err(BadPattern::TooLong { most_chars: MAX_PATTERN_CHARS });
    }
    let built = RegexBuilder::new(pattern).size_limit(MAX_PROGRAM_BYTES).dfa_size_limit(MAX_CACHE_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => BadPattern::TooLarge { most_bytes: MAX_PROGRAM_BYTES },
        other => BadPattern::Syntax(one_line(&other.to_string())),
    })
}

/// The last line of the crate's drawing, which says what is wrong.
fn one_line(message: &str) -> String {
    message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let check = |pattern: &str, text: &str, expect| {
            assert_eq!(Pattern::compile(pattern).unwrap().matches(text.as_bytes()), expect, "{pattern} {text}");
        };
        check("a", "a", true);
        check("a", "ab", false);
        check("a|b", "ab", false);
        check("a|bc", "bc", true);
        check("/api/v[0-9]+", "/api/v12", true);
        check("/api/v[0-9]+", "/api/v12/x", false);
        check(".*", "", true);
        check("(?i)abc", "ABC", true);
    }

    #[test]
    fn bad_patterns_say_why() {
        let error = |pattern: &str| Pattern::compile(pattern).unwrap_err();
        assert_eq!(error("a("), BadPattern::Syntax("unclosed group".to_owned()));
        assert!(matches!(error("a)(b"), BadPattern::Syntax(_)));
        assert_eq!(error(&"a".repeat(1_100)), BadPattern::TooLong { most_chars: MAX_PATTERN_CHARS });
        assert_eq!(error(r"(\pL{100}){100}"), BadPattern::TooLarge { most_bytes: MAX_PROGRAM_BYTES });
    }

    proptest::proptest! {
        /// What is legal inside the group is legal alone, whatever stands in the pattern.
        #[test]
        fn no_pattern_leaves_its_group(pattern in r"([ab()\[\]\\^|#\n ]|\(\?x\)|\(\?:){0,10}") {
            proptest::prop_assert_eq!(Pattern::compile(&pattern).is_ok(), build(&pattern).is_ok() && build(&format!("^(?:{pattern})$")).is_ok());
        }
    }

    #[test]
    fn substitutions_use_re2_groups() {
        #[track_caller]
        fn check(pattern: &str, substitution: &str, text: &str, expect: &str) {
            let substitution = Substitution::compile(pattern, substitution).unwrap();
            assert_eq!(String::from_utf8_lossy(&substitution.apply(text.as_bytes())), expect);
        }
        check("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo");
        check("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz");
        check("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb");
        check("a", r"$1\\", "a", r"$1\");
        assert!(Substitution::compile("a", r"\1").is_err());
        assert!(Substitution::compile("a", r"\x").is_err());
    }
}
