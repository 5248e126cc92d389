//! Response flags: what went wrong, or was done on purpose, with a request or connection, in Envoy's letters.
//!
//! Access log, metrics and documentation print them from this table (Envoy 1.38: `envoy/stream_info/stream_info.h`).

use std::fmt;

/// Declares the flags in Envoy's order, which is also their order in a log line.
macro_rules! response_flags {
    ($($variant:ident = $text:literal, $long:literal, $doc:literal;)+) => {
        /// One response flag.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ResponseFlag {
            $(
                #[doc = concat!("`", $text, "`: ", $doc)]
                $variant,
            )+
        }

        impl ResponseFlag {
            /// All of them, in Envoy's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The letters of `%RESPONSE_FLAGS%`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The name of `%RESPONSE_FLAGS_LONG%`.
            #[must_use]
            pub const fn long_text(self) -> &'static str {
                match self { $(Self::$variant => $long,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

response_flags! {
    LocalHealth = "LH", "FailedLocalHealthCheck", "The proxy's own service failed its health check.";
    NoHealthyUpstream = "UH", "NoHealthyUpstream", "The destination has no endpoint that may be used.";
    UpstreamTimeout = "UT", "UpstreamRequestTimeout", "The destination did not answer in time.";
    LocalReset = "LR", "LocalReset", "The proxy reset the upstream stream.";
    UpstreamReset = "UR", "UpstreamRemoteReset", "The destination reset the stream.";
    UpstreamConnectFailure = "UF", "UpstreamConnectionFailure", "No connection to the destination could be made.";
    UpstreamClosed = "UC", "UpstreamConnectionTermination", "The destination closed the connection before its response was complete.";
    UpstreamOverflow = "UO", "UpstreamOverflow", "A connection pool limit of the destination was reached.";
    NoRoute = "NR", "NoRouteFound", "No route or filter chain matched.";
    DelayInjected = "DI", "DelayInjected", "The request was delayed by fault injection.";
    FaultInjected = "FI", "FaultInjected", "The request was answered by fault injection.";
    RateLimited = "RL", "RateLimited", "A rate limit refused the request.";
    AuthzService = "UAEX", "UnauthorizedExternalService", "An authorization service or token check refused the request.";
    RateLimitService = "RLSE", "RateLimitServiceError", "The rate limit service failed and the request was refused.";
    DownstreamClosed = "DC", "DownstreamConnectionTermination", "The client closed the connection.";
    RetriesExhausted = "URX", "UpstreamRetryLimitExceeded", "All retries, or connection attempts of a TCP proxy, were used up.";
    StreamIdle = "SI", "StreamIdleTimeout", "Nothing moved on the stream for its idle timeout.";
    InvalidEnvoyHeaders = "IH", "InvalidEnvoyRequestHeaders", "An x-envoy-* field of the request was malformed.";
    DownstreamProtocol = "DPE", "DownstreamProtocolError", "The client broke the protocol.";
    UpstreamMaxDuration = "UMSDR", "UpstreamMaxStreamDurationReached", "The request reached the longest duration allowed for it.";
    FromCache = "RFCF", "ResponseFromCacheFilter", "The response came from a cache filter.";
    NoFilterConfig = "NFCF", "NoFilterConfigFound", "Configuration of a filter did not arrive in time.";
    DurationTimeout = "DT", "DurationTimeout", "The connection reached its longest duration.";
    UpstreamProtocol = "UPE", "UpstreamProtocolError", "The destination broke the protocol.";
    NoCluster = "NC", "NoClusterFound", "The route names a cluster that does not exist.";
    Overload = "OM", "OverloadManagerTerminated", "The proxy shed the request because it is overloaded.";
    DnsFailure = "DF", "DnsResolutionFailed", "The destination's name could not be resolved.";
    DropOverload = "DO", "DropOverload", "Part of the destination's traffic is being dropped to relieve it.";
    DownstreamReset = "DR", "DownstreamRemoteReset", "The client reset the stream.";
    UnconditionalDrop = "UDO", "UnconditionalDropOverload", "All of the destination's traffic is being dropped to relieve it.";
}

/// A set of response flags. Printed as `UF,URX`, or `-` when empty.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const EMPTY: Self = Self(0);

    /// The set with `flag` added.
    #[must_use]
    pub const fn with(self, flag: ResponseFlag) -> Self {
        Self(self.0 | 1 << (flag as u8))
    }

    /// Adds `flag`.
    pub fn insert(&mut self, flag: ResponseFlag) {
        *self = self.with(flag);
    }

    /// Whether `flag` is in the set.
    #[must_use]
    pub const fn contains(self, flag: ResponseFlag) -> bool {
        self.0 & 1 << (flag as u8) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Flags of the set in Envoy's order.
    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        ResponseFlag::ALL.iter().copied().filter(move |flag| self.contains(*flag))
    }

    /// Appends the text of the set, by `text` for each flag; `-` when empty.
    pub fn write(self, text: fn(ResponseFlag) -> &'static str, out: &mut Vec<u8>) {
        if self.is_empty() {
            out.push(b'-');
        }
        for (place, flag) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(text(flag).as_bytes());
        }
    }
}

impl From<ResponseFlag> for Flags {
    fn from(flag: ResponseFlag) -> Self {
        Self::EMPTY.with(flag)
    }
}

impl From<Option<ResponseFlag>> for Flags {
    fn from(flag: Option<ResponseFlag>) -> Self {
        flag.map_or(Self::EMPTY, Self::from)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (place, flag) in self.iter().enumerate() {
            write!(f, "{}{}", if place > 0 { "," } else { "" }, flag.text())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The reference page `docs/reference/response-flags.md`.
#[must_use]
pub fn reference_page() -> String {
    let mut page = "# Response flags\n\n<!-- Generated from mesh-proxy/core/src/flags.rs; do not edit. -->\n\n\
        Printed by `%RESPONSE_FLAGS%` in access logs and by the label `response_flags` of metrics; several are joined by \
        commas, `-` is none. The letters are Envoy's. [Codes of failures](codes.md) says which failure sets which flag.\n\n\
        | Flag | Long name | Meaning |\n|---|---|---|\n"
        .to_owned();
    for flag in ResponseFlag::ALL {
        page += &format!("| `{}` | {} | {} |\n", flag.text(), flag.long_text(), flag.doc());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_fit_and_are_told_apart() {
        assert!(ResponseFlag::ALL.len() <= 32);
        for (place, flag) in ResponseFlag::ALL.iter().enumerate() {
            assert_eq!(*flag as usize, place);
            assert!(flag.text().bytes().all(|byte| byte.is_ascii_uppercase()) && flag.doc().ends_with('.'), "{flag:?}");
            let same = |other: &&ResponseFlag| other.text() == flag.text() || other.long_text() == flag.long_text();
            assert_eq!(ResponseFlag::ALL.iter().filter(same).count(), 1, "{flag:?}");
        }
    }

    #[test]
    fn sets_print_in_envoys_order() {
        let check = |flags: Flags, expect: &str| {
            let mut out = Vec::new();
            flags.write(ResponseFlag::text, &mut out);
            assert_eq!((flags.to_string().as_str(), std::str::from_utf8(&out).unwrap()), (expect, expect));
        };
        check(Flags::EMPTY, "-");
        check(ResponseFlag::NoRoute.into(), "NR");
        check(Flags::EMPTY.with(ResponseFlag::RetriesExhausted).with(ResponseFlag::UpstreamConnectFailure), "UF,URX");
        check(Flags::from(None) | Flags::from(Some(ResponseFlag::DelayInjected)), "DI");
    }

    #[test]
    fn the_page_has_a_row_for_each_flag() {
        let page = reference_page();
        assert!(ResponseFlag::ALL.iter().all(|flag| page.contains(&format!("| `{}` |", flag.text()))));
    }
}
