//! What two proxies tell each other at the start of a TCP connection, where no header could.
//!
//! Peers that agreed on the ALPN `istio-peer-exchange` each send a preamble before the first byte of payload: a magic
//! number and the length of what follows, 4 bytes each in network order, then a `google.protobuf.Any` of a
//! `google.protobuf.Struct` with the same two values that requests carry as headers. Source: istio/proxy,
//! `source/extensions/filters/network/metadata_exchange`.

use mesh_api::names::{PEER_METADATA_HEADER, PEER_METADATA_ID_HEADER};

use super::Workload;
use super::peer::{Value, put_bytes, put_entry, read_field, read_struct};

/// Begins a preamble.
const MAGIC: [u8; 4] = 0x3D23_0467_u32.to_be_bytes();
/// Magic number and length.
const HEAD_BYTES: usize = 8;
/// Largest preamble that is read. Istio's is about 600 bytes.
pub const MAX_PREAMBLE_BYTES: usize = 16 << 10;
const STRUCT_TYPE: &str = "type.googleapis.com/google.protobuf.Struct";

/// What the first bytes of a peer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not known yet: more bytes are needed.
    More,
    /// A preamble of this many bytes, and who it says the peer is, if it does.
    Preamble(usize, Option<Workload>),
    /// No preamble: payload from the first byte on.
    Payload,
}

/// The preamble of a proxy with this node id and workload.
#[must_use]
pub fn preamble(id: &str, workload: &Workload) -> Vec<u8> {
    let mut told = Vec::new();
    // `Value.struct_value` is field 5, `Value.string_value` is field 3.
    put_entry(&mut told, PEER_METADATA_HEADER, 5, &workload.to_struct());
    put_entry(&mut told, PEER_METADATA_ID_HEADER, 3, id.as_bytes());
    let mut any = Vec::with_capacity(told.len() + STRUCT_TYPE.len() + 8);
    put_bytes(&mut any, 1, STRUCT_TYPE.as_bytes());
    put_bytes(&mut any, 2, &told);
    let length = u32::try_from(any.len()).unwrap_or(u32::MAX);
    [&MAGIC[..], &length.to_be_bytes(), &any].concat()
}

/// Reads the first bytes that a peer sent.
#[must_use]
pub fn hear(bytes: &[u8]) -> Heard {
    let shared = bytes.len().min(MAGIC.len());
    if bytes.get(..shared) != MAGIC.get(..shared) {
        return Heard::Payload;
    }
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Heard::More };
    let length = head.get(MAGIC.len()..).and_then(|length| length.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes);
    let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEAD_BYTES);
    if whole > MAX_PREAMBLE_BYTES {
        return Heard::Payload;
    }
    match rest.get(..whole - HEAD_BYTES) {
        Some(any) => Heard::Preamble(whole, read_any(any)),
        None => Heard::More,
    }
}

/// Reads the `google.protobuf.Any`.
fn read_any(bytes: &[u8]) -> Option<Workload> {
    let (mut kind, mut told, mut rest) = (None, None, bytes);
    while !rest.is_empty() {
        let field = read_field(rest)?;
        match field.number {
            1 => kind = field.content,
            2 => told = field.content,
            _ => {}
        }
        rest = field.tail;
    }
    let told = told.filter(|_| kind == Some(STRUCT_TYPE.as_bytes()))?;
    let mut workload = None;
    read_struct(told, |key, value| {
        if let (PEER_METADATA_HEADER, Value::Struct(fields)) = (key, value) {
            workload = Workload::from_struct(fields);
        }
        Some(())
    })?;
    workload
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_types::value::Kind;
    use prost_types::{Any, Struct};

    use super::*;

    fn mk_workload() -> Workload {
        Workload { instance: "web-1".into(), name: "web".into(), namespace: "shop".into(), ..Workload::default() }
    }

    #[test]
    fn a_preamble_is_heard_as_it_was_told() {
        let bytes = preamble("sidecar~10.0.0.1~web-1.shop~d", &mk_workload());
        let more = [&bytes[..], b"payload"].concat();
        assert_eq!(hear(&more), Heard::Preamble(bytes.len(), Some(mk_workload())));
        for length in 0..bytes.len() {
            assert_eq!(hear(&bytes[..length]), Heard::More, "{length} bytes");
        }
    }

    #[test]
    fn the_bytes_are_those_of_istio() {
        let bytes = preamble("id", &mk_workload());
        assert_eq!(bytes[..4], [0x3d, 0x23, 0x04, 0x67]);
        assert_eq!(bytes[4..8], u32::try_from(bytes.len() - 8).unwrap().to_be_bytes());
        let any = Any::decode(&bytes[8..]).unwrap();
        assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.Struct");
        let told = Struct::decode(&any.value[..]).unwrap();
        assert_eq!(told.fields["x-envoy-peer-metadata-id"].kind, Some(Kind::StringValue("id".to_owned())));
        let Some(Kind::StructValue(metadata)) = &told.fields["x-envoy-peer-metadata"].kind else { panic!("{told:?}") };
        assert_eq!(metadata.fields["NAME"].kind, Some(Kind::StringValue("web-1".to_owned())));
    }

    #[test]
    fn what_is_no_preamble_is_payload() {
        assert_eq!(hear(b""), Heard::More);
        assert_eq!(hear(b"GET / HTTP/1.1"), Heard::Payload);
        assert_eq!(hear(&[0x3d, 0x23, 0x05]), Heard::Payload);
        // Longer than anybody has to say.
        assert_eq!(hear(&[0x3d, 0x23, 0x04, 0x67, 0, 1, 0, 0]), Heard::Payload);
        // Well framed, but of another type: it is taken off, and says nothing.
        let any = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Vec::new() };
        let any = any.encode_to_vec();
        let framed = [&MAGIC[..], &u32::try_from(any.len()).unwrap().to_be_bytes(), &any].concat();
        assert_eq!(hear(&framed), Heard::Preamble(framed.len(), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200), length in 0..300_u32) {
            let framed = [&MAGIC[..], &length.to_be_bytes(), &tail].concat();
            if let Heard::Preamble(taken, _) = hear(&framed) {
                prop_assert!(taken <= framed.len());
            }
            let _ = hear(&tail);
        }
    }
}
