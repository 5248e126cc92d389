//! Texts: cutting, replacing, asking.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::arguments::Args;
use super::call::{Outcome, Plain, bounded};
use super::compare::to_text;
use super::printf::quoted;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "trim" => |a| Ok(Value::str(Args::of(a, 1)?.text(0)?.trim())),
        "trimAll" | "trimall" => |a| {
            let args = Args::of(a, 2)?;
            let set = args.text(0)?;
            Ok(Value::str(args.text(1)?.trim_matches(|c| set.contains(c))))
        },
        "trimPrefix" => |a| {
            let args = Args::of(a, 2)?;
            let (part, text) = (args.text(0)?, args.text(1)?);
            Ok(Value::str(text.strip_prefix(&*part).unwrap_or(&text)))
        },
        "trimSuffix" => |a| {
            let args = Args::of(a, 2)?;
            let (part, text) = (args.text(0)?, args.text(1)?);
            Ok(Value::str(text.strip_suffix(&*part).unwrap_or(&text)))
        },
        "contains" => |a| Ok(Value::Bool(Args::of(a, 2)?.text(1)?.contains(&*Args::of(a, 2)?.text(0)?))),
        "hasPrefix" => |a| Ok(Value::Bool(Args::of(a, 2)?.text(1)?.starts_with(&*Args::of(a, 2)?.text(0)?))),
        "hasSuffix" => |a| Ok(Value::Bool(Args::of(a, 2)?.text(1)?.ends_with(&*Args::of(a, 2)?.text(0)?))),
        "quote" => |a| quote(a, quoted),
        "squote" => |a| quote(a, |text| format!("'{text}'")),
        "cat" => |a| {
            let texts: Vec<Rc<str>> = a.iter().filter(|value| !matches!(value, Value::Null)).map(to_text).collect();
            bounded(texts.iter().map(|text| text.len() + 1).sum())?;
            Ok(Value::str(texts.join(" ")))
        },
        "toString" => |a| Ok(Value::Str(to_text(&Args::of(a, 1)?.value(0)))),
        "repeat" => |a| {
            let args = Args::of(a, 2)?;
            let (count, text) = (args.count(0), args.text(1)?);
            bounded(count.saturating_mul(text.len()))?;
            Ok(Value::str(text.repeat(count)))
        },
        "replace" => |a| {
            let args = Args::of(a, 3)?;
            let (old, new, text) = (args.text(0)?, args.text(1)?, args.text(2)?);
            bounded(text.matches(&*old).count().saturating_mul(new.len()).saturating_add(text.len()))?;
            Ok(Value::str(text.replace(&*old, &new)))
        },
        "indent" => |a| indent(a, ""),
        "nindent" => |a| indent(a, "\n"),
        "substr" => substr,
        "trunc" => trunc,
        "split" => |a| {
            let args = Args::of(a, 2)?;
            Ok(parts(args.text(1)?.split(&*args.text(0)?)))
        },
        "splitn" => |a| {
            let args = Args::of(a, 3)?;
            Ok(parts(args.text(2)?.splitn(args.count(1), &*args.text(0)?)))
        },
        "splitList" => |a| {
            let args = Args::of(a, 2)?;
            let (separator, text) = (args.text(0)?, args.text(1)?);
            if separator.is_empty() {
                return Ok(Value::list(text.chars().map(|c| Value::str(c.to_string())).collect()));
            }
            Ok(Value::list(text.split(&*separator).map(Value::str).collect()))
        },
        _ => return None,
    })
}

fn quote(arguments: &[Value], with: fn(&str) -> String) -> Outcome {
    let there = arguments.iter().filter(|value| !matches!(value, Value::Null));
    let texts: Vec<String> = there.map(|value| with(&to_text(value))).collect();
    let text = texts.join(" ");
    bounded(text.len())?;
    Ok(Value::str(text))
}

fn indent(arguments: &[Value], before: &str) -> Outcome {
    let args = Args::of(arguments, 2)?;
    let (count, text) = (args.count(0), args.text(1)?);
    let lines = text.matches('\n').count() + 1;
    bounded(count.saturating_mul(lines).saturating_add(text.len()))?;
    let blanks = " ".repeat(count);
    Ok(Value::str(format!("{before}{blanks}{}", text.replace('\n', &format!("\n{blanks}")))))
}

/// `substr from to text`, in bytes as Go counts; bounds inside of a character move outwards to its edge.
fn substr(arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 3)?;
    let text = args.text(2)?;
    let edge = |at: i64, otherwise: usize| match usize::try_from(at) {
        Ok(at) if at <= text.len() => text.floor_char_boundary(at),
        _ => otherwise,
    };
    let (from, to) = (edge(args.int(0), 0), edge(args.int(1), text.len()));
    Ok(Value::str(text.get(from..to).unwrap_or_default()))
}

/// The first so many bytes; of a negative number, the last.
fn trunc(arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    let (count, text) = (args.int(0), args.text(1)?);
    let bytes = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if bytes >= text.len() {
        return Ok(Value::Str(text));
    }
    let kept = if count < 0 {
        text.get(text.ceil_char_boundary(text.len() - bytes)..)
    } else {
        text.get(..text.floor_char_boundary(bytes))
    };
    Ok(Value::str(kept.unwrap_or_default()))
}

/// Sprig's `split`: a dictionary of `_0`, `_1`, ….
fn parts<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    let parts: BTreeMap<Rc<str>, Value> =
        texts.enumerate().map(|(at, text)| (Rc::from(format!("_{at}")), Value::str(text))).collect();
    Value::map(parts)
}
