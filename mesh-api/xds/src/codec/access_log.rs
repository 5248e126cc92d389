//! Access logs to files.

use std::sync::Arc;

use mesh_api::text::Str;
use serde_json::{Map, Value};

use super::common::{any, unpack};
use super::error::{At, DecodeError, each_arc, fail, leftover, required};
use super::metadata::Metadata;
use super::value::{struct_from_json, struct_to_json};
use crate::ir::telemetry::{AccessLog, LogFormat};
use crate::pb;
use crate::pb::accesslog::access_log::ConfigType;
use crate::pb::core::substitution_format_string::Format;
use crate::pb::file_log::file_access_log::AccessLogFormat;

/// Name of Envoy's file logger.
const FILE: &str = "envoy.access_loggers.file";
/// Our key for the order of the fields of JSON logs, which the message does not keep: a list for each JSON log.
const FIELD_ORDER: &str = "log_fields";

/// Encodes the logs of a chain; the order of JSON fields goes to the chain's metadata.
pub(super) fn encode(logs: &[AccessLog], metadata: &mut Metadata) -> Vec<pb::accesslog::AccessLog> {
    let orders = logs.iter().filter_map(|log| match &log.format {
        LogFormat::Text(_) => None,
        LogFormat::Json(fields) => Some(fields.iter().map(|(name, _)| Value::from(name.as_str())).collect::<Value>()),
    });
    let orders: Vec<_> = orders.collect();
    if !orders.is_empty() {
        metadata.set(FIELD_ORDER, orders);
    }
    logs.iter().map(encode_log).collect()
}

fn encode_log(log: &AccessLog) -> pb::accesslog::AccessLog {
    let format = match &log.format {
        LogFormat::Text(text) => Format::TextFormatSource(pb::core::DataSource {
            specifier: Some(pb::core::data_source::Specifier::InlineString(text.to_string())),
            ..pb::core::DataSource::default()
        }),
        LogFormat::Json(fields) => {
            let fields = fields.iter().map(|(name, text)| (name.to_string(), Value::from(text.as_str())));
            Format::JsonFormat(struct_from_json(Value::Object(fields.collect::<Map<_, _>>())))
        }
    };
    let file = pb::file_log::FileAccessLog {
        path: log.path.to_string(),
        access_log_format: Some(AccessLogFormat::LogFormat(pb::core::SubstitutionFormatString {
            format: Some(format),
            ..pb::core::SubstitutionFormatString::default()
        })),
    };
    pb::accesslog::AccessLog {
        name: FILE.to_owned(),
        filter: None,
        config_type: Some(ConfigType::TypedConfig(any(&file))),
    }
}

pub(super) fn decode(
    logs: Vec<pb::accesslog::AccessLog>,
    metadata: &Metadata,
) -> Result<Arc<[AccessLog]>, DecodeError> {
    let mut orders = metadata.get(FIELD_ORDER).and_then(Value::as_array).into_iter().flatten();
    each_arc("access_log", logs, |log| decode_log(log, || orders.next()))
}

fn decode_log<'a>(
    log: pb::accesslog::AccessLog,
    next_order: impl FnOnce() -> Option<&'a Value>,
) -> Result<AccessLog, DecodeError> {
    if log.filter.is_some() {
        return fail("is not supported").at("filter");
    }
    let ConfigType::TypedConfig(config) = required(log.config_type, "typed_config")?;
    let file: pb::file_log::FileAccessLog = unpack(&config).at("typed_config")?;
    let path = Str::from(file.path);
    let Some(AccessLogFormat::LogFormat(mut format)) = file.access_log_format else {
        return fail("only log_format is supported").at("typed_config.access_log_format");
    };
    let content = format.format.take();
    // Formatters extend the command language; unknown commands are found when the format is compiled.
    format.formatters.clear();
    format.json_format_options = None;
    leftover(&format).at("typed_config.log_format")?;
    let format = match content {
        Some(Format::TextFormatSource(source)) => {
            let text = super::common::read_inline(Some(source), "text_format_source")?;
            let text = String::from_utf8(text).or_else(|_| fail("is not UTF-8").at("text_format_source"))?;
            LogFormat::Text(text.into())
        }
        Some(Format::JsonFormat(fields)) => LogFormat::Json(read_fields(struct_to_json(fields), next_order())?),
        Some(_) | None => {
            return fail("only text_format_source and json_format are supported").at("typed_config.log_format");
        }
    };
    Ok(AccessLog { path, format })
}

/// The fields in their order, or by name when no order is known.
fn read_fields(fields: Value, order: Option<&Value>) -> Result<Arc<[(Str, Str)]>, DecodeError> {
    let Value::Object(mut fields) = fields else { return fail("is not an object").at("json_format") };
    let mut sorted = Vec::with_capacity(fields.len());
    for name in order.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if let Some(value) = fields.remove(name) {
            sorted.push((name.to_owned(), value));
        }
    }
    sorted.extend(fields);
    each_arc("json_format", sorted, |(name, value)| match value {
        Value::String(text) => Ok((Str::from(name), Str::from(text))),
        _ => fail(format!("{name} is not a text")),
    })
}
