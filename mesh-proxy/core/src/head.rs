//! The head of a message: one concrete type for every codec, filter and the command line.
//!
//! A [`Head`] is an arena of bytes plus small records that point into it. Parsing copies the received bytes once; edits
//! append to the arena and mark records; writing copies runs of untouched lines. A head is cleared and used again, so a warm
//! connection allocates nothing per message. It is not a map: the order of fields and their duplicates are kept.
//!
//! Invariants: method, target, names and values obey [`syntax`]; the authority of a request is its `host` field (HTTP/2's
//! `:authority` is stored there too), at most one; a lower-case copy of it is always present.

mod edit;
pub mod known;
pub mod name;
pub mod syntax;
mod wire;

use std::fmt;

use self::known::KnownName;
use self::name::NameRef;

/// Largest arena in bytes; keeps offsets inside `u32` and a runaway filter inside memory. Twice the largest head that
/// [`crate::h1::limits::Limits`] can admit, so that every field could be rewritten once.
const MAX_ARENA_BYTES: usize = 32 << 20;

/// Head of a request or response, or a trailer section.
#[derive(Clone, Default)]
pub struct Head {
    /// Received bytes first, then those of edits. Never shrinks before `clear`.
    arena: Vec<u8>,
    fields: Vec<Field>,
    /// One bit per [`KnownName`] that has a live field: absent names are answered without a scan.
    present: u128,
    kind: Kind,
    version: Version,
    method: Method,
    method_text: Span,
    scheme: Span,
    protocol: Span,
    path: Span,
    /// Length of the path without the query.
    path_len: u32,
    host_lower: Span,
    status: u16,
    status_text: Span,
    reason: Span,
}

/// What a head belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A request head.
    #[default]
    Request,
    /// A response head.
    Response,
    /// A trailer section: fields only.
    Trailers,
}

/// HTTP version a message was received with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// Request method. Methods are case-sensitive (RFC 9110 section 9.1): `get` is `Other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH (RFC 5789)
    Patch,
    /// Any other token.
    Other,
}

/// Case of field names that are read from HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameCase {
    /// Lower case, as Envoy writes them and as HTTP/2 has them: servers behind Istio are used to it.
    #[default]
    Lower,
    /// As received (`preserveHttp1HeaderCase`).
    Keep,
}

/// Why a name, value or part of the target was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Not a token (RFC 9110 section 5.1), or a pseudo-header field that this kind of head does not have.
    #[error("invalid field name")]
    Name,
    /// Not a field value (RFC 9110 section 5.5), or not what the pseudo-header field needs.
    #[error("invalid field value")]
    Value,
    /// The head would outgrow its arena.
    #[error("head is too large")]
    TooLarge,
}

/// Bytes of the arena.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

/// One field line. 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Field {
    name_start: u32,
    value_start: u32,
    value_len: u32,
    name_len: u16,
    known: Option<KnownName>,
    state: FieldState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldState {
    /// In the arena as `name ": " value CRLF`, so that it can be copied with its neighbours.
    Line,
    /// Name and value stand somewhere in the arena.
    Parts,
    Removed,
}

/// A field as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRef<'a> {
    /// Id of the name, if it has one.
    pub known: Option<KnownName>,
    /// Name as received.
    pub name: &'a [u8],
    /// Value without outer blanks.
    pub value: &'a [u8],
}

impl Head {
    /// An empty request head: `GET` without a target.
    #[must_use]
    pub fn request() -> Self {
        Self::default()
    }

    /// An empty response head with status 0, which no wire carries: set one.
    #[must_use]
    pub fn response() -> Self {
        Self { kind: Kind::Response, ..Self::default() }
    }

    /// An empty trailer section.
    #[must_use]
    pub fn trailers() -> Self {
        Self { kind: Kind::Trailers, ..Self::default() }
    }

    /// Empties the head for another message of `kind`, keeping its memory.
    pub fn reset(&mut self, kind: Kind) {
        let mut arena = std::mem::take(&mut self.arena);
        let mut fields = std::mem::take(&mut self.fields);
        arena.clear();
        fields.clear();
        *self = Self { arena, fields, kind, ..Self::default() };
    }

