//! One file for each command.

pub mod proxy_config;
pub mod proxy_status;
pub mod validate;
pub mod version;
