//! Cross-origin resource sharing.

use std::time::Duration;

use crate::codec::common::{bool_value, read_bool, read_runtime_share};
use crate::codec::error::{At, DecodeError, bad, each_arc, leftover, only};
use crate::codec::matcher::{read_string, string};
use crate::ir::PerMillion;
use crate::ir::filter::Cors;
use crate::pb;

pub(super) fn encode(cors: &Cors) -> pb::http_cors::CorsPolicy {
    pb::http_cors::CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(string).collect(),
        allow_methods: cors.methods.to_string(),
        allow_headers: cors.headers.to_string(),
        expose_headers: cors.expose.to_string(),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: bool_value(cors.credentials),
        forward_not_matching_preflights: bool_value(cors.forward_unmatched),
        ..pb::http_cors::CorsPolicy::default()
    }
}

pub(super) fn decode(mut message: pb::http_cors::CorsPolicy) -> Result<Cors, DecodeError> {
    let origins = std::mem::take(&mut message.allow_origin_string_match);
    let max_age = std::mem::take(&mut message.max_age);
    let max_age = match max_age.as_str() {
        "" => None,
        text => Some(Duration::from_secs(text.parse().or_else(|_| bad("a number of seconds", text).at("max_age"))?)),
    };
    if let Some(share) = message.filter_enabled.take() {
        only(&read_runtime_share(share)?, &PerMillion::ALL, "filter_enabled")?;
    }
    let cors = Cors {
        origins: each_arc("allow_origin_string_match", origins, read_string)?,
        methods: std::mem::take(&mut message.allow_methods).into(),
        headers: std::mem::take(&mut message.allow_headers).into(),
        expose: std::mem::take(&mut message.expose_headers).into(),
        max_age,
        credentials: read_bool(message.allow_credentials.take(), false),
        // Envoy forwards them by default.
        forward_unmatched: read_bool(message.forward_not_matching_preflights.take(), true),
    };
    leftover(&message)?;
    Ok(cors)
}
