//! Reads request and response heads (RFC 9112 sections 3 to 6).

use std::mem::MaybeUninit;

use httparse::Status;

use super::limits::{Http10, Limits, MAX_FIELDS};
use super::{Framing, H1Error, Scan, check_line_ends};
use crate::head::known::KnownName;
use crate::head::{FieldError, Head, Kind, Method, NameCase, Version, syntax};

/// Empty lines that may precede a request line (RFC 9112 section 2.2 asks for at least one).
const MAX_EMPTY_LINES: usize = 4;
/// Offset of the status code: `HTTP/1.1` and one space.
const STATUS_START: usize = 9;

/// What a request head says about its message and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the input that belong to the head.
    pub consumed: usize,
    /// The body that follows.
    pub framing: Framing,
    /// Whether the client keeps the connection open for another request.
    pub persistent: bool,
    /// Whether the client wants another protocol on this connection.
    pub switch: Switch,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// A request to use the connection for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// No.
    None,
    /// `upgrade` with its connection option. Never `h2c`, which is ignored: RFC 9113 dropped it and proxies that relay it
    /// lose sight of the requests inside.
    Upgrade,
    /// CONNECT.
    Connect,
}

/// What the reader of a response must know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method of the request.
    pub method: Method,
    /// Whether it asked to switch protocols.
    pub switch: Switch,
}

/// What a response head says about its message and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Bytes of the input that belong to the head.
    pub consumed: usize,
    /// The body that follows.
    pub framing: Framing,
    /// Whether the server keeps the connection open for another request.
    pub persistent: bool,
    /// What comes after this head.
    pub stage: Stage,
}

/// Place of a response head in the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// 1xx: another head follows.
    Interim,
    /// The response.
    Final,
    /// 101, or a successful CONNECT: bytes of another protocol follow.
    Switched,
}

/// Reads a request head from the beginning of `input`; `Ok(None)` when it is not complete yet. Call again with more bytes
/// behind the same ones, and with the same `scan`.
///
/// `head` is overwritten; on `Ok(None)` and on errors its content means nothing. An absolute-form target gives scheme,
/// authority and path, and replaces `host` (RFC 9112 section 3.2.2). A fragment is cut off, as Istio's proxies do.
///
/// # Errors
/// [`H1Error`] for whatever is not one unmistakable request; answer and close.
pub fn parse_request(
    input: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    head: &mut Head,
) -> Result<Option<Request>, H1Error> {
    let empty = empty_lines(input)?;
    let bytes = input.get(empty..).unwrap_or_default();
    if !may_be_complete(bytes, scan, limits)? {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let slots = slots.get_mut(..limits.max_fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, slots) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return incomplete(bytes, scan, limits),
        Err(error) => return Err(diagnose(error, bytes)),
    };
    let section = checked_section(bytes, len, limits)?;
    head.reset(Kind::Request);
    head.load(section).map_err(too_large)?;
    let version = version_of(parsed.version);
    if version == Version::Http10 && limits.http10 == Http10::Refuse {
        return Err(H1Error::Http10);
    }
    head.set_version(version);
    head.set_method(parsed.method.unwrap_or_default().as_bytes()).map_err(|_| H1Error::RequestLine)?;
    let mut facts = Facts::default();
    for field in parsed.headers.iter() {
        facts.take(head, limits.names, section, field)?;
    }
    if facts.hosts > 1 {
        return Err(H1Error::DuplicateHost);
    }
    if facts.hosts == 0 && version == Version::Http11 {
        return Err(H1Error::MissingHost);
    }
    head.settle_host().map_err(|_| H1Error::InvalidHost)?;
    place_target(head, section, parsed.path.unwrap_or_default().as_bytes())?;

    let connect = head.method() == Method::Connect;
    let switch = match (connect, facts.upgrade && facts.option_upgrade && version == Version::Http11) {
        (true, _) => Switch::Connect,
        (false, true) => Switch::Upgrade,
        (false, false) => Switch::None,
    };
    if facts.bad_expectation && version == Version::Http11 {
        return Err(H1Error::Expectation);
    }
    let framing = match facts.framing(version)?.unwrap_or(Framing::None) {
        Framing::Length(0) if connect => Framing::None,
        // RFC 9110 section 9.3.6: content in CONNECT has no meaning; what follows the head is the tunnel's.
        Framing::Length(_) | Framing::Chunked if connect => return Err(H1Error::Target),
        framing => framing,
    };
    Ok(Some(Request {
        consumed: empty + len,
        framing,
        persistent: facts.persistent(version),
        switch,
        expect_continue: facts.expect_continue && version == Version::Http11,
    }))
}

