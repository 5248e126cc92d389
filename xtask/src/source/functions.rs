//! Where functions begin and end.

use crate::source::lex::{Kind, Token};

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub(crate) lines: usize,
}

/// Every function with a body, also nested ones and those of traits.
pub(crate) fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let [keyword, name] = pair else { continue };
        // `fn(` is a pointer type.
        if !keyword.is("fn") || name.kind != Kind::Ident {
            continue;
        }
        let Some(open) = body(&tokens[at..]) else { continue };
        let close = closing(&tokens[at + open..]).map_or(tokens.len() - 1, |length| at + open + length);
        found.push(Function { name: name.text, line: keyword.line, lines: tokens[close].line - keyword.line + 1 });
    }
    found
}

/// Index of the brace that opens the body; none for a declaration that ends with `;`.
fn body(tokens: &[Token<'_>]) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" if token.kind == Kind::Punct => depth += 1,
            ")" | "]" if token.kind == Kind::Punct => depth -= 1,
            "{" if depth == 0 && token.kind == Kind::Punct => return Some(at),
            ";" if depth == 0 && token.kind == Kind::Punct => return None,
            _ => {}
        }
    }
    None
}

/// Index of the bracket that closes the one `tokens` starts with.
pub(crate) fn closing(tokens: &[Token<'_>]) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Punct {
            continue;
        }
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::lex::tokens;

    #[track_caller]
    fn check(source: &str, expect: &[(&str, usize, usize)]) {
        let tokens = tokens(source);
        let found: Vec<_> = functions(&tokens).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn bodies_are_measured_through_strings_and_nesting() {
        check("fn a() {\n  \"}\";\n  { }\n}\nfn b() { }", &[("a", 1, 4), ("b", 5, 1)]);
    }

    #[test]
    fn inner_functions_are_found_too() {
        check("fn a() {\n fn b() {\n }\n}", &[("a", 1, 4), ("b", 2, 2)]);
    }

    #[test]
    fn array_types_do_not_end_a_signature() {
        check("fn a(x: [u8; 2]) -> [u8; 3]\n{\n}", &[("a", 1, 3)]);
    }

    #[test]
    fn declarations_and_pointers_have_no_body() {
        check("trait T { fn a(&self); }\ntype F = fn(u8) -> u8;", &[]);
    }
}
