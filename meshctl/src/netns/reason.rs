//! Why this machine gives us no sandbox, in words that name what to change.

use std::fmt;
use std::fs;

use super::protocol::Failure;

/// Why there can be no sandbox here. `Display` is one or two sentences with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The number of user namespaces is limited to none.
    Limit,
    /// A Debian kernel lets only root make user namespaces.
    RootOnly,
    /// AppArmor takes the capabilities out of user namespaces (Ubuntu since 23.10).
    AppArmor,
    /// Forbidden, but by none of the settings we know: a container's system call filter, most likely.
    Forbidden {
        /// What was tried.
        step: String,
        /// What the system said.
        message: String,
    },
    /// The kernel was built without something that is needed.
    Kernel {
        /// What was tried.
        step: String,
        /// What the system said.
        message: String,
    },
    /// Anything else.
    Other {
        /// What was tried.
        step: String,
        /// What the system said.
        message: String,
    },
}

impl Reason {
    /// The reason behind a failed step.
    pub(super) fn of(failure: &Failure) -> Self {
        Self::with_settings(failure, |path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()))
    }

    fn with_settings(failure: &Failure, setting: impl Fn(&str) -> Option<u64>) -> Self {
        let Failure { step, errno, message } = failure.clone();
        match errno {
            Some(libc::EPERM | libc::EACCES) => {
                if setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
                    Self::RootOnly
                } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
                    Self::AppArmor
                } else {
                    Self::Forbidden { step, message }
                }
            }
            Some(libc::ENOSPC) if setting("/proc/sys/user/max_user_namespaces") == Some(0) => Self::Limit,
            Some(
                libc::EINVAL
                | libc::ENOSYS
                | libc::EOPNOTSUPP
                | libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::ENODEV,
            ) => Self::Kernel { step, message },
            _ => Self::Other { step, message },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit => write!(
                f,
                "user namespaces are switched off on this machine (user.max_user_namespaces is 0); \
                 to allow them: sudo sysctl user.max_user_namespaces=15000"
            ),
            Self::RootOnly => write!(
                f,
                "only root may make user namespaces on this machine (kernel.unprivileged_userns_clone is 0); \
                 to allow them: sudo sysctl kernel.unprivileged_userns_clone=1"
            ),
            Self::AppArmor => write!(
                f,
                "AppArmor takes the rights out of user namespaces on this machine \
                 (kernel.apparmor_restrict_unprivileged_userns is 1); \
                 to allow them: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            ),
            Self::Forbidden { step, message } => write!(
                f,
                "not permitted to {step} ({message}); if this is a container, its system call filter forbids user \
                 namespaces (Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined)"
            ),
            Self::Kernel { step, message } => {
                write!(f, "this kernel was built without what it takes to {step} ({message})")
            }
            Self::Other { step, message } => write!(f, "cannot {step}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(errno: i32, settings: &[(&str, u64)], expect: &str) {
        let failure = Failure::new("make a user namespace", &std::io::Error::from_raw_os_error(errno));
        let setting = |path: &str| settings.iter().find(|(name, _)| path.ends_with(name)).map(|(_, value)| *value);
        let text = Reason::with_settings(&failure, setting).to_string();
        assert!(text.contains(expect), "{text}");
    }

    #[test]
    fn the_setting_to_change_is_named() {
        check(libc::ENOSPC, &[("max_user_namespaces", 0)], "sysctl user.max_user_namespaces=");
        check(libc::EPERM, &[("unprivileged_userns_clone", 0)], "sysctl kernel.unprivileged_userns_clone=1");
        check(
            libc::EACCES,
            &[("unprivileged_userns_clone", 1), ("apparmor_restrict_unprivileged_userns", 1)],
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        );
        check(libc::EPERM, &[], "not permitted to make a user namespace (Operation not permitted");
        check(libc::EINVAL, &[], "this kernel was built without what it takes to make a user namespace");
        check(libc::ENOSPC, &[("max_user_namespaces", 9)], "cannot make a user namespace: No space left");
    }
}
