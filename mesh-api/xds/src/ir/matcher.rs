//! String, header, query and address tests shared by routes and policies.

use std::net::IpAddr;

use mesh_api::text::Str;
use serde::Serialize;

/// A test on one string (`envoy.type.matcher.v3.StringMatcher`). Patterns are RE2-style and match the whole string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct StringMatch {
    /// How the text is compared.
    pub pattern: StringPattern,
    /// ASCII case is ignored (no effect on `Regex`).
    pub ignore_case: bool,
}

/// The ways to compare a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum StringPattern {
    /// Equal to.
    Exact(Str),
    /// Starts with; never empty.
    Prefix(Str),
    /// Ends with; never empty.
    Suffix(Str),
    /// Contains; never empty.
    Contains(Str),
    /// Whole-string regular expression.
    Regex(Str),
}

impl StringMatch {
    /// A case-sensitive test.
    #[must_use]
    pub const fn new(pattern: StringPattern) -> Self {
        Self { pattern, ignore_case: false }
    }

    /// Equal to `text`, case-sensitive.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self::new(StringPattern::Exact(Str::from(text)))
    }
}

/// A test on one header (`envoy.config.route.v3.HeaderMatcher`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HeaderMatch {
    /// Lower-case field name, or a pseudo header (`:method`, `:authority`, `:scheme`, `:path`).
    pub name: Str,
    /// What is asked of the value.
    pub test: ValueTest,
    /// The result is negated.
    pub invert: bool,
    /// An absent header counts as the empty string instead of as no match.
    pub missing_is_empty: bool,
}

/// A test on one query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct QueryMatch {
    /// Parameter name, case-sensitive.
    pub name: Str,
    /// What is asked of the value.
    pub test: ValueTest,
}

/// What is asked of a header's or parameter's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ValueTest {
    /// It is there, whatever its value.
    Present,
    /// Its value passes.
    Matches(StringMatch),
}

/// A network prefix. Host bits beyond `bits` are zero (kept so by `Cidr::new`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Cidr {
    /// Network address.
    pub address: IpAddr,
    /// Prefix length: 0–32 (IPv4) or 0–128 (IPv6).
    pub bits: u8,
}

impl Cidr {
    /// The prefix of `bits` bits that holds `address`; `None` when `bits` is too large for its family.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(ip) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { address, bits })
    }

    /// The prefix that holds exactly `address`.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }

    /// Whether `ip` lies in the prefix; families never match each other.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip, self.bits).is_some_and(|masked| masked.address == self.address)
            && ip.is_ipv4() == self.address.is_ipv4()
    }

    /// Parses `10.0.0.0/8`, `::1/128` or a bare address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some((address, bits)) => Self::new(address.parse().ok()?, bits.parse().ok()?),
            None => text.parse().ok().map(Self::host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn prefixes_hold_what_they_should() {
        let check = |cidr: &str, ip: &str, expect: bool| {
            let cidr = Cidr::parse(cidr).expect("a prefix");
            assert_eq!(cidr.contains(ip.parse().expect("an address")), expect, "{cidr:?} {ip}");
        };
        check("10.0.0.0/8", "10.255.1.2", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.1.2.3/8", "10.9.9.9", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "::1", true);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("2001:db8::/32", "2001:db8:1::1", true);
        assert_eq!(Cidr::parse("10.0.0.0/33"), None);
        assert_eq!(Cidr::parse("::/129"), None);
        assert_eq!(Cidr::parse("x/8"), None);
    }
}
