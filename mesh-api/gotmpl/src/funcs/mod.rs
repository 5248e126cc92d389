//! The functions that templates can call: Go's own, and those of Sprig and Helm that are pure.
//!
//! What is left out on purpose: clocks (`now`, `date…`), chance (`rand…`, `uuidv4`, `gen…`), the environment (`env`)
//! and the network (`getHostByName`): a template gives the same text for the same data.

mod arguments;
mod call;
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

use crate::value::Value;

use arguments::Args;
pub(crate) use call::{Builtin, Run};
use call::{Outcome, Running};

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

fn include(run: &mut dyn Run, arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    run.named(&args.text(0)?, args.value(1)).map(Value::str)
}

fn tpl(run: &mut dyn Run, arguments: &[Value]) -> Outcome {
    let args = Args::of(arguments, 2)?;
    run.text(&args.text(0)?, args.value(1)).map(Value::str)
}
