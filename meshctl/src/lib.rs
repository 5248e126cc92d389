//! The operator's tool as a library, so that the end-to-end tests can use parts of it.

pub mod cli;
pub mod cmd;
pub mod context;
pub mod demo;
mod dump;
pub mod effective;
pub mod error;
pub mod exit;
pub mod expiry;
pub mod files;
pub mod find;
pub mod http;
pub mod install;
pub mod kube;
pub mod live;
pub mod netns;
pub mod objects;
pub mod printer;
#[cfg(test)]
mod reference;
pub mod table;