/// Reads a response head from the beginning of `input`; `Ok(None)` when it is not complete yet, as [`parse_request`].
///
/// `content-length` and `transfer-encoding` of a message that cannot have a body (1xx, 204, a successful CONNECT) are
/// removed from `head`, so that they cannot mislead the next reader.
///
/// # Errors
/// [`H1Error`] for whatever is not one unmistakable response.
pub fn parse_response(
    input: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    asked: Asked,
    head: &mut Head,
) -> Result<Option<Response>, H1Error> {
    if !may_be_complete(input, scan, limits)? {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let slots = slots.get_mut(..limits.max_fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Response::new(&mut []);
    let result = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, slots);
    let len = match result {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return incomplete(input, scan, limits),
        Err(error) => {
            return Err(match diagnose(error, input) {
                H1Error::RequestLine => H1Error::StatusLine,
                error => error,
            });
        }
    };
    let section = checked_section(input, len, limits)?;
    head.reset(Kind::Response);
    head.load(section).map_err(too_large)?;
    let version = version_of(parsed.version);
    head.set_version(version);
    let status = parsed.code.filter(|status| *status >= 100).ok_or(H1Error::StatusLine)?;
    head.place_status_at(status, STATUS_START).map_err(too_large)?;
    let reason = parsed.reason.unwrap_or_default();
    if !reason.is_empty() {
        head.place_reason_at(place_in(section, reason.as_bytes()), reason.len()).map_err(too_large)?;
    }
    let mut facts = Facts::default();
    for field in parsed.headers.iter() {
        facts.take(head, limits.names, section, field)?;
    }
    let (framing, stage) = response_framing(status, asked, &facts, version)?;
    let bodiless = matches!(status, 100..=199 | 204) || stage == Stage::Switched;
    if bodiless {
        head.remove(KnownName::ContentLength);
        head.remove(KnownName::TransferEncoding);
    }
    // A server that announces a body where none can be may also send it: its bytes must not become the next response.
    let overruns = bodiless && (facts.chunked || facts.length.is_some_and(|length| length > 0));
    let persistent =
        facts.persistent(version) && framing != Framing::UntilClose && stage != Stage::Switched && !overruns;
    Ok(Some(Response { consumed: len, framing, persistent, stage }))
}

/// RFC 9112 section 6.3, in its order.
fn response_framing(status: u16, asked: Asked, facts: &Facts, version: Version) -> Result<(Framing, Stage), H1Error> {
    match (status, asked) {
        (101, Asked { switch: Switch::Upgrade, .. }) => return Ok((Framing::None, Stage::Switched)),
        (101, _) => return Err(H1Error::UnexpectedSwitch),
        (100..=199, _) => return Ok((Framing::None, Stage::Interim)),
        (200..=299, Asked { method: Method::Connect, .. }) => return Ok((Framing::None, Stage::Switched)),
        _ => {}
    }
    // Refuse ambiguous framing even where no body can follow: a cache or proxy behind us may not know that.
    let framing = facts.framing(version)?;
    if asked.method == Method::Head || matches!(status, 204 | 304) {
        return Ok((Framing::None, Stage::Final));
    }
    Ok((framing.unwrap_or(Framing::UntilClose), Stage::Final))
}

/// What the fields of a head say, gathered in one pass.
#[derive(Default)]
struct Facts {
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    option_upgrade: bool,
    upgrade: bool,
    expect_continue: bool,
    bad_expectation: bool,
}

impl Facts {
    /// Records one field in `head` and notes what it says.
    #[inline]
    fn take(
        &mut self,
        head: &mut Head,
        case: NameCase,
        section: &[u8],
        field: &httparse::Header<'_>,
    ) -> Result<(), H1Error> {
        let (name, value) = (field.name.as_bytes(), field.value);
        let known = head
            .record(case, place_in(section, name), name, place_in(section, value), value.len())
            .map_err(too_large)?;
        match known {
            Some(KnownName::Host) => self.hosts = self.hosts.saturating_add(1),
            Some(KnownName::ContentLength) => {
                if self.length.is_some() {
                    return Err(H1Error::DuplicateContentLength);
                }
                self.length = Some(decimal(value).ok_or(H1Error::ContentLength)?);
            }
            Some(KnownName::TransferEncoding) => {
                // Anything but a single final `chunked` is either not understood here or understood differently elsewhere.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(H1Error::Encoding);
                }
                self.chunked = true;
            }
            Some(KnownName::Connection) => self.connection(value),
            Some(KnownName::Upgrade) => {
                self.upgrade = !value.is_empty() && !options(value).any(|option| option.eq_ignore_ascii_case(b"h2c"));
            }
            Some(KnownName::Expect) => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    self.expect_continue = true;
                } else {
                    self.bad_expectation = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in options(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.option_upgrade = true;
            }
        }
    }

    fn framing(&self, version: Version) -> Result<Option<Framing>, H1Error> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(H1Error::LengthAndEncoding),
            (true, None) if version == Version::Http10 => Err(H1Error::EncodingInHttp10),
            (true, None) => Ok(Some(Framing::Chunked)),
            (false, length) => Ok(length.map(Framing::Length)),
        }
    }

    /// RFC 9112 section 9.3.
    fn persistent(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep_alive)
    }
}

