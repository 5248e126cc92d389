//! One file for each command.

pub mod admin;
pub mod analyze;
pub mod bug_report;
pub mod check_inject;
pub mod completion;
pub mod dashboard;
pub mod describe;
pub mod experimental;
pub mod inject;
pub mod install;
pub mod manifest;
pub mod migrate;
pub mod precheck;
pub mod profile;
pub mod proxy_config;
pub mod proxy_status;
pub mod remote_secret;
pub mod replace_proxy;
pub mod revision;
pub mod tag;
pub mod uninstall;
pub mod upgrade;
pub mod validate;
pub mod verify_install;
pub mod version;
pub mod wait;
pub mod workload;
pub mod ztunnel_config;

use crate::printer::Format;

/// The flag of commands that report data.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// How data is shown
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}
