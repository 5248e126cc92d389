//! An address range in CIDR form, as the include and exclude lists of traffic capture write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range: every address whose first `prefix` bits equal those of `addr`.
///
/// The host bits of `addr` are zero: [`Cidr::new`] clears them, so two spellings of one range are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

/// A text that is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// The part before `/` is no IPv4 or IPv6 address.
    #[error("{text:?} is not an address range: expected an IP address with an optional /length")]
    Address {
        /// The text as given.
        text: String,
    },
    /// The part after `/` is no number or longer than the address.
    #[error("{text:?} is not an address range: the length must be a number from 0 to {max}")]
    Prefix {
        /// The text as given.
        text: String,
        /// The greatest length for this address family, in bits.
        max: u8,
    },
}

impl Cidr {
    /// A range of the addresses that share the first `prefix` bits of `addr`; `None` when `prefix` is longer than
    /// the address.
    #[must_use]
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(v4) => {
                if prefix > 32 {
                    return None;
                }
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(prefix)))
            }
            IpAddr::V6(v6) => {
                if prefix > 128 {
                    return None;
                }
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(prefix)))
            }
        };
        Some(Self { addr, prefix })
    }

    /// The range that holds only `addr`.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        let prefix = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, prefix }
    }

    /// The lowest address of the range.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The number of leading bits that all addresses of the range share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the range holds exactly one address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        *self == Self::host(self.addr)
    }

    /// Whether every address of the range is a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.addr {
            IpAddr::V4(v4) => v4.is_loopback() && self.prefix >= 8,
            IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST && self.prefix == 128,
        }
    }

    /// Whether `addr` is in the range. An address of the other family never is.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        Self::new(addr, self.prefix).is_some_and(|other| other.addr == self.addr)
    }

    /// The network mask in network byte order, as long as the address.
    #[must_use]
    pub fn mask(&self) -> Vec<u8> {
        match self.addr {
            IpAddr::V4(_) => mask_v4(self.prefix).to_be_bytes().to_vec(),
            IpAddr::V6(_) => mask_v6(self.prefix).to_be_bytes().to_vec(),
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| CidrError::Address { text: text.to_owned() })?;
        let Some(prefix) = prefix else {
            return Ok(Self::host(addr));
        };
        let max = if addr.is_ipv4() { 32 } else { 128 };
        prefix
            .parse()
            .ok()
            .and_then(|prefix| Self::new(addr, prefix))
            .ok_or_else(|| CidrError::Prefix { text: text.to_owned(), max })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { write!(f, "{}", self.addr) } else { write!(f, "{}/{}", self.addr, self.prefix) }
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let shown = match text.parse::<Cidr>() {
            Ok(cidr) => cidr.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expect);
    }

    #[test]
    fn text_is_parsed_and_host_bits_are_cleared() {
        check("10.1.2.3/8", "10.0.0.0/8");
        check("10.1.2.3", "10.1.2.3");
        check("10.1.2.3/32", "10.1.2.3");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("fd00::1/64", "fd00::/64");
        check("::/0", "::/0");
        check("10.0.0.0/33", "\"10.0.0.0/33\" is not an address range: the length must be a number from 0 to 32");
        check("fd00::/129", "\"fd00::/129\" is not an address range: the length must be a number from 0 to 128");
        check(
            "db.example/8",
            "\"db.example/8\" is not an address range: expected an IP address with an optional /length",
        );
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let range: Cidr = "10.77.0.0/16".parse().unwrap();
        assert!(range.contains("10.77.255.255".parse().unwrap()));
        assert!(!range.contains("10.78.0.0".parse().unwrap()));
        assert!(!range.contains("::ffff:10.77.0.1".parse().unwrap()));
        assert_eq!(range.mask(), [255, 255, 0, 0]);
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn loopback_ranges_are_known() {
        assert!("127.0.0.0/8".parse::<Cidr>().unwrap().is_loopback());
        assert!("::1".parse::<Cidr>().unwrap().is_loopback());
        assert!(!"126.0.0.0/7".parse::<Cidr>().unwrap().is_loopback());
        assert!(!"::/0".parse::<Cidr>().unwrap().is_loopback());
    }
}
