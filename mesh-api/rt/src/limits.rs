//! Limits of the process that the daemons raise at start.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many file descriptors the process may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit found at start; `None` is unlimited.
    pub before: Option<u64>,
    /// The limit now; `None` is unlimited.
    pub now: Option<u64>,
}

/// Raises the soft limit of open files to the hard limit, which needs no privilege.
///
/// Each proxied connection costs two descriptors, and the usual soft limit of 1,024 would be met by 500 of them.
///
/// # Errors
/// What the kernel answered; the limit is then as before.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, wanted)?;
    }
    Ok(OpenFiles { before: limit.current, now: limit.maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_becomes_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised.now, limit.maximum);
        assert_eq!(raise_open_files().unwrap().before, limit.maximum);
    }
}
