//! How look-ups are served: variables of Istio's agent and `resolv.conf`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use mesh_api_xds::node::NodeInfo;
use mesh_proxy_core::dns::table::Place;

use super::resolv::ResolvConf;

/// Where look-ups are led to when nothing else is said (istio/istio: `DefaultDNSProxyAddr`).
const DEFAULT_ADDRESS: &str = "localhost:15053";

/// Settings of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Addresses to listen on, over UDP and TCP. Of a family that the machine does not have there may be none.
    pub addresses: Vec<SocketAddr>,
    /// What the machine's resolver is told.
    pub resolv: ResolvConf,
    /// All name servers are asked at once (`DNS_FORWARD_PARALLEL`).
    pub parallel: bool,
    /// Mark of the proxy's own connections.
    pub mark: Option<u32>,
}

/// `DNS_PROXY_ADDR` is no address.
#[derive(Debug, thiserror::Error)]
#[error("DNS_PROXY_ADDR: {0:?} is not localhost or an IP address with a port, such as {DEFAULT_ADDRESS}")]
pub struct AddressError(String);

impl DnsSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn read(env: impl Fn(&str) -> Option<String>, resolv: &Path, mark: Option<u32>) -> Result<Self, AddressError> {
        let address = env("DNS_PROXY_ADDR").filter(|text| !text.is_empty());
        Ok(Self {
            addresses: addresses(address.as_deref().unwrap_or(DEFAULT_ADDRESS))?,
            resolv: ResolvConf::read(resolv),
            parallel: env("DNS_FORWARD_PARALLEL").is_some_and(|text| matches!(text.as_str(), "true" | "1" | "t" | "T")),
            mark,
        })
    }

    /// Where the proxy is, as far as names depend on it.
    #[must_use]
    pub fn place(&self, node: &NodeInfo) -> Place {
        Place::new(&node.namespace, &node.dns_domain, &self.resolv.search)
    }
}

/// `localhost` is both families: a captured look-up arrives at the localhost of its own.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    let wrong = || AddressError(text.to_owned());
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| wrong())?;
        let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(both.map(|ip| SocketAddr::new(ip, port)).into());
    }
    text.parse().map(|address| vec![address]).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_localhost_or_an_address() {
        let read = |text: &str| addresses(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(DEFAULT_ADDRESS).unwrap(), ["127.0.0.1:15053", "[::1]:15053"]);
        assert_eq!(read("127.0.0.2:53").unwrap(), ["127.0.0.2:53"]);
        for wrong in ["", "localhost", "localhost:x", "example.com:53", "15053"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
