//! Listening sockets handed in by the parent process as open descriptors.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Socket, Type};

/// Environment variable that names the sockets: `address=descriptor`, separated by commas, for example
/// `0.0.0.0:8080=3,127.0.0.1:15000=4`. The address is the one the configuration asks for; the socket itself may be
/// bound elsewhere, even in another network namespace.
pub const LISTEN_FDS: &str = "LATEEN_LISTEN_FDS";
/// Greatest number of sockets handed in.
const MAX_SOCKETS: usize = 256;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A socket that was handed in cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// An entry is not `address=descriptor`.
    #[error("{LISTEN_FDS}: {entry:?} is not of the form address=descriptor, as in 0.0.0.0:8080=3")]
    Syntax {
        /// The entry as given.
        entry: String,
    },
    /// The same address or descriptor is named twice.
    #[error("{LISTEN_FDS}: {entry:?} names an address or a descriptor a second time")]
    Twice {
        /// The entry as given.
        entry: String,
    },
    /// Too many entries.
    #[error("{LISTEN_FDS} names {count} sockets; at most {MAX_SOCKETS} are taken")]
    TooMany {
        /// Number of entries.
        count: usize,
    },
    /// The variable was read before.
    #[error("{LISTEN_FDS} was already read: a descriptor has one owner")]
    Again,
    /// The descriptor was not inherited, or is no socket that listens for TCP.
    #[error("{LISTEN_FDS}: descriptor {fd} for {address} is not an inherited, listening TCP socket")]
    Descriptor {
        /// The address in the entry.
        address: SocketAddr,
        /// The descriptor in the entry.
        fd: RawFd,
        /// The system's error, if there was one.
        #[source]
        source: Option<io::Error>,
    },
}

/// Takes ownership of the sockets that `text` names.
pub(super) fn take(text: &str) -> Result<Vec<(SocketAddr, TcpListener)>, InheritError> {
    let entries = parse(text)?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(InheritError::Again);
    }
    entries.into_iter().map(|(address, fd)| Ok((address, claim(address, fd)?))).collect()
}

fn parse(text: &str) -> Result<BTreeMap<SocketAddr, RawFd>, InheritError> {
    let entries: Vec<&str> = text.split(',').filter(|entry| !entry.is_empty()).collect();
    if entries.len() > MAX_SOCKETS {
        return Err(InheritError::TooMany { count: entries.len() });
    }
    let mut sockets = BTreeMap::new();
    for entry in entries {
        let syntax = || InheritError::Syntax { entry: entry.to_owned() };
        let (address, fd) = entry.split_once('=').ok_or_else(syntax)?;
        let address = address.parse().map_err(|_| syntax())?;
        // 0 to 2 are the standard streams, which belong to std.
        let fd: RawFd = fd.parse().ok().filter(|fd| *fd > 2).ok_or_else(syntax)?;
        if sockets.values().any(|known| *known == fd) || sockets.insert(address, fd).is_some() {
            return Err(InheritError::Twice { entry: entry.to_owned() });
        }
    }
    Ok(sockets)
}

fn claim(address: SocketAddr, fd: RawFd) -> Result<TcpListener, InheritError> {
    let wrong = |source| InheritError::Descriptor { address, fd, source };
    let fd = owned(fd).map_err(|error| wrong(Some(error)))?;
    let socket = Socket::from(fd);
    let listens = socket.is_listener().and_then(|listens| Ok(listens && socket.r#type()? == Type::STREAM));
    if !listens.map_err(|error| wrong(Some(error)))? {
        return Err(wrong(None));
    }
    let prepared = socket.set_cloexec(true).and_then(|()| socket.set_nonblocking(true));
    prepared.map_err(|error| wrong(Some(error)))?;
    Ok(socket.into())
}

/// Makes an inherited descriptor ours.
///
/// JUSTIFICATION: the standard library has no safe way to own a descriptor that another program left open. The number
/// is checked for having come through `exec`: it is open and lacks `FD_CLOEXEC`, which every descriptor that this
/// program opens itself carries; and [`take`] runs once in the life of the process.
#[expect(unsafe_code, reason = "takes ownership of inherited descriptors, see JUSTIFICATION")]
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;

    // SAFETY: F_GETFD takes no pointer and changes nothing; a number that is not open gives EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it was not inherited: it is marked close-on-exec"));
    }
    // SAFETY: the descriptor is open and was inherited, so nothing in this process owns it: std and our libraries
    // open theirs close-on-exec. `parse` refuses to name one twice and `take` to run twice, so it gets one owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), expect);
    }

    #[test]
    fn entries_are_read() {
        let sockets = parse("0.0.0.0:8080=3,[::1]:15000=4").unwrap();
        assert_eq!(
            sockets.into_iter().map(|(address, fd)| (address.port(), fd)).collect::<Vec<_>>(),
            [(8080, 3), (15000, 4)]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn wrong_entries_are_named() {
        let form = "is not of the form address=descriptor, as in 0.0.0.0:8080=3";
        check("0.0.0.0:8080", &format!("LATEEN_LISTEN_FDS: \"0.0.0.0:8080\" {form}"));
        check("web:80=3", &format!("LATEEN_LISTEN_FDS: \"web:80=3\" {form}"));
        check("0.0.0.0:80=1", &format!("LATEEN_LISTEN_FDS: \"0.0.0.0:80=1\" {form}"));
        let twice = "names an address or a descriptor a second time";
        check("0.0.0.0:80=3,0.0.0.0:81=3", &format!("LATEEN_LISTEN_FDS: \"0.0.0.0:81=3\" {twice}"));
        check("0.0.0.0:80=3,0.0.0.0:80=4", &format!("LATEEN_LISTEN_FDS: \"0.0.0.0:80=4\" {twice}"));
    }

    #[test]
    fn a_descriptor_of_our_own_is_refused() {
        use std::os::fd::AsRawFd;

        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = claim("127.0.0.1:80".parse().unwrap(), ours.as_raw_fd()).unwrap_err();
        assert!(matches!(error, InheritError::Descriptor { source: Some(_), .. }), "{error:?}");
    }
}
