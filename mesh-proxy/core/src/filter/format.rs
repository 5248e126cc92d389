//! Header values with Envoy's format commands (`%REQ(x-id)%`).
//!
//! The commands that can be answered while a head is edited. Any other one makes the rule that holds it invalid, because
//! sending the command's text on would be a silent change of meaning.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::SystemTime;

use smallvec::SmallVec;

use crate::facts::RequestFacts;
use crate::head::name::FieldName;
use crate::head::{Head, Version};
use crate::log_format::time::TimeFormat;
use crate::rejected::BadFormat;

/// A formatted value; short ones stay on the stack.
pub type Text = SmallVec<[u8; 128]>;

/// A header value, compiled.
#[derive(Clone, Debug)]
pub struct Format(Box<[Piece]>);

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<[u8]>),
    Command(Command),
    StartTime(TimeFormat),
    Header { of: Message, name: FieldName, alternative: Option<FieldName>, max_bytes: Option<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Request,
    Response,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Ip,
    Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Client after trusted proxies.
    Client(Part),
    /// Direct peer.
    Peer(Part),
    /// Our end of the downstream connection.
    Local(Part),
    Upstream(Part),
    PeerUri,
    PeerDns,
    PeerSubject,
    PeerFingerprint,
    LocalUri,
    ServerName,
    Protocol,
    RouteName,
    Cluster,
    ResponseCode,
}

