//! The functions that templates can call: Go's own, and those of Sprig and Helm that are pure.
//!
//! What is left out on purpose: clocks (`now`, `date…`), chance (`rand…`, `uuidv4`, `gen…`), the environment (`env`)
//! and the network (`getHostByName`): a template gives the same text for the same data.

mod arguments;
mod collections;
mod compare;
mod encode;
mod lists;
mod math;
mod printf;
mod regexes;
mod semver;
mod strings;
mod words;

use crate::exec::{Exec, Fault};
use crate::value::Value;

use arguments::Args;

/// A result.
pub(crate) type Outcome = Result<Value, Fault>;
/// A function of its arguments only.
pub(crate) type Plain = fn(&[Value]) -> Outcome;
/// A function that runs templates or changes dictionaries.
pub(crate) type Running = fn(&mut Exec<'_>, &[Value]) -> Outcome;

/// A built-in function.
#[derive(Clone, Copy)]
pub(crate) enum Builtin {
    Plain(Plain),
    Running(Running),
}

/// Longest text that a function makes (bytes), 4 MiB: a quarter of the largest output.
pub(crate) const MAX_TEXT_BYTES: usize = 4 << 20;
/// Longest list that a function makes out of numbers.
pub(crate) const MAX_ITEMS: usize = 100_000;

/// The function of that name.
pub(crate) fn find(name: &str) -> Option<Builtin> {
    running(name).map(Builtin::Running).or_else(|| {
        let tables = [compare::find, collections::find, lists::find, strings::find, words::find];
        let more = [math::find, encode::find, regexes::find, semver::find];
        tables.iter().chain(&more).find_map(|table| table(name)).map(Builtin::Plain)
    })
}

fn running(name: &str) -> Option<Running> {
    Some(match name {
        "include" => include,
        "tpl" => tpl,
        "set" => collections::set,
        "merge" | "mustMerge" => collections::merge,
        "mergeOverwrite" | "mustMergeOverwrite" => collections::merge_overwrite,
        // Known here so that `and` and `or` are functions; the run itself stops at the first that decides.
        "and" | "or" => |_, _| Err("cannot be called so".into()),
        _ => return None,
    })
}

fn include(exec: &mut Exec<'_>, arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    exec.named(&args.text(0)?, args.value(1)).map(Value::str)
}

fn tpl(exec: &mut Exec<'_>, arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    exec.text(&args.text(0)?, args.value(1)).map(Value::str)
}

/// Refuses texts that would be too long.
pub(crate) fn bounded(bytes: usize) -> Result<(), Fault> {
    if bytes > MAX_TEXT_BYTES {
        let message = format!("the text would be longer than {MAX_TEXT_BYTES} bytes");
        return Err(Fault::new(crate::ErrorKind::Limit, message));
    }
    Ok(())
}
