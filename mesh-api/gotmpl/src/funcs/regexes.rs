//! Regular expressions. Go's and Rust's are of the same family: no look-around, linear time.

use regex::{Regex, RegexBuilder};

use super::arguments::Args;
use super::call::{Outcome, Plain, bounded};
use crate::error::Fault;
use crate::value::Value;

/// Largest compiled expression (bytes).
const MAX_COMPILED_BYTES: usize = 1 << 20;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "regexMatch" | "mustRegexMatch" => |a| {
            let args = Args::of(a, 2)?;
            Ok(Value::Bool(compiled(&args.text(0)?)?.is_match(&args.text(1)?)))
        },
        "regexFind" | "mustRegexFind" => |a| {
            let args = Args::of(a, 2)?;
            let text = args.text(1)?;
            Ok(Value::str(compiled(&args.text(0)?)?.find(&text).map_or("", |found| found.as_str())))
        },
        "regexFindAll" | "mustRegexFindAll" => |a| {
            let args = Args::of(a, 3)?;
            let (text, most) = (args.text(1)?, usize::try_from(args.int(2)).unwrap_or(usize::MAX));
            let regex = compiled(&args.text(0)?)?;
            Ok(Value::list(regex.find_iter(&text).take(most).map(|found| Value::str(found.as_str())).collect()))
        },
        "regexReplaceAll" | "mustRegexReplaceAll" => |a| replaced(a, false),
        "regexReplaceAllLiteral" | "mustRegexReplaceAllLiteral" => |a| replaced(a, true),
        "regexSplit" | "mustRegexSplit" => |a| {
            let args = Args::of(a, 3)?;
            let (text, regex) = (args.text(1)?, compiled(&args.text(0)?)?);
            let parts: Vec<Value> = match usize::try_from(args.int(2)) {
                Ok(most) => regex.splitn(&text, most).map(Value::str).collect(),
                Err(_) => regex.split(&text).map(Value::str).collect(),
            };
            Ok(Value::list(parts))
        },
        "regexQuoteMeta" => |a| Ok(Value::str(regex::escape(&Args::of(a, 1)?.text(0)?))),
        _ => return None,
    })
}

fn compiled(text: &str) -> Result<Regex, Fault> {
    let built = RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build();
    built.map_err(|error| format!("{text:?} is no regular expression: {error}").into())
}

fn replaced(arguments: &[Value], literal: bool) -> Outcome {
    let args = Args::of(arguments, 3)?;
    let (text, new) = (args.text(1)?, args.text(2)?);
    let regex = compiled(&args.text(0)?)?;
    let mut out = String::new();
    let mut last = 0;
    for groups in regex.captures_iter(&text) {
        let Some(whole) = groups.get(0) else { continue };
        out.push_str(text.get(last..whole.start()).unwrap_or_default());
        if literal {
            out.push_str(&new);
        } else {
            groups.expand(&new, &mut out);
        }
        last = whole.end();
        bounded(out.len())?;
    }
    out.push_str(text.get(last..).unwrap_or_default());
    Ok(Value::str(out))
}
