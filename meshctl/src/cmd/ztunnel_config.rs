//! `meshctl ztunnel-config`: refused. There is no ambient mode, and so no ztunnel that could be asked.

use crate::error::CliError;
use crate::printer::Report;

/// Whatever scripts ask for.
#[derive(clap::Args, Clone, Debug)]
pub struct ZtunnelArgs {
    /// What istioctl takes here
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

/// Says why not.
///
/// # Errors
/// Always.
pub fn run(_: &ZtunnelArgs) -> Result<Report, CliError> {
    Err(CliError::user("there is no ztunnel: this release has sidecars and gateways, and no ambient mode")
        .hint("meshctl proxy-config shows what a sidecar or gateway holds"))
}
