//! The commands of a format, and the values they take from a record.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::escape::Style;
use super::time::TimeFormat;
use super::{AccessRecord, Piece, Problem};
use crate::fault::Code;
use crate::flags::{Flags, ResponseFlag};
use crate::h1::encode::decimal;
use crate::head::known::KnownName;
use crate::head::name::FieldName;
use crate::head::{Head, Version};

/// One command with its compiled argument.
#[derive(Clone, Debug)]
pub(super) enum Command {
    StartTime(TimeFormat),
    Field { of: Message, names: Names, query: Query },
    Text(TextOf),
    Number(NumberOf),
    Duration(DurationOf),
    Address(AddressOf, Part),
    Flags(fn(ResponseFlag) -> &'static str),
    Protocol,
    Code,
    GrpcStatus(GrpcText),
}

/// Whose field is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    Request,
    Response,
    Trailers,
}

/// A field, and the one to take when it is absent.
#[derive(Clone, Debug)]
pub(super) struct Names {
    first: FieldName,
    second: Option<FieldName>,
}

/// What happens to a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum Query {
    Keep,
    Drop,
}

/// Texts of a record.
type TextOf = for<'a> fn(&AccessRecord<'a>) -> &'a str;
/// Numbers of a record.
type NumberOf = fn(&AccessRecord<'_>) -> u64;
/// Durations of a record.
type DurationOf = fn(&AccessRecord<'_>) -> Option<Duration>;
/// Addresses of a record.
type AddressOf = fn(&AccessRecord<'_>) -> Option<SocketAddr>;

/// Part of an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Whole,
    Ip,
    Port,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum GrpcText {
    Camel,
    Snake,
    Number,
}

/// A command's value for one record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Absent,
    Bytes(&'a [u8]),
    Number(u64),
    Ip(IpAddr),
    Address(SocketAddr),
    Flags(Flags, fn(ResponseFlag) -> &'static str),
    Time(SystemTime, &'a TimeFormat),
    Code(Code),
}

/// Names of gRPC statuses in both spellings (gRPC core, `statuscodes.md`).
const GRPC_STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// Reads the command at the beginning of `text`, which is its first `%`. Returns it with its length.
pub(super) fn parse(text: &str) -> Result<(Piece, usize), Problem> {
    let inner = text.get(1..).unwrap_or_default();
    let name_len =
        inner.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(name_len);
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(tail) => {
            let end = argument_end(tail).ok_or(Problem::Unterminated)?;
            let (argument, tail) = tail.split_at(end);
            (Some(argument), tail.get(1..).unwrap_or_default())
        }
        None => (None, rest),
    };
    let end = rest.find('%').ok_or(Problem::Unterminated)?;
    let (suffix, rest) = rest.split_at(end);
    let max = match suffix.strip_prefix(':') {
        Some(digits) => Some(digits.parse().map_err(|_| Problem::Length(name.to_owned()))?),
        None if suffix.is_empty() => None,
        None => return Err(Problem::Unknown(format!("{name}{suffix}"))),
    };
    let command = compile(name, argument)?;
    Ok((Piece::Command(command, max), text.len() - rest.len() + 1))
}

/// Where an argument ends: at the first `)` that the command's end, or a length, follows. Times have `%` inside.
fn argument_end(text: &str) -> Option<usize> {
    text.match_indices(')').map(|(place, _)| place).find(|place| {
        let after = text.get(place + 1..).unwrap_or_default();
        after.strip_prefix(':').unwrap_or(after).trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('%')
    })
}

fn compile(name: &str, argument: Option<&str>) -> Result<Command, Problem> {
    if let Some(command) = with_argument(name, argument)? {
        return Ok(command);
    }
    let command = plain(name).ok_or_else(|| Problem::Unknown(name.to_owned()))?;
    match argument {
        None => Ok(command),
        Some(_) => Err(Problem::Argument(name.to_owned())),
    }
}

/// Commands that take an argument.
fn with_argument(name: &str, argument: Option<&str>) -> Result<Option<Command>, Problem> {
    let wrong = || Problem::Argument(name.to_owned());
    let field = |of, query| {
        let mut names = argument.ok_or_else(wrong)?.splitn(2, '?');
        let first = names.next().and_then(FieldName::parse).ok_or_else(wrong)?;
        let second = names.next().map(|name| FieldName::parse(name).ok_or_else(wrong)).transpose()?;
        Ok(Some(Command::Field { of, names: Names { first, second }, query }))
    };
    match name {
        "REQ" => field(Message::Request, Query::Keep),
        "REQ_WITHOUT_QUERY" => field(Message::Request, Query::Drop),
        "RESP" => field(Message::Response, Query::Keep),
        "TRAILER" => field(Message::Trailers, Query::Keep),
        "START_TIME" => match argument {
            None | Some("") => Ok(Some(Command::StartTime(TimeFormat::iso()))),
            Some(format) => {
                TimeFormat::compile(format).map(|format| Some(Command::StartTime(format))).ok_or_else(wrong)
            }
        },
        "GRPC_STATUS" => match argument {
            None | Some("" | "CAMEL_STRING") => Ok(Some(Command::GrpcStatus(GrpcText::Camel))),
            Some("SNAKE_STRING") => Ok(Some(Command::GrpcStatus(GrpcText::Snake))),
            Some("NUMBER") => Ok(Some(Command::GrpcStatus(GrpcText::Number))),
            Some(_) => Err(wrong()),
        },
        _ => Ok(None),
    }
}

/// Commands without an argument.
fn plain(name: &str) -> Option<Command> {
    use Command::{Address, Duration, Number, Text};
    use Part::{Ip, Port, Whole};
    Some(match name {
        "PROTOCOL" => Command::Protocol,
        "RESPONSE_CODE" => Number(|record| u64::from(record.response_code)),
        "RESPONSE_FLAGS" => Command::Flags(ResponseFlag::text),
        "RESPONSE_FLAGS_LONG" => Command::Flags(ResponseFlag::long_text),
        "RESPONSE_CODE_DETAILS" => Text(|record| record.response_code_details),
        "CONNECTION_TERMINATION_DETAILS" => Text(|record| record.connection_termination_details),
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Text(|record| record.upstream_transport_failure_reason),
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Text(|record| record.downstream_transport_failure_reason),
        "BYTES_RECEIVED" => Number(|record| record.bytes_received),
        "BYTES_SENT" => Number(|record| record.bytes_sent),
        "DURATION" => Duration(|record| Some(record.duration)),
        "REQUEST_DURATION" => Duration(|record| record.request_duration),
        "RESPONSE_DURATION" => Duration(|record| record.response_duration),
        "RESPONSE_TX_DURATION" => Duration(|record| record.duration.checked_sub(record.response_duration?)),
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Address(|record| record.upstream_host, Whole),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Address(|record| record.upstream_host, Ip),
        "UPSTREAM_REMOTE_PORT" => Address(|record| record.upstream_host, Port),
        "UPSTREAM_LOCAL_ADDRESS" => Address(|record| record.upstream_local_address, Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Address(|record| record.upstream_local_address, Ip),
        "UPSTREAM_LOCAL_PORT" => Address(|record| record.upstream_local_address, Port),
        "UPSTREAM_CLUSTER" => Text(|record| record.upstream_cluster),
        "UPSTREAM_CLUSTER_RAW" => Text(|record| record.upstream_cluster_raw),
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Number(|record| u64::from(record.attempts)),
        "UPSTREAM_PEER_URI_SAN" => Text(|record| record.upstream_peer_uri_san),
        "UPSTREAM_LOCAL_URI_SAN" => Text(|record| record.upstream_local_uri_san),
        "DOWNSTREAM_LOCAL_ADDRESS" => Address(|record| record.downstream_local_address, Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Address(|record| record.downstream_local_address, Ip),
        "DOWNSTREAM_LOCAL_PORT" => Address(|record| record.downstream_local_address, Port),
        "DOWNSTREAM_REMOTE_ADDRESS" => Address(|record| record.downstream_remote_address, Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Address(|record| record.downstream_remote_address, Ip),
        "DOWNSTREAM_REMOTE_PORT" => Address(|record| record.downstream_remote_address, Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Address(|record| record.downstream_direct_remote_address, Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Address(|record| record.downstream_direct_remote_address, Ip)
        }
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Address(|record| record.downstream_direct_remote_address, Port),
        "DOWNSTREAM_PEER_URI_SAN" => Text(|record| record.downstream_peer_uri_san),
        "DOWNSTREAM_LOCAL_URI_SAN" => Text(|record| record.downstream_local_uri_san),
        "DOWNSTREAM_TLS_VERSION" => Text(|record| record.downstream_tls_version),
        "DOWNSTREAM_TLS_CIPHER" => Text(|record| record.downstream_tls_cipher),
        "REQUESTED_SERVER_NAME" => Text(|record| record.requested_server_name),
        "ROUTE_NAME" => Text(|record| record.route_name),
        "CONNECTION_ID" => Number(|record| record.connection_id),
        "TRACE_ID" => Text(|record| record.trace_id),
        "HOSTNAME" => Text(|record| record.hostname),
        "GRPC_STATUS_NUMBER" => Command::GrpcStatus(GrpcText::Number),
        // Our own: the stable code of a local reply, as in `x-mesh-code`.
        "MESH_CODE" => Command::Code,
        _ => return None,
    })
}

impl Command {
    /// The value for `record`.
    pub(super) fn value<'a>(&'a self, record: &AccessRecord<'a>) -> Value<'a> {
        match self {
            Self::StartTime(format) => Value::Time(record.start_time, format),
            Self::Field { of, names, query } => {
                let message = match of {
                    Message::Request => record.request,
                    Message::Response => record.response,
                    Message::Trailers => record.trailers,
                };
                message
                    .and_then(|head| names.find(head))
                    .map_or(Value::Absent, |value| Value::Bytes(query.apply(value)))
            }
            Self::Text(text) => Value::text(text(record)),
            Self::Number(number) => Value::Number(number(record)),
            Self::Duration(duration) => duration(record).map_or(Value::Absent, |duration| {
                Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            }),
            Self::Address(address, part) => match (address(record), part) {
                (None, _) => Value::Absent,
                (Some(address), Part::Whole) => Value::Address(address),
                (Some(address), Part::Ip) => Value::Ip(address.ip()),
                (Some(address), Part::Port) => Value::Number(u64::from(address.port())),
            },
            Self::Flags(text) => Value::Flags(record.flags, *text),
            Self::Protocol => record.protocol.map_or(Value::Absent, |version: Version| Value::text(version.as_str())),
            Self::Code => record.code.map_or(Value::Absent, Value::Code),
            Self::GrpcStatus(text) => grpc_status(record).map_or(Value::Absent, |status| text.value(status)),
        }
    }
}

impl Names {
    fn find<'a>(&self, head: &'a Head) -> Option<&'a [u8]> {
        head.get(&self.first).or_else(|| head.get(self.second.as_ref()?))
    }
}

impl Query {
    fn apply(self, value: &[u8]) -> &[u8] {
        match self {
            Self::Keep => value,
            Self::Drop => value.split(|byte| *byte == b'?').next().unwrap_or_default(),
        }
    }
}

impl GrpcText {
    fn value(self, status: u64) -> Value<'static> {
        let names = usize::try_from(status).ok().and_then(|status| GRPC_STATUSES.get(status));
        match (self, names) {
            (Self::Camel, Some((camel, _))) => Value::text(camel),
            (Self::Snake, Some((_, snake))) => Value::text(snake),
            _ => Value::Number(status),
        }
    }
}

/// Status of a gRPC call: in the trailers, or in the head of an answer without a body.
fn grpc_status(record: &AccessRecord<'_>) -> Option<u64> {
    let text =
        [record.trailers, record.response].into_iter().flatten().find_map(|head| head.get(KnownName::GrpcStatus))?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl<'a> Value<'a> {
    fn text(text: &'a str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Bytes(text.as_bytes()) }
    }

    /// Appends the value, at most `max` bytes of it, escaped where it is somebody else's text.
    pub(super) fn write(self, max: Option<usize>, style: Style, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Absent => {}
            Self::Bytes(bytes) => {
                let bytes = max.and_then(|max| bytes.get(..max)).unwrap_or(bytes);
                return style.escape(bytes, out);
            }
            Self::Number(number) => decimal(number, out),
            // Writing to a Vec does not fail.
            Self::Ip(ip) => drop(write!(out, "{ip}")),
            Self::Address(address) => drop(write!(out, "{address}")),
            Self::Flags(flags, text) => flags.write(text, out),
            Self::Time(time, format) => format.write(time, out),
            Self::Code(code) => drop(write!(out, "{code}")),
        }
        if let Some(max) = max {
            out.truncate(start.saturating_add(max));
        }
    }
}
