//! The paths that a file names: its `use` trees flattened, and `crate::`, `super::`, `self::` paths in between.

use crate::source::functions::closing;
use crate::source::lex::{Kind, Token};

/// One path and the line that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    /// `["crate", "a", "B"]`; the last is `*` for a glob.
    pub(crate) segments: Vec<&'a str>,
    pub(crate) line: usize,
    /// Whether a `use` item brings it.
    pub(crate) import: bool,
    /// Whether it is re-exported (`pub use`, `pub(crate) use`).
    pub(crate) public: bool,
}

/// All paths of a file: imports as written, other paths when they begin with an identifier and have two segments.
pub(crate) fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Path<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let follows_path = at > 0 && tokens[at - 1].is("::");
        if token.is("use") && !follows_path && starts_item(tokens, at) {
            let end = tokens[at..].iter().position(|t| t.is(";")).map_or(tokens.len(), |n| at + n);
            let public = exported(tokens, at);
            tree(&tokens[at + 1..end], &mut Vec::new(), public, &mut found);
            at = end;
        } else if token.kind == Kind::Ident && !follows_path {
            let segments = run(&tokens[at..]);
            at += segments.len() * 2 - 1;
            if segments.len() > 1 {
                found.push(Path { segments, line: token.line, import: false, public: false });
            }
            continue;
        }
        at += 1;
    }
    found
}

/// Tokens without items that only tests compile (`#[cfg(test)]` and combinations that name `test` without `not`).
pub(crate) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match attribute(&tokens[at..]) {
            Some((length, true)) => at += length + item(&tokens[at + length..]),
            Some((length, false)) => {
                kept.extend_from_slice(&tokens[at..at + length]);
                at += length;
            }
            None => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

/// Length of the outer attribute that `tokens` starts with, and whether it keeps the item to tests.
fn attribute(tokens: &[Token<'_>]) -> Option<(usize, bool)> {
    let [hash, open, ..] = tokens else { return None };
    if !hash.is("#") || !open.is("[") {
        return None;
    }
    let length = 1 + closing(&tokens[1..])? + 1;
    let inner = &tokens[2..length - 1];
    let names = |name: &str| inner.iter().any(|t| t.is(name));
    Some((length, inner.first().is_some_and(|t| t.is("cfg")) && names("test") && !names("not")))
}

/// Length of the item, field or arm that `tokens` starts with, further attributes included.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut at = 0;
    while let Some((length, _)) = attribute(&tokens[at..]) {
        at += length;
    }
    const ITEMS: [&str; 14] = [
        "pub",
        "mod",
        "use",
        "fn",
        "impl",
        "struct",
        "enum",
        "const",
        "static",
        "type",
        "trait",
        "async",
        "unsafe",
        "macro_rules",
    ];
    let is_item = tokens.get(at).is_some_and(|t| ITEMS.iter().any(|word| t.is(word)));
    while let Some(token) = tokens.get(at) {
        if token.is("}") || token.is(")") || token.is("]") {
            return at;
        }
        let opens = token.is("{");
        if opens || token.is("(") || token.is("[") {
            at += closing(&tokens[at..]).unwrap_or(tokens.len() - at - 1);
        }
        at += 1;
        // The stray `;` or `,` after `use a::{b};` names nothing.
        if opens || token.is(";") || (token.is(",") && !is_item) {
            return at;
        }
    }
    at
}

/// `use` as a keyword of an item, not the `use<'a>` of a bound.
fn starts_item(tokens: &[Token<'_>], at: usize) -> bool {
    !tokens.get(at + 1).is_some_and(|t| t.is("<"))
}

/// Whether `pub` or `pub(…)` stands before the token at `at`.
fn exported(tokens: &[Token<'_>], at: usize) -> bool {
    match tokens[..at] {
        [.., ref last] if last.is("pub") => true,
        [.., ref last] if last.is(")") => {
            let open = tokens[..at].iter().rposition(|t| t.is("("));
            open.is_some_and(|open| open > 0 && tokens[open - 1].is("pub"))
        }
        _ => false,
    }
}

/// Segments of the path that `tokens` starts with.
fn run<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let mut segments = vec![tokens[0].text];
    for pair in tokens[1..].chunks_exact(2) {
        if !pair[0].is("::") || pair[1].kind != Kind::Ident {
            break;
        }
        segments.push(pair[1].text);
    }
    segments
}

/// Flattens one `use` tree into `found`; `prefix` is what stands before it.
fn tree<'a>(tokens: &[Token<'a>], prefix: &mut Vec<&'a str>, public: bool, found: &mut Vec<Path<'a>>) {
    let depth = prefix.len();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.is("{") {
            let length = closing(&tokens[at..]).unwrap_or(tokens.len() - at - 1);
            let inside = &tokens[at + 1..at + length];
            for branch in branches(inside) {
                tree(branch, &mut prefix.clone(), public, found);
            }
            prefix.truncate(depth);
            return;
        }
        if token.is("as") {
            break;
        }
        if token.kind == Kind::Ident || token.is("*") {
            prefix.push(token.text);
        }
        at += 1;
    }
    if let (Some(first), true) = (tokens.first(), prefix.len() > depth) {
        found.push(Path { segments: prefix.clone(), line: first.line, import: true, public });
    }
    prefix.truncate(depth);
}

/// Splits at the commas outside inner braces.
fn branches<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::lex::tokens;

    #[track_caller]
    fn check(source: &str, expect: &[&str]) {
        let tokens = tokens(source);
        let found: Vec<String> = paths(&without_tests(&tokens)).iter().map(|p| p.segments.join("::")).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn use_trees_are_flattened() {
        check(
            "use crate::{a::{B, self}, c as d, e::*};",
            &["crate::a::B", "crate::a::self", "crate::c", "crate::e::*"],
        );
    }

    #[test]
    fn paths_in_code_are_found() {
        check("fn f() -> crate::a::B { super::c(std::mem::take(x)) }", &["crate::a::B", "super::c", "std::mem::take"]);
    }

    #[test]
    fn test_items_are_left_out() {
        check("#[cfg(test)]\n#[path = \"x\"]\nmod t { use crate::a::B; }\nuse crate::c::D;", &["crate::c::D"]);
        check("#[cfg(test)] use crate::a::{B, C};\nuse crate::c::D;", &["crate::c::D"]);
        check("struct S { #[cfg(test)] n: crate::a::B, m: crate::c::D }", &["crate::c::D"]);
        check("#[cfg(not(test))] use crate::a::B;", &["crate::a::B"]);
    }

    #[test]
    fn visibility_is_seen() {
        let tokens = tokens("pub use a::B; pub(crate) use c::D; use e::F;");
        let public: Vec<bool> = paths(&tokens).iter().map(|p| p.public).collect();
        assert_eq!(public, [true, true, false]);
    }

    #[test]
    fn captures_in_bounds_are_not_imports() {
        check("fn f<'a>() -> impl Fn() + use<'a> { a::b() }", &["a::b"]);
    }
}
