//! Access logs.

use std::sync::Arc;

use mesh_api::text::Str;
use serde::Serialize;

/// One access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccessLog {
    /// File, `/dev/stdout` for the standard output.
    pub path: Str,
    /// What is written for each request or connection.
    pub format: LogFormat,
}

/// Format of an access log, in Envoy's command language.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum LogFormat {
    /// A line of text; it ends with its own newline.
    Text(Str),
    /// A JSON object a line, fields in this order.
    Json(Arc<[(Str, Str)]>),
}
