//! Reads the ClientHello of a TLS connection without taking part in it: server name and application protocols, for choosing
//! a filter chain before the handshake, or for passing TLS through.
//!
//! Works on the bytes received so far, across TLS records (RFC 8446 section 5.1). Nothing is trusted: every length is
//! checked, and a hello may not be larger than [`MAX_HELLO_BYTES`].

/// Largest ClientHello in bytes, without record headers. Post-quantum key shares bring a hello to about 2 KiB.
pub const MAX_HELLO_BYTES: usize = 16 << 10;
/// Most records that a hello may be spread over. Clients use one or two; tiny ones would be joined anew at every read.
const MAX_RECORDS: usize = 256;
/// Record header: type, version, length.
const RECORD_HEADER: usize = 5;
/// Handshake header: type, 24-bit length.
const HANDSHAKE_HEADER: usize = 4;
/// Content type of handshake records.
const HANDSHAKE: u8 = 22;
/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// Extension `server_name` (RFC 6066 section 3).
const SERVER_NAME: u16 = 0;
/// Extension `application_layer_protocol_negotiation` (RFC 7301).
const ALPN: u16 = 16;

/// What a client says before encryption starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name in lower case without a trailing dot, if one was sent and is a host name.
    pub server_name: Option<Box<str>>,
    /// The protocol list as on the wire: each name behind its length.
    alpn: Box<[u8]>,
}

/// Why the bytes are not a ClientHello that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A record or message of another type.
    #[error("not a ClientHello")]
    NotHello,
    /// Lengths that do not fit together.
    #[error("malformed ClientHello")]
    Malformed,
    /// Larger than [`MAX_HELLO_BYTES`], or in more than 256 records.
    #[error("ClientHello is too large")]
    TooLarge,
}

impl ClientHello {
    /// Reads the hello at the beginning of `bytes`; `Ok(None)` when it is not complete yet.
    ///
    /// # Errors
    /// [`HelloError`] when no further bytes can make it one.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, HelloError> {
        let mut joined = Vec::new();
        let mut rest = bytes;
        for _ in 0..MAX_RECORDS {
            let Some((content, tail)) = record(rest)? else { return Ok(None) };
            // Nearly always the hello is in one record, and nothing is copied.
            let message = if joined.is_empty() {
                content
            } else {
                joined.extend_from_slice(content);
                &joined
            };
            if let Some(body) = handshake(message)? {
                return Self::parse(body).map(Some).ok_or(HelloError::Malformed);
            }
            if joined.is_empty() {
                joined.extend_from_slice(content);
            }
            rest = tail;
        }
        Err(HelloError::TooLarge)
    }

    /// Offered application protocols, in the client's order.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.alpn;
        std::iter::from_fn(move || {
            let (name, tail) = split_prefixed::<1>(rest)?;
            rest = tail;
            Some(name)
        })
    }

    /// The body of a ClientHello (RFC 8446 section 4.1.2).
    fn parse(body: &[u8]) -> Option<Self> {
        let rest = body.get(2 + 32..)?;
        let (_session, rest) = split_prefixed::<1>(rest)?;
        let (_suites, rest) = split_prefixed::<2>(rest)?;
        let (_compressions, rest) = split_prefixed::<1>(rest)?;
        let mut hello = Self::default();
        if rest.is_empty() {
            return Some(hello);
        }
        let (mut extensions, rest) = split_prefixed::<2>(rest)?;
        if !rest.is_empty() {
            return None;
        }
        let (mut seen_name, mut seen_alpn) = (false, false);
        while !extensions.is_empty() {
            let kind = u16::from_be_bytes(extensions.first_chunk().copied()?);
            let (content, tail) = split_prefixed::<2>(extensions.get(2..)?)?;
            extensions = tail;
            match kind {
                // RFC 8446 section 4.2: an extension may come once.
                SERVER_NAME if std::mem::replace(&mut seen_name, true) => return None,
                ALPN if std::mem::replace(&mut seen_alpn, true) => return None,
                SERVER_NAME => hello.server_name = server_name(content)?,
                ALPN => hello.alpn = alpn_list(content)?.into(),
                _ => {}
            }
        }
        Some(hello)
    }
}

/// A piece and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// Content of the first record, and what follows it.
fn record(bytes: &[u8]) -> Result<Option<Split<'_>>, HelloError> {
    match bytes.first() {
        Some(&HANDSHAKE) | None => {}
        Some(_) => return Err(HelloError::NotHello),
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(HelloError::NotHello);
    }
    let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else { return Ok(None) };
    let len = match header {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err(HelloError::Malformed),
    };
    // RFC 8446 section 5.1: handshake records are not empty, and hold at most 2¹⁴ bytes.
    if len == 0 || len > 1 << 14 {
        return Err(HelloError::Malformed);
    }
    Ok(rest.split_at_checked(len))
}

/// Body of the handshake message, when all of it is there.
fn handshake(message: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    let Some((header, body)) = message.split_at_checked(HANDSHAKE_HEADER) else {
        let wrong = message.first().is_some_and(|kind| *kind != CLIENT_HELLO);
        return if wrong { Err(HelloError::NotHello) } else { Ok(None) };
    };
    let [kind, high, middle, low] = header else { return Err(HelloError::Malformed) };
    if *kind != CLIENT_HELLO {
        return Err(HelloError::NotHello);
    }
    let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    if len > MAX_HELLO_BYTES {
        return Err(HelloError::TooLarge);
    }
    Ok(body.get(..len))
}

/// Splits off a vector with a length of `N` bytes in front.
fn split_prefixed<const N: usize>(bytes: &[u8]) -> Option<Split<'_>> {
    let (prefix, rest) = bytes.split_at_checked(N)?;
    let len = prefix.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    rest.split_at_checked(len)
}

/// The host name of a `server_name` extension. `None` is malformed; `Some(None)` is a name that is no host name, which is
/// treated as absent: it can match no filter chain.
fn server_name(content: &[u8]) -> Option<Option<Box<str>>> {
    let (mut names, rest) = split_prefixed::<2>(content)?;
    if !rest.is_empty() || names.is_empty() {
        return None;
    }
    let mut found = None;
    while let Some((kind, tail)) = names.split_first() {
        let (name, tail) = split_prefixed::<2>(tail)?;
        names = tail;
        if *kind == 0 {
            // RFC 6066 section 3: one name of each type.
            if found.replace(name).is_some() {
                return None;
            }
        }
    }
    Some(found.and_then(host_name))
}

fn host_name(name: &[u8]) -> Option<Box<str>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let good = !name.is_empty()
        && name.len() <= 253
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'*'));
    if !good {
        return None;
    }
    std::str::from_utf8(name).ok().map(|name| name.to_ascii_lowercase().into())
}

/// The names of an ALPN extension, checked: none is empty (RFC 7301 section 3.1).
fn alpn_list(content: &[u8]) -> Option<&[u8]> {
    let (list, rest) = split_prefixed::<2>(content)?;
    let mut names = list;
    while !names.is_empty() {
        let (name, tail) = split_prefixed::<1>(names)?;
        if name.is_empty() {
            return None;
        }
        names = tail;
    }
    (rest.is_empty() && !list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
