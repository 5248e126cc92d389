//! On a Kubernetes cluster: `cargo xtask e2e` starts one, loads the images and runs these.

mod agent;
mod cli;
mod helm;
mod identity;
mod interception;
mod lifecycle;
mod main_path;
mod plain;
mod pods;
mod replaced;
mod restarts;
mod source;
