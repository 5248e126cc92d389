//! Numbers.

use super::arguments::{Args, to_int};
use super::call::{Outcome, Plain};
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "int" | "int64" | "atoi" => |a| Ok(Value::Int(Args::of(a, 1)?.int(0))),
        "float64" => |a| Ok(Value::Float(Args::of(a, 1)?.float(0))),
        "add" => |a| Ok(Value::Int(a.iter().map(to_int).fold(0, i64::wrapping_add))),
        "add1" => |a| Ok(Value::Int(Args::of(a, 1)?.int(0).wrapping_add(1))),
        "sub" => |a| Ok(Value::Int(Args::of(a, 2)?.int(0).wrapping_sub(Args::of(a, 2)?.int(1)))),
        "mul" => |a| {
            Args::at_least(a, 1)?;
            Ok(Value::Int(a.iter().map(to_int).fold(1, i64::wrapping_mul)))
        },
        "div" => |a| divided(a, i64::checked_div),
        "mod" => |a| divided(a, i64::checked_rem),
        "max" | "biggest" => |a| Ok(Value::Int(a.iter().map(to_int).max().ok_or("takes a number or more")?)),
        "min" => |a| Ok(Value::Int(a.iter().map(to_int).min().ok_or("takes a number or more")?)),
        "floor" => |a| Ok(Value::Float(Args::of(a, 1)?.float(0).floor())),
        "ceil" => |a| Ok(Value::Float(Args::of(a, 1)?.float(0).ceil())),
        "round" => round,
        "addf" => |a| {
            let args = Args::at_least(a, 1)?;
            Ok(Value::Float((0..a.len()).map(|at| args.float(at)).sum()))
        },
        "mulf" => |a| {
            let args = Args::at_least(a, 1)?;
            Ok(Value::Float((0..a.len()).map(|at| args.float(at)).product()))
        },
        "subf" => |a| Ok(Value::Float(Args::of(a, 2)?.float(0) - Args::of(a, 2)?.float(1))),
        "divf" => |a| Ok(Value::Float(Args::of(a, 2)?.float(0) / Args::of(a, 2)?.float(1))),
        _ => return None,
    })
}

fn divided(arguments: &[Value], by: fn(i64, i64) -> Option<i64>) -> Outcome {
    let args = Args::of(arguments, 2)?;
    by(args.int(0), args.int(1)).map(Value::Int).ok_or_else(|| "division by zero".into())
}

fn round(arguments: &[Value]) -> Outcome {
    let args = Args::at_least(arguments, 1)?;
    let places = i32::try_from(args.int(1)).ok().filter(|places| (0..=15).contains(places)).unwrap_or(0);
    let scale = 10_f64.powi(places);
    Ok(Value::Float((args.float(0) * scale).round() / scale))
}
