//! `x-request-id`: a UUID that also carries the trace decision, as Envoy's (`request_id/uuid`).
//!
//! The 14th hexadecimal digit, the UUID's version, says why a request is traced: `4` not, `9` sampled, `a` forced by a
//! server, `b` forced by a client. Services that copy the header to their own requests so keep a trace whole.

use mesh_api_xds::ir::http::{Edge, Tracing};
use rand_core::Rng;

use crate::draw;
use crate::head::known::KnownName;
use crate::head::{FieldError, Head};

/// Length of the text form.
const LEN: usize = 36;
/// Place of the digit that carries the trace decision.
const REASON: usize = 14;

/// Gives a request its id if it has none. One from outside is replaced, because whoever knows an id could otherwise put
/// requests into another's trace. Returns whether the request is traced.
///
/// # Errors
/// [`FieldError`] when the head outgrows its bound.
pub fn apply(
    edge: Edge,
    generate: bool,
    tracing: Option<&Tracing>,
    head: &mut Head,
    rng: &mut impl Rng,
) -> Result<bool, FieldError> {
    let keeps = matches!(edge, Edge::Internal);
    let present = head.get(KnownName::XRequestId).filter(|_| keeps);
    let mut id = match present {
        Some(id) => match <[u8; LEN]>::try_from(id) {
            Ok(id) if is_uuid(&id) => id,
            // Somebody else's form: kept, and it carries no decision.
            _ => return Ok(false),
        },
        None if generate => uuid(rng),
        None => return Ok(false),
    };
    let fresh = present.is_none();
    let decided = matches!(id[REASON], b'9' | b'a' | b'b');
    let sampled = decided || (fresh && tracing.is_some_and(|tracing| draw::chance(rng, tracing.sampling)));
    if fresh {
        if sampled {
            id[REASON] = b'9';
        }
        head.set(KnownName::XRequestId, &id)?;
    }
    Ok(sampled && tracing.is_some())
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid(rng: &mut impl Rng) -> [u8; LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bits = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    let mut text = [b'-'; LEN];
    for (place, digit) in text.iter_mut().enumerate() {
        if matches!(place, 8 | 13 | 18 | 23) {
            continue;
        }
        let nibble = usize::try_from(bits & 0xF).unwrap_or(0);
        bits >>= 4;
        *digit = match place {
            REASON => b'4',
            // Variant: 8, 9, a or b.
            19 => DIGITS[nibble & 3 | 8],
            _ => DIGITS[nibble],
        };
    }
    text
}

fn is_uuid(text: &[u8; LEN]) -> bool {
    text.iter().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;
    use mesh_api_xds::ir::PerMillion;

    const GIVEN: &str = "0123abcd-0000-4000-8000-000000000001";
    const TRACED: &str = "0123abcd-0000-9000-8000-000000000001";

    fn run(edge: Edge, generate: bool, share: Option<u32>, given: Option<&str>) -> (String, bool) {
        let mut head = Head::request();
        if let Some(given) = given {
            head.append("x-request-id", given.as_bytes()).unwrap();
        }
        let tracing = share.map(|share| Tracing { sampling: PerMillion(share) });
        let traced = apply(edge, generate, tracing.as_ref(), &mut head, &mut rng(1)).unwrap();
        (String::from_utf8_lossy(head.get("x-request-id").unwrap_or_default()).into_owned(), traced)
    }

    const EDGE: Edge = Edge::Public { trusted_hops: 0 };

    #[test]
    fn ids_of_the_mesh_are_kept_and_those_of_strangers_replaced() {
        assert_eq!(run(Edge::Internal, true, None, Some(GIVEN)), (GIVEN.to_owned(), false));
        assert_eq!(run(Edge::Internal, true, None, Some("mine")), ("mine".to_owned(), false));
        assert_ne!(run(EDGE, true, None, Some(GIVEN)).0, GIVEN);
        assert_eq!(run(EDGE, false, None, Some(GIVEN)).0, GIVEN);
        assert_eq!(run(Edge::Internal, false, None, None).0, "");
        let (id, _) = run(Edge::Internal, true, None, None);
        assert!(is_uuid(&id.as_bytes().try_into().unwrap()) && id.as_bytes()[14] == b'4', "{id}");
    }

    #[test]
    fn the_id_carries_the_trace_decision() {
        let all = Some(1_000_000);
        let (id, traced) = run(EDGE, true, all, None);
        assert_eq!((id.as_bytes()[14], traced), (b'9', true));
        let (id, traced) = run(EDGE, true, Some(0), None);
        assert_eq!((id.as_bytes()[14], traced), (b'4', false));
        assert_eq!(run(Edge::Internal, true, Some(0), Some(TRACED)), (TRACED.to_owned(), true));
        // Decided once: a request that was not sampled at the edge is not sampled later.
        assert_eq!(run(Edge::Internal, true, all, Some(GIVEN)), (GIVEN.to_owned(), false));
        assert_eq!(run(Edge::Internal, true, None, Some(TRACED)), (TRACED.to_owned(), false));
    }

    #[test]
    fn ids_differ_and_are_valid() {
        let mut rng = rng(7);
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| uuid(&mut rng)).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| is_uuid(id) && matches!(id[19], b'8' | b'9' | b'a' | b'b')));
    }
}
