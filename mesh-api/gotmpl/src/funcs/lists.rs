//! Lists.

use std::rc::Rc;

use super::arguments::Args;
use super::call::{MAX_ITEMS, Outcome, Plain, bounded};
use super::compare::to_text;
use crate::error::Fault;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "list" | "tuple" => |a| Ok(Value::list(a.to_vec())),
        "append" | "push" | "mustAppend" | "mustPush" => |a| {
            let args = Args::of(a, 2)?;
            Ok(Value::list(args.list(0)?.iter().cloned().chain([args.value(1)]).collect()))
        },
        "prepend" | "mustPrepend" => |a| {
            let args = Args::of(a, 2)?;
            Ok(Value::list([args.value(1)].into_iter().chain(args.list(0)?.iter().cloned()).collect()))
        },
        "concat" => |a| {
            let mut items = Vec::new();
            for at in 0..a.len() {
                items.extend(Args::at_least(a, 1)?.list(at)?.iter().cloned());
                few(items.len())?;
            }
            Ok(Value::list(items))
        },
        "first" | "mustFirst" => |a| Ok(Args::of(a, 1)?.list(0)?.first().cloned().unwrap_or(Value::Null)),
        "last" | "mustLast" => |a| Ok(Args::of(a, 1)?.list(0)?.last().cloned().unwrap_or(Value::Null)),
        "rest" | "mustRest" => |a| Ok(Value::list(Args::of(a, 1)?.list(0)?.get(1..).unwrap_or_default().to_vec())),
        "initial" | "mustInitial" => |a| {
            let list = Args::of(a, 1)?.list(0)?;
            Ok(Value::list(list.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default()))
        },
        "reverse" | "mustReverse" => |a| Ok(Value::list(Args::of(a, 1)?.list(0)?.iter().rev().cloned().collect())),
        "uniq" | "mustUniq" => uniq,
        "without" | "mustWithout" => |a| {
            let args = Args::at_least(a, 1)?;
            let unwanted = |item: &Value| args.rest(1).iter().any(|other| other.equal(item));
            Ok(Value::list(args.list(0)?.iter().filter(|item| !unwanted(item)).cloned().collect()))
        },
        "has" | "mustHas" => |a| {
            let args = Args::of(a, 2)?;
            Ok(Value::Bool(args.list(1)?.iter().any(|item| item.equal(&args.value(0)))))
        },
        "compact" | "mustCompact" => {
            |a| Ok(Value::list(Args::of(a, 1)?.list(0)?.iter().filter(|item| item.truth()).cloned().collect()))
        }
        "chunk" | "mustChunk" => |a| {
            let args = Args::of(a, 2)?;
            let size = args.count(0).max(1);
            Ok(Value::list(args.list(1)?.chunks(size).map(|items| Value::list(items.to_vec())).collect()))
        },
        "join" => join,
        "sortAlpha" => |a| {
            let mut texts = texts(&Args::of(a, 1)?.value(0));
            texts.sort();
            Ok(Value::list(texts.into_iter().map(Value::Str).collect()))
        },
        "toStrings" => |a| Ok(Value::list(texts(&Args::of(a, 1)?.value(0)).into_iter().map(Value::Str).collect())),
        "until" => |a| numbers(0, Args::of(a, 1)?.int(0), None),
        "untilStep" => |a| {
            let args = Args::of(a, 3)?;
            numbers(args.int(0), args.int(1), Some(args.int(2)))
        },
        _ => return None,
    })
}

fn few(count: usize) -> Result<(), Fault> {
    if count > MAX_ITEMS {
        let message = format!("the list would have more than {MAX_ITEMS} items");
        return Err(Fault::new(crate::ErrorKind::Limit, message));
    }
    Ok(())
}

fn uniq(arguments: &[Value]) -> Outcome {
    let mut found: Vec<Value> = Vec::new();
    let list = Args::of(arguments, 1)?.list(0)?;
    // Each is compared with each: what is long would take long.
    few(list.len().saturating_mul(10))?;
    for item in list.iter() {
        if !found.iter().any(|known| known.equal(item)) {
            found.push(item.clone());
        }
    }
    Ok(Value::list(found))
}

/// A value as texts: each of a list, without what is null; one of anything else.
fn texts(value: &Value) -> Vec<Rc<str>> {
    match value {
        Value::Null => Vec::new(),
        Value::List(items) => items.iter().filter(|item| !matches!(item, Value::Null)).map(to_text).collect(),
        other => vec![to_text(other)],
    }
}

fn join(arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    let (separator, texts) = (args.text(0)?, texts(&args.value(1)));
    bounded(texts.iter().map(|text| text.len() + separator.len()).sum())?;
    Ok(Value::str(texts.join(&*separator)))
}

fn numbers(from: i64, to: i64, step: Option<i64>) -> Outcome {
    let step = step.unwrap_or(if to < from { -1 } else { 1 });
    let mut items = Vec::new();
    let mut at = from;
    if step == 0 {
        return Ok(Value::list(items));
    }
    while (step > 0 && at < to) || (step < 0 && at > to) {
        items.push(Value::Int(at));
        few(items.len())?;
        at = at.saturating_add(step);
    }
    Ok(Value::list(items))
}
