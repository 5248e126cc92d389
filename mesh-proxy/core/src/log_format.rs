//! Access log formats: a text in Envoy's command language, compiled once, rendered for each request into bytes.
//!
//! Understands the commands of Istio's default formats and those that people add to them. An unknown command is an error
//! with its position, never a silent `-`. Rendering allocates nothing but by growth of the buffer; the shell gives a buffer
//! per worker and writes it elsewhere.

mod command;
mod escape;
pub(crate) mod time;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mesh_api_xds::ir::telemetry::LogFormat as IrFormat;

use self::command::{Command, Value};
use self::escape::Style;
use crate::fault::Code;
use crate::flags::Flags;
use crate::h1::encode::decimal;
use crate::head::{Head, Version};

/// Istio's default text format (istio/istio: pilot/pkg/model/telemetry_logging.go, `EnvoyTextLogFormat`).
pub const DEFAULT_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's default JSON format (same source, `EnvoyJSONLogFormatIstio`).
pub const DEFAULT_JSON: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Longest format in bytes, so that a mistake in a mesh configuration cannot make every request expensive.
const MAX_FORMAT_BYTES: usize = 64 << 10;

/// What a finished request or connection leaves for the log. Texts that are empty and values that are `None` are printed as
/// `-`, and as `null` in JSON.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When the first byte of the request, or the connection, arrived.
    pub start_time: SystemTime,
    /// Request head as it was sent on; `None` for TCP.
    pub request: Option<&'a Head>,
    /// Response head as it was sent to the client.
    pub response: Option<&'a Head>,
    /// Response trailers.
    pub trailers: Option<&'a Head>,
    /// HTTP version of the client's connection; `None` for TCP.
    pub protocol: Option<Version>,
    /// Status sent to the client; 0 when none was.
    pub response_code: u16,
    /// What went wrong or was done on purpose.
    pub flags: Flags,
    /// Who made the response and why: `via_upstream`, or that of a local reply.
    pub response_code_details: &'a str,
    /// Why the proxy ended the connection, if it did.
    pub connection_termination_details: &'a str,
    /// Why connecting or TLS to the destination failed.
    pub upstream_transport_failure_reason: &'a str,
    /// Why TLS with the client failed.
    pub downstream_transport_failure_reason: &'a str,
    /// Code of the local reply, if it was one.
    pub code: Option<Code>,
    /// Body bytes from the client; all bytes for TCP.
    pub bytes_received: u64,
    /// Body bytes to the client; all bytes for TCP.
    pub bytes_sent: u64,
    /// From the start to the last byte sent to the client.
    pub duration: Duration,
    /// From the start to the last byte of the request received.
    pub request_duration: Option<Duration>,
    /// From the start to the first byte of the response received.
    pub response_duration: Option<Duration>,
    /// Address of the endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// Our address of the connection to the endpoint.
    pub upstream_local_address: Option<SocketAddr>,
    /// Name of the cluster, or the name that statistics use for it.
    pub upstream_cluster: &'a str,
    /// Name of the cluster.
    pub upstream_cluster_raw: &'a str,
    /// Attempts made.
    pub attempts: u32,
    /// Address that the client wanted, before redirection.
    pub downstream_local_address: Option<SocketAddr>,
    /// The client's address, from trusted forwarding fields where configured.
    pub downstream_remote_address: Option<SocketAddr>,
    /// The peer's address of the client connection.
    pub downstream_direct_remote_address: Option<SocketAddr>,
    /// Server name of the client's TLS.
    pub requested_server_name: &'a str,
    /// Name of the route.
    pub route_name: &'a str,
    /// Identity of the client.
    pub downstream_peer_uri_san: &'a str,
    /// Our identity towards the client.
    pub downstream_local_uri_san: &'a str,
    /// TLS version of the client's connection, as `TLSv1.3`.
    pub downstream_tls_version: &'a str,
    /// Cipher suite of the client's connection.
    pub downstream_tls_cipher: &'a str,
    /// Identity of the endpoint.
    pub upstream_peer_uri_san: &'a str,
    /// Our identity towards the endpoint.
    pub upstream_local_uri_san: &'a str,
    /// Number of the client's connection, unique in the process.
    pub connection_id: u64,
    /// Trace id in hexadecimal digits.
    pub trace_id: &'a str,
    /// Name of the machine or pod.
    pub hostname: &'a str,
}

/// A compiled format.
#[derive(Clone, Debug)]
pub struct LogFormat(Shape);

#[derive(Clone, Debug)]
enum Shape {
    Text(Template),
    /// Keys are escaped already.
    Json(Box<[(Box<str>, Template)]>),
}

/// Literals and commands in order.
#[derive(Clone, Debug)]
struct Template(Box<[Piece]>);

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<str>),
    /// A command, and the most characters of its value.
    Command(Command, Option<usize>),
}

/// Why a format cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {position}{}", .key.as_ref().map(|key| format!(" of {key:?}")).unwrap_or_default())]
pub struct FormatError {
    /// What is wrong.
    pub problem: Problem,
    /// Offset of the command's first `%`.
    pub position: usize,
    /// Key of the JSON field.
    pub key: Option<String>,
}

