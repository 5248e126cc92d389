//! `meshctl experimental`: commands under the names that istioctl's users type.

use crate::cmd::check_inject::{self, CheckInjectArgs};
use crate::cmd::describe::{self, DescribeArgs};
use crate::cmd::precheck::{self, PrecheckArgs};
use crate::cmd::replace_proxy::{self, ReplaceArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::printer::{Format, Report};

/// Commands that istioctl has here.
#[derive(clap::Args, Clone, Debug)]
pub struct ExperimentalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// Find out whether the mesh can be installed
    Precheck(PrecheckArgs),
    /// Show whether a pod gets a proxy, and why or why not
    CheckInject(CheckInjectArgs),
    /// Run another release of the proxy in pods that run, without a restart
    ReplaceProxy(ReplaceArgs),
    /// Describe what concerns a pod or a Service
    #[command(visible_alias = "des")]
    Describe(DescribeArgs),
}

impl ExperimentalArgs {
    /// How the report is shown.
    #[must_use]
    pub const fn output(&self) -> Format {
        match &self.what {
            What::Precheck(args) => args.output.output,
            What::CheckInject(args) => args.output.output,
            What::ReplaceProxy(args) => args.output.output,
            What::Describe(_) => Format::Table,
        }
    }
}

/// Does it.
///
/// # Errors
/// Those of the command.
pub fn run(context: &Context, args: &ExperimentalArgs) -> Result<Report, CliError> {
    match &args.what {
        What::Precheck(args) => precheck::run(context, args),
        What::CheckInject(args) => check_inject::run(context, args),
        What::ReplaceProxy(args) => replace_proxy::run(context, args),
        What::Describe(args) => describe::run(context, args),
    }
}
