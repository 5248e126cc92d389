//! Rust text → tokens with their lines.

/// What a token is; comments and white space are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword, also `r#raw`.
    Ident,
    /// `'a`.
    Lifetime,
    /// A string, character or number.
    Literal,
    /// One character of punctuation, or `::`.
    Punct,
}

/// One token and the line (from 1) that it starts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Whether this is the identifier or punctuation `text` (a string literal never is).
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Ident | Kind::Punct) && self.text == text
    }
}

/// All tokens of `source`. Text that is not Rust gives some tokens, never a panic.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    let mut out = Vec::new();
    while let Some(token) = lexer.next_token() {
        out.push(token);
    }
    out
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let text = &self.source[self.at..self.at + bytes];
        self.at += bytes;
        self.line += text.matches('\n').count();
        text
    }

    fn next_token(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.rest();
            let first = rest.chars().next()?;
            if first.is_whitespace() {
                self.take(rest.len() - rest.trim_start().len());
            } else if rest.starts_with("//") {
                self.take(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.take(block_comment(rest));
            } else {
                let line = self.line;
                let (kind, bytes) = measure(rest, first);
                return Some(Token { kind, text: self.take(bytes), line });
            }
        }
    }
}

/// Kind and length of the token that `rest` starts with.
fn measure(rest: &str, first: char) -> (Kind, usize) {
    if let Some(bytes) = raw_string(rest) {
        return (Kind::Literal, bytes);
    }
    for prefix in ["b\"", "c\"", "\""] {
        if rest.starts_with(prefix) {
            return (Kind::Literal, quoted(rest, prefix.len(), '"'));
        }
    }
    if rest.starts_with("b'") {
        return (Kind::Literal, quoted(rest, 2, '\''));
    }
    if first == '\'' {
        return apostrophe(rest);
    }
    if first.is_ascii_digit() {
        return (Kind::Literal, number(rest));
    }
    if is_ident(first) {
        let start = if rest.starts_with("r#") { 2 } else { 0 };
        let bytes = rest[start..].find(|c| !is_ident(c)).unwrap_or(rest.len() - start);
        return (Kind::Ident, start + bytes);
    }
    (Kind::Punct, if rest.starts_with("::") { 2 } else { first.len_utf8() })
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Digits, suffix and fraction; `1..2` and `1.max(2)` end before the point.
fn number(rest: &str) -> usize {
    let mut bytes = rest.find(|c| !is_ident(c)).unwrap_or(rest.len());
    let after = &rest[bytes..];
    if after.starts_with('.') && after[1..].starts_with(|c: char| c.is_ascii_digit()) {
        bytes += 1 + after[1..].find(|c| !is_ident(c)).unwrap_or(after.len() - 1);
    }
    bytes
}

/// `'a` (lifetime) or `'a'` (character).
fn apostrophe(rest: &str) -> (Kind, usize) {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next().unwrap_or((0, '\''));
    let after = chars.next();
    if first != '\\' && is_ident(first) && after.is_none_or(|(_, c)| c != '\'') {
        let bytes = rest[1..].find(|c| !is_ident(c)).unwrap_or(rest.len() - 1);
        return (Kind::Lifetime, 1 + bytes);
    }
    (Kind::Literal, quoted(rest, 1, '\''))
}

/// Length up to and with the closing `quote`; escapes are skipped. Unclosed text runs to the end.
fn quoted(rest: &str, open: usize, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest[open..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return open + at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"`, `cr"…"` when `rest` starts with one.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|p| rest.starts_with(p) && rest[p.len()..].trim_start_matches('#').starts_with('"'))?;
    let after = &rest[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    let close = format!("\"{}", "#".repeat(hashes));
    let open = prefix.len() + hashes + 1;
    Some(rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len()))
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expect: &[&str]) {
        let found: Vec<&str> = tokens(source).into_iter().map(|t| t.text).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn comments_are_dropped_also_nested_ones() {
        check("a // b { \n/* c /* d */ { */ e", &["a", "e"]);
    }

    #[test]
    fn strings_hide_what_they_hold() {
        check(
            r##"f("}\"{", r#"a"{"#, b"x", 'x', b'\'', '\u{1f}')"##,
            &[
                "f",
                "(",
                r#""}\"{""#,
                ",",
                r##"r#"a"{"#"##,
                ",",
                "b\"x\"",
                ",",
                "'x'",
                ",",
                r"b'\''",
                ",",
                r"'\u{1f}'",
                ")",
            ],
        );
    }

    #[test]
    fn lifetimes_are_not_characters() {
        check("&'a str '{' 'static", &["&", "'a", "str", "'{'", "'static"]);
    }

    #[test]
    fn numbers_end_before_ranges_and_methods() {
        check("0..2 1.5 1.max(2) 0xff_u8", &["0", ".", ".", "2", "1.5", "1", ".", "max", "(", "2", ")", "0xff_u8"]);
    }

    #[test]
    fn raw_identifiers_and_paths() {
        check("r#type::b", &["r#type", "::", "b"]);
    }

    #[test]
    fn lines_are_counted_through_strings() {
        let lines: Vec<usize> = tokens("a\n\"x\ny\"\nb").into_iter().map(|t| t.line).collect();
        assert_eq!(lines, [1, 2, 4]);
    }

    #[test]
    fn unclosed_text_ends_with_the_file() {
        check("a \"b", &["a", "\"b"]);
        check("a /* b", &["a"]);
        check("'", &["'"]);
    }
}