/// Options of a `connection` or `upgrade` field.
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// Plain decimal digits: no sign, no blank, no list, no overflow.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Gives method, scheme, authority and path of a target their places (RFC 9112 section 3.2).
fn place_target(head: &mut Head, section: &[u8], target: &[u8]) -> Result<(), H1Error> {
    let target = match memchr::memchr(b'#', target) {
        Some(fragment) => target.get(..fragment).unwrap_or_default(),
        None => target,
    };
    let start = place_in(section, target);
    let place = |head: &mut Head, start, len| head.place_target_at(start, len).map_err(too_large);
    match (head.method(), target) {
        (Method::Connect, authority) => {
            if syntax::split_port(authority).1.is_none() {
                return Err(H1Error::Target);
            }
            head.set_authority(authority).map_err(|_| H1Error::Target)
        }
        (Method::Options, b"*") | (_, [b'/', ..]) => place(head, start, target.len()),
        (method, absolute) => {
            let colon = memchr::memchr(b':', absolute).ok_or(H1Error::Target)?;
            let (scheme, rest) = absolute.split_at(colon);
            let rest = rest.strip_prefix(b"://").ok_or(H1Error::Target)?;
            if !(scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")) {
                return Err(H1Error::Target);
            }
            let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if authority.is_empty() {
                return Err(H1Error::Target);
            }
            match path.first() {
                Some(b'/') => place(head, start + (absolute.len() - path.len()), path.len())?,
                None if method == Method::Options => head.set_target(b"*").map_err(|_| H1Error::Target)?,
                None => head.set_target(b"/").map_err(|_| H1Error::Target)?,
                // `http://host?query`: the path is empty and must be sent as `/` (RFC 9112 section 3.2.1).
                Some(_) => head.set_target(&[b"/", path].concat()).map_err(|_| H1Error::Target)?,
            }
            head.set_scheme(scheme).map_err(|_| H1Error::Target)?;
            head.set_authority(authority).map_err(|_| H1Error::Target)
        }
    }
}

