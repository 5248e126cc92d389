//! The command line: definitions only.

use clap::{Parser, Subcommand};

use crate::cmd::admin::AdminArgs;
use crate::cmd::analyze::AnalyzeArgs;
use crate::cmd::bug_report::BugReportArgs;
use crate::cmd::check_inject::CheckInjectArgs;
use crate::cmd::completion::CompletionArgs;
use crate::cmd::dashboard::DashboardArgs;
use crate::cmd::describe::DescribeArgs;
use crate::cmd::experimental::ExperimentalArgs;
use crate::cmd::inject::InjectArgs;
use crate::cmd::install::InstallArgs;
use crate::cmd::manifest::ManifestArgs;
use crate::cmd::migrate::MigrateArgs;
use crate::cmd::precheck::PrecheckArgs;
use crate::cmd::profile::ProfileArgs;
use crate::cmd::proxy_config::ConfigArgs;
use crate::cmd::proxy_status::StatusArgs;
use crate::cmd::remote_secret::RemoteSecretArgs;
use crate::cmd::revision::RevisionArgs;
use crate::cmd::tag::TagArgs;
use crate::cmd::uninstall::UninstallArgs;
use crate::cmd::upgrade::UpgradeArgs;
use crate::cmd::validate::ValidateArgs;
use crate::cmd::verify_install::VerifyArgs;
use crate::cmd::version::VersionArgs;
use crate::cmd::wait::WaitArgs;
use crate::cmd::workload::WorkloadArgs;
use crate::cmd::ztunnel_config::ZtunnelArgs;
use crate::demo::run::DemoArgs;
use crate::kube::client::KubeArgs;
use crate::printer::Format;

/// The operator's tool of the Lateen service mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, about, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Which cluster, and who asks.
    #[command(flatten)]
    pub kube: KubeArgs,
}

const EXAMPLES: &str = "Examples:
  meshctl demo
  meshctl validate -f config/
  meshctl proxy-status
  meshctl proxy-config route deploy/web
  meshctl analyze -A";

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show which build this is, and which builds run
    Version(VersionArgs),
    /// Check YAML before it is applied
    #[command(visible_alias = "v")]
    Validate(ValidateArgs),
    /// Find what is wrong with objects together, in a cluster or in files
    Analyze(AnalyzeArgs),
    /// Add proxies to the pods of manifests
    #[command(visible_alias = "kube-inject")]
    Inject(InjectArgs),
    /// Show whether a pod gets a proxy, and why or why not
    CheckInject(CheckInjectArgs),
    /// Install the mesh into a cluster
    #[command(visible_alias = "apply")]
    Install(InstallArgs),
    /// Bring an installation to this release, with its settings
    Upgrade(UpgradeArgs),
    /// Remove a revision, or everything
    Uninstall(UninstallArgs),
    /// Check that what was installed is there and works
    VerifyInstall(VerifyArgs),
    /// Let names stand for revisions
    Tag(TagArgs),
    /// Show which control planes there are
    Revision(RevisionArgs),
    /// Show what would be installed
    Manifest(ManifestArgs),
    /// Show what an installation can begin with
    Profile(ProfileArgs),
    /// Show whether proxies hold what was made for them
    #[command(visible_alias = "ps")]
    ProxyStatus(StatusArgs),
    /// Show what a proxy holds
    #[command(visible_alias = "pc")]
    ProxyConfig(ConfigArgs),
    /// Describe what concerns a pod or a Service
    Describe(DescribeArgs),
    /// Wait until proxies have what was changed
    Wait(WaitArgs),
    /// Log levels of the control plane
    #[command(visible_alias = "istiod")]
    Admin(AdminArgs),
    /// Open a page of a proxy, the control plane or an addon
    #[command(visible_aliases = ["dash", "d"])]
    Dashboard(DashboardArgs),
    /// Collect logs, configuration and debug pages, without secrets
    BugReport(BugReportArgs),
    /// Find out whether the mesh can be installed
    Precheck(PrecheckArgs),
    /// Find out what would change when coming from Istio
    Migrate(MigrateArgs),
    /// Make the Secret by which another cluster reads this one
    CreateRemoteSecret(RemoteSecretArgs),
    /// Write what a shell needs to complete commands
    Completion(CompletionArgs),
    /// Commands under the names that istioctl has them
    #[command(visible_alias = "x")]
    Experimental(ExperimentalArgs),
    /// Refused: there is no ambient mode
    #[command(visible_alias = "zc", hide = true)]
    ZtunnelConfig(ZtunnelArgs),
    /// Let workloads outside of Kubernetes join the mesh
    Workload(WorkloadArgs),
    /// Run a whole mesh with a small shop on this machine, without root
    Demo(DemoArgs),
}

impl Command {
    /// How the command's report is shown.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Version(args) => args.output.output,
            Self::Validate(args) => args.output.output,
            Self::Analyze(args) => args.output.output,
            Self::Wait(args) => args.output.output,
            Self::Admin(args) => args.output().output,
            Self::Precheck(args) => args.output.output,
            Self::Migrate(args) => args.output().output,
            Self::Experimental(args) => args.output(),
            Self::Describe(_)
            | Self::Dashboard(_)
            | Self::BugReport(_)
            | Self::CreateRemoteSecret(_)
            | Self::Completion(_)
            | Self::ZtunnelConfig(_) => Format::Table,
            Self::ProxyStatus(args) => args.output.output,
            Self::Install(args) => args.output.output,
            Self::Upgrade(args) => args.output.output,
            Self::Uninstall(args) => args.output.output,
            Self::VerifyInstall(args) => args.output.output,
            Self::Tag(args) => args.output(),
            Self::Revision(args) => args.output(),
            Self::Manifest(args) => args.output(),
            Self::Profile(args) => args.output(),
            Self::ProxyConfig(args) => args.output().output,
            Self::Workload(args) => args.output().output,
            Self::CheckInject(args) => args.output.output,
            Self::Inject(_) | Self::Demo(_) => Format::Table,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
