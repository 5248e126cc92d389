//! Where a new process asks, and who may.
//!
//! The name is an abstract unix address: it belongs to the network namespace, vanishes with its last descriptor, and needs
//! neither a folder nor rights. Anybody in the namespace may connect, so the running process looks at who it is: the same
//! user, in the same process namespace. Such a process could as well attach a debugger; one in another container of the pod
//! could not, even as the same user, and gets nothing.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use aws_lc_rs::digest;

/// A process at the other end, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its number here; 0: it is in another process namespace.
    pub pid: i32,
}

/// Why a process gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It belongs to somebody else.
    #[error("it runs as user {found}, the proxy as user {own}")]
    User {
        /// Its user.
        found: u32,
        /// Ours.
        own: u32,
    },
    /// It cannot be seen from here.
    #[error("it runs in another process namespace: another container")]
    Namespace,
}

impl Peer {
    /// Whether the process may have what the proxy of user `own` holds.
    ///
    /// # Errors
    /// Says why not.
    pub const fn admit(self, own: u32) -> Result<(), Stranger> {
        if self.uid != own {
            return Err(Stranger::User { found: self.uid, own });
        }
        if self.pid == 0 { Err(Stranger::Namespace) } else { Ok(()) }
    }

    /// Whether the process would live on when the one with the number `own` ends. The end of the first process of a namespace is
    /// the end of all of it, so that one stays where its successor is its child, and only there.
    #[must_use]
    pub fn outlives(self, own: u32, is_child: impl FnOnce() -> bool) -> bool {
        own != 1 || is_child()
    }

    /// Who is at the other end of `stream`.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of(stream: &tokio::net::UnixStream) -> io::Result<Self> {
        let cred = stream.peer_cred()?;
        Ok(Self { uid: cred.uid(), pid: cred.pid().unwrap_or_default() })
    }
}

/// How the names of all proxies begin.
const PREFIX: &str = "lateen-handover-";
/// Flag of a listening socket in the kernel's table (`__SO_ACCEPTCON`).
const LISTENS: &str = "00010000";

/// The name at which the proxy with this node id is asked. It is of one proxy: there may be several in a network namespace,
/// as with workloads on one virtual machine.
#[must_use]
pub fn name(node_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, node_id.as_bytes());
    let digits: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{digits}")
}

/// Names of the proxies that run in this network namespace.
///
/// # Errors
/// When the kernel does not tell.
pub fn names() -> io::Result<Vec<String>> {
    Ok(names_in(&std::fs::read_to_string("/proc/net/unix")?))
}

/// The names in the text of `/proc/net/unix`.
fn names_in(table: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (flags, name) = (fields.nth(3)?, fields.nth(3)?.strip_prefix('@')?);
        (flags == LISTENS && name.starts_with(PREFIX)).then(|| name.to_owned())
    };
    table.lines().filter_map(name).collect()
}

/// Opens the name.
///
/// # Errors
/// `AddrInUse` when another process has it.
pub fn open(name: &str) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the name. `None`: nobody is there.
///
/// # Errors
/// When connecting fails for another reason.
pub fn knock(name: &str) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(stream) => {
            stream.set_nonblocking(true)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_in_the_same_process_namespace_is_admitted() {
        assert_eq!(Peer { uid: 1337, pid: 12 }.admit(1337), Ok(()));
        assert_eq!(Peer { uid: 0, pid: 12 }.admit(1337), Err(Stranger::User { found: 0, own: 1337 }));
        assert_eq!(Peer { uid: 1337, pid: 0 }.admit(1337), Err(Stranger::Namespace));
    }

    #[test]
    fn the_first_of_a_process_namespace_has_only_children_after_it() {
        let peer = Peer { uid: 1337, pid: 12 };
        assert!(peer.outlives(7, || false) && peer.outlives(1, || true));
        assert!(!peer.outlives(1, || false));
    }

    #[test]
    fn names_are_those_that_somebody_listens_at() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 4711 @lateen-handover-0a1b\n\
                     0000000000000000: 00000003 00000000 00000000 0001 03 4712 @lateen-handover-0a1b\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 4713 /run/lateen-handover-9\n\
                     0000000000000000: 00000002 00000000 00000000 0002 01 4714\n";
        assert_eq!(names_in(table), ["lateen-handover-0a1b"]);
    }

    #[test]
    fn a_name_has_one_holder_and_goes_with_it() {
        let name = name(&format!("sidecar~127.0.0.1~test-{}.x~y", std::process::id()));
        assert!(knock(&name).unwrap().is_none());
        let listener = open(&name).unwrap();
        assert_eq!(open(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(knock(&name).unwrap().is_some());
        assert!(names().unwrap().contains(&name));
        drop(listener);
        assert!(knock(&name).unwrap().is_none());
    }
}