/// Length of the empty lines before a request line.
fn empty_lines(input: &[u8]) -> Result<usize, H1Error> {
    let mut rest = input;
    for _ in 0..=MAX_EMPTY_LINES {
        match rest {
            [b'\r', b'\n', tail @ ..] => rest = tail,
            [b'\n', ..] | [b'\r', _, ..] => return Err(H1Error::LineEnd),
            _ => return Ok(input.len() - rest.len()),
        }
    }
    Err(H1Error::RequestLine)
}

/// Whether it is worth tokenizing: always at first, and later only when the blank line has arrived.
fn may_be_complete(bytes: &[u8], scan: &mut Scan, limits: &Limits) -> Result<bool, H1Error> {
    if !scan.resumes() {
        return Ok(!matches!(bytes, [] | [b'\r']));
    }
    if scan.finds_end(bytes)? {
        return Ok(true);
    }
    if bytes.len() > limits.max_head_bytes { Err(H1Error::HeadTooLarge) } else { Ok(false) }
}

/// The tokenizer wants more: remember what was searched.
fn incomplete<T>(bytes: &[u8], scan: &mut Scan, limits: &Limits) -> Result<Option<T>, H1Error> {
    if bytes.len() > limits.max_head_bytes {
        return Err(H1Error::HeadTooLarge);
    }
    if scan.finds_end(bytes)? {
        // A blank line, and still not a head: cannot happen with this tokenizer, must not become a wait without end.
        return Err(H1Error::LineEnd);
    }
    Ok(None)
}

fn checked_section<'a>(bytes: &'a [u8], len: usize, limits: &Limits) -> Result<&'a [u8], H1Error> {
    if len > limits.max_head_bytes {
        return Err(H1Error::HeadTooLarge);
    }
    let section = bytes.get(..len).ok_or(H1Error::Incomplete)?;
    check_line_ends(section)?;
    Ok(section)
}

fn version_of(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

fn too_large(_: FieldError) -> H1Error {
    H1Error::HeadTooLarge
}

/// Offset of `part` in `section`, of which it is a sub-slice. Were it not one, the offset would select other bytes of the
/// arena or none, never anything outside.
pub(super) fn place_in(section: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(section.as_ptr() as usize)
}

/// Finds the exact reason behind the tokenizer's error. Off the fast path.
pub(super) fn diagnose(error: httparse::Error, bytes: &[u8]) -> H1Error {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => H1Error::TooManyFields,
        Error::NewLine => H1Error::LineEnd,
        Error::Version => {
            // The version is the first word of a status line and the third of a request line.
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let mut words = line.split(|byte| *byte == b' ');
            let named = |word: Option<&[u8]>| word.is_some_and(|word| word.starts_with(b"HTTP/"));
            if named(words.next()) || named(words.nth(1)) { H1Error::Version } else { H1Error::RequestLine }
        }
        Error::Status => H1Error::StatusLine,
        Error::Token => H1Error::RequestLine,
        Error::HeaderName => {
            for line in bytes.split(|byte| *byte == b'\n').skip(1) {
                if matches!(line.first(), Some(b' ' | b'\t')) {
                    return H1Error::ObsFold;
                }
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
                match name.strip_suffix(b" ").or_else(|| name.strip_suffix(b"\t")) {
                    Some(name) if name.len() + 1 < line.len() && syntax::is_token(name.trim_ascii_end()) => {
                        return H1Error::SpaceBeforeColon;
                    }
                    _ if !syntax::is_token(name) => return H1Error::FieldName,
                    _ => {}
                }
            }
            H1Error::FieldName
        }
        Error::HeaderValue => {
            // A CR inside a value is a line end to some readers; other controls are just invalid.
            let bare =
                memchr::memchr_iter(b'\r', bytes).any(|place| !matches!(bytes.get(place + 1), Some(b'\n') | None));
            if bare { H1Error::LineEnd } else { H1Error::FieldValue }
        }
    }
}
