//! YAML for Kubernetes: read as YAML 1.2, written so that every reader, old or new, reads the same.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// Deepest nesting that is written; deeper values are written as JSON.
const MAX_DEPTH: usize = 200;

/// Reads one document.
///
/// # Errors
/// Why it is no YAML, with its line.
pub fn from_str(text: &str) -> Result<Json, String> {
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}

/// Reads every document; empty ones are left out.
///
/// # Errors
/// Why the text is no YAML, with its line.
pub fn documents(text: &str) -> Result<Vec<Json>, String> {
    use serde::de::Deserialize as _;
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Json::deserialize(document).map_err(|error| error.to_string())?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}

/// Writes a document: keys in order, lists flush with their key, and quotes around every text that a reader of
/// YAML 1.1 could take for something else (`on`, `no`, `1_0`, `0x1`, `1:30`).
#[must_use]
pub fn to_string(value: &Json) -> String {
    let mut out = String::new();
    match value {
        Json::Object(map) if !map.is_empty() => node(value, 0, &mut out),
        Json::Array(items) if !items.is_empty() => node(value, 0, &mut out),
        other => {
            scalar(other, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn node(value: &Json, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Json::Object(map) => {
            for (key, item) in map {
                out.push_str(&indent);
                entry(key, item, depth, out);
            }
        }
        Json::Array(items) => {
            for item in items {
                out.push_str(&indent);
                out.push_str("- ");
                list_item(item, depth, out);
            }
        }
        other => {
            out.push_str(&indent);
            scalar(other, depth, out);
            out.push('\n');
        }
    }
}

/// `key: value`, of which the indentation is written already.
fn entry(key: &str, item: &Json, depth: usize, out: &mut String) {
    text(key, out);
    out.push(':');
    match item {
        Json::Object(map) if !map.is_empty() && depth < MAX_DEPTH => {
            out.push('\n');
            node(item, depth + 1, out);
        }
        Json::Array(items) if !items.is_empty() && depth < MAX_DEPTH => {
            out.push('\n');
            node(item, depth, out);
        }
        other => {
            out.push(' ');
            scalar(other, depth, out);
            out.push('\n');
        }
    }
}

/// What follows `- `.
fn list_item(item: &Json, depth: usize, out: &mut String) {
    match item {
        Json::Object(map) if !map.is_empty() && depth < MAX_DEPTH => {
            for (at, (key, item)) in map.iter().enumerate() {
                if at > 0 {
                    out.push_str(&"  ".repeat(depth + 1));
                }
                entry(key, item, depth + 1, out);
            }
        }
        Json::Array(items) if !items.is_empty() && depth < MAX_DEPTH => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(&"  ".repeat(depth + 1));
                }
                out.push_str("- ");
                list_item(item, depth + 1, out);
            }
        }
        other => {
            scalar(other, depth, out);
            out.push('\n');
        }
    }
}

fn scalar(value: &Json, depth: usize, out: &mut String) {
    match value {
        Json::String(content) if is_block(content) => block(content, depth, out),
        Json::String(content) => text(content, out),
        other => {
            // JSON is YAML; writing to a text cannot fail.
            let _ = write!(out, "{other}");
        }
    }
}

/// Whether a text of several lines can be written as it is.
fn is_block(text: &str) -> bool {
    let lines = text.trim_end_matches('\n');
    lines.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || !(c.is_control() || c == '\u{feff}' || is_break(c)))
        && !lines.split('\n').any(|line| line.ends_with([' ', '\t']))
}

fn is_break(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn block(content: &str, depth: usize, out: &mut String) {
    let body = content.trim_end_matches('\n');
    out.push('|');
    match content.len() - body.len() {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    let indent = "  ".repeat(depth + 1);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&indent);
            out.push_str(line);
        }
    }
    // With `+`, every further line break is part of the text.
    out.extend(std::iter::repeat_n('\n', (content.len() - body.len()).saturating_sub(1)));
}

fn text(content: &str, out: &mut String) {
    if is_plain(content) {
        out.push_str(content);
        return;
    }
    // A JSON string is a YAML one, once line breaks that only YAML knows are escaped.
    for c in Json::from(content).to_string().chars() {
        if is_break(c) || c == '\u{feff}' || (c.is_control() && !c.is_ascii()) || c == '\u{7f}' {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

/// Whether a text needs no quotes.
fn is_plain(text: &str) -> bool {
    const RESERVED: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    let Some(first) = text.chars().next() else { return false };
    let inner = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(
                c,
                '_' | '-' | '.' | '/' | '$' | '(' | ')' | '=' | ' ' | ',' | '@' | '+' | ';' | '<' | '>' | '^'
            )
    };
    let last_blank = text.ends_with(' ');
    let colons = text.char_indices().filter(|(_, c)| *c == ':');
    // A colon inside is part of the text when no blank follows.
    let colons_fit =
        colons.into_iter().all(|(at, _)| text.as_bytes().get(at + 1).is_some_and(|next| !next.is_ascii_whitespace()));
    (first.is_ascii_alphabetic() || matches!(first, '_' | '/' | '$' | '('))
        && text.chars().all(|c| inner(c) || c == ':')
        && colons_fit
        && !last_blank
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}
