//! A strict HTTP/1.1 machine (RFC 9112): bytes in, events out. No sockets, no buffers of its own.
//!
//! [`head`] reads request and response heads, [`body`] cuts message bodies into ranges of the input, [`encode`] writes heads,
//! chunks and trailers, [`hop`] removes what belongs to one connection only. Whatever two readers of the same bytes could
//! understand differently is refused, because a proxy that guesses is how requests are smuggled: see [`H1Error`].

pub mod body;
pub mod encode;
pub mod head;
pub mod hop;
pub mod limits;

/// How the end of a message body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// Until the sender closes; only in responses.
    UntilClose,
}

/// Why bytes are not an acceptable message. The reader's connection is not usable afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum H1Error {
    /// A line ends without CR, or a CR stands alone (RFC 9112 section 2.2 allows readers to differ on both).
    #[error("line does not end in CR LF")]
    LineEnd,
    /// A field line begins with a blank: obsolete line folding (RFC 9112 section 5.2).
    #[error("folded field line")]
    ObsFold,
    /// A blank between field name and colon (RFC 9112 section 5.1).
    #[error("blank before the colon of a field")]
    SpaceBeforeColon,
    /// A field name is not a token.
    #[error("invalid field name")]
    FieldName,
    /// A field value has a control byte.
    #[error("invalid field value")]
    FieldValue,
    /// The method is not a token, or blanks are doubled.
    #[error("invalid request line")]
    RequestLine,
    /// The target has a form that its method does not allow (RFC 9112 section 3.2), user information, or a foreign scheme.
    #[error("invalid request target")]
    Target,
    /// Not `HTTP/1.0` or `HTTP/1.1`.
    #[error("HTTP version not supported")]
    Version,
    /// HTTP/1.0, which this listener does not accept.
    #[error("HTTP/1.0 is not accepted")]
    Http10,
    /// The status line is malformed.
    #[error("invalid status line")]
    StatusLine,
    /// The head is larger than [`limits::Limits::max_head_bytes`].
    #[error("head is too large")]
    HeadTooLarge,
    /// More fields than [`limits::Limits::max_fields`].
    #[error("too many fields")]
    TooManyFields,
    /// HTTP/1.1 without `host` (RFC 9112 section 3.2).
    #[error("host is missing")]
    MissingHost,
    /// More than one `host`.
    #[error("more than one host")]
    DuplicateHost,
    /// `host` is not `host[:port]`.
    #[error("invalid host")]
    InvalidHost,
    /// `content-length` is not a plain number.
    #[error("invalid content-length")]
    ContentLength,
    /// `content-length` is given twice, even if equal.
    #[error("more than one content-length")]
    DuplicateContentLength,
    /// Both `transfer-encoding` and `content-length` (RFC 9112 section 6.3, item 3).
    #[error("both transfer-encoding and content-length")]
    LengthAndEncoding,
    /// `transfer-encoding` in an HTTP/1.0 message (RFC 9112 section 6.1).
    #[error("transfer-encoding in HTTP/1.0")]
    EncodingInHttp10,
    /// A transfer coding other than one final `chunked`.
    #[error("transfer coding not supported")]
    Encoding,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    #[error("expectation not supported")]
    Expectation,
    /// Status 101 although the request did not ask to switch protocols.
    #[error("unexpected switch of protocols")]
    UnexpectedSwitch,
    /// A chunk size is not plain hexadecimal digits.
    #[error("invalid chunk size")]
    ChunkSize,
    /// A chunk extension has a control byte, or extensions are larger than allowed.
    #[error("invalid or too large chunk extension")]
    ChunkExtension,
    /// Chunk data is not followed by CR LF.
    #[error("chunk is longer than its size")]
    ChunkEnd,
    /// The trailer section is larger than allowed.
    #[error("trailers are too large")]
    TrailersTooLarge,
    /// A trailer field that would change framing or routing (RFC 9110 section 6.5.1).
    #[error("field not allowed in trailers")]
    TrailerField,
    /// The connection ended inside a message.
    #[error("message is incomplete")]
    Incomplete,
}

/// Remembers how far an incomplete head or trailer section was searched, so that bytes which arrive one by one are looked
/// at once. One per message; make a new one for the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Bytes already searched for the blank line.
    seen: usize,
}

impl Scan {
    /// Searches the new bytes of `input` for the blank line that ends the section.
    fn finds_end(&mut self, input: &[u8]) -> Result<bool, H1Error> {
        let new = input.get(self.seen..).unwrap_or_default();
        for place in memchr::memchr_iter(b'\n', new) {
            let before = input.get(..self.seen + place).unwrap_or_default();
            let Some(line) = before.strip_suffix(b"\r") else { return Err(H1Error::LineEnd) };
            if line.is_empty() || line.ends_with(b"\n") {
                return Ok(true);
            }
        }
        self.seen = input.len();
        Ok(false)
    }

    /// Whether an earlier call left an incomplete section.
    fn resumes(&self) -> bool {
        self.seen > 0
    }
}

/// Checks that every LF of a complete section follows a CR. The tokenizer checks the converse. No early exit, so that the
/// compiler can compare many bytes at a time.
fn check_line_ends(section: &[u8]) -> Result<(), H1Error> {
    let rest = section.get(1..).unwrap_or_default();
    let bare =
        rest.iter().zip(section).fold(false, |bare, (byte, before)| bare | ((*byte == b'\n') & (*before != b'\r')));
    if bare || section.first() == Some(&b'\n') { Err(H1Error::LineEnd) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
