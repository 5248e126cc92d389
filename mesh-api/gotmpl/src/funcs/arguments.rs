//! Arguments of functions, read as what the function takes.

use std::rc::Rc;

use crate::error::Fault;
use crate::value::{Dict, Value};

/// The arguments of a call.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a>(&'a [Value]);

impl<'a> Args<'a> {
    /// Exactly `count` arguments.
    pub(crate) fn of(values: &'a [Value], count: usize) -> Result<Self, Fault> {
        if values.len() == count {
            return Ok(Self(values));
        }
        Err(format!("takes {count} arguments, has {}", values.len()).into())
    }

    /// At least `count` arguments.
    pub(crate) fn at_least(values: &'a [Value], count: usize) -> Result<Self, Fault> {
        if values.len() >= count {
            return Ok(Self(values));
        }
        Err(format!("takes {count} arguments or more, has {}", values.len()).into())
    }

    pub(crate) fn value(&self, at: usize) -> Value {
        self.0.get(at).cloned().unwrap_or(Value::Null)
    }

    pub(crate) fn rest(&self, from: usize) -> &'a [Value] {
        self.0.get(from..).unwrap_or_default()
    }

    /// A text; what is not there is an empty one, as in Sprig. Numbers are not taken for text, as in Go.
    pub(crate) fn text(&self, at: usize) -> Result<Rc<str>, Fault> {
        match self.0.get(at) {
            Some(Value::Str(text)) => Ok(Rc::clone(text)),
            Some(Value::Null) => Ok(Rc::from("")),
            other => Err(expected("text", at, other)),
        }
    }

    /// Any value as its text, as Sprig's functions of `interface{}` take it.
    pub(crate) fn any_text(&self, at: usize) -> Rc<str> {
        match self.0.get(at) {
            Some(Value::Str(text)) => Rc::clone(text),
            Some(other) => Rc::from(other.text("")),
            None => Rc::from(""),
        }
    }

    pub(crate) fn dict(&self, at: usize) -> Result<Dict, Fault> {
        match self.0.get(at) {
            Some(Value::Map(dict)) => Ok(Rc::clone(dict)),
            other => Err(expected("dictionary", at, other)),
        }
    }

    pub(crate) fn list(&self, at: usize) -> Result<Rc<[Value]>, Fault> {
        match self.0.get(at) {
            Some(Value::List(items)) => Ok(Rc::clone(items)),
            Some(Value::Null) => Ok(Rc::from(Vec::new())),
            other => Err(expected("list", at, other)),
        }
    }

    pub(crate) fn truth(&self, at: usize) -> Result<bool, Fault> {
        match self.0.get(at) {
            Some(Value::Bool(value)) => Ok(*value),
            other => Err(expected("true or false", at, other)),
        }
    }

    /// A whole number, converted as Sprig's `int64` does.
    pub(crate) fn int(&self, at: usize) -> i64 {
        self.0.get(at).map_or(0, to_int)
    }

    pub(crate) fn float(&self, at: usize) -> f64 {
        self.0.get(at).map_or(0.0, to_float)
    }

    /// A number of items or bytes; negative ones are none.
    pub(crate) fn count(&self, at: usize) -> usize {
        usize::try_from(self.int(at)).unwrap_or(0)
    }
}

fn expected(what: &str, at: usize, value: Option<&Value>) -> Fault {
    let kind = value.map_or("missing", Value::kind);
    format!("argument {} is {kind}, not {what}", at + 1).into()
}

/// The number that a value is or, if it is a text, says; 0 when none.
pub(crate) fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(value) => *value,
        #[expect(clippy::cast_possible_truncation, reason = "Go converts so too; out of range saturates")]
        Value::Float(value) => *value as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Str(text) => match crate::lex::number(text.trim()) {
            Some(number) => to_int(&Value::from_json(&number)),
            None => 0,
        },
        Value::Null | Value::List(_) | Value::Map(_) => 0,
    }
}

pub(crate) fn to_float(value: &Value) -> f64 {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "Go converts so too")]
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Str(text) => text.trim().parse().unwrap_or(0.0),
        Value::Null | Value::List(_) | Value::Map(_) => 0.0,
    }
}