    /// Empties the head for another message of the same kind, keeping its memory.
    pub fn clear(&mut self) {
        self.reset(self.kind);
    }

    /// Gives memory above `max_bytes` back: for a head that goes to rest after an unusually large message.
    pub fn shrink_to(&mut self, max_bytes: usize) {
        self.arena.shrink_to(max_bytes);
        self.fields.shrink_to(max_bytes / 64);
    }

    /// Bytes of memory held, used or not.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.arena.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Request, response or trailers.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Version the message was received with.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sets the version.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Request method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Text of the method; empty in a response.
    #[must_use]
    pub fn method_text(&self) -> &[u8] {
        match (self.kind, self.method) {
            (Kind::Request, Method::Other) => self.slice(self.method_text),
            (Kind::Request, method) => method.as_str().as_bytes(),
            _ => b"",
        }
    }

    /// Sets the method.
    ///
    /// # Errors
    /// [`FieldError::Value`] unless `text` is a token.
    pub fn set_method(&mut self, text: &[u8]) -> Result<(), FieldError> {
        let method = Method::of(text);
        if method == Method::Other {
            if !syntax::is_token(text) {
                return Err(FieldError::Value);
            }
            self.method_text = self.push(text)?;
        }
        self.method = method;
        Ok(())
    }

    /// Path with its query, as in a request line; empty in CONNECT, `*` in a server-wide OPTIONS.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.slice(self.path)
    }

    /// Path without the query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.slice(Span { start: self.path.start, len: self.path_len })
    }

    /// What follows the first `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.target().get(self.path_len as usize + 1..)
    }

    /// Sets path and query; empty for CONNECT.
    ///
    /// # Errors
    /// [`FieldError::Value`] unless it begins with `/` or is `*` or empty, and holds no blank, control or `#`.
    pub fn set_target(&mut self, text: &[u8]) -> Result<(), FieldError> {
        if !text.is_empty() && (!(text.first() == Some(&b'/') || text == b"*") || !syntax::is_target(text)) {
            return Err(FieldError::Value);
        }
        let span = self.push(text)?;
        self.place_target(span);
        Ok(())
    }

    /// Scheme in lower case, if known: from an absolute-form target, `:scheme`, or set by the listener.
    #[must_use]
    pub fn scheme(&self) -> Option<&[u8]> {
        Some(self.slice(self.scheme)).filter(|text| !text.is_empty())
    }

    /// Sets the scheme.
    ///
    /// # Errors
    /// [`FieldError::Value`] unless it is a URI scheme.
    pub fn set_scheme(&mut self, text: &[u8]) -> Result<(), FieldError> {
        if !syntax::is_scheme(text) {
            return Err(FieldError::Value);
        }
        self.scheme = self.push_lower(text)?;
        Ok(())
    }

    /// `:protocol` of an extended CONNECT (RFC 8441).
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        Some(self.slice(self.protocol)).filter(|text| !text.is_empty())
    }

    /// Sets the protocol of an extended CONNECT.
    ///
    /// # Errors
    /// [`FieldError::Value`] unless it is a token.
    pub fn set_protocol(&mut self, text: &[u8]) -> Result<(), FieldError> {
        if !syntax::is_token(text) {
            return Err(FieldError::Value);
        }
        self.protocol = self.push(text)?;
        Ok(())
    }

    /// Authority as received: the `host` field or `:authority`. Empty when there is none.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        self.get(KnownName::Host).unwrap_or_default()
    }

    /// Authority in lower case, with its port if one was sent.
    #[must_use]
    pub fn host_lower(&self) -> &[u8] {
        self.slice(self.host_lower)
    }

    /// Sets the authority; in place of the present `host` field, or as a new one.
    ///
    /// # Errors
    /// [`FieldError::Value`] unless it is `host[:port]`.
    pub fn set_authority(&mut self, text: &[u8]) -> Result<(), FieldError> {
        self.set(KnownName::Host, text)
    }

    /// Status code of a response; 0 when not set.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Sets the status code and forgets the reason phrase.
    ///
    /// # Errors
    /// [`FieldError::Value`] outside 100 to 999.
    pub fn set_status(&mut self, status: u16) -> Result<(), FieldError> {
        let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
        if !(100..=999).contains(&status) {
            return Err(FieldError::Value);
        }
        self.status_text = self.push(&[digit(status / 100), digit(status / 10), digit(status)])?;
        self.status = status;
        self.reason = Span::default();
        Ok(())
    }

    /// Reason phrase as received; empty if there was none.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.slice(self.reason)
    }

    /// First value of a field, or the pseudo-header field's value.
    #[must_use]
    #[inline]
    pub fn get<'a>(&self, name: impl Into<NameRef<'a>>) -> Option<&[u8]> {
        match name.into() {
            NameRef::Known(known) if known.is_pseudo() => self.pseudo(known),
            NameRef::Known(known) if self.present & known.bit() == 0 => None,
            name => self.fields.iter().find(|field| self.matches(field, name)).map(|field| self.slice(field.value())),
        }
    }

    /// Whether the head has such a field.
    #[must_use]
    pub fn contains<'a>(&self, name: impl Into<NameRef<'a>>) -> bool {
        self.get(name).is_some()
    }

    /// All values of a field, in order.
    pub fn get_all<'h, 'n: 'h>(&'h self, name: impl Into<NameRef<'n>>) -> impl Iterator<Item = &'h [u8]> + 'h {
        let name = name.into();
        let (pseudo, fields) = match name {
            NameRef::Known(known) if known.is_pseudo() => (self.pseudo(known), &[][..]),
            NameRef::Known(known) if self.present & known.bit() == 0 => (None, &[][..]),
            _ => (None, self.fields.as_slice()),
        };
        let values =
            fields.iter().filter(move |field| self.matches(field, name)).map(|field| self.slice(field.value()));
        pseudo.into_iter().chain(values)
    }

    /// Fields in order, `host` among them; no pseudo-header fields.
    pub fn iter(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.fields.iter().filter(|field| field.state != FieldState::Removed).map(|field| self.field_ref(field))
    }

    /// Number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.iter().filter(|field| field.state != FieldState::Removed).count()
    }

    /// Whether there is no field line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place_target(&mut self, span: Span) {
        self.path = span;
        let query = memchr::memchr(b'?', self.slice(span)).and_then(|place| u32::try_from(place).ok());
        self.path_len = query.unwrap_or(span.len);
    }

    fn slice(&self, span: Span) -> &[u8] {
        self.arena.get(span.range()).unwrap_or_default()
    }

    fn field_ref(&self, field: &Field) -> FieldRef<'_> {
        FieldRef { known: field.known, name: self.slice(field.name()), value: self.slice(field.value()) }
    }

    #[inline]
    fn matches(&self, field: &Field, name: NameRef<'_>) -> bool {
        field.state != FieldState::Removed && same_name(&self.arena, field, name)
    }

    fn position(&self, name: NameRef<'_>) -> Option<usize> {
        match name {
            NameRef::Known(known) if self.present & known.bit() == 0 => None,
            _ => self.fields.iter().position(|field| self.matches(field, name)),
        }
    }

    fn pseudo(&self, name: KnownName) -> Option<&[u8]> {
        let text = match (self.kind, name) {
            (Kind::Request, KnownName::PseudoMethod) => self.method_text(),
            (Kind::Request, KnownName::PseudoPath) => self.target(),
            (Kind::Request, KnownName::PseudoAuthority) => return self.get(KnownName::Host),
            (Kind::Request, KnownName::PseudoScheme) => return self.scheme(),
            (Kind::Request, KnownName::PseudoProtocol) => return self.protocol(),
            (Kind::Response, KnownName::PseudoStatus) => self.slice(self.status_text),
            _ => b"",
        };
        Some(text).filter(|text| !text.is_empty())
    }

    fn set_pseudo(&mut self, name: KnownName, value: &[u8]) -> Result<(), FieldError> {
        match (self.kind, name) {
            (Kind::Request, KnownName::PseudoMethod) => self.set_method(value),
            (Kind::Request, KnownName::PseudoPath) => self.set_target(value),
            (Kind::Request, KnownName::PseudoAuthority) => self.set_authority(value),
            (Kind::Request, KnownName::PseudoScheme) => self.set_scheme(value),
            (Kind::Request, KnownName::PseudoProtocol) => self.set_protocol(value),
            (Kind::Response, KnownName::PseudoStatus) => {
                let text = std::str::from_utf8(value).map_err(|_| FieldError::Value)?;
                self.set_status(text.parse().map_err(|_| FieldError::Value)?)
            }
            _ => Err(FieldError::Name),
        }
    }

    fn push(&mut self, text: &[u8]) -> Result<Span, FieldError> {
        self.check_room(text.len())?;
        let span = Span { len: offset(text.len())?, ..self.here()? };
        self.arena.extend_from_slice(text);
        Ok(span)
    }

    fn push_lower(&mut self, text: &[u8]) -> Result<Span, FieldError> {
        let span = self.push(text)?;
        self.arena.get_mut(span.range()).unwrap_or_default().make_ascii_lowercase();
        Ok(span)
    }

    /// The empty span at the end of the arena.
    fn here(&self) -> Result<Span, FieldError> {
        Ok(Span { start: offset(self.arena.len())?, len: 0 })
    }

    fn check_room(&self, bytes: usize) -> Result<(), FieldError> {
        if self.arena.len().saturating_add(bytes) > MAX_ARENA_BYTES { Err(FieldError::TooLarge) } else { Ok(()) }
    }
}

