//! Texts: letters, names, paths.

use super::arguments::Args;
use super::call::{Outcome, Plain};
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "lower" => |a| Ok(Value::str(Args::of(a, 1)?.text(0)?.to_lowercase())),
        "upper" => |a| Ok(Value::str(Args::of(a, 1)?.text(0)?.to_uppercase())),
        "title" => |a| Ok(Value::str(each_word(&Args::of(a, 1)?.text(0)?, true))),
        "untitle" => |a| Ok(Value::str(each_word(&Args::of(a, 1)?.text(0)?, false))),
        "nospace" => |a| {
            let text = Args::of(a, 1)?.text(0)?;
            Ok(Value::str(text.chars().filter(|c| !c.is_whitespace()).collect::<String>()))
        },
        "plural" => |a| {
            let args = Args::of(a, 3)?;
            Ok(args.value(usize::from(args.int(2) != 1)))
        },
        "snakecase" => |a| Ok(Value::str(joined(&Args::of(a, 1)?.text(0)?, '_'))),
        "kebabcase" => |a| Ok(Value::str(joined(&Args::of(a, 1)?.text(0)?, '-'))),
        "camelcase" => |a| {
            let text = joined(&Args::of(a, 1)?.text(0)?, '_');
            Ok(Value::str(text.split('_').map(|word| each_word(word, true)).collect::<String>()))
        },
        "base" | "osBase" => |a| path(a, base),
        "dir" | "osDir" => |a| path(a, dir),
        "ext" | "osExt" => {
            |a| path(a, |path| base(path).rsplit_once('.').map(|(_, e)| format!(".{e}")).unwrap_or_default())
        }
        _ => return None,
    })
}

fn each_word(text: &str, upper: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut first = true;
    for c in text.chars() {
        match (first, upper) {
            (true, true) => out.extend(c.to_uppercase()),
            (true, false) => out.extend(c.to_lowercase()),
            (false, _) => out.push(c),
        }
        first = c.is_whitespace();
    }
    out
}

/// Words in lower case with `between` between them; a word begins with a capital, and after what is no letter.
fn joined(text: &str, between: char) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let chars: Vec<char> = text.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            if !out.is_empty() && !out.ends_with(between) {
                out.push(between);
            }
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        let after = chars.get(at + 1);
        let begins = c.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase() && after.is_some_and(|c| c.is_lowercase()))
            });
        if begins && !out.ends_with(between) {
            out.push(between);
        }
        out.extend(c.to_lowercase());
    }
    out.trim_end_matches(between).to_owned()
}

fn path(arguments: &[Value], part: fn(&str) -> String) -> Outcome {
    Ok(Value::str(part(&Args::of(arguments, 1)?.text(0)?)))
}

/// The last part of a path, as Go's `path.Base`.
fn base(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".".to_owned(),
        (false, true) => "/".to_owned(),
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed).to_owned(),
    }
}

/// All but the last part of a path, as Go's `path.Dir`.
fn dir(path: &str) -> String {
    match path.rsplit_once('/') {
        None => ".".to_owned(),
        Some(("", _)) => "/".to_owned(),
        Some((before, _)) => before.trim_end_matches('/').to_owned(),
    }
}
