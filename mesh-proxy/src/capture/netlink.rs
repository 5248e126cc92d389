//! Netlink messages as bytes: headers, attributes, and the reading of answers. Only the framing that every netlink
//! family shares (RFC 3549, linux/netlink.h); what the attributes mean is the caller's matter.

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nlattr`.
const ATTR_HEADER: usize = 4;
/// Marks an attribute whose payload is attributes again (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// Message type of an acknowledgement or error (`NLMSG_ERROR`).
const TYPE_ERROR: u16 = 2;
/// Message type that ends an answer of several parts (`NLMSG_DONE`).
const TYPE_DONE: u16 = 3;

/// The fields of a message header that a caller chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
}

/// Appends one message to `out`; `body` writes what follows the header.
pub(super) fn message(out: &mut Vec<u8>, header: Header, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header.kind.to_ne_bytes());
    out.extend_from_slice(&header.flags.to_ne_bytes());
    out.extend_from_slice(&header.sequence.to_ne_bytes());
    // The port of the sender: zero lets the kernel fill it in.
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
    pad(out);
}

/// Appends an attribute with a payload of bytes.
pub(super) fn attr(out: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    nested_with(out, kind, |out| out.extend_from_slice(payload));
}

/// Appends an attribute that holds a number in network byte order, as nftables wants all of its numbers.
pub(super) fn attr_be32(out: &mut Vec<u8>, kind: u16, value: u32) {
    attr(out, kind, &value.to_be_bytes());
}

/// Appends an attribute that holds a text with its closing zero.
pub(super) fn attr_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    nested_with(out, kind, |out| {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    });
}

/// Appends an attribute that holds attributes.
pub(super) fn nested(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    nested_with(out, kind | NESTED, body);
}

fn nested_with(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    body(out);
    // Callers are bounded far below 64 KiB per attribute (see `rules::MAX_ENTRIES`); the kernel would reject more.
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start..start + 2) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// One message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// The request with this sequence number was carried out (`errno` 0) or failed.
    Result { sequence: u32, errno: i32 },
    /// An answer of several parts is complete.
    Done { sequence: u32 },
    /// A part of an answer.
    Data { kind: u16, body: &'a [u8] },
}

/// The messages in a received datagram. Bytes that are no whole message end the iteration.
pub(super) fn replies(mut datagram: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let kind = u16_at(datagram, 4)?;
        let sequence = u32_at(datagram, 8)?;
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match kind {
            TYPE_ERROR => Reply::Result { sequence, errno: -i32::from_ne_bytes(*body.first_chunk()?) },
            TYPE_DONE => Reply::Done { sequence },
            kind => Reply::Data { kind, body },
        })
    })
}

/// The attributes in `bytes` as (type without flags, payload). Bytes that are no whole attribute end the iteration.
pub(super) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let payload = bytes.get(ATTR_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags (NLA_TYPE_MASK).
        Some((kind & 0x3fff, payload))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_framed_and_padded() {
        let mut out = Vec::new();
        attr_text(&mut out, 3, "lo");
        nested(&mut out, 4, |out| attr_be32(out, 1, 0x0102_0304));
        let expect = [
            &7_u16.to_ne_bytes()[..],
            &3_u16.to_ne_bytes(),
            b"lo\0\0",
            &12_u16.to_ne_bytes(),
            &0x8004_u16.to_ne_bytes(),
            &8_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            &[1, 2, 3, 4],
        ];
        assert_eq!(out, expect.concat());
    }

    #[test]
    fn an_error_answer_is_read() {
        let mut datagram = Vec::new();
        let header = Header { kind: TYPE_ERROR, flags: 0, sequence: 9 };
        message(&mut datagram, header, |out| out.extend_from_slice(&(-13_i32).to_ne_bytes()));
        message(&mut datagram, Header { kind: TYPE_DONE, ..header }, |_| ());
        let read: Vec<_> = replies(&datagram).collect();
        assert_eq!(read, [Reply::Result { sequence: 9, errno: 13 }, Reply::Done { sequence: 9 }]);
    }

    proptest! {
        #[test]
        fn written_attributes_are_read_back(list in prop::collection::vec((0_u16..0x3fff, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut out = Vec::new();
            for (kind, payload) in &list {
                attr(&mut out, *kind, payload);
            }
            let read: Vec<_> = attrs(&out).map(|(kind, payload)| (kind, payload.to_vec())).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = attrs(&bytes).count();
            let _ = replies(&bytes).count();
        }
    }
}
