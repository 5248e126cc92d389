//! Encodings: JSON, YAML, base64, digests.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value as Json;

use super::arguments::Args;
use super::call::{Outcome, Plain, bounded};
use crate::value::Value;
use crate::yaml;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "toJson" | "mustToJson" => |a| {
            // As Go writes it, so that it can stand in HTML.
            let json = Args::of(a, 1)?.value(0).to_json()?.to_string();
            let json = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            Ok(Value::str(json))
        },
        "toRawJson" | "mustToRawJson" => |a| {
            let json = Args::of(a, 1)?.value(0).to_json()?;
            Ok(Value::str(json.to_string()))
        },
        "toPrettyJson" | "mustToPrettyJson" => |a| {
            let json = Args::of(a, 1)?.value(0).to_json()?;
            Ok(Value::str(serde_json::to_string_pretty(&json).map_err(|error| error.to_string())?))
        },
        "fromJson" => |a| Ok(from_json(&Args::of(a, 1)?.text(0)?)),
        "fromJsonArray" | "mustFromJson" => |a| {
            let text = Args::of(a, 1)?.text(0)?;
            let json: Json = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            Ok(Value::from_json(&json))
        },
        "toYaml" | "mustToYaml" | "toYamlPretty" => |a| {
            let text = yaml::to_string(&Args::of(a, 1)?.value(0).to_json()?);
            bounded(text.len())?;
            Ok(Value::str(text.trim_end_matches('\n')))
        },
        "fromYaml" => |a| {
            let parsed = yaml::from_str(&Args::of(a, 1)?.text(0)?);
            Ok(match parsed {
                Ok(Json::Null) => Value::map(Default::default()),
                Ok(json @ Json::Object(_)) => Value::from_json(&json),
                Ok(_) => failed("is no dictionary"),
                Err(error) => failed(&error),
            })
        },
        "fromYamlArray" => |a| match yaml::from_str(&Args::of(a, 1)?.text(0)?)? {
            json @ Json::Array(_) => Ok(Value::from_json(&json)),
            _ => Err("is no list".into()),
        },
        "b64enc" => |a| Ok(Value::str(STANDARD.encode(Args::of(a, 1)?.text(0)?.as_bytes()))),
        "b64dec" => b64dec,
        "sha256sum" => |a| hex(a, &digest::SHA256),
        "sha512sum" => |a| hex(a, &digest::SHA512),
        "urlquery" => urlquery,
        "html" => html,
        _ => return None,
    })
}

/// Helm's way to tell that something cannot be read: a dictionary with the key `Error`.
fn failed(why: &str) -> Value {
    Value::map([("Error".into(), Value::str(why))].into())
}

fn from_json(text: &str) -> Value {
    match serde_json::from_str::<Json>(text) {
        Ok(json) if json.is_object() => Value::from_json(&json),
        Ok(_) => failed("is no object"),
        Err(error) => failed(&error.to_string()),
    }
}

fn b64dec(arguments: &[Value]) -> Outcome {
    let text = Args::of(arguments, 1)?.text(0)?;
    let bytes = STANDARD.decode(text.as_bytes()).or_else(|_| URL_SAFE.decode(text.as_bytes()));
    let bytes = bytes.map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map(Value::str).map_err(|_| "is no text".into())
}

fn hex(arguments: &[Value], algorithm: &'static digest::Algorithm) -> Outcome {
    let text = Args::of(arguments, 1)?.text(0)?;
    let mut out = String::new();
    for byte in digest::digest(algorithm, text.as_bytes()).as_ref() {
        // Writing to a text cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    Ok(Value::str(out))
}

fn urlquery(arguments: &[Value]) -> Outcome {
    let text = Args::of(arguments, 1)?.any_text(0);
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    Ok(Value::str(out))
}

fn html(arguments: &[Value]) -> Outcome {
    let text = Args::of(arguments, 1)?.any_text(0);
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(Value::str(text.replace('"', "&#34;").replace('\'', "&#39;")))
}
