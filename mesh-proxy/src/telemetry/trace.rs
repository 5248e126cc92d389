//! Trace context: W3C `traceparent` and B3, single and multi.
//!
//! A request that carries context keeps it untouched. One without gets fresh ids and a sampling decision, once, at the
//! first proxy; every later one sees context. Both notations are written, because applications copy the one they know.

use mesh_api_xds::ir::http::Tracing;
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{FieldError, Head};
use rand::{Rng, RngExt as _};

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// It came with context.
    Kept,
    /// It was given context.
    Begun {
        /// Whether it is sampled.
        sampled: bool,
    },
}

/// Keeps or begins the trace context of a request.
///
/// # Errors
/// When the head has no room for the fields.
pub fn on_request(tracing: &Tracing, head: &mut Head, rng: &mut impl Rng) -> Result<Context, FieldError> {
    if has_context(head) {
        return Ok(Context::Kept);
    }
    // A traceparent that does not parse is as good as none: the trace is restarted and the state of the old one goes with
    // it (W3C Trace Context section 4.3).
    head.remove(KnownName::Tracestate);
    let forced = head.contains(KnownName::XEnvoyForceTrace);
    let sampled = forced || rng.random_range(0..1_000_000) < tracing.sampling.0;
    let (trace, span) = (id::<32>(rng), id::<16>(rng));
    let flag = if sampled { b'1' } else { b'0' };
    let mut parent = [b'-'; 55];
    for (start, piece) in [(0, &b"00"[..]), (3, &trace), (36, &span), (53, &[b'0', flag])] {
        if let Some(place) = parent.get_mut(start..start + piece.len()) {
            place.copy_from_slice(piece);
        }
    }
    head.set(KnownName::Traceparent, &parent)?;
    head.set(KnownName::XB3TraceId, &trace)?;
    head.set(KnownName::XB3SpanId, &span)?;
    head.set(KnownName::XB3Sampled, &[flag])?;
    Ok(Context::Begun { sampled })
}

