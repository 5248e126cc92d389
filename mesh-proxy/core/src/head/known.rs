//! Names of header fields that this product looks at, as small integers.
//!
//! A name is classified once, when a field enters a [`Head`](super::Head); every later lookup is an integer comparison.

/// Declares the enum, its texts and the list of all values from one table.
macro_rules! known_names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// A field name with an id. The first values are the HTTP/2 pseudo-header fields (RFC 9113 section 8.3), which are
        /// never fields of a head: they name its method, target and status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum KnownName {
            $(
                $(#[$doc])*
                #[doc = concat!("`", $text, "`")]
                $variant,
            )+
        }

        impl KnownName {
            /// All of them, in the order of their ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in lower case, as HTTP/2 writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

known_names! {
    PseudoMethod = ":method",
    PseudoScheme = ":scheme",
    PseudoAuthority = ":authority",
    PseudoPath = ":path",
    /// RFC 8441, extended CONNECT.
    PseudoProtocol = ":protocol",
    PseudoStatus = ":status",
    // Framing and the connection (RFC 9110 section 7.6, RFC 9112 section 6).
    Host = "host",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Connection = "connection",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    Upgrade = "upgrade",
    Http2Settings = "http2-settings",
    Te = "te",
    Trailer = "trailer",
    Expect = "expect",
    MaxForwards = "max-forwards",
    Via = "via",
    // What requests carry.
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    Authorization = "authorization",
    ProxyAuthorization = "proxy-authorization",
    Cookie = "cookie",
    UserAgent = "user-agent",
    Referer = "referer",
    Origin = "origin",
    Range = "range",
    IfNoneMatch = "if-none-match",
    IfModifiedSince = "if-modified-since",
    AccessControlRequestMethod = "access-control-request-method",
    AccessControlRequestHeaders = "access-control-request-headers",
    SecWebSocketKey = "sec-websocket-key",
    SecWebSocketVersion = "sec-websocket-version",
    SecWebSocketProtocol = "sec-websocket-protocol",
    SecWebSocketExtensions = "sec-websocket-extensions",
    // What responses carry.
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    CacheControl = "cache-control",
    Date = "date",
    Server = "server",
    Location = "location",
    SetCookie = "set-cookie",
    Etag = "etag",
    LastModified = "last-modified",
    Vary = "vary",
    RetryAfter = "retry-after",
    WwwAuthenticate = "www-authenticate",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthenticationInfo = "proxy-authentication-info",
    SecWebSocketAccept = "sec-websocket-accept",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    // Forwarding.
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedClientCert = "x-forwarded-client-cert",
    XRequestId = "x-request-id",
    // Tracing.
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Baggage = "baggage",
    B3 = "b3",
    XB3TraceId = "x-b3-traceid",
    XB3SpanId = "x-b3-spanid",
    XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled",
    XB3Flags = "x-b3-flags",
    // gRPC.
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    GrpcTimeout = "grpc-timeout",
    GrpcEncoding = "grpc-encoding",
    GrpcAcceptEncoding = "grpc-accept-encoding",
    // Envoy's and Istio's.
    XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRateLimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    /// Stable code of a local reply, see [`crate::fault`].
    XMeshCode = "x-mesh-code",
    /// A peer's proxy says that the request may be sent again, whatever its method, see [`crate::retry`].
    XMeshResend = "x-mesh-resend",
}

/// Slots of the lookup table: a power of two, several times the number of names so that probes stay short.
const SLOTS: usize = 512;
/// Longest known name in bytes; anything longer is unknown without a look.
const MAX_LEN: usize = {
    let (mut longest, mut i) = (0, 0);
    while i < KnownName::ALL.len() {
        let len = KnownName::ALL[i].as_str().len();
        if len > longest {
            longest = len;
        }
        i += 1;
    }
    longest
};

/// Open addressing over length, first, middle and last byte; 0 is an empty slot, otherwise id + 1.
const TABLE: [u8; SLOTS] = {
    assert!(KnownName::ALL.len() <= 128, "the presence mask of Head has 128 bits");
    let mut table = [0u8; SLOTS];
    let mut i = 0u8;
    while (i as usize) < KnownName::ALL.len() {
        let mut slot = slot_of(KnownName::ALL[i as usize].as_str().as_bytes());
        while table[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = i + 1;
        i += 1;
    }
    table
};

/// First slot to look at for a non-empty name. `| 0x20` folds the case of letters; other bytes may collide, which only
/// costs a comparison.
const fn slot_of(name: &[u8]) -> usize {
    let len = name.len();
    let first = (name[0] | 0x20) as usize;
    let middle = (name[len / 2] | 0x20) as usize;
    let last = (name[len - 1] | 0x20) as usize;
    // Factors found by trial: all names but a few are found at the first slot (see the test).
    (len * 357 + first * 156 + middle * 22 + last * 137) % SLOTS
}

impl KnownName {
    /// The id of `name`, compared without case; `None` when the name is not in the table.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > MAX_LEN {
            return None;
        }
        let mut slot = slot_of(name);
        loop {
            // The table always has empty slots, so the loop ends; `get` keeps a wrong table from being a panic.
            let id = *TABLE.get(slot)?;
            let candidate = *Self::ALL.get(usize::from(id).checked_sub(1)?)?;
            if is_lower_of(candidate.as_str().as_bytes(), name) {
                return Some(candidate);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// Whether this is an HTTP/2 pseudo-header field, which maps to the method, target or status of a head.
    #[must_use]
    pub const fn is_pseudo(self) -> bool {
        (self as u8) <= (Self::PseudoStatus as u8)
    }

    /// The bit of this name in a presence mask.
    pub(super) const fn bit(self) -> u128 {
        1 << (self as u8)
    }
}

/// Whether `name` is `lower`, a text without capitals, in any case. Eight bytes at a time: this runs for every field of every
/// message.
#[inline]
fn is_lower_of(lower: &[u8], name: &[u8]) -> bool {
    if lower.len() != name.len() {
        return false;
    }
    let same = |lower: &[u8; 8], name: &[u8; 8]| u64::from_ne_bytes(*lower) == fold(u64::from_ne_bytes(*name));
    match (lower.last_chunk(), name.last_chunk()) {
        // The last eight bytes overlap the words before them, so that no odd bytes are left.
        (Some(lower_end), Some(name_end)) => {
            let words = lower.as_chunks().0.iter().zip(name.as_chunks().0);
            words.fold(same(lower_end, name_end), |equal, (lower, name)| equal & same(lower, name))
        }
        _ => lower.eq_ignore_ascii_case(name),
    }
}

/// Lower case of eight ASCII bytes; other bytes stay.
const fn fold(word: u64) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let seven_bits = word & (0x7f * EACH);
    let from_a = seven_bits + (0x80 - b'A' as u64) * EACH;
    let above_z = seven_bits + (0x7f - b'Z' as u64) * EACH;
    let capitals = (from_a ^ above_z) & !word & (0x80 * EACH);
    word | (capitals >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for name in KnownName::ALL {
            let text = name.as_str();
            assert_eq!(text, text.to_ascii_lowercase(), "names are stored in lower case");
            assert_eq!(KnownName::of(text.as_bytes()), Some(*name));
            assert_eq!(KnownName::of(text.to_ascii_uppercase().as_bytes()), Some(*name));
        }
    }

    #[test]
    fn near_misses_are_unknown() {
        for text in ["", "hos", "hosts", "h0st", "x-envoy-", "content-lengtH ", "x-b3-spanid2", "\u{0}", "{ost"] {
            assert_eq!(KnownName::of(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(KnownName::of(&[b'a'; 4096]), None);
    }

    #[test]
    fn folding_is_exact() {
        for byte in 0..=255u8 {
            for place in 0..8 {
                let mut word = *b"aZ-:9@[\x80";
                word[place] = byte;
                assert_eq!(fold(u64::from_ne_bytes(word)).to_ne_bytes(), word.to_ascii_lowercase()[..]);
            }
        }
    }

    #[test]
    fn other_bytes_are_never_folded_into_a_name() {
        for name in KnownName::ALL {
            let text = name.as_str().as_bytes();
            for place in 0..text.len() {
                for byte in 0..=255u8 {
                    let mut other = text.to_vec();
                    other[place] = byte;
                    if !other.eq_ignore_ascii_case(text) {
                        assert_ne!(KnownName::of(&other), Some(*name));
                    }
                }
            }
        }
    }

    #[test]
    fn probes_are_short() {
        let probes: Vec<_> = KnownName::ALL
            .iter()
            .map(|name| {
                let mut slot = slot_of(name.as_str().as_bytes());
                let mut probes = 1;
                while TABLE[slot] != *name as u8 + 1 {
                    slot = (slot + 1) % SLOTS;
                    probes += 1;
                }
                probes
            })
            .collect();
        assert!(probes.iter().all(|probes| *probes <= 3), "{probes:?}");
        assert!(probes.iter().filter(|probes| **probes > 1).count() * 10 <= probes.len(), "find better factors");
    }
}
