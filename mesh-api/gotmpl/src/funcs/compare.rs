//! Go's own functions, and those that choose: `default`, `ternary`, `required`, ….

use std::cmp::Ordering;
use std::rc::Rc;

use super::arguments::Args;
use super::call::{Outcome, Plain, bounded};
use super::printf;
use crate::error::ErrorKind;
use crate::error::Fault;
use crate::value::{Value, float};

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "not" => |a| Ok(Value::Bool(!Args::of(a, 1)?.value(0).truth())),
        "eq" => equal,
        "ne" => |a| Ok(Value::Bool(!same(&Args::of(a, 2)?.value(0), &Args::of(a, 2)?.value(1))?)),
        "lt" => |a| order(a, |order| order == Ordering::Less),
        "le" => |a| order(a, |order| order != Ordering::Greater),
        "gt" => |a| order(a, |order| order == Ordering::Greater),
        "ge" => |a| order(a, |order| order != Ordering::Less),
        "len" => length,
        "index" => index,
        "slice" => slice,
        "print" => |a| printed(a, false),
        "println" => |a| printed(a, true),
        "printf" => |a| printf::printf(a),
        "default" => default,
        "empty" => |a| Ok(Value::Bool(!Args::of(a, 1)?.value(0).truth())),
        "coalesce" => |a| Ok(a.iter().find(|value| value.truth()).cloned().unwrap_or(Value::Null)),
        "all" => |a| Ok(Value::Bool(a.iter().all(Value::truth))),
        "any" => |a| Ok(Value::Bool(a.iter().any(Value::truth))),
        "ternary" => |a| {
            let args = Args::of(a, 3)?;
            Ok(args.value(usize::from(!args.truth(2)?)))
        },
        "fail" => |a| Err(Fault::new(ErrorKind::Asked, &*Args::of(a, 1)?.text(0)?)),
        "required" => required,
        // A rendered manifest does not depend on what a cluster holds: nothing is found, as in `helm template`.
        "lookup" => |a| Args::of(a, 4).map(|_| Value::map(Default::default())),
        "kindOf" => |a| Ok(Value::str(Args::of(a, 1)?.value(0).kind())),
        "kindIs" => |a| Ok(Value::Bool(&*Args::of(a, 2)?.text(0)? == Args::of(a, 2)?.value(1).kind())),
        "typeOf" => |a| Ok(Value::str(type_of(&Args::of(a, 1)?.value(0)))),
        "typeIs" => |a| Ok(Value::Bool(&*Args::of(a, 2)?.text(0)? == type_of(&Args::of(a, 2)?.value(1)))),
        "deepEqual" => |a| Ok(Value::Bool(Args::of(a, 2)?.value(0).equal(&Args::of(a, 2)?.value(1)))),
        _ => return None,
    })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        other => other.kind(),
    }
}

/// Go's `eq` for what it can compare: no lists, no dictionaries, no values of different types but numbers.
fn same(a: &Value, b: &Value) -> Result<bool, Fault> {
    match (a, b) {
        (Value::List(_) | Value::Map(_), Value::Null) | (Value::Null, Value::List(_) | Value::Map(_)) => Ok(false),
        (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
            Err("lists and dictionaries cannot be compared".into())
        }
        (Value::Null, _) | (_, Value::Null) => Ok(a.equal(b)),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => Ok(a.equal(b)),
        _ if a.kind() == b.kind() => Ok(a.equal(b)),
        _ => Err(format!("a {} and a {} cannot be compared", a.kind(), b.kind()).into()),
    }
}

fn equal(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 2)?;
    let first = args.value(0);
    for other in args.rest(1) {
        if same(&first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn order(arguments: &[Value], wanted: fn(Ordering) -> bool) -> Outcome {
    let args = Args::of(arguments, 2)?;
    let (a, b) = (args.value(0), args.value(1));
    match a.compare(&b) {
        Some(order) => Ok(Value::Bool(wanted(order))),
        None => Err(format!("a {} and a {} have no order", a.kind(), b.kind()).into()),
    }
}

fn length(arguments: &[Value]) -> Outcome {
    let count = match Args::of(arguments, 1)?.value(0) {
        Value::Str(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(dict) => dict.borrow().len(),
        other => return Err(format!("a {} has no length", other.kind()).into()),
    };
    Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn index(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let mut value = args.value(0);
    for key in args.rest(1) {
        value = match (&value, key) {
            (Value::Map(dict), Value::Str(key)) => dict.borrow().get(key).cloned().unwrap_or(Value::Null),
            (Value::List(items), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| items.get(at)).cloned();
                found.ok_or_else(|| format!("there is no item {at} in a list of {}", items.len()))?
            }
            (Value::Str(text), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at).copied());
                Value::Int(found.ok_or_else(|| format!("there is no byte {at} in a text of {}", text.len()))?.into())
            }
            (Value::Null, _) => return Err("index of what is not there".into()),
            (value, key) => return Err(format!("index of a {} by a {}", value.kind(), key.kind()).into()),
        };
    }
    Ok(value)
}

/// Both Go's `slice` of texts and Sprig's of lists.
fn slice(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let outside = || Fault::from("the bounds are outside");
    let bound = |at: usize, otherwise: usize| -> Result<usize, Fault> {
        if at < arguments.len() { usize::try_from(args.int(at)).map_err(|_| outside()) } else { Ok(otherwise) }
    };
    match args.value(0) {
        Value::Str(text) => {
            let range = bound(1, 0)?..bound(2, text.len())?;
            text.get(range).map(Value::str).ok_or_else(outside)
        }
        Value::List(items) => {
            let range = bound(1, 0)?..bound(2, items.len())?;
            items.get(range).map(|items| Value::list(items.to_vec())).ok_or_else(outside)
        }
        other => Err(format!("slice of a {}", other.kind()).into()),
    }
}

/// Go's `print` puts a blank between two that are no texts; `println` between all.
fn printed(arguments: &[Value], line: bool) -> Outcome {
    let mut text = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| arguments.get(at));
        let texts = matches!(value, Value::Str(_)) || matches!(before, Some(Value::Str(_)));
        if at > 0 && (line || !texts) {
            text.push(' ');
        }
        text.push_str(&value.text("<nil>"));
        bounded(text.len())?;
    }
    if line {
        text.push('\n');
    }
    Ok(Value::str(text))
}

fn default(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let given = arguments.last().filter(|_| arguments.len() > 1).cloned().unwrap_or(Value::Null);
    Ok(if given.truth() { given } else { args.value(0) })
}

fn required(arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    match args.value(1) {
        Value::Null => Err(Fault::new(ErrorKind::Asked, &*args.text(0)?)),
        Value::Str(text) if text.is_empty() => Err(Fault::new(ErrorKind::Asked, &*args.text(0)?)),
        value => Ok(value),
    }
}

/// A value's text as Sprig's `toString` has it.
pub(super) fn to_text(value: &Value) -> Rc<str> {
    match value {
        Value::Str(text) => Rc::clone(text),
        Value::Float(value) => Rc::from(float(*value)),
        other => Rc::from(other.text("<nil>")),
    }
}
