//! What the proxy before an application tells the client's proxy of a request that it could not hand on.
//!
//! An application that ends stops to listen at once, long before every client has heard of it. Its proxy then knows what no
//! status tells: that the application never got the request. So the client's proxy may send it to another replica, whatever
//! its method. HTTP/2 has a word for this (`REFUSED_STREAM`, RFC 9113 section 8.7), which Envoy and gRPC know; an answer
//! over HTTP/1.1 has the field `x-mesh-resend: safe`. It is said to proxies of the mesh and believed of them alone: every
//! proxy removes it from what passes, so that neither applications nor strangers can say it.

use crate::fault::{Fault, Retry};
use crate::head::Head;
use crate::head::known::KnownName;

/// What the field says.
pub const SAFE: &[u8] = b"safe";

/// Whether a response says that its request may be sent again.
#[must_use]
pub fn is_asked(response: &Head) -> bool {
    response.get(KnownName::XMeshResend).is_some_and(|value| value == SAFE)
}

/// Whether an attempt that failed like this may have been executed.
#[must_use]
pub fn may_have_run(fault: &Fault, bytes_sent: bool) -> bool {
    bytes_sent && fault.retry() != Retry::Unprocessed
}

/// Whether a request that ends with this fault may be sent again by the client's proxy. `ran`: one of its attempts may have
/// been executed.
#[must_use]
pub fn is_safe(fault: &Fault, ran: bool, idempotent: bool) -> bool {
    fault.retry() == Retry::Unprocessed && (idempotent || !ran)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;

    #[test]
    fn only_the_one_word_is_understood() {
        let mut head = Head::response();
        assert!(!is_asked(&head));
        for (value, expect) in [(&b"safe"[..], true), (b"SAFE", false), (b"", false), (b"safe, safe", false)] {
            head.set(KnownName::XMeshResend, value).unwrap();
            assert_eq!(is_asked(&head), expect, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_request_that_may_have_run_is_not_offered_again() {
        let [refused, closed, overflow] =
            [FaultKind::ConnectFailed, FaultKind::UpstreamClosed, FaultKind::UpstreamOverflow].map(Fault::new);
        // Over HTTP/2 the stream was written, and the upstream says that it did nothing with it.
        let stream = Fault::new(FaultKind::UpstreamRefusedStream);
        assert!(!may_have_run(&refused, false) && !may_have_run(&stream, true) && !may_have_run(&closed, false));
        assert!(may_have_run(&closed, true));
        assert!(is_safe(&refused, false, false) && is_safe(&stream, false, false));
        // A closed connection, then a refused one: the first may have taken the request.
        assert!(!is_safe(&refused, true, false));
        assert!(is_safe(&refused, true, true), "twice does no harm");
        assert!(!is_safe(&closed, true, true), "whether this is worth a retry is the client's policy to say");
        assert!(!is_safe(&overflow, false, true), "the application has too much to do already");
    }
}
