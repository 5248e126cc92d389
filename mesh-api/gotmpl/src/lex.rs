//! Template text to tokens: text outside of `{{ }}`, words inside.

use serde_json::Value as Json;

use crate::error::{Error, ErrorKind};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// Text outside of actions, trimmed as the markers say.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A text, number or character.
    Constant(Json),
    /// `name`
    Name(String),
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$name`
    Variable(String),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Pipe,
    Comma,
    LeftParen,
    RightParen,
    /// Blanks inside an action, which part words.
    Space,
}

/// A token and its line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) line: usize,
}

struct Lexer<'a> {
    name: &'a str,
    text: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Placed>,
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Reads the text of the template `name`.
pub(crate) fn lex(name: &str, text: &str) -> Result<Vec<Placed>, Error> {
    let mut lexer = Lexer { name, text, at: 0, line: 1, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        let passed = self.rest().get(..bytes).unwrap_or_default();
        self.line += passed.matches('\n').count();
        self.at += bytes;
    }

    fn push(&mut self, token: Token, bytes: usize) {
        self.tokens.push(Placed { token, line: self.line });
        self.skip(bytes);
    }

    fn error(&self, message: impl Into<String>) -> Error {
        let (template, message) = (self.name.to_owned(), message.into());
        Error { template, line: self.line, message, kind: ErrorKind::Syntax }
    }

    fn run(&mut self) -> Result<(), Error> {
        // Whether the action before ended with `-}}`.
        let mut trim = false;
        loop {
            let rest = self.rest();
            let Some(open) = rest.find("{{") else {
                let text = if trim { rest.trim_start_matches(BLANKS) } else { rest };
                if !text.is_empty() {
                    self.push(Token::Text(text.to_owned()), 0);
                }
                return Ok(());
            };
            let mut text = rest.get(..open).unwrap_or_default();
            if trim {
                text = text.trim_start_matches(BLANKS);
            }
            let inside = rest.get(open + 2..).unwrap_or_default();
            let trims = inside.strip_prefix('-').is_some_and(|after| after.starts_with(BLANKS));
            if trims {
                text = text.trim_end_matches(BLANKS);
            }
            if !text.is_empty() {
                self.push(Token::Text(text.to_owned()), 0);
            }
            self.skip(open + 2 + if trims { 2 } else { 0 });
            trim = match self.comment()? {
                Some(trim) => trim,
                None => self.action()?,
            };
        }
    }

    /// Passes a comment: whether it ends with `-}}`; `None` when this is no comment.
    fn comment(&mut self) -> Result<Option<bool>, Error> {
        let rest = self.rest();
        if !rest.starts_with("/*") {
            return Ok(None);
        }
        let Some(end) = rest.find("*/") else { return Err(self.error("a comment has no end")) };
        let after = rest.get(end + 2..).unwrap_or_default();
        let (trim, length) = if after.starts_with("}}") {
            (false, 2)
        } else if after.starts_with(BLANKS) && after.get(1..).is_some_and(|after| after.starts_with("-}}")) {
            (true, 4)
        } else {
            return Err(self.error("a comment ends before its action does"));
        };
        self.skip(end + 2 + length);
        Ok(Some(trim))
    }

    /// Reads an action up to its `}}`: whether that trims.
    fn action(&mut self) -> Result<bool, Error> {
        self.push(Token::Open, 0);
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return Err(self.error("an action has no end")) };
            if rest.starts_with("}}") {
                self.push(Token::Close, 2);
                return Ok(false);
            }
            if BLANKS.contains(&first) {
                let blanks = rest.len() - rest.trim_start_matches(BLANKS).len();
                if rest.get(blanks..).is_some_and(|after| after.starts_with("-}}")) {
                    self.skip(blanks);
                    self.push(Token::Close, 3);
                    return Ok(true);
                }
                self.push(Token::Space, blanks);
                continue;
            }
            self.word(first, rest)?;
        }
    }

    fn word(&mut self, first: char, rest: &str) -> Result<(), Error> {
        match first {
            '|' => self.push(Token::Pipe, 1),
            ',' => self.push(Token::Comma, 1),
            '(' => self.push(Token::LeftParen, 1),
            ')' => self.push(Token::RightParen, 1),
            '=' => self.push(Token::Assign, 1),
            ':' if rest.starts_with(":=") => self.push(Token::Declare, 2),
            '"' => return self.quoted(rest),
            '\'' => return self.character(rest),
            '`' => {
                let end = rest.get(1..).and_then(|body| body.find('`'));
                let end = end.ok_or_else(|| self.error("a raw text has no end"))?;
                let body = rest.get(1..=end).unwrap_or_default();
                self.push(Token::Constant(body.into()), end + 2);
            }
            '.' => {
                let name = name(rest.get(1..).unwrap_or_default());
                if rest.get(1..).is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit())) {
                    return self.number(rest);
                }
                if name.is_empty() {
                    self.push(Token::Dot, 1);
                } else {
                    self.push(Token::Field(name.to_owned()), name.len() + 1);
                }
            }
            '$' => {
                let name = name(rest.get(1..).unwrap_or_default());
                self.push(Token::Variable(format!("${name}")), name.len() + 1);
            }
            '0'..='9' | '+' | '-' => return self.number(rest),
            _ if first.is_alphabetic() || first == '_' => {
                let name = name(rest);
                self.push(Token::Name(name.to_owned()), name.len());
            }
            _ => return Err(self.error(format!("{first:?} has no meaning in an action"))),
        }
        Ok(())
    }

    fn number(&mut self, rest: &str) -> Result<(), Error> {
        let sign = usize::from(rest.starts_with(['+', '-']));
        let body = rest.get(sign..).unwrap_or_default();
        let mut length =
            body.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_')).unwrap_or(body.len());
        // An exponent may have a sign of its own.
        let hex = body.starts_with("0x") || body.starts_with("0X");
        if !hex && body.get(..length).is_some_and(|text| text.ends_with(['e', 'E'])) {
            let more = body.get(length..).unwrap_or_default();
            if let Some(digits) = more.strip_prefix(['+', '-']) {
                let count = digits.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                length += if count == 0 { 0 } else { 1 + count };
            }
        }
        let text = rest.get(..sign + length).unwrap_or_default();
        let value = number(text).ok_or_else(|| self.error(format!("{text:?} is no number")))?;
        self.push(Token::Constant(value), text.len());
        Ok(())
    }

    fn quoted(&mut self, rest: &str) -> Result<(), Error> {
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.push(Token::Constant(text.into()), at + 1);
                    return Ok(());
                }
                '\n' => break,
                '\\' => text.push(self.escape(&mut chars)?),
                _ => text.push(c),
            }
        }
        Err(self.error("a text has no end"))
    }

    fn character(&mut self, rest: &str) -> Result<(), Error> {
        let mut chars = rest.char_indices().skip(1);
        let value = match chars.next() {
            Some((_, '\\')) => Some(self.escape(&mut chars)?),
            Some((_, c)) if c != '\'' => Some(c),
            _ => None,
        };
        match (value, chars.next()) {
            (Some(value), Some((at, '\''))) => {
                self.push(Token::Constant(u32::from(value).into()), at + 1);
                Ok(())
            }
            _ => Err(self.error("a character has no end")),
        }
    }

    /// What follows a backslash.
    fn escape(&self, chars: &mut impl Iterator<Item = (usize, char)>) -> Result<char, Error> {
        let broken = || self.error("a text has an unknown escape");
        let digits = match chars.next().map(|(_, c)| c) {
            Some('n') => return Ok('\n'),
            Some('t') => return Ok('\t'),
            Some('r') => return Ok('\r'),
            Some('a') => return Ok('\x07'),
            Some('b') => return Ok('\x08'),
            Some('f') => return Ok('\x0c'),
            Some('v') => return Ok('\x0b'),
            Some(c @ ('\\' | '"' | '\'')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(broken()),
        };
        let text: String = chars.take(digits).map(|(_, c)| c).collect();
        u32::from_str_radix(&text, 16).ok().and_then(char::from_u32).ok_or_else(broken)
    }
}

/// The name at the beginning of `text`.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// A number as Go writes it.
pub(crate) fn number(text: &str) -> Option<Json> {
    let (negative, body) = match text.strip_prefix(['+', '-']) {
        Some(body) => (text.starts_with('-'), body),
        None => (false, text),
    };
    let body = body.replace('_', "");
    let (radix, digits) = match body.get(..2).map(str::to_lowercase).as_deref() {
        Some("0x") => (16, body.get(2..)?),
        Some("0b") => (2, body.get(2..)?),
        Some("0o") => (8, body.get(2..)?),
        _ if body.len() > 1 && body.starts_with('0') && body.bytes().all(|b| b.is_ascii_digit()) => (8, body.get(1..)?),
        _ => (10, body.as_str()),
    };
    if let Ok(value) = i128::from_str_radix(digits, radix) {
        return i64::try_from(if negative { -value } else { value }).ok().map(Json::from);
    }
    if radix != 10 || !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value: f64 = body.parse().ok()?;
    serde_json::Number::from_f64(if negative { -value } else { value }).map(Json::Number)
}