/// Compares what the messages say, not how their arenas are laid out.
impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.version == other.version
            && self.method_text() == other.method_text()
            && self.target() == other.target()
            && self.scheme() == other.scheme()
            && self.protocol() == other.protocol()
            && self.status == other.status
            && self.reason() == other.reason()
            && self.iter().eq(other.iter())
    }
}

impl Eq for Head {}

/// Prints the message as text; values of fields that carry credentials are left out.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_map();
        match self.kind {
            Kind::Request => {
                out.entry(&self.method_text().escape_ascii().to_string(), &self.target().escape_ascii().to_string());
            }
            Kind::Response => {
                out.entry(&self.status, &self.reason().escape_ascii().to_string());
            }
            Kind::Trailers => {}
        }
        for field in self.iter() {
            let secret = matches!(
                field.known,
                Some(
                    KnownName::Authorization | KnownName::ProxyAuthorization | KnownName::Cookie | KnownName::SetCookie
                )
            );
            let value = if secret { "…".into() } else { field.value.escape_ascii().to_string() };
            out.entry(&field.name.escape_ascii().to_string(), &value);
        }
        out.finish()
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

impl Field {
    fn name(&self) -> Span {
        Span { start: self.name_start, len: u32::from(self.name_len) }
    }

    fn value(&self) -> Span {
        Span { start: self.value_start, len: self.value_len }
    }
}

impl Version {
    /// As `%PROTOCOL%` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

impl Method {
    /// Classifies a method token.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Its text; empty for `Other`, whose text the head holds.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "",
        }
    }

    /// Whether repeating the request has no further effect (RFC 9110 section 9.2.2), so that it may be retried unasked.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// Whether `field` is called `name`. Fields with a known name are compared by id only.
#[inline]
fn same_name(arena: &[u8], field: &Field, name: NameRef<'_>) -> bool {
    match name {
        NameRef::Known(known) => field.known == Some(known),
        NameRef::Other(text) => {
            field.known.is_none()
                && usize::from(field.name_len) == text.len()
                && arena.get(field.name().range()).is_some_and(|name| name.eq_ignore_ascii_case(text))
        }
    }
}

fn offset(value: usize) -> Result<u32, FieldError> {
    u32::try_from(value).map_err(|_| FieldError::TooLarge)
}

#[cfg(test)]
mod tests;
