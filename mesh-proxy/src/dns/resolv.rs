//! What the machine says about name servers (resolv.conf(5)).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Servers that are read, at most. The C library takes 3.
const MAX_SERVERS: usize = 16;
/// Search domains that are read, at most.
const MAX_SEARCH: usize = 32;
/// Where name servers listen.
const PORT: u16 = 53;

/// The settings of a machine's resolver, as far as they matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in order.
    pub servers: Vec<SocketAddr>,
    /// Search domains, in order.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads a file; one that is not there names nothing.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        std::fs::read_to_string(path).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads the lines that matter. Of several lists of search domains the last counts, as in the C library.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if found.servers.len() < MAX_SERVERS => {
                    // The scope of a link-local address (`%eth0`) cannot be kept in an address alone.
                    let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                    found.servers.extend(address.map(|ip| SocketAddr::new(ip, PORT)));
                }
                Some("search" | "domain") => found.search = words.take(MAX_SEARCH).map(str::to_owned).collect(),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_search_domains_are_read() {
        let text = "; comment\n# comment\ndomain old.example\nsearch shop.svc.cluster.local svc.cluster.local\n\
                    nameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver\noptions ndots:5\n";
        let found = ResolvConf::parse(text);
        assert_eq!(found.search, ["shop.svc.cluster.local", "svc.cluster.local"]);
        let servers: Vec<_> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fe80::1]:53"]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
    }
}
