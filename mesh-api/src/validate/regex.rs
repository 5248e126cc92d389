//! Regular expressions in API objects: RE2, full match, bounded.

use regex::{Error, RegexBuilder};

/// The longest expression, in characters, that Istio and Envoy accept.
pub const MAX_CHARS: usize = 1024;
/// The largest compiled program. Enough for every expression that people write; a nest of counted repetitions is not.
pub const MAX_PROGRAM_BYTES: usize = 1 << 20;

/// Compiles an expression so that it must match a whole text.
///
/// # Errors
/// Says in a line why it cannot be used.
pub fn compile(text: &str) -> Result<regex::Regex, String> {
    if text.chars().count() > MAX_CHARS {
        return Err(format!("the expression is longer than {MAX_CHARS} characters"));
    }
    // Alone first: between anchors `a)(b` would compile.
    build(text)?;
    build(&format!("^(?:{text})$"))
}

fn build(text: &str) -> Result<regex::Regex, String> {
    RegexBuilder::new(text).size_limit(MAX_PROGRAM_BYTES).build().map_err(|error| match error {
        Error::CompiledTooBig(_) => "the expression is too large when compiled".to_owned(),
        // The last line of the parser's drawing says what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("the expression does not compile: {}", last.trim_start_matches("error: "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::compile;
    use proptest::prelude::*;

    #[test]
    fn the_whole_text_must_match() {
        let regex = compile("a|b").unwrap();
        assert!(regex.is_match("a") && regex.is_match("b"));
        assert!(!regex.is_match("ab") && !regex.is_match("xa") && !regex.is_match("a\n"));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, reason) in [
            ("(", "unclosed group"),
            ("a)(b", "unopened group"),
            ("(?=a)", "look-around"),
            ("(a{500}){500}", "too large"),
            (&"a".repeat(1025), "longer than 1024"),
        ] {
            let error = compile(text).unwrap_err();
            assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        }
        assert!(compile(&"ä".repeat(1024)).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c(){}\\[\\]|*+?^$.,\\\\0-9]{0,24}") {
            let _ = compile(&text);
        }
    }
}
