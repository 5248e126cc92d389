//! Where a call goes: a URL, and optionally another address to connect to.

use anyhow::{Context, Result, bail};
use http::Uri;
use std::net::SocketAddr;
use std::str::FromStr;
use tokio::net::TcpStream;

/// `http://reviews:9080/path` or `http://reviews:9080/path@10.0.0.7:9080`.
///
/// The second form names the service in the request and connects to the address, which a mesh without DNS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// What the request names; always with a scheme and a host.
    pub(crate) uri: Uri,
    /// Where to connect instead of the host's addresses.
    pub(crate) address: Option<SocketAddr>,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (url, address) = match text.rsplit_once('@') {
            Some((url, address)) => {
                let address = address.parse().with_context(|| format!("{address:?} is not ADDRESS:PORT"))?;
                (url, Some(address))
            }
            None => (text, None),
        };
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "ws")) || uri.host().is_none() {
            bail!("{url:?} is not a URL such as http://reviews:9080");
        }
        Ok(Self { uri, address })
    }
}

impl Target {
    /// The host and port as the Host header has them.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Host and port to connect to.
    pub(crate) fn endpoint(&self) -> String {
        match self.address {
            Some(address) => address.to_string(),
            None => format!("{}:{}", self.uri.host().unwrap_or_default(), self.uri.port_u16().unwrap_or(80)),
        }
    }

    pub(crate) async fn connect(&self) -> std::io::Result<TcpStream> {
        connect(&self.endpoint()).await
    }
}

/// A TCP connection without Nagle's delay.
pub(crate) async fn connect(endpoint: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(endpoint).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_where_to_connect() {
        let target: Target = "http://reviews:9080/a@10.0.0.7:80".parse().unwrap();
        assert_eq!((target.authority(), target.endpoint().as_str()), ("reviews:9080", "10.0.0.7:80"));
        assert_eq!(target.uri.path(), "/a");
    }

    #[test]
    fn without_an_address_the_host_is() {
        let target: Target = "http://reviews".parse().unwrap();
        assert_eq!((target.authority(), target.endpoint().as_str()), ("reviews", "reviews:80"));
        let target: Target = "http://[::1]:7@[::1]:9".parse().unwrap();
        assert_eq!((target.authority(), target.endpoint().as_str()), ("[::1]:7", "[::1]:9"));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in ["", "reviews:9080", "https://reviews", "/a", "http://a@b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
