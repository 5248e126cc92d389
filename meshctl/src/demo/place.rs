//! What the demo is made from: its programs, and the place where they run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::dirs::Dirs;
use super::host::Host;
use super::plan::{CONTROL, Capture, Plan, ROOT_NAMESPACE, SERVICES};
use crate::error::CliError;
use crate::netns::{ProcessSpec, Reason, Sandbox, SandboxConfig, SandboxError};

/// The binaries of the demo.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Those in `folder`; without one, those beside this program.
    ///
    /// # Errors
    /// Names the binary that is not there.
    pub fn find(folder: Option<&Path>) -> Result<Self, CliError> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => {
                let own = std::env::current_exe();
                let own = own.map_err(|error| CliError::internal("cannot find this program").because(&error))?;
                own.parent().map(Path::to_owned).unwrap_or_default()
            }
        };
        let canonical = folder.canonicalize();
        let folder =
            canonical.map_err(|error| CliError::user(format!("no folder {}", folder.display())).because(&error))?;
        for name in ["meshd", "mesh-proxy", "e2e-shop"] {
            if !folder.join(name).is_file() {
                return Err(CliError::user(format!("{name} is not in {}", folder.display()))
                    .hint("cargo xtask demo builds all that the demo needs")
                    .hint("or name the folder of the binaries with --bin-dir"));
            }
        }
        Ok(Self { folder })
    }

    /// One of them, to be started.
    #[must_use]
    pub fn spec(&self, name: &str) -> ProcessSpec {
        ProcessSpec::new(self.folder.join(name))
    }
}

/// Makes the place where the demo's processes run. `wanted` none means: a sandbox if this machine gives one. With the
/// reason why it gave none.
///
/// # Errors
/// When a sandbox is wanted and cannot be had.
pub fn make_host(wanted: Option<Capture>, dirs: &Dirs) -> Result<(Host, Option<Reason>), CliError> {
    if wanted == Some(Capture::None) {
        return Ok((Host::Plain, None));
    }
    let hosts = dirs.file("hosts");
    dirs.write(&hosts, hosts_file(&Plan::new(Capture::Redirect)).as_bytes())?;
    let config = SandboxConfig { binds: vec![(hosts, "/etc/hosts".into())], ..SandboxConfig::default() };
    match Sandbox::create(&config) {
        Ok(sandbox) => Ok((Host::Netns(sandbox), None)),
        Err(SandboxError::Unavailable(reason)) if wanted.is_none() => Ok((Host::Plain, Some(reason))),
        Err(error) => Err(CliError::internal("cannot make a sandbox for transparent capture")
            .because(&error)
            .hint("meshctl demo --capture none works without one")),
    }
}

/// Names of the mesh, as every workload sees them.
fn hosts_file(plan: &Plan) -> String {
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for service in &SERVICES {
        let (host, name) = (service.host(), service.name);
        let _ = match host.strip_suffix(".svc.cluster.local") {
            Some(short) => writeln!(text, "{} {host} {short} {name}", service.vip),
            None => writeln!(text, "{} {host}", service.vip),
        };
    }
    if let Some(control) = plan.workload(CONTROL) {
        let _ = writeln!(text, "{} istiod.{ROOT_NAMESPACE}.svc", control.address);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_and_the_control_plane_have_a_name() {
        let text = hosts_file(&Plan::new(Capture::Redirect));
        for service in &SERVICES {
            assert!(text.contains(&format!("{} {}", service.vip, service.host())), "{text}");
        }
        assert!(text.contains("istiod.istio-system.svc"), "{text}");
    }
}
