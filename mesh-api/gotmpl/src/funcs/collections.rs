//! Dictionaries.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::arguments::Args;
use super::call::{Outcome, Plain, Run};
use super::compare::to_text;
use crate::error::Fault;
use crate::value::{Dict, Value};

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "dict" => dict,
        "get" => |a| {
            let args = Args::of(a, 2)?;
            Ok(args.dict(0)?.borrow().get(&*args.text(1)?).cloned().unwrap_or_else(|| Value::str("")))
        },
        "unset" => |a| {
            let args = Args::of(a, 2)?;
            args.dict(0)?.borrow_mut().remove(&*args.text(1)?);
            Ok(args.value(0))
        },
        "hasKey" => |a| {
            let args = Args::of(a, 2)?;
            Ok(Value::Bool(args.dict(0)?.borrow().contains_key(&*args.text(1)?)))
        },
        "pluck" => pluck,
        "keys" => |a| {
            let mut keys = Vec::new();
            for at in 0..a.len() {
                keys.extend(Args::at_least(a, 1)?.dict(at)?.borrow().keys().map(|key| Value::Str(Rc::clone(key))));
            }
            Ok(Value::list(keys))
        },
        "values" => |a| Ok(Value::list(Args::of(a, 1)?.dict(0)?.borrow().values().cloned().collect())),
        "pick" => |a| chosen(a, true),
        "omit" => |a| chosen(a, false),
        "dig" => dig,
        "deepCopy" | "mustDeepCopy" => |a| Ok(Args::of(a, 1)?.value(0).deep_copy()),
        _ => return None,
    })
}

fn dict(arguments: &[Value]) -> Outcome {
    let mut entries = BTreeMap::new();
    for pair in arguments.chunks(2) {
        let key = pair.first().map(to_text).unwrap_or_default();
        entries.insert(key, pair.get(1).cloned().unwrap_or_else(|| Value::str("")));
    }
    Ok(Value::map(entries))
}

fn pluck(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let key = args.text(0)?;
    let mut found = Vec::new();
    for at in 1..arguments.len() {
        found.extend(args.dict(at)?.borrow().get(&key).cloned());
    }
    Ok(Value::list(found))
}

fn chosen(arguments: &[Value], wanted: bool) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let mut keys = Vec::new();
    for at in 1..arguments.len() {
        keys.push(args.text(at)?);
    }
    let dict = args.dict(0)?;
    let dict = dict.borrow();
    let entries = dict.iter().filter(|(key, _)| keys.contains(key) == wanted);
    Ok(Value::map(entries.map(|(key, value)| (Rc::clone(key), value.clone())).collect()))
}

/// `dig "a" "b" default dict`
fn dig(arguments: &[Value]) -> Outcome {
    let (Some((last, before)), true) = (arguments.split_last(), arguments.len() >= 3) else {
        return Err("takes keys, a default and a dictionary".into());
    };
    let Some((default, keys)) = before.split_last() else { return Err("takes a default".into()) };
    let mut value = last.clone();
    for key in keys {
        let next = match (&value, key) {
            (Value::Map(dict), Value::Str(key)) => dict.borrow().get(key).cloned(),
            _ => return Err("a key is not in a dictionary, or is no text".into()),
        };
        match next {
            Some(next) => value = next,
            None => return Ok(default.clone()),
        }
    }
    Ok(value)
}

pub(super) fn set(run: &mut dyn Run, arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 3)?;
    let dict = args.dict(0)?;
    put(run, &dict, args.text(1)?, args.value(2))?;
    Ok(args.value(0))
}

/// Puts a value into a dictionary, but never one into itself.
fn put(run: &mut dyn Run, dict: &Dict, key: Rc<str>, value: Value) -> Result<(), Fault> {
    if matches!(value, Value::List(_) | Value::Map(_)) {
        run.charge(value.weight())?;
        if value.holds(dict) {
            return Err("a dictionary would be in itself".into());
        }
        run.nested_set()?;
    }
    dict.borrow_mut().insert(key, value);
    Ok(())
}

/// Fills the first dictionary with what it lacks; earlier ones win.
pub(super) fn merge(run: &mut dyn Run, arguments: &[Value]) -> Outcome {
    merge_all(run, arguments, false)
}

/// Overwrites the first dictionary with what the others have; later ones win.
pub(super) fn merge_overwrite(run: &mut dyn Run, arguments: &[Value]) -> Outcome {
    merge_all(run, arguments, true)
}

fn merge_all(run: &mut dyn Run, arguments: &[Value], overwrite: bool) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let target = args.dict(0)?;
    for at in 1..arguments.len() {
        let source = match args.value(at) {
            Value::Null => continue,
            value => value.deep_copy(),
        };
        run.charge(source.weight())?;
        let Value::Map(source) = source else { return Err(format!("argument {} is no dictionary", at + 1).into()) };
        merge_into(run, &target, &source, overwrite)?;
    }
    Ok(args.value(0))
}

/// As `mergo` does: what is empty in the target is filled. Unlike there, the target shares nothing with the source.
fn merge_into(run: &mut dyn Run, target: &Dict, source: &Dict, overwrite: bool) -> Result<(), Fault> {
    run.charge(1)?;
    // The source is a copy of our own, so the two are never the same.
    for (key, value) in source.borrow().iter() {
        let known = target.borrow().get(key).cloned();
        match (known, value) {
            (Some(Value::Map(inner)), Value::Map(more)) => merge_into(run, &inner, more, overwrite)?,
            (Some(known), _) if known.truth() && !overwrite => {}
            (_, Value::Null) if !overwrite => {}
            (_, value) => put(run, target, Rc::clone(key), value.clone())?,
        }
    }
    Ok(())
}
