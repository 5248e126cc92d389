//! A loopback network for each mesh.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Held on a network's first address for as long as the network is used. Below the kernel's ephemeral ports, so that no
/// connection has it by chance.
const LOCK_PORT: u16 = 20_999;
/// Networks are 127.64.0.0/24 and up.
const FIRST: u16 = 64 << 8;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// 254 addresses of this machine that no other test uses.
#[derive(Debug)]
pub struct Network {
    base: Ipv4Addr,
    _lock: TcpListener,
}

impl Network {
    /// Claims a network; tests in other processes are seen too.
    ///
    /// # Panics
    /// When all networks are taken.
    #[must_use]
    pub fn claim() -> Self {
        // Processes start at different places, so that they seldom meet.
        let span = u16::MAX - FIRST;
        let start = u16::try_from(std::process::id() % u32::from(span / 16)).unwrap() * 16;
        for _ in 0..span {
            let number = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % span;
            let [high, low] = number.to_be_bytes();
            let base = Ipv4Addr::new(127, high, low, 0);
            if let Ok(lock) = TcpListener::bind((Ipv4Addr::new(127, high, low, 1), LOCK_PORT)) {
                return Self { base, _lock: lock };
            }
        }
        panic!("no loopback network is free");
    }

    /// An address of the network, 1 to 254.
    #[must_use]
    pub fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.base.octets();
        Ipv4Addr::new(a, b, c, host)
    }

    /// An address with a port.
    #[must_use]
    pub fn socket(&self, host: u8, port: u16) -> SocketAddr {
        (self.address(host), port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_do_not_overlap() {
        let (one, other) = (Network::claim(), Network::claim());
        assert_ne!(one.address(1), other.address(1));
        assert!(TcpListener::bind(one.socket(1, LOCK_PORT)).is_err());
        TcpListener::bind(other.socket(7, 15_010)).unwrap();
    }
}
