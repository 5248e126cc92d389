//! Which build this is: printed by `version`, served by `/version`, sent in the xDS node.

use std::fmt;

use serde::Serialize;

/// What is known about the running binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    /// Name of the binary, such as `meshd`.
    pub name: &'static str,
    /// Version of the package, as in its manifest.
    pub version: &'static str,
    /// Source revision; `unknown` for a build made outside a checkout.
    pub revision: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
}

impl BuildInfo {
    /// The build of the calling binary. `revision` is what the build passed in `LATEEN_REVISION`, if it did.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str, revision: Option<&'static str>) -> Self {
        let revision = match revision {
            Some(revision) => revision,
            None => "unknown",
        };
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { name, version, revision, profile }
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}, {})", self.name, self.version, self.revision, self.profile)
    }
}

/// The [`BuildInfo`] of the crate that invokes it: its version, and `LATEEN_REVISION` of its build environment.
#[macro_export]
macro_rules! build_info {
    ($name:literal) => {
        $crate::build_info::BuildInfo::new($name, env!("CARGO_PKG_VERSION"), option_env!("LATEEN_REVISION"))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_name_version_and_revision() {
        let info = BuildInfo::new("meshd", "1.2.3", Some("abc"));
        assert!(info.to_string().starts_with("meshd 1.2.3 (abc, "));
        assert_eq!(BuildInfo::new("meshd", "1.2.3", None).revision, "unknown");
        assert_eq!(build_info!("meshd").version, env!("CARGO_PKG_VERSION"));
    }
}
