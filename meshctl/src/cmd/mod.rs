//! One file for each command.

pub mod inject;
pub mod install;
pub mod manifest;
pub mod profile;
pub mod proxy_config;
pub mod proxy_status;
pub mod revision;
pub mod tag;
pub mod uninstall;
pub mod upgrade;
pub mod validate;
pub mod verify_install;
pub mod version;
pub mod workload;

use crate::printer::Format;

/// The flag of commands that report data.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// How data is shown
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}
