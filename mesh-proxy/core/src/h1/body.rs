//! Cuts a message body out of received bytes (RFC 9112 sections 6 and 7), as ranges of the input: nothing is copied.

use std::ops::Range;

use httparse::Status;

use super::head::{diagnose, place_in};
use super::limits::{Limits, MAX_FIELDS};
use super::{Framing, H1Error, Scan, check_line_ends};
use crate::head::known::KnownName;
use crate::head::{Head, Kind};

/// Digits of a chunk size, leading zeros included: 2⁶⁰ bytes.
const MAX_SIZE_DIGITS: u8 = 15;

/// Decoder of one message body.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    /// Payload bytes handed out.
    received: u64,
    /// Size of the chunk whose extension is being read.
    pending: u64,
    /// Chunk extension bytes so far.
    extension_bytes: usize,
    scan: Scan,
}

/// What [`Body::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Payload: a non-empty range of the input of this call.
    Data(Range<usize>),
    /// The input is used up, or is the incomplete beginning of the trailers.
    NeedMore,
    /// The body is complete, and so are its trailers.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length {
        left: u64,
    },
    UntilClose,
    Size {
        value: u64,
        digits: u8,
    },
    /// Blanks after the size, which only an extension may follow (RFC 9112 section 7.1.1).
    SizeBlank,
    Extension,
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers,
    Done,
}

