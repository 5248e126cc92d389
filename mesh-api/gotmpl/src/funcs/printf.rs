//! Go's `printf`.

use super::call::{Outcome, bounded};
use crate::funcs::arguments::{Args, to_float, to_int};
use crate::value::Value;

/// Widest field and longest fraction.
const MAX_WIDTH: usize = 1000;

#[derive(Clone, Copy, Default)]
struct Flags {
    left: bool,
    plus: bool,
    zero: bool,
    sharp: bool,
    blank: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn printf(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let format = args.text(0)?;
    let mut values = args.rest(1).iter();
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '0' | '#' | ' ')) {
            match flag {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                '0' => flags.zero = true,
                '#' => flags.sharp = true,
                _ => flags.blank = true,
            }
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                return values.next().map_or(0, |value| usize::try_from(to_int(value)).unwrap_or(0));
            }
            let mut number = 0_usize;
            while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
                number = number.saturating_mul(10).saturating_add(digit as usize);
            }
            number
        };
        flags.width = number(&mut chars);
        if chars.next_if_eq(&'.').is_some() {
            flags.precision = Some(number(&mut chars));
        }
        if flags.width > MAX_WIDTH || flags.precision.is_some_and(|precision| precision > MAX_WIDTH) {
            return Err(format!("a field is wider than {MAX_WIDTH}").into());
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                Some(value) => out.push_str(&pad(&one(verb, value, flags), verb, flags)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
            None => out.push_str("%!(NOVERB)"),
        }
        bounded(out.len())?;
    }
    let more: Vec<String> = values.map(extra).collect();
    if !more.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", more.join(", ")));
    }
    Ok(Value::str(out))
}

fn extra(value: &Value) -> String {
    if matches!(value, Value::Null) { "<nil>".to_owned() } else { format!("{}={}", value.kind(), value.text("<nil>")) }
}

fn one(verb: char, value: &Value, flags: Flags) -> String {
    let cut = |text: String| match flags.precision {
        Some(count) => text.chars().take(count).collect(),
        None => text,
    };
    match (verb, value) {
        ('v', Value::Int(number)) => signed(*number, flags),
        ('v', Value::Str(text)) if flags.sharp => format!("{text:?}"),
        ('v', value) => value.text("<nil>"),
        ('s', Value::Str(text)) => cut(text.to_string()),
        ('s' | 'q', Value::List(items)) => {
            let items: Vec<String> = items.iter().map(|item| one(verb, item, flags)).collect();
            format!("[{}]", items.join(" "))
        }
        ('s', Value::Null) => "%!s(<nil>)".to_owned(),
        ('q', Value::Str(text)) => quoted(text),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('T', value) => value.kind().to_owned(),
        ('d', Value::Int(_) | Value::Float(_)) => signed(to_int(value), flags),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('b', Value::Int(number)) => format!("{number:b}"),
        ('c', Value::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).map(String::from).unwrap_or_default()
        }
        ('x', Value::Str(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f' | 'F', Value::Int(_) | Value::Float(_)) => {
            let number = format!("{:.*}", flags.precision.unwrap_or(6), to_float(value));
            if flags.plus && !number.starts_with('-') { format!("+{number}") } else { number }
        }
        ('g', Value::Int(_) | Value::Float(_)) => crate::value::float(to_float(value)),
        (verb, value) => format!("%!{verb}({})", extra(value)),
    }
}

fn signed(number: i64, flags: Flags) -> String {
    match (flags.plus, flags.blank) {
        (true, _) => format!("{number:+}"),
        (false, true) if number >= 0 => format!(" {number}"),
        (false, _) => number.to_string(),
    }
}

fn pad(text: &str, verb: char, flags: Flags) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    let numeric = matches!(verb, 'd' | 'f' | 'F' | 'x' | 'X' | 'o' | 'b' | 'g' | 'v');
    if missing == 0 {
        text.to_owned()
    } else if flags.left {
        format!("{text}{}", " ".repeat(missing))
    } else if flags.zero && numeric && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) {
        let sign = usize::from(text.starts_with(['-', '+']));
        let (sign, digits) = text.split_at(sign);
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        format!("{}{text}", " ".repeat(missing))
    }
}

/// Go's `%q` and `quote`: a text between double quotes with Go's escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\x0b' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