/// Envoy's words.
const COMMANDS: &[(&str, Command)] = &[
    ("DOWNSTREAM_REMOTE_ADDRESS", Command::Client(Part::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Command::Client(Part::Ip)),
    ("DOWNSTREAM_REMOTE_PORT", Command::Client(Part::Port)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Command::Peer(Part::Whole)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Command::Peer(Part::Ip)),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Command::Peer(Part::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Command::Local(Part::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Command::Local(Part::Ip)),
    ("DOWNSTREAM_LOCAL_PORT", Command::Local(Part::Port)),
    ("UPSTREAM_HOST", Command::Upstream(Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS", Command::Upstream(Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Command::Upstream(Part::Ip)),
    ("UPSTREAM_REMOTE_PORT", Command::Upstream(Part::Port)),
    ("DOWNSTREAM_PEER_URI_SAN", Command::PeerUri),
    ("DOWNSTREAM_PEER_DNS_SAN", Command::PeerDns),
    ("DOWNSTREAM_PEER_SUBJECT", Command::PeerSubject),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", Command::PeerFingerprint),
    ("DOWNSTREAM_LOCAL_URI_SAN", Command::LocalUri),
    ("REQUESTED_SERVER_NAME", Command::ServerName),
    ("PROTOCOL", Command::Protocol),
    ("ROUTE_NAME", Command::RouteName),
    ("UPSTREAM_CLUSTER", Command::Cluster),
    ("RESPONSE_CODE", Command::ResponseCode),
];

/// What commands may ask about.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Connection and client.
    pub facts: RequestFacts<'a>,
    /// Name of the route.
    pub route: &'a str,
    /// Name of the chosen cluster; empty before the choice.
    pub cluster: &'a str,
    /// The endpoint, once it is known.
    pub upstream: Option<SocketAddr>,
    /// When the request began.
    pub start_time: SystemTime,
}

impl Format {
    /// Compiles a value.
    ///
    /// # Errors
    /// Names the command that is not known.
    pub fn compile(value: &str) -> Result<Self, BadFormat> {
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once('%') {
            text.extend_from_slice(before.as_bytes());
            let (command, after) = command_end(after).ok_or_else(|| BadFormat::Unclosed(value.to_owned()))?;
            rest = after;
            if command.is_empty() {
                text.push(b'%');
                continue;
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            }
            pieces.push(Piece::parse(command).ok_or_else(|| BadFormat::Unknown(command.to_owned()))?);
        }
        text.extend_from_slice(rest.as_bytes());
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        Ok(Self(pieces.into()))
    }

    /// The value when it holds no command.
    #[must_use]
    pub fn literal(&self) -> Option<&[u8]> {
        match &*self.0 {
            [] => Some(b""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Formats; what is not known adds nothing.
    #[must_use]
    pub fn format(&self, context: &Context<'_>, request: &Head, response: Option<&Head>) -> Text {
        let mut out = Text::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Command(command) => command.format(context, request, response, &mut out),
                Piece::StartTime(format) => {
                    let mut text = Vec::with_capacity(32);
                    format.write(context.start_time, &mut text);
                    out.extend_from_slice(&text);
                }
                Piece::Header { of, name, alternative, max_bytes } => {
                    let head = match of {
                        Message::Request => Some(request),
                        Message::Response => response,
                    };
                    let value = head.and_then(|head| {
                        head.get(name).or_else(|| alternative.as_ref().and_then(|name| head.get(name)))
                    });
                    let value = value.unwrap_or_default();
                    out.extend_from_slice(max_bytes.and_then(|max| value.get(..max)).unwrap_or(value));
                }
            }
        }
        out
    }
}

/// Splits after the command's closing `%`; one inside parentheses belongs to the command's arguments.
fn command_end(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    let end = text.bytes().position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        byte == b'%' && depth == 0
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

impl Piece {
    fn parse(command: &str) -> Option<Self> {
        if let Some((_, known)) = COMMANDS.iter().find(|(word, _)| *word == command) {
            return Some(Self::Command(*known));
        }
        if let Some(rest) = command.strip_prefix("START_TIME") {
            let argument = rest.strip_prefix('(').map_or(Some(rest), |rest| rest.strip_suffix(')'))?;
            let format = if rest.starts_with('(') { TimeFormat::compile(argument)? } else { TimeFormat::iso() };
            return (rest.is_empty() || rest.starts_with('(')).then_some(Self::StartTime(format));
        }
        let (of, rest) = match command.strip_prefix("REQ(") {
            Some(rest) => (Message::Request, rest),
            None => (Message::Response, command.strip_prefix("RESP(")?),
        };
        let (names, after) = rest.split_once(')')?;
        let max_bytes = match after.strip_prefix(':') {
            Some(number) => Some(number.parse().ok()?),
            None if after.is_empty() => None,
            None => return None,
        };
        let (name, alternative) = match names.split_once('?') {
            Some((name, alternative)) => (name, Some(FieldName::parse(alternative)?)),
            None => (names, None),
        };
        Some(Self::Header { of, name: FieldName::parse(name)?, alternative, max_bytes })
    }
}

impl Command {
    fn format(self, context: &Context<'_>, request: &Head, response: Option<&Head>, out: &mut Text) {
        let conn = context.facts.conn;
        let peer = conn.peer.as_deref();
        let text = match self {
            Self::Client(part) => return address(context.facts.client, part, out),
            Self::Peer(part) => return address(conn.source, part, out),
            Self::Local(part) => return address(conn.destination, part, out),
            Self::Upstream(part) => return context.upstream.map_or((), |upstream| address(upstream, part, out)),
            Self::ResponseCode => {
                let status = response.map_or(0, Head::status);
                // Writing to memory does not fail.
                return write!(Push(out), "{status}").unwrap_or_default();
            }
            Self::PeerUri => return join(peer.map_or(&[][..], |peer| &peer.uris), out),
            Self::PeerDns => return join(peer.map_or(&[][..], |peer| &peer.dns_names), out),
            Self::PeerSubject => peer.map_or("", |peer| &peer.subject),
            Self::PeerFingerprint => peer.map_or("", |peer| &peer.sha256),
            Self::LocalUri => conn.local_identity.as_deref().unwrap_or_default(),
            Self::ServerName => conn.server_name.as_deref().unwrap_or_default(),
            Self::Protocol => match request.version() {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            Self::RouteName => context.route,
            Self::Cluster => context.cluster,
        };
        out.extend_from_slice(text.as_bytes());
    }
}

fn join(texts: &[mesh_api::text::Str], out: &mut Text) {
    for (position, text) in texts.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn address(address: SocketAddr, part: Part, out: &mut Text) {
    let mut out = Push(out);
    // Writing to memory does not fail.
    match part {
        Part::Whole => write!(out, "{address}"),
        Part::Ip => write!(out, "{}", address.ip()),
        Part::Port => write!(out, "{}", address.port()),
    }
    .unwrap_or_default();
}

/// Lets `write!` append to a text.
pub(crate) struct Push<'a>(pub(crate) &'a mut Text);

impl fmt::Write for Push<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ConnFacts, Peer};
    use mesh_api::text::Str;
    use std::sync::Arc;
    use std::time::Duration;

    #[track_caller]
    fn check(value: &str, expect: &str) {
        let mut conn = ConnFacts::new(SocketAddr::from(([10, 0, 0, 1], 4000)), SocketAddr::from(([10, 0, 0, 2], 80)));
        conn.server_name = Some(Str::from("web"));
        let uris = vec![Str::from("spiffe://a/ns/b/sa/c")];
        conn.peer = Some(Arc::new(Peer { uris, sha256: Str::from("abcd"), ..Peer::default() }));
        let mut request = Head::request();
        request.append("x-id", b"seven").unwrap();
        request.set_target(b"/p?q").unwrap();
        let mut response = Head::response();
        response.set_status(204).unwrap();
        let facts = RequestFacts { client: SocketAddr::from(([1, 2, 3, 4], 5)), ..RequestFacts::direct(&conn) };
        let upstream = Some(SocketAddr::from(([10, 0, 0, 9], 8080)));
        let start_time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678);
        let context = Context { facts, route: "r", cluster: "c", upstream, start_time };
        let text = Format::compile(value).unwrap().format(&context, &request, Some(&response));
        assert_eq!(String::from_utf8_lossy(&text), expect, "{value}");
    }

    #[test]
    fn commands_are_answered() {
        check("plain", "plain");
        check("100%%", "100%");
        check("%%%%", "%%");
        check("%DOWNSTREAM_REMOTE_ADDRESS%", "1.2.3.4:5");
        check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "1.2.3.4");
        check("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1");
        check("%DOWNSTREAM_LOCAL_PORT%", "80");
        check("%UPSTREAM_HOST%", "10.0.0.9:8080");
        check("a-%REQ(X-Id)%-b", "a-seven-b");
        check("%REQ(x-none?x-id)%", "seven");
        check("%REQ(x-id):3%", "sev");
        check("%REQ(x-id):30%", "seven");
        check("%REQ(:path)%", "/p?q");
        check("%RESP(:status)%/%RESPONSE_CODE%", "204/204");
        check("%REQ(x-none)%", "");
        check("%PROTOCOL% %ROUTE_NAME% %UPSTREAM_CLUSTER%", "HTTP/1.1 r c");
        check("%DOWNSTREAM_PEER_URI_SAN%;%DOWNSTREAM_PEER_FINGERPRINT_256%", "spiffe://a/ns/b/sa/c;abcd");
        check("%REQUESTED_SERVER_NAME%", "web");
        check("t=%START_TIME(%s.%3f)%", "t=1767323045.678");
        check("%START_TIME%", "2026-01-02T03:04:05.678Z");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(value in "(%|REQ|RESP|PROTOCOL|\\(|\\)|:|[0-9]|\\?|x|é){0,12}") {
            let _ = Format::compile(&value);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let error = |value: &str| Format::compile(value).unwrap_err();
        assert_eq!(error("50%"), BadFormat::Unclosed("50%".to_owned()));
        for command in
            ["NOPE", "REQ(x", "REQ(a b)", "REQ(x):y", "CEL(request.path)", "REQ(x)z", "START_TIME(%Q)", "START_TIMES"]
        {
            assert!(Format::compile(&format!("%{command}%")).is_err(), "{command}");
        }
        assert_eq!(error("%NOPE%"), BadFormat::Unknown("NOPE".to_owned()));
    }
}