impl Body {
    /// A decoder for a body framed in this way.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, received: 0, pending: 0, extension_bytes: 0, scan: Scan::default() }
    }

    /// Looks at `input`, which continues where the last call's consumed bytes ended. Returns the bytes consumed and what was
    /// found; call again with the rest until it says [`Event::NeedMore`] or [`Event::End`].
    ///
    /// Bytes not consumed at `NeedMore` (an incomplete trailer section) must come again, with more behind them. Trailers are
    /// written to `trailers`, which is reset first; fields that belong to one connection are left out.
    ///
    /// # Errors
    /// [`H1Error`] for malformed framing; the connection is not usable afterwards.
    pub fn next(&mut self, input: &[u8], limits: &Limits, trailers: &mut Head) -> Result<(usize, Event), H1Error> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok((at, Event::End)),
                State::Trailers => {
                    let rest = input.get(at..).unwrap_or_default();
                    let Some(len) = self.read_trailers(rest, limits, trailers)? else {
                        return Ok((at, Event::NeedMore));
                    };
                    at += len;
                    self.state = State::Done;
                }
                State::Length { left } | State::Data { left } => {
                    let Some(len) = self.available(input.len() - at, left) else { return Ok((at, Event::NeedMore)) };
                    let left = left - len as u64;
                    self.state = match self.state {
                        State::Length { .. } if left == 0 => State::Done,
                        State::Length { .. } => State::Length { left },
                        _ if left == 0 => State::DataCr,
                        _ => State::Data { left },
                    };
                    return Ok((at + len, Event::Data(at..at + len)));
                }
                State::UntilClose => {
                    let Some(len) = self.available(input.len() - at, u64::MAX) else {
                        return Ok((at, Event::NeedMore));
                    };
                    return Ok((at + len, Event::Data(at..at + len)));
                }
                _ => {
                    let Some(byte) = input.get(at) else { return Ok((at, Event::NeedMore)) };
                    self.state = self.framing_byte(*byte, limits)?;
                    at += 1;
                }
            }
        }
    }

    /// Tells that the sender closed. `Ok` when the body is complete by that.
    ///
    /// # Errors
    /// [`H1Error::Incomplete`] when it is not.
    pub fn finish(&mut self) -> Result<(), H1Error> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(H1Error::Incomplete),
        }
    }

    /// Whether nothing more belongs to this body.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload bytes so far, without framing.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many of `present` bytes belong to a piece with `left` bytes to come; `None` if there are none.
    fn available(&mut self, present: usize, left: u64) -> Option<usize> {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(present);
        self.received += len as u64;
        (len > 0).then_some(len)
    }

    /// One byte of a chunk's size line or end.
    fn framing_byte(&mut self, byte: u8, limits: &Limits) -> Result<State, H1Error> {
        match (self.state, byte) {
            (State::Size { value, digits }, digit) if digit.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(H1Error::ChunkSize);
                }
                let nibble = char::from(digit).to_digit(16).unwrap_or_default();
                Ok(State::Size { value: value << 4 | u64::from(nibble), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(H1Error::ChunkSize),
            (State::Size { value, .. }, b'\r') => Ok(State::SizeLf { value }),
            (State::Size { value, .. }, b';' | b' ' | b'\t') => {
                self.pending = value;
                self.count_extension(limits)?;
                Ok(if byte == b';' { State::Extension } else { State::SizeBlank })
            }
            (State::Size { .. }, _) => Err(H1Error::ChunkSize),
            (State::SizeBlank, b' ' | b'\t') => self.count_extension(limits).map(|()| State::SizeBlank),
            (State::SizeBlank, b';') => self.count_extension(limits).map(|()| State::Extension),
            (State::SizeBlank, _) => Err(H1Error::ChunkSize),
            (State::Extension, b'\r') => Ok(State::SizeLf { value: self.pending }),
            (State::Extension, b'\t' | b' '..=0x7e | 0x80..) => self.count_extension(limits).map(|()| State::Extension),
            (State::Extension, b'\n') => Err(H1Error::LineEnd),
            (State::Extension, _) => Err(H1Error::ChunkExtension),
            (State::SizeLf { value: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeLf { value }, b'\n') => Ok(State::Data { left: value }),
            (State::SizeLf { .. }, _) => Err(H1Error::LineEnd),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { value: 0, digits: 0 }),
            (State::DataCr | State::DataLf, _) => Err(H1Error::ChunkEnd),
            // `next` handles these before it asks for a byte.
            (State::Length { .. } | State::UntilClose | State::Data { .. } | State::Trailers | State::Done, _) => {
                Err(H1Error::Incomplete)
            }
        }
    }

    fn count_extension(&mut self, limits: &Limits) -> Result<(), H1Error> {
        self.extension_bytes += 1;
        if self.extension_bytes > limits.max_extension_bytes { Err(H1Error::ChunkExtension) } else { Ok(()) }
    }

    /// Reads the trailer section and its blank line, if it is there as a whole.
    fn read_trailers(&mut self, input: &[u8], limits: &Limits, trailers: &mut Head) -> Result<Option<usize>, H1Error> {
        if let [b'\r', b'\n', ..] = input {
            trailers.reset(Kind::Trailers);
            return Ok(Some(2));
        }
        if !self.scan.finds_end(input)? {
            return if input.len() > limits.max_trailer_bytes { Err(H1Error::TrailersTooLarge) } else { Ok(None) };
        }
        let mut slots = [const { httparse::EMPTY_HEADER }; MAX_FIELDS];
        let slots = slots.get_mut(..limits.max_fields.min(MAX_FIELDS)).unwrap_or_default();
        let (len, fields) = match httparse::parse_headers(input, slots) {
            Ok(Status::Complete(done)) => done,
            Ok(Status::Partial) => return Err(H1Error::LineEnd),
            Err(error) => return Err(diagnose(error, &[b"\n", input].concat())),
        };
        let section = input.get(..len).unwrap_or_default();
        if len > limits.max_trailer_bytes {
            return Err(H1Error::TrailersTooLarge);
        }
        check_line_ends(section)?;
        trailers.reset(Kind::Trailers);
        trailers.load(section).map_err(|_| H1Error::TrailersTooLarge)?;
        for field in fields {
            let (name, value) = (field.name.as_bytes(), field.value);
            trailers
                .record(limits.names, place_in(section, name), name, place_in(section, value), value.len())
                .map_err(|_| H1Error::TrailersTooLarge)?;
        }
        if [KnownName::ContentLength, KnownName::TransferEncoding, KnownName::Host]
            .iter()
            .any(|name| trailers.contains(*name))
        {
            return Err(H1Error::TrailerField);
        }
        super::hop::strip_trailers(trailers);
        Ok(Some(len))
    }
}
