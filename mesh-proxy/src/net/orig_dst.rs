//! Where a captured connection was going before a redirect rule led it here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{SockAddr, SockRef};

/// The destination that `socket` was opened to before the kernel rewrote it, or `None` if nothing was rewritten: the
/// client called this very address, so forwarding there would come back here.
///
/// The answer is from connection tracking (`SO_ORIGINAL_DST`), which does not know the connection at all when the
/// socket belongs to a namespace without redirect rules, as a listener handed in from outside does.
///
/// # Errors
/// When the socket is not connected, or the kernel's answer is no Internet address.
pub fn original_dst(socket: impl AsFd) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(&socket);
    let local = internet(&socket.local_addr()?)?;
    // A connection over IPv4 to a socket that speaks both is an IPv4 connection to the tracker.
    let asked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let original = match asked {
        Ok(original) => internet(&original)?,
        Err(error) if unknown_to_tracker(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(original).filter(|original| (original.ip(), original.port()) != (local.ip(), local.port())))
}

/// No such connection in the table, or no table.
fn unknown_to_tracker(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT | libc::EOPNOTSUPP))
}

/// The address with an IPv4 address in IPv6 clothing (`::ffff:a.b.c.d`) undressed.
fn internet(address: &SockAddr) -> io::Result<SocketAddr> {
    let Some(mut address) = address.as_socket() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an Internet socket"));
    };
    if let IpAddr::V6(v6) = address.ip()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        address = SocketAddr::new(IpAddr::V4(v4), address.port());
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_was_not_redirected_has_no_other_destination() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has only the first case to check.
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "no IPv4 loopback");
                continue;
            };
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(original_dst(&accepted).unwrap(), None);
        }
    }

    #[test]
    fn a_unix_socket_is_refused() {
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(original_dst(&end).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