/// The trace id of a request in hexadecimal digits; empty when it has none.
#[must_use]
pub fn id_of(head: &Head) -> &str {
    let w3c = head.get(KnownName::Traceparent).filter(|value| is_traceparent(value)).and_then(|value| value.get(3..35));
    let multi = || head.get(KnownName::XB3TraceId).filter(|value| is_b3_id(value));
    let single = || head.get(KnownName::B3)?.split(|byte| *byte == b'-').next().filter(|value| is_b3_id(value));
    let found = w3c.or_else(multi).or_else(single);
    found.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

fn has_context(head: &Head) -> bool {
    head.get(KnownName::Traceparent).is_some_and(is_traceparent)
        || head.contains(KnownName::XB3TraceId)
        // A decision without ids is context too: `b3: 0`, `x-b3-sampled: 0`.
        || head.contains(KnownName::B3)
        || head.contains(KnownName::XB3Sampled)
}

/// `version "-" trace-id "-" parent-id "-" flags`, ids not all zero (W3C Trace Context section 3.2). Later versions may
/// append fields.
fn is_traceparent(value: &[u8]) -> bool {
    let part = |from: usize, to: usize| value.get(from..to).unwrap_or_default();
    let hex = |text: &[u8], len| {
        text.len() == len && text.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let real = |text: &[u8]| text.iter().any(|byte| *byte != b'0');
    let version = part(0, 2);
    hex(version, 2)
        && version != b"ff"
        && [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'))
        && hex(part(3, 35), 32)
        && real(part(3, 35))
        && hex(part(36, 52), 16)
        && real(part(36, 52))
        && hex(part(53, 55), 2)
        && (value.len() == 55 || (version != b"00" && value.get(55) == Some(&b'-')))
}

fn is_b3_id(value: &[u8]) -> bool {
    matches!(value.len(), 16 | 32) && value.iter().all(u8::is_ascii_hexdigit)
}

/// Random lower-case hexadecimal digits, not all zero.
fn id<const DIGITS: usize>(rng: &mut impl Rng) -> [u8; DIGITS] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = [b'0'; DIGITS];
    for digits in out.chunks_mut(16) {
        let mut bits = rng.next_u64() | 1;
        for digit in digits.iter_mut().rev() {
            *digit = HEX.get((bits & 15) as usize).copied().unwrap_or(b'0');
            bits >>= 4;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use mesh_api_xds::ir::PerMillion;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn mk_head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::request();
        for (name, value) in fields {
            head.append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    fn decide(share: u32, head: &mut Head) -> Context {
        on_request(&Tracing { sampling: PerMillion(share) }, head, &mut SmallRng::seed_from_u64(7)).unwrap()
    }

    #[test]
    fn context_that_came_is_kept() {
        for fields in [
            &[("traceparent", PARENT)][..],
            &[("b3", "0")],
            &[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")],
            &[("x-b3-traceid", "463ac35c9f6413ad"), ("x-b3-spanid", "a2fb4a1d1a96d312")],
            &[("x-b3-sampled", "0")],
        ] {
            let mut head = mk_head(fields);
            assert_eq!(decide(1_000_000, &mut head), Context::Kept, "{fields:?}");
            assert_eq!(head.len(), fields.len());
        }
    }

    #[test]
    fn fresh_context_is_valid_in_all_notations() {
        for (share, sampled) in [(0, false), (1_000_000, true)] {
            let mut head = mk_head(&[("traceparent", "00-zz"), ("tracestate", "old=1")]);
            assert_eq!(decide(share, &mut head), Context::Begun { sampled });
            let parent = head.get("traceparent").unwrap();
            assert!(is_traceparent(parent) && parent.ends_with(if sampled { b"-01" } else { b"-00" }));
            assert_eq!(Some(&parent[3..35]), head.get("x-b3-traceid"));
            assert_eq!(Some(&parent[36..52]), head.get("x-b3-spanid"));
            assert_eq!(head.get("x-b3-sampled"), Some(if sampled { &b"1"[..] } else { b"0" }));
            assert!(!head.contains("tracestate"));
            assert_eq!(id_of(&head).as_bytes(), &parent[3..35]);
            // The next proxy keeps what this one decided.
            assert_eq!(decide(1_000_000, &mut head), Context::Kept);
        }
    }

    #[test]
    fn a_trace_can_be_forced() {
        let mut head = mk_head(&[("x-envoy-force-trace", "1")]);
        assert_eq!(decide(0, &mut head), Context::Begun { sampled: true });
    }

    #[test]
    fn traceparents_are_checked() {
        let check = |text: &str, expect| assert_eq!(is_traceparent(text.as_bytes()), expect, "{text}");
        check(PARENT, true);
        check(&PARENT.replacen("00", "01", 1), true);
        check(&format!("{}-more", PARENT.replacen("00", "01", 1)), true);
        check(&format!("{PARENT}-more"), false);
        check(&PARENT.replacen("00", "ff", 1), false);
        check(&PARENT.to_uppercase(), false);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("", false);
    }

    #[test]
    fn ids_are_found_in_every_notation() {
        let check = |fields: &[(&str, &str)], expect| assert_eq!(id_of(&mk_head(fields)), expect);
        check(&[("traceparent", PARENT)], "4bf92f3577b34da6a3ce929d0e0e4736");
        check(&[("x-b3-traceid", "463ac35c9f6413ad")], "463ac35c9f6413ad");
        check(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")], "80f198ee56343ba864fe8b2a57d3eff7");
        check(&[("b3", "0")], "");
        check(&[], "");
    }

    #[test]
    fn the_sampled_share_is_the_configured_one() {
        let mut rng = SmallRng::seed_from_u64(1);
        let tracing = Tracing { sampling: PerMillion(100_000) };
        let sampled = (0..10_000)
            .filter(|_| on_request(&tracing, &mut Head::request(), &mut rng) == Ok(Context::Begun { sampled: true }))
            .count();
        assert!((900..1100).contains(&sampled), "{sampled}");
    }
}