/// What is wrong with a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A command that does not exist, or that this proxy does not have.
    #[error("unknown command %{0}%")]
    Unknown(String),
    /// A `%` without its end; write `%%` for a percent sign.
    #[error("command without an end (a percent sign is written %%)")]
    Unterminated,
    /// The argument in parentheses is missing, superfluous or wrong.
    #[error("wrong argument of %{0}%")]
    Argument(String),
    /// The length after the colon is not a number.
    #[error("wrong length of %{0}%")]
    Length(String),
    /// The format is longer than 64 KiB.
    #[error("format is too long")]
    TooLong,
}

impl LogFormat {
    /// Compiles a format of the configuration.
    ///
    /// # Errors
    /// [`FormatError`] for the first command that cannot be used.
    pub fn compile(format: &IrFormat) -> Result<Self, FormatError> {
        match format {
            IrFormat::Text(text) => Self::text(text),
            IrFormat::Json(fields) => Self::json(fields.iter().map(|(key, text)| (key.as_str(), text.as_str()))),
        }
    }

    /// Compiles a text format. It brings its own newline.
    ///
    /// # Errors
    /// As [`LogFormat::compile`].
    pub fn text(format: &str) -> Result<Self, FormatError> {
        Template::compile(format).map(Shape::Text).map(Self)
    }

    /// Compiles a JSON format: one object a line, in the order given. A value that is a single command keeps its type.
    ///
    /// # Errors
    /// As [`LogFormat::compile`], with the key.
    pub fn json<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, FormatError> {
        let compile = |(key, format): (&str, &str)| {
            let template =
                Template::compile(format).map_err(|error| FormatError { key: Some(key.to_owned()), ..error })?;
            let mut escaped = Vec::new();
            Style::Json.escape(key.as_bytes(), &mut escaped);
            // Escaping text gives text.
            Ok((String::from_utf8_lossy(&escaped).into(), template))
        };
        let fields: Result<Box<[_]>, _> = fields.into_iter().map(compile).collect();
        fields.map(Shape::Json).map(Self)
    }

    /// Appends the line for `record`.
    pub fn render(&self, record: &AccessRecord<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Shape::Text(template) => template.render_text(record, Style::Text, out),
            Shape::Json(fields) => {
                for (place, (key, template)) in fields.iter().enumerate() {
                    out.extend_from_slice(if place == 0 { b"{\"" } else { b",\"" });
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":");
                    template.render_json(record, out);
                }
                out.extend_from_slice(if fields.is_empty() { b"{}\n" } else { b"}\n" });
            }
        }
    }
}

impl Template {
    fn compile(format: &str) -> Result<Self, FormatError> {
        let error = |problem, position| FormatError { problem, position, key: None };
        if format.len() > MAX_FORMAT_BYTES {
            return Err(error(Problem::TooLong, MAX_FORMAT_BYTES));
        }
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), format);
        while let Some(start) = rest.find('%') {
            let position = format.len() - rest.len() + start;
            let (before, tail) = rest.split_at(start);
            literal.push_str(before);
            if let Some(tail) = tail.strip_prefix("%%") {
                literal.push('%');
                rest = tail;
                continue;
            }
            let (command, len) = command::parse(tail).map_err(|problem| error(problem, position))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(command);
            rest = tail.get(len..).unwrap_or_default();
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self(pieces.into()))
    }

    fn render_text(&self, record: &AccessRecord<'_>, style: Style, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                // The text format's own letters are written as they are, a JSON value's are escaped.
                Piece::Literal(text) if style == Style::Text => out.extend_from_slice(text.as_bytes()),
                Piece::Literal(text) => style.escape(text.as_bytes(), out),
                Piece::Command(command, max) => match command.value(record) {
                    Value::Absent => out.push(b'-'),
                    value => value.write(*max, style, out),
                },
            }
        }
    }

    fn render_json(&self, record: &AccessRecord<'_>, out: &mut Vec<u8>) {
        if let [Piece::Command(command, max)] = &*self.0 {
            match command.value(record) {
                Value::Absent => return out.extend_from_slice(b"null"),
                Value::Number(number) => return decimal(number, out),
                value => {
                    out.push(b'"');
                    value.write(*max, Style::Json, out);
                }
            }
        } else {
            out.push(b'"');
            self.render_text(record, Style::Json, out);
        }
        out.push(b'"');
    }
}

impl AccessRecord<'_> {
    /// A record with nothing but its start.
    #[must_use]
    pub fn new(start_time: SystemTime) -> Self {
        Self {
            start_time,
            request: None,
            response: None,
            trailers: None,
            protocol: None,
            response_code: 0,
            flags: Flags::EMPTY,
            response_code_details: "",
            connection_termination_details: "",
            upstream_transport_failure_reason: "",
            downstream_transport_failure_reason: "",
            code: None,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            upstream_host: None,
            upstream_local_address: None,
            upstream_cluster: "",
            upstream_cluster_raw: "",
            attempts: 0,
            downstream_local_address: None,
            downstream_remote_address: None,
            downstream_direct_remote_address: None,
            requested_server_name: "",
            route_name: "",
            downstream_peer_uri_san: "",
            downstream_local_uri_san: "",
            downstream_tls_version: "",
            downstream_tls_cipher: "",
            upstream_peer_uri_san: "",
            upstream_local_uri_san: "",
            connection_id: 0,
            trace_id: "",
            hostname: "",
        }
    }
}

#[cfg(test)]
mod tests;
