//! Who listens on an address, for the message that says the address is taken. A best effort: the kernel shows only
//! the processes of the same user, and only in the same namespaces.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State of a listening socket in the kernel's tables (`TCP_LISTEN`).
const LISTEN: &str = "0A";
/// Processes looked at before giving up.
const MAX_PROCESSES: usize = 32 * 1024;
/// Descriptors looked at per process.
const MAX_DESCRIPTORS: usize = 4096;

/// A process that holds a listening socket, or the user it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Its id and name.
    Process { pid: u32, name: String },
    /// The process is hidden from us, its user is not.
    User { uid: u32 },
}

/// Finds who listens on `address` or on all addresses of its port.
pub(super) fn find(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let socket = tables.iter().find_map(|path| listening(&fs::read_to_string(path).ok()?, address))?;
    let process = process_with(socket.inode);
    Some(process.unwrap_or(Holder::User { uid: socket.uid }))
}

#[derive(Debug, PartialEq, Eq)]
struct Listening {
    uid: u32,
    inode: u64,
}

/// Looks for a listening socket that collides with `address` in the text of `/proc/net/tcp` or `tcp6`.
fn listening(table: &str, address: SocketAddr) -> Option<Listening> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (ip, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let uid = fields.nth(3)?;
        let inode = fields.nth(1)?;
        let ip = table_address(ip)?;
        let collides = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        if state != LISTEN || u16::from_str_radix(port, 16).ok()? != address.port() || !collides {
            return None;
        }
        Some(Listening { uid: uid.parse().ok()?, inode: inode.parse().ok()? })
    })
}

/// An address as the kernel prints it: words of 32 bits in the machine's byte order.
fn table_address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(digits.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    if digits.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
    }
    let bytes: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

fn process_with(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.take(MAX_PROCESSES).flatten();
    processes.into_iter().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let descriptors = fs::read_dir(entry.path().join("fd")).ok()?.take(MAX_DESCRIPTORS).flatten();
        let holds =
            |target: fs::DirEntry| fs::read_link(target.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str());
        if !descriptors.into_iter().any(holds) {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(Holder::Process { pid, name: name.trim_end().to_owned() })
    })
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::User { uid } => write!(f, "a process of user id {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0
   1: 0100007F:3A99 0100007F:1234 01 00000000:00000000 00:00000000 00000000  1000        0 4343 1 0 100 0 0 10 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 4444 1 0 100 0 0 10 0
";

    #[track_caller]
    fn check(address: &str, expect: Option<(u32, u64)>) {
        let found = listening(TABLE, address.parse().unwrap());
        assert_eq!(found.map(|socket| (socket.uid, socket.inode)), expect);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_that_collide_are_found() {
        check("127.0.0.1:15000", Some((1000, 4242)));
        check("0.0.0.0:15000", Some((1000, 4242)));
        check("10.0.0.1:15000", None);
        // Not listening.
        check("127.0.0.1:15001", None);
        check("10.0.0.1:80", Some((7, 4444)));
    }

    #[test]
    fn a_damaged_table_is_read_without_panic() {
        assert_eq!(listening("head\n1: zz:1 x 0A\n\n 2: 0100007F", "127.0.0.1:1".parse().unwrap()), None);
        assert_eq!(table_address("é123456é"), None);
    }
}
